"""Where the weights of a network came from."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointInfo:
    """Origin of a loaded network's weights; ``network.info``.

    Attributes:
        path: of the checkpoint file; None for weights that came from nowhere.
        sha256: of the file; empty without one.
        weights_sha256: of the weights by content, as they were loaded.
        global_iterations: trained count, where the checkpoint says so.
        local_iterations: trained count, where the checkpoint says so.
    """

    path: Path | None
    sha256: str
    weights_sha256: str
    global_iterations: int | None = None
    local_iterations: int | None = None
