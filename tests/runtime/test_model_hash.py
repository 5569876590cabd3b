import json

import pytest
from packages import make_package

from gocor.core.errors import ModelError
from gocor.core.files import sha256
from gocor.runtime.manifest import manifest_path
from gocor.runtime.model_hash import model_sha256


def test_a_file_and_a_package(tmp_path):
    pytest.importorskip("onnx")
    package = make_package(tmp_path / "package", sizes=[(32, 64)])
    model = tmp_path / "package" / package.models[0].path
    assert model_sha256(model) == sha256(model)
    assert model_sha256(tmp_path / "package") == model_sha256(package.index) == sha256(package.index)
    with pytest.raises(ModelError, match=r"no\.onnx: no such file; give a model made by gocor export"):
        model_sha256(tmp_path / "no.onnx")


def test_weights_of_openvino_are_of_the_model(tmp_path):
    from openvino_models import save_xml

    model = save_xml(tmp_path / "m.xml")
    before, manifest = model_sha256(model), manifest_path(model)
    weights = json.loads(manifest.read_text())["bin_sha256"]
    manifest.write_text(manifest.read_text().replace(weights, "ee" * 32))
    assert model_sha256(model) != before
    manifest.unlink()
    with pytest.raises(ModelError, match=r"m\.xml: has no manifest m\.xml\.json beside it"):
        model_sha256(model)
