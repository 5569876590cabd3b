import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_models import metadata, save_toy

from gocor.core.errors import ConfigError, DependencyError, GocorError
from gocor.runtime import benchmark
from gocor.runtime.benchmark import Candidate


def test_rounds_are_interleaved_and_begin_with_another_candidate_each_time() -> None:
    calls: list[str] = []
    candidates = {name: lambda name=name: calls.append(name) for name in "abc"}
    report = benchmark.benchmark(candidates, rounds=6, warmup=1)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 21, 3)]
    assert rounds == ["bac", "abc", "bca", "cab", "cba", "acb", "bac"]
    assert [result.name for result in report.results] == ["a", "b", "c"]
    assert all(len(result.times_ms) == 6 for result in report.results)


def test_statistics_are_those_of_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0

    def take(milliseconds: Iterator[int]) -> None:
        nonlocal now
        now += next(milliseconds) * 1_000_000

    monkeypatch.setattr(benchmark.time, "perf_counter_ns", lambda: now)
    slower, steady = iter((10, 20, 30, 40, 50)), iter([20] * 5)
    candidates = {
        "first": lambda: take(slower),
        "second": Candidate(lambda: take(steady), pairs=4, facts={"a": 1}),
    }
    first, second = benchmark.benchmark(candidates, rounds=5, warmup=0).results
    assert first.times_ms == (10, 20, 30, 40, 50)
    assert (first.median_ms, first.minimum_ms, first.spread_ms) == (30, 10, 20)
    assert (first.p95_ms, first.p99_ms) == tuple(np.percentile(first.times_ms, (95, 99)))
    assert first.pairs_per_second == pytest.approx(1000 / 30)
    assert first.time_ratio == 1
    assert second.time_ratio == pytest.approx(20 / 4 / 30)
    assert second.pairs_per_second == pytest.approx(200)
    assert second.facts == {"a": 1}


def test_progress_counts_all_rounds() -> None:
    seen: list[tuple[int, int, str]] = []
    benchmark.benchmark({"a": lambda: None}, rounds=2, warmup=1, progress=lambda *step: seen.append(step))
    assert seen == [(0, 3, "warm-up"), (1, 3, "timing"), (2, 3, "timing")]


def test_garbage_collection_is_back_on_after_a_failure() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError("broken candidate")

    with pytest.raises(RuntimeError, match="broken candidate"):
        benchmark.benchmark({"a": fail})
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({}, {}, "benchmark: has no candidates; at least one"),
        ({"a": lambda: None}, {"rounds": 0}, "benchmark: 0 rounds, 3 warm-up runs; at least 1 and 0"),
        ({"a": lambda: None}, {"warmup": -1}, "benchmark: 20 rounds, -1 warm-up runs; at least 1 and 0"),
    ],
)
def test_wrong_settings(candidates: dict, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        benchmark.benchmark(candidates, **options)
    assert str(caught.value) == message


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux")
def test_peak_memory_is_that_of_a_fresh_process() -> None:
    here = np.ones(300 << 20, np.uint8)  # must not count
    small = benchmark.peak_memory_mib(np.ones, 1 << 20, np.uint8)
    large = benchmark.peak_memory_mib(np.ones, 101 << 20, np.uint8)
    assert small is not None
    assert large is not None
    assert here[0] == 1
    assert small < 200
    assert 90 < large - small < 110


def test_warnings_of_the_other_process_are_not_repeated(capfd: pytest.CaptureFixture[str]) -> None:
    benchmark.peak_memory_mib(logging.getLogger("gocor").warning, "said before")
    assert capfd.readouterr().err == ""


def test_errors_come_back_from_the_other_process() -> None:
    with pytest.raises(GocorError) as caught:
        benchmark.peak_memory_mib(benchmark._load_and_run, benchmark._Run(Path("absent.onnx"), "cpu", 1))
    assert str(caught.value) == "absent.onnx: no such file; give a model made by gocor export"


def test_models_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plain = save_toy(tmp_path / "plain.onnx")
    batched = save_toy(tmp_path / "batched.onnx", metadata(batch=2, io="tensors", height=64))
    report = benchmark.benchmark_models([plain, batched], rounds=2, warmup=0, threads=1)
    first, second = report.results
    assert (first.name, second.name) == ("plain.onnx · cpu", "batched.onnx · cpu")
    assert (first.pairs, second.pairs) == (1, 2)
    assert first.facts["provider"] == "cpu"
    assert first.facts["threads"] == 1
    assert second.facts["size"] == "64x64"
    assert first.peak_memory_mib is None or first.peak_memory_mib > 20


def test_models_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = Candidate(lambda: None, facts={"provider": "cpu"})
    monkeypatch.setattr(benchmark, "_candidate", lambda *_: candidate)
    paths = [tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx"]
    report = benchmark.benchmark_models(paths, rounds=1, warmup=0)
    assert [result.name for result in report.results] == [f"{path} · cpu" for path in paths]


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = benchmark.benchmark({"a": lambda: None, "b": lambda: None}, rounds=3, warmup=0)
    benchmark.plot(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"bench\.txt: has suffix '\.txt'; one of \.png \.svg \.pdf"):
        benchmark.plot(report, tmp_path / "bench.txt")
    assert not (tmp_path / "bench.txt").exists()


def test_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = benchmark.benchmark({"a": lambda: None}, rounds=1, warmup=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match='pip install "gocor-deploy\\[plot\\]"'):
        benchmark.plot(report, tmp_path / "bench.png")
