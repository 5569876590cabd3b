"""Results as tables, in the terminal or as Markdown; needs no torch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from on_gpu.levels import AIM_LEVEL, Limits
from on_gpu.results import CheckRow, EngineRow, NetworkRow, Part, Results, SanitizerRow, TimeRow, Timing

TITLES = {
    "correctness": "Results of the kernels against float64",
    "sanitizer": "compute-sanitizer",
    "kernels": "Time of the operators, radius 4, in µs",
    "networks": "Networks in PyTorch, float32, batch 1, in ms",
    "engines": "Engines of TensorRT, images to flow, batch 1, in ms",
}
AIM_OF_FLOOR, AIM_OF_SHIFTS = 0.7, 10.0


@dataclass(frozen=True)
class Block:
    """A table with a title, and sentences under it."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()


def blocks(results: Results) -> Iterator[Block]:
    """Everything in a file, part after part."""
    gpu = results.gpu
    yield Block(
        str(gpu["name"]),
        notes=[
            f"Compute capability {gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors, "
            f"{gpu['memory_gib']:g} GiB, {gpu['l2_mib']:g} MiB of L2; driver {gpu['driver']}, "
            f"CUDA {gpu['cuda']}, PyTorch {gpu['torch']}."
        ],
    )
    for name, part in results.parts.items():
        if part.status != "done":
            yield Block(TITLES[name], notes=[f"{part.status}: {part.reason}"])
        if part.rows:
            yield from PRINTERS[name](part)


def markdown(results: Results) -> str:
    """All blocks as Markdown, to stand under a heading of the second level."""
    paragraphs = []
    for number, block in enumerate(blocks(results)):
        paragraphs.append(f"{'###' if number == 0 else '####'} {block.title}")
        if block.columns:
            # Words to the left, figures to the right.
            rule = ["---" if _is_word(block, i) else "---:" for i in range(len(block.columns))]
            paragraphs.append(
                "\n".join(f"| {' | '.join(row)} |" for row in (block.columns, rule, *block.rows))
            )
        paragraphs.extend(block.notes)
    return "\n\n".join(paragraphs) + "\n"


def rich_table(block: Block) -> Table:
    """A block's table for the terminal."""
    table = Table(title=block.title, title_justify="left", box=box.SIMPLE)
    for i, name in enumerate(block.columns):
        table.add_column(name, justify="left" if _is_word(block, i) else "right", overflow="fold")
    for row in block.rows:
        table.add_row(*map(Text, row))
    return table


def _is_word(block: Block, column: int) -> bool:
    return all(row[column][:1].isalpha() for row in block.rows)


def _correctness(part: Part) -> Iterator[Block]:
    checks: tuple[CheckRow, ...] = part.rows
    rows = []
    for operator, dtype in dict.fromkeys((check.operator, check.dtype) for check in checks):
        own = [check for check in checks if (check.operator, check.dtype) == (operator, dtype)]
        passed = sum(check.passed for check in own)
        worst = (_largest([getattr(check, name) for check in own]) for name in ("relative_l2", "worst"))
        rows.append([operator, dtype, f"{passed} of {len(own)}", *worst])
    columns = ["operator", "dtype", "passed", "relative L2, worst case", "worst element / largest value"]
    failed = [
        f"FAILED: {c.operator} {c.dtype} radius {c.radius} {c.shape} + {c.offset}: "
        f"relative L2 {_short(c.relative_l2)}, worst {_short(c.worst)}{', wrote outside' * c.outside}"
        for c in checks
        if not c.passed
    ]
    yield Block(TITLES["correctness"], columns, rows, [*failed[:10], _origin(part)])


def _largest(values: Sequence[float | None]) -> str:
    return "not a number" if None in values else f"{max(v for v in values if v is not None):.1e}"


def _short(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.1e}"


def _sanitizer(part: Part) -> Iterator[Block]:
    runs: tuple[SanitizerRow, ...] = part.rows
    rows = [
        [
            r.tool,
            f"fault planted: {r.planted}" if r.planted else "kernels",
            "yes" if r.passed else "NO",
            r.summary,
        ]
        for r in runs
    ]
    yield Block(TITLES["sanitizer"], ["tool", "run", "as it should be", "summary"], rows, [_origin(part)])


def _kernels(part: Part) -> Iterator[Block]:
    times: tuple[TimeRow, ...] = part.rows
    for operator in dict.fromkeys(row.operator for row in times):
        fair = "unrolled" if operator == "LocalGOCor" else "compiled"
        columns = [
            "level", "dtype", "C×H×W", "kernel", "in L2", "floor", "of floor",
            "81 shifts", fair, "tiles", "shifts/kernel", f"{fair}/kernel",
        ]  # fmt: skip
        rows = [_kernel_cells(row, fair) for row in times if row.operator == operator]
        aims = [_aim(row) for row in times if row.operator == operator and _has_aim(row)]
        yield Block(f"{TITLES['kernels']}: {operator}", columns, rows, aims)
    yield Block("How it was measured", notes=_kernel_notes(part))


def _kernel_notes(part: Part) -> list[str]:
    facts, times = part.facts, part.rows
    limits = Limits(**facts["limits"])
    rates = ", ".join(f"{rate:.0f} TFLOP/s in {dtype}" for dtype, rate in limits.tflops.items())
    spilled = sorted({f"{row.operator} {row.dtype}" for row in times if row.local_bytes})
    notes = [
        f"Median ± distance between the quartiles. Floor: bytes at {limits.copy_gb_per_s:.0f} GB/s (a copy) "
        f"or arithmetic at {rates} (a large matrix product), whichever takes longer (m or a). "
        f"From one launch to the next of a kernel with nothing to do it takes {limits.launch_us:.1f} µs.",
        "Kernels run in a CUDA graph; peers are called from Python, and in brackets run in a graph, too.",
        f"Clocks before: {_listed(facts['clocks_before'])}; after: {_listed(facts.get('clocks_after', {}))}.",
    ]
    notes += [f"Registers spilled: {', '.join(spilled)}."] if spilled else []
    failed = {name: reason for row in times for name, reason in row.failed.items()}
    notes += [f"{name} did not run: {reason}" for name, reason in failed.items()]
    return [*notes, _origin(part)]


def _kernel_cells(row: TimeRow, fair: str) -> list[str]:
    kernel = row.times["kernel"]
    which = "m" if row.memory_us >= row.arithmetic_us else "a"
    return [
        f"{row.network.split()[0]} {row.level}",
        row.dtype,
        "×".join(map(str, row.shape[1:])),
        _time(kernel),
        _time(row.times["kernel, L2"]),
        f"{row.floor_us:.2f} {which}",
        f"{100 * row.floor_us / kernel.median_us:.0f} %",
        *(_peer(row, name) for name in ("shifts", fair, "tiles")),
        *(_ratio(row, name) for name in ("shifts", fair)),
    ]


def _peer(row: TimeRow, name: str) -> str:
    if name not in row.times:
        return "-"
    graph = row.times.get(f"{name}, graph")
    return f"{row.times[name].median_us:.0f}" + (f" ({graph.median_us:.0f})" if graph else "")


def _ratio(row: TimeRow, name: str) -> str:
    return f"{_speedup(row, name):.1f}" if name in row.times else "-"


def _speedup(row: TimeRow, name: str) -> float:
    return row.times[name].median_us / row.times["kernel"].median_us


def _has_aim(row: TimeRow) -> bool:
    return (row.network, row.level, row.dtype) == (AIM_LEVEL.network, AIM_LEVEL.name, "float16")


def _aim(row: TimeRow) -> str:
    share = row.floor_us / row.times["kernel"].median_us
    verdict = _verdict(share >= AIM_OF_FLOOR)
    text = f"PWC-Net's level 2, float16: {100 * share:.0f} % of the floor ({verdict} 70 %)"
    if "shifts" in row.times:
        ratio = _speedup(row, "shifts")
        text += f", {ratio:.0f} times as fast as 81 shifts ({_verdict(ratio >= AIM_OF_SHIFTS)} 10)"
    return text + "."


def _verdict(met: bool) -> str:
    return "met: at least" if met else "missed:"


def _networks(part: Part) -> Iterator[Block]:
    networks: tuple[NetworkRow, ...] = part.rows
    ways = list(dict.fromkeys(way for network in networks for way in network.times))
    rows = [
        [
            n.network,
            f"{n.size[0]}×{n.size[1]}",
            *(_time(n.times[way], 1e3) if way in n.times else "-" for way in ways),
            f"{n.error:.1e}",
        ]
        for n in networks
    ]
    columns = ["network", "size", *ways, "relative L2, kernels against tiles"]
    yield Block(TITLES["networks"], columns, rows, [_origin(part)])


def _engines(part: Part) -> Iterator[Block]:
    engines: tuple[EngineRow, ...] = part.rows
    rows = [
        [
            e.network,
            f"{e.size[0]}×{e.size[1]}",
            e.plugins,
            _time(e.times["engine"], 1e3),
            f"{e.build_seconds:.0f} s",
        ]
        for e in engines
    ]
    versions = ", ".join(Counter(e.tensorrt for e in engines))
    notes = [f"TensorRT {versions}.", _origin(part)]
    yield Block(TITLES["engines"], ["network", "size", "plugins", "median", "build"], rows, notes)


def _origin(part: Part) -> str:
    sample = ", a sample of the cases only" if part.quick else ""
    return (
        f"{part.date}, commit {part.commit or 'unknown'}, {part.kernels}{sample}; took {part.seconds:.0f} s."
    )


def _listed(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "unknown"


def _time(time: Timing, unit: float = 1.0) -> str:
    return f"{time.median_us / unit:.2f} ± {time.spread_us / unit:.2f}"


PRINTERS = {
    "correctness": _correctness,
    "sanitizer": _sanitizer,
    "kernels": _kernels,
    "networks": _networks,
    "engines": _engines,
}
