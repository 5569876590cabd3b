"""What tells a model from every other, of however many files it consists."""

from pathlib import Path

from gocor.core.files import sha256
from gocor.runtime.manifest import manifest_path
from gocor.runtime.openvino_manifest import OPENVINO_SUFFIX, OpenVINOManifest
from gocor.runtime.package import INDEX
from gocor.runtime.session import check_model_file


def model_sha256(path: str | Path) -> str:
    """SHA-256 of a model; of one that consists of several files, of that which has the hashes of the others.

    Raises:
        ModelError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        path /= INDEX
    check_model_file(path)
    if path.suffix == OPENVINO_SUFFIX:  # whose graph is the same for other weights
        OpenVINOManifest.of(path)
        return sha256(manifest_path(path))
    return sha256(path)
