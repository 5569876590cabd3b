"""What of the CPU benchmark can be known without timing anything."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_models import save_toy

from gocor.core.errors import ConfigError, ModelError
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load as load_estimator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cpu
from on_cpu import aims, growth, networks, operators, plan, sessions, show
from on_cpu.plan import ORT, SHIFTS, Entries, Entry, Plan, measure
from on_cpu.results import Group, Results, Row, load
from on_cpu.workshop import Workshop


def row(case: str, way: str, median: float) -> Row:
    return Row(case, way, median, 1.0, (median,), None, 100.0)


def some_results(ratio: float = 1.1) -> Results:
    rows = tuple(
        row(case, way, milliseconds)
        for case, way, milliseconds in (
            ("PWCNet", SHIFTS, 300.0),
            ("PWCNet", ORT, 200.0),
            ("PWCNet_GOCor", SHIFTS, 400.0),
            ("PWCNet_GOCor", ORT, 200.0 * ratio),
        )
    )
    group = Group("networks", 15, 3, "2026-01-02 03:04", "abc", 60.0, rows, {"x": "why"}, ("A note.",))
    facts = {
        "cpu": "Xeon",
        "instruction_sets": ["avx512f"],
        "memory_gib": 24.0,
        "versions": {"torch": "2.13"},
    }
    return Results(facts, (0, 1), 2, {aims.PWCNET: group})


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    some_results().save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == some_results()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"groups": 1}', '{"gpu": {}, "parts": {}}'])
def test_what_is_no_file_of_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ModelError, match=r"r\.json: holds no results of this benchmark"):
        load(tmp_path / "r.json")
    with pytest.raises(ModelError, match=r"none\.json: cannot be read"):
        load(tmp_path / "none.json")


def test_results_of_two_processors_do_not_mix(tmp_path: Path) -> None:
    other = Results({"cpu": "Epyc"}, (0, 1), 2, {})
    with pytest.raises(ConfigError, match=r"has results of Xeon with 2 threads"):
        other.after(some_results(), tmp_path / "r.json")


def test_a_later_run_takes_the_place_of_its_groups_alone(tmp_path: Path) -> None:
    earlier = some_results().with_group("growth: batch", some_results().groups[aims.PWCNET])
    merged = some_results(1.5).after(earlier, tmp_path / "r.json")
    assert set(merged.groups) == {aims.PWCNET, "growth: batch"}
    assert merged.groups[aims.PWCNET] == some_results(1.5).groups[aims.PWCNET]


@pytest.mark.parametrize(("ratio", "verdict"), [(1.2, "met"), (1.21, "missed")])
def test_aims_are_judged_by_medians(ratio: float, verdict: str) -> None:
    first, second = show.verdicts(some_results(ratio))
    assert first.startswith(f"{verdict}: PWC-Net-GOCor / PWC-Net in ONNX Runtime")
    assert f"{200 * ratio:.1f} ms / 200.0 ms = {ratio:.3f}, at most 1.2" in first
    assert second.startswith("missed" if 200 * ratio / 400 > 0.6 else "met")


def test_every_aim_is_in_a_group_that_is_measured() -> None:
    plans = {f"{p.part}: {p.name}" for module in (networks, operators) for p in module.plans(False, None)}
    assert {aim.group for aim in aims.AIMS} <= plans


def test_the_aims_figures_are_medians_of_enough_rounds() -> None:
    plans = {p.name: p for p in networks.plans(False, None)}
    assert plans["PWC-Net 384×512"].rounds >= 15


@pytest.mark.parametrize("name", sessions.OPTIONS)
def test_a_session_differs_in_one_option_and_not_in_its_result(name: str, tmp_path: Path) -> None:
    model = save_toy(tmp_path / "m.onnx")
    session = sessions.open_with(name, model, 2)
    images = dict(zip(("reference", "query"), sample_pair(32, 64)[:2], strict=True))
    flow = session.run(None, {key: image[None] for key, image in images.items()})[0]
    with load_estimator(model) as estimator:
        np.testing.assert_array_equal(flow[0], estimator(*images.values()))
    ours, options = sessions.open_with(sessions.OURS, model, 2), session.get_session_options()
    facts = [
        (o.graph_optimization_level, o.enable_cpu_mem_arena, o.enable_mem_pattern, o.intra_op_num_threads)
        for o in (ours.get_session_options(), options)
    ]
    written = "spin" in name or "pre-packed" in name  # as text, which cannot be listed
    assert (facts[0] == facts[1]) == (written or name == sessions.OURS)


def test_tables() -> None:
    text = show.markdown(some_results())
    assert "2 threads of each library, pinned to cores 0, 1" in text
    assert "| PyTorch, 81 shifts | 300 ± 1 | 400 ± 1 | 1.33 | 1.00 | 100 | 100 |" in text
    assert "| ONNX Runtime | 200 ± 1 | 220 ± 1 | 1.10 | 0.55 | 100 | 100 |" in text
    assert "15 interleaved rounds after 3. A note." in text
    assert "Left out: x: why" in text
    assert "| PWC-Net-GOCor | 400 ms | 220 ms |" in show.readme(some_results())


def test_a_document_without_a_place_for_the_tables(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("before\n<!-- cpu.py -->\nold\n<!-- /cpu.py -->\nafter\n")
    assert show.inserted(tmp_path / "a.md", "new\n") == (
        "before\n<!-- cpu.py -->\nnew\n<!-- /cpu.py -->\nafter\n"
    )
    (tmp_path / "b.md").write_text("nothing")
    with pytest.raises(ModelError, match=r"b\.md: has no <!-- cpu\.py --> before"):
        show.inserted(tmp_path / "b.md", "new\n")


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ways = ("PWCNet · ONNX Runtime", "PWCNet_GOCor · OpenVINO")
    rows = tuple(row(case, way, 10.0) for case in ("1", "2") for way in ways)
    group = Group("growth", 1, 0, "", "", 1.0, rows)
    paths = show.plots(some_results().with_group("growth: batch", group), tmp_path)
    assert [path.name for path in paths] == ["cpu-networks.png", "cpu-growth.png"]
    assert all(0 < path.stat().st_size < 100_000 for path in paths)


def test_a_correlation_by_everything_that_has_one(tmp_path: Path) -> None:
    """Each is checked against the NumPy semantics, or this would raise."""
    made = operators.correlations((8, 11, 13), Workshop(tmp_path, 1))
    assert len(made.ready) + len(made.failed) == 6
    assert all(entry.error is not None and entry.error < 1e-6 for entry in made.ready)


def test_gocor_in_all_its_forms(tmp_path: Path) -> None:
    made = operators.gocors([(8, 11, 13)], Workshop(tmp_path, 1))
    assert [entry.way for entry in made.ready] == [
        SHIFTS, operators.UNROLLED, operators.FUSED, operators.PLAIN,
    ]  # fmt: skip


def test_a_wrong_candidate_is_not_timed() -> None:
    with pytest.raises(networks.MismatchError, match=r"^a · b: differs from the reference by 1\.0e\+00"):
        operators.checked("a", "b", lambda: np.zeros(3), np.ones(3))


def test_a_group_keeps_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Entries([Entry("a", "b", lambda: None, 1e-7, 5.0)], {"c": "why"}, ["note"])
    monkeypatch.setattr(plan, "others_busy_seconds", lambda: 0.0)
    group = measure(Plan("p", "operators", 3, 1, lambda _: made), made, "abc", lambda *_: None)
    (only,) = group.rows
    assert (only.case, only.way, only.error, only.peak_memory_mib) == ("a", "b", 1e-7, 5.0)
    assert len(only.times_ms) == 3
    assert (group.failed, group.notes, group.commit) == ({"c": "why"}, ("note",), "abc")


def test_a_group_says_that_others_were_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.0, 1e9])
    monkeypatch.setattr(plan, "others_busy_seconds", lambda: next(used))
    made = Entries([Entry("a", "b", lambda: None)])
    group = measure(Plan("p", "operators", 1, 0, lambda _: made), made, "", lambda *_: None)
    assert group.notes[0].startswith("Meanwhile other processes kept ")
    monkeypatch.undo()
    assert plan.others_busy_seconds() >= 0


def test_growth_names_what_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_entries", lambda _, case, name, *a, **k: [Entry(case, name, lambda: None)])
    made = growth.by_iterations((64, 64), range(3), Workshop(tmp_path, 1))
    assert [(e.case, e.way) for e in made.ready] == [
        ("plain", "PWCNet"), ("0", "PWCNet_GOCor"), ("1", "PWCNet_GOCor"), ("2", "PWCNet_GOCor"),
    ]  # fmt: skip


def test_refusals() -> None:
    count = len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=rf"--threads: is {count + 1}"):
        cpu.pin(count + 1)
    with pytest.raises(ConfigError, match=r"--part: is kernels"):
        cpu._plans(["kernels"], "", True, None)
    with pytest.raises(ConfigError, match=r"--only: 'nothing' is in no name"):
        cpu._plans(["growth"], "nothing", True, None)


def test_the_documentation_shows_the_results_that_are_kept() -> None:
    for path, text in show.documents(load(cpu.TRACKED)).items():
        assert path.read_text(encoding="utf-8") == text, path


def test_the_results_that_are_kept_are_of_checked_candidates() -> None:
    kept = load(cpu.TRACKED)
    assert len(list(show.verdicts(kept))) == sum(aim.group in kept.groups for aim in aims.AIMS) > 0
    for name, group in kept.groups.items():
        assert all(len(row.times_ms) == group.rounds for row in group.rows), name
        limit = operators.TOLERANCE if group.part == "operators" else networks.TOLERANCE
        checked = [row.error for row in group.rows if row.error is not None and "INT8" not in row.way]
        assert all(error <= limit for error in checked), name
        assert len(checked) > 0 or group.part in ("growth", "sessions"), name
