"""Checkpoints that come with the package, by name. Their card is README.md beside them."""

from importlib.resources import files
from pathlib import Path

BUILT_IN = ("pwcnet-gocor-demo",)


def checkpoint_path(checkpoint: str | Path) -> Path:
    """Path of a checkpoint: for the name of a built-in one its file, else what was given.

    A file of the user's that is called like a built-in one is meant by ``./NAME``.
    """
    if str(checkpoint) in BUILT_IN:
        return Path(str(files(__name__) / f"{checkpoint}.safetensors"))
    return Path(checkpoint)
