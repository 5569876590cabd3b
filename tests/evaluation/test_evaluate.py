from collections.abc import Sequence

import numpy as np
import pytest
from evaluation_pairs import image

from gocor.core.errors import ModelError
from gocor.evaluation.evaluate import evaluate
from gocor.evaluation.methods import Method
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth
from gocor.runtime.report import to_json


def sample(name: str, flow_x: float, group: str = "", query_height: int = 20) -> Sample:
    flow = np.zeros((2, 20, 32), np.float32)
    flow[0] = flow_x
    truth = Truth(image(), image(1, query_height), flow, np.ones((20, 32), bool))
    return Sample(name, lambda: truth, group)


def constant(x: float) -> Method:
    def estimate(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
        assert reference.shape == query.shape
        flow = np.zeros((2, *reference.shape[:2]), np.float32)
        flow[0] = x
        return flow

    return Method(f"{x} px", estimate, "here", {})


def dataset(samples: Sequence[Sample], **protocol: str) -> Dataset:
    return Dataset("toy", samples, Protocol(source="", **protocol))


def test_methods_side_by_side() -> None:
    calls: list[tuple[int, int, str]] = []
    pairs = dataset([sample("a", 1), sample("b", 5)])
    report = evaluate([constant(0), constant(4)], pairs, lambda *call: calls.append(call))
    assert [result.groups["all"].aepe for result in report.results] == [3, 2]
    assert [pair.scores.aepe for pair in report.results[1].pairs] == [3, 1]
    assert calls == [(0, 2, "a"), (1, 2, "b")]
    assert '"name": "4 px"' in to_json(report)


def test_groups_and_what_stands_for_all_of_them() -> None:
    samples = [sample("a", 1, "x"), sample("b", 2, "x"), sample("c", 6, "y")]

    def aepe(**protocol: str) -> dict[str, float]:
        (result,) = evaluate([constant(0)], dataset(samples, **protocol)).results
        return {name: scores.aepe for name, scores in result.groups.items()}

    assert aepe() == {"all": 3, "x": 1.5, "y": 6}
    assert aepe(overall="groups") == {"all": 3.75, "x": 1.5, "y": 6}
    assert aepe(overall="none") == {"x": 1.5, "y": 6}


def test_one_group_is_not_said_twice() -> None:
    (result,) = evaluate([constant(0)], dataset([sample("a", 1, "x")])).results
    assert list(result.groups) == ["x"]


def test_images_of_two_sizes_are_padded_and_the_flow_cut_back() -> None:
    (result,) = evaluate([constant(2)], dataset([sample("a", 2, query_height=26)])).results
    assert result.groups["all"].aepe == 0
    assert result.pairs[0].pixels == 20 * 32


def test_a_method_that_fails_is_named_with_the_pair() -> None:
    broken = Method("fp16.onnx", lambda reference, query: np.full((2, 20, 32), np.nan), "here", {})
    text = r"^fp16\.onnx: fails on b; estimate: is not finite at 640 of 640 pixels"
    with pytest.raises(ModelError, match=text):
        evaluate([constant(0), broken], dataset([sample("b", 1)]))
