"""The figures of docs/precision.md are those of the tracked results."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import precision

ROOT = Path(__file__).parents[2]


def results() -> dict[str, object]:
    return json.loads((ROOT / "benchmarks/results/precision.json").read_text())  # type: ignore[no-any-return]


def test_the_page_has_the_tables_of_the_tracked_results() -> None:
    page = (ROOT / "docs/precision.md").read_text()
    between = page.split("<!-- precision.py -->\n")[1].split("\n<!-- /precision.py -->")[0]
    assert between == precision.tables(results())


def test_the_tracked_results_are_within_what_was_asked_for() -> None:
    found = results()
    errors, sizes = found["errors"], found["sizes"]
    for rows in errors.values():  # type: ignore[attr-defined]
        half = rows["FP16, every operator rounding"]
        assert half["aepe"] <= 0.02
        assert half["p99"] <= 0.1
        for name, row in rows.items():
            assert row["truth"] <= 1.05 * rows[precision.BASE]["truth"], name
    everything = [entry for by_name in sizes.values() for entry in by_name.items()]  # type: ignore[attr-defined]
    whole = dict(everything)["FP32"]["weights"]
    for name, size in everything:
        limit = 0.505 if name.startswith("FP16") else 0.3 if name.endswith(("cpu", "tensorrt")) else 1
        assert size["weights"] <= limit * whole, name
