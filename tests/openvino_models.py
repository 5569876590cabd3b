"""Files of ``gocor build --backend openvino`` for tests."""

from pathlib import Path

import pytest
from toy_models import METADATA, save_toy

from gocor.runtime.metadata import ModelMetadata

pytest.importorskip("openvino", reason='pip install "gocor-deploy[openvino]"')


def save_xml(path: Path, described: ModelMetadata = METADATA, **options: object) -> Path:
    """Builds the toy model, which lies beside the result, for OpenVINO."""
    from gocor.export.openvino import build_openvino

    model = save_toy(path.with_suffix(".onnx"), described)
    return build_openvino(model, path, **options).path  # type: ignore[arg-type]
