"""Channels are evened out, and the flow stays."""

from typing import Any

import numpy as np
import onnx
import pytest
from golden import relative_l2

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.calibration.collect import Probe
from gocor.calibration.equalize import Source, choose_scales, equalize, feeding, find_sources, largest_values
from gocor.calibration.selection import Convolution, select
from gocor.core.errors import ModelError
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.pairs import Pair
from gocor.runtime.sample_pair import sample_pair

pytest.importorskip("onnxruntime")

REFERENCE, QUERY, _ = sample_pair(64, 64)
PAIR = Pair("sample", (), None, lambda: (REFERENCE, QUERY))


@pytest.fixture(scope="module")
def model(exported: Any) -> onnx.ModelProto:
    return onnx.load(exported.model)


@pytest.fixture(scope="module")
def convolutions(model: onnx.ModelProto) -> tuple[Convolution, ...]:
    return select(model, "pwcnet")


@pytest.fixture(scope="module")
def sources(model: onnx.ModelProto, convolutions: tuple[Convolution, ...]) -> tuple[Source, ...]:
    return feeding(find_sources(model), convolutions)


def probe(model: onnx.ModelProto, tensors: list[str]) -> Probe:
    metadata = ModelMetadata.from_properties({p.key: p.value for p in model.metadata_props}, "model")
    return Probe(model, metadata, dict.fromkeys(tensors, ""), 1, "model")


def largest(model: onnx.ModelProto, sources: tuple[Source, ...]) -> dict[str, np.ndarray]:
    return largest_values(probe(model, [source.tensor for source in sources]), [PAIR], 1, None)


def test_channels_that_only_convolutions_read_are_found(sources: tuple[Source, ...]) -> None:
    makers = {source.maker: [name for name, _ in source.readers] for source in sources if source.maker}
    assert makers["conv3a.0/Conv"] == ["conv3aa.0/Conv"]
    assert set(makers["conv2_4.0/Conv"]) == {"predict_flow2.0/Conv", "dc_conv1.0/Conv"}
    assert set(makers["conv4_3.0/Conv"]) == {
        "conv4_4.0/Conv",
        "predict_flow4.0/Conv",
        "upfeat4.0/Conv",
    }
    # Correlations and warps read these, and deconv's is the flow.
    assert not makers.keys() & {
        "conv3b.0/Conv",
        "conv5b.0/Conv",
        "deconv3/ConvTranspose",
        "upfeat3.1/ConvTranspose",
    }
    entries = [source for source in sources if not source.maker]
    assert [readers[0][0] for readers in (source.readers for source in entries)] == [
        f"conv{level}_0.0/Conv" for level in (6, 5, 4, 3, 2)
    ]
    second = next(readers for readers in (s.readers for s in entries) if readers[0][0] == "conv4_0.0/Conv")
    assert dict(second)["conv4_1.0/Conv"] == 128  # new channels come first
    assert dict(second)["conv4_2.0/Conv"] == 256


def test_the_function_stays_and_channels_become_alike(
    model: onnx.ModelProto, convolutions: tuple[Convolution, ...], sources: tuple[Source, ...]
) -> None:
    values = largest(model, sources)
    scales = choose_scales(model, convolutions, sources, values)
    even = equalize(model, sources, scales)
    onnx.checker.check_model(even)
    flow = model.graph.output[0].name
    before, after = (
        probe(m, [flow]).run(REFERENCE[None], QUERY[None], "sample")[flow] for m in (model, even)
    )
    assert 0 < relative_l2(after, before) < 1e-5
    for source in sources:
        found = largest(even, (source,))[source.tensor]
        expected = values[source.tensor] / np.array(scales[source.tensor])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        used = values[source.tensor] > 1e-3 * values[source.tensor].max()
        assert np.log(found[used]).std() <= np.log(values[source.tensor][used]).std()


def test_shared_weights_stay() -> None:
    """As those of GLU-Net's decoder, which runs at several sizes."""
    text = """<ir_version: 9, opset_import: ["" : 19]>
    shared (float[1,2,8,8] x) => (float[1,2,8,8] y) <float[2,2,1,1] w = {1.0, 0.5, -1.0, 2.0},
      float[2,2,1,1] v = {1.0, 0.0, 0.0, 1.0}, float[2,2,1,1] u = {3.0, 0.0, 0.0, 1.0}> {
        a = Conv(x, u)
        b = LeakyRelu(a)
        c = Conv(b, v)
        d = LeakyRelu(c)
        e = Conv(d, w)
        f = LeakyRelu(e)
        y = Conv(f, w)
    }"""
    model = onnx.parser.parse_model(text)
    for node, name in zip(model.graph.node, ["3a", "x1", "3aa", "x2", "4_0", "x3", "4_1"], strict=True):
        node.name = f"conv{name}.0/Conv"
    (source,) = feeding(find_sources(model), select(model, "pwcnet"))
    assert source == Source("b", "conv3a.0/Conv", (("conv3aa.0/Conv", 0),))
    scales = choose_scales(model, select(model, "pwcnet"), [source], {"b": np.array([4.0, 0.25])})
    assert scales["b"] == pytest.approx((4**0.75, 0.25**0.75))
    even = equalize(model, [source], scales)
    u, v = (onnx.numpy_helper.to_array(even.graph.initializer[i]).reshape(2, 2) for i in (2, 1))
    np.testing.assert_allclose(u, [[3 / 4**0.75, 0], [0, 4**0.75]], rtol=1e-6)
    np.testing.assert_allclose(v, [[4**0.75, 0], [0, 0.25**0.75]], rtol=1e-6)


def test_it_brings_the_flow_nearer(exported: Any, tmp_path: Any) -> None:
    drifts = []
    for even in (True, False):
        config = CalibrationConfig(synthetic=4, equalize=even)
        report = calibrate(exported.model, tmp_path / "m.onnx", config=config)
        assert bool(report.ranges.channel_scales) == even
        assert report.drift is not None
        drifts.append(report.drift.aepe)
    assert drifts[0] < 0.8 * drifts[1]


def test_values_that_are_not_finite_are_refused(model: onnx.ModelProto, sources: tuple[Source, ...]) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    name = next(node.input[1] for node in broken.graph.node if node.name == "conv3a.0/Conv")
    weight = next(tensor for tensor in broken.graph.initializer if tensor.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((64, 32, 3, 3), 3e38, np.float32), name))
    with pytest.raises(ModelError, match=r"tensor .* holds NaN or infinity in .* values for pair sample"):
        largest(broken, sources)
