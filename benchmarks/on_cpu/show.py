"""Results as Markdown, in the documentation and as pictures; needs no torch."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gocor.core.errors import ModelError
from gocor.core.files import write_text
from on_cpu.aims import Outcome, outcomes
from on_cpu.plan import OPENVINO, OPENVINO_INT8, ORT, ORT_INT8, SHIFTS, TILES
from on_cpu.results import Group, Results, Row

ROOT = Path(__file__).parents[2]
PERFORMANCE, README, IMAGES = ROOT / "docs/performance.md", ROOT / "README.md", ROOT / "docs/images"
NAMES = {
    "PWCNet": "PWC-Net",
    "PWCNet_GOCor": "PWC-Net-GOCor",
    "GLUNet": "GLU-Net",
    "GLUNet_GOCor": "GLU-Net-GOCor",
}
README_WAYS = (SHIFTS, TILES, ORT, ORT_INT8, OPENVINO, OPENVINO_INT8)
README_GROUP = "networks: PWC-Net 384×512"


def markdown(results: Results) -> str:
    """All tables, to stand under a heading of the second level."""
    paragraphs = [about(results)]
    for part, title in (
        ("networks", "Networks"), ("operators", "Operators"), ("growth", "How the cost grows"),
        ("sessions", "Sessions"),
    ):  # fmt: skip
        if groups := results.of(part):
            paragraphs += [f"### {title}", *PRINTERS[part](groups)]
    if table := aims_table(results):
        paragraphs += ["### Aims", table]
    return "\n\n".join(paragraphs) + "\n"


def about(results: Results) -> str:
    """Where and how."""
    machine, cores = results.machine, ", ".join(map(str, results.cores))
    sets = ", ".join(name for name in machine["instruction_sets"] if name.startswith(("avx512", "amx")))
    names = {
        "torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "numpy": "NumPy",
    }  # fmt: skip
    versions = ", ".join(f"{names[n]} {v}" for n, v in machine["versions"].items() if n in names)
    return (
        f"{machine['cpu']} ({sets or 'no AVX-512'}), {machine['memory_gib']:.0f} GiB; "
        f"{results.threads} threads of each library, pinned to cores {cores}; {versions}; {_dates(results)}. "
        "Medians in ms for one call, ± the distance between the quartiles."
    )


def _dates(results: Results) -> str:
    commits = dict.fromkeys(group.commit for group in results.groups.values())
    dates = sorted({group.date[:10] for group in results.groups.values()})
    return f"{' and '.join(dates)}, commit {' and '.join(commits)}"


# ── Networks


def _networks(groups: dict[str, Group]) -> Iterator[str]:
    for name, group in groups.items():
        yield f"**{_title(name)}**, batch 1, GOCor with 3 iterations, {_rounds(group)}"
        rows = [
            [way, *(_time(group.find(case, way)) for case in group.cases), _over(group, way),
             _share(group, way), *(_memory(group.find(case, way)) for case in group.cases)]
            for way in group.ways
        ]  # fmt: skip
        plain, gocor = (NAMES[case] for case in group.cases)
        columns = [
            "", plain, gocor, "GOCor / plain", "GOCor / eager", f"MiB, {plain}", f"MiB, {gocor}",
        ]  # fmt: skip
        yield table(columns, rows)
        if group.failed:
            yield "Left out: " + "; ".join(f"{name}: {reason}" for name, reason in group.failed.items())


def _rounds(group: Group) -> str:
    notes = " ".join(("", *group.notes))
    return f"{group.rounds} interleaved rounds after {group.warmup}.{notes}"


def _over(group: Group, way: str) -> str:
    plain, gocor = (group.find(case, way) for case in group.cases)
    return f"{gocor.median_ms / plain.median_ms:.2f}" if plain and gocor else "–"


def _share(group: Group, way: str) -> str:
    gocor = group.cases[-1]
    row, eager = group.find(gocor, way), group.find(gocor, SHIFTS)
    return f"{row.median_ms / eager.median_ms:.2f}" if row and eager else "–"


# ── Operators


def _operators(groups: dict[str, Group]) -> Iterator[str]:
    correlations = {
        name: group for name, group in groups.items() if _title(name).startswith("LocalCorrelation ")
    }
    if correlations:
        ways = list(dict.fromkeys(way for group in correlations.values() for way in group.ways))
        cases = [(group.cases[0], group) for group in correlations.values()]
        rows = [[way, *(_time(group.find(case, way)) for case, group in cases)] for way in ways]
        counts = ", ".join(str(group.rounds) for group in correlations.values())
        notes = " ".join(dict.fromkeys(note for group in correlations.values() for note in group.notes))
        yield f"**LocalCorrelation**, radius 4, at C×H×W; {counts} interleaved rounds. {notes}"
        yield table(["", *(case for case, _ in cases)], rows)
    for name, group in groups.items():
        if name not in correlations:
            yield f"**{_title(name)}**, {_rounds(group)}"
            rows = [[case, *(_time(group.find(case, way)) for way in group.ways)] for case in group.cases]
            yield table(["C×H×W", *group.ways], rows)


# ── Growth


def _growth(groups: dict[str, Group]) -> Iterator[str]:
    for name, group in groups.items():
        yield f"**By {_title(name)}**, {_rounds(group)}"
        rows = [[case, *(_time(group.find(case, way)) for way in group.ways)] for case in group.cases]
        yield table(["", *map(_named, group.ways)], rows)


def _named(way: str) -> str:
    network, library = way.split(" · ")
    return f"{NAMES[network]}, {library}"


# ── Sessions


def _sessions(groups: dict[str, Group]) -> Iterator[str]:
    for name, group in groups.items():
        yield f"**{_title(name)}**, PWC-Net-GOCor, {_rounds(group)}"
        columns = [NAMES.get(case, case) for case in group.cases]
        rows = [[way, *(_time(group.find(case, way)) for case in group.cases)] for way in group.ways]
        if any(row.peak_memory_mib for row in group.rows):
            columns.append("MiB")
            rows = [[*cells, _memory(group.find(group.cases[0], cells[0]))] for cells in rows]
        yield table(["", *columns], rows)


# ── Aims


def aims_table(results: Results) -> str:
    """Every aim whose figures are there; empty without."""
    rows = [
        [o.aim.text, f"{o.over.median_ms:.1f} / {o.under.median_ms:.1f} ms", f"{o.ratio:.2f}",
         f"≤ {o.aim.limit:g}", _met(o)]
        for o in outcomes(results)
    ]  # fmt: skip
    return table(["", "medians", "ratio", "aim", ""], rows) if rows else ""


def verdicts(results: Results) -> Iterator[str]:
    """A line for each aim."""
    for o in outcomes(results):
        figures = f"{o.over.median_ms:.1f} ms / {o.under.median_ms:.1f} ms = {o.ratio:.3f}"
        yield f"{_met(o)}: {o.aim.text} ({o.aim.group}): {figures}, at most {o.aim.limit:g}"


def _met(outcome: Outcome) -> str:
    return "met" if outcome.met else "missed"


# ── Cells


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: words to the left, figures to the right."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def _title(name: str) -> str:
    return name.partition(": ")[2]


def _time(row: Row | None) -> str:
    if row is None:
        return "–"
    digits = 2 if row.median_ms < 10 else 1 if row.median_ms < 100 else 0
    return f"{row.median_ms:.{digits}f} ± {row.spread_ms:.{digits}f}"


def _memory(row: Row | None) -> str:
    return f"{row.peak_memory_mib:.0f}" if row and row.peak_memory_mib is not None else "–"


# ── Documentation


def readme(results: Results) -> str:
    """What the README shows."""
    group = results.groups[README_GROUP]
    ways = [way for way in README_WAYS if way in group.ways]
    rows = [
        [NAMES[case], *(f"{_row(group, case, w).median_ms:.0f} ms" for w in ways)] for case in group.cases
    ]
    plain, gocor = group.cases
    ratios = (_row(group, gocor, w).median_ms / _row(group, plain, w).median_ms for w in ways)
    rows.append(["GOCor / plain", *(f"{ratio:.2f}" for ratio in ratios)])
    return table(["", *ways], rows) + "\n"


def _row(group: Group, case: str, way: str) -> Row:
    row = group.find(case, way)
    assert row is not None
    return row


def documents(results: Results) -> dict[Path, str]:
    """Documents with the results in them, between their marks."""
    return {
        PERFORMANCE: inserted(PERFORMANCE, markdown(results)),
        README: inserted(README, readme(results)),
    }


def inserted(path: Path, content: str) -> str:
    """A document with other content between ``<!-- cpu.py -->`` and ``<!-- /cpu.py -->``.

    Raises:
        ModelError: it has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = "<!-- cpu.py -->\n", "<!-- /cpu.py -->"
    if not re.search(f"{begin}.*{end}", text, re.DOTALL):
        raise ModelError(path, f"has no {begin.strip()} before {end}", "a place for the tables")
    return text.partition(begin)[0] + f"{begin}{content}" + end + text.partition(end)[2]


def update_docs(results: Results) -> list[Path]:
    """Writes the documents and their pictures."""
    found = documents(results)
    for path, text in found.items():
        write_text(path, text)
    return [*found, *plots(results, IMAGES)]


def plots(results: Results, folder: Path) -> list[Path]:
    """Draws what there is."""
    from on_cpu.pictures import draw_growth, draw_networks

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if groups := results.of("networks"):
        paths.append(draw_networks(groups, folder / "cpu-networks.png"))
    if groups := results.of("growth"):
        paths.append(draw_growth(groups, folder / "cpu-growth.png"))
    return paths


PRINTERS = {"networks": _networks, "operators": _operators, "growth": _growth, "sessions": _sessions}
