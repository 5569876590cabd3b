"""What lower precision costs and gives, with the checkpoint of the package: the tables of docs/precision.md.

    python benchmarks/precision.py                       # writes benchmarks/results/precision.json
    python benchmarks/precision.py --show benchmarks/results/precision.json

Flows are compared with the truth and with PyTorch in float32, on synthetic pairs that nothing was trained or
calibrated on and on Middlebury's motorcycle. Times are of one run in which all models take turns.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.calibration.pairs import HELD_OUT, MOTION
from gocor.calibration.quantize import weight_bytes
from gocor.console import print_line, progress
from gocor.evaluation.datasets.motorcycle import motorcycle
from gocor.evaluation.sample import Dataset
from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.dataset import synthetic
from gocor.export.checkpoint import load_network
from gocor.export.estimate import estimate_flow
from gocor.export.networks import Network
from gocor.export.onnx_export import export_onnx
from gocor.export.openvino import build_openvino
from gocor.export.oracle import load_oracle
from gocor.runtime.benchmark import BenchmarkReport, benchmark_models
from gocor.runtime.metrics import FlowError, end_point_error
from gocor.runtime.report import write_json
from gocor.runtime.session import FlowEstimator, load

CHECKPOINT = "pwcnet-gocor-demo"
SIZES = {"synthetic": (192, 256), "motorcycle": (125, 185)}  # of the pairs, so that nothing is resized
TIMED = (384, 512)
RESULTS = Path(__file__).parent / "results" / "precision.json"
BASE = "PyTorch fp32"


@dataclass(frozen=True)
class Variant:
    """A form of the network.

    Attributes:
        name: for the tables.
        model: ONNX file.
        oracle: run it so that every operator rounds to float16.
    """

    name: str
    model: Path
    oracle: bool = False

    def open(self, threads: int) -> AbstractContextManager[FlowEstimator]:
        """An estimator on the CPU."""
        return load_oracle(self.model, threads) if self.oracle else load(self.model, "cpu", threads)


@dataclass(frozen=True)
class Row:
    """Errors of one variant on one dataset, over all pixels, px.

    Attributes:
        truth: AEPE against the truth, mean over the pairs.
        aepe: against PyTorch in float32.
        p99: 99th percentile against it.
        maximum: against it.
        worst_p99: 99th percentile of the worst pair.
    """

    truth: float
    aepe: float
    p99: float
    maximum: float
    worst_p99: float


def main(
    pairs: Annotated[int, typer.Option(help="Synthetic pairs to compare flows on.")] = 20,
    samples: Annotated[int, typer.Option(help="Synthetic pairs to calibrate with.")] = 64,
    budget: Annotated[
        float | None, typer.Option(help="Also repair 8-bit models until they are within this, px.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Timed runs of each model, interleaved; 0 for none.")] = 15,
    threads: Annotated[int, typer.Option(help="For all of it.")] = 2,
    models: Annotated[
        Path | None, typer.Option(help="Keep the models here, or take those of before.")
    ] = None,
    output: Annotated[Path, typer.Option("--json", help="Where results are written.")] = RESULTS,
    show: Annotated[Path | None, typer.Option(help="Only print the tables of these results.")] = None,
) -> None:
    """Measure float16 and 8 bits beside float32."""
    if show:
        print(tables(json.loads(show.read_text())))
        return
    network = load_network(CHECKPOINT)
    with tempfile.TemporaryDirectory() as name, progress("precision") as report:
        folder = models or Path(name)
        settings = {"pairs": pairs, "samples": samples, "budget": budget, "sizes": SIZES, "timed": TIMED}
        results: dict[str, Any] = {"settings": settings, "sizes": {}, "errors": {}}
        for dataset in datasets(pairs):
            size = SIZES[dataset.name]
            variants = make_variants(network, folder, size, samples, budget, threads, report)
            results["sizes"][dataset.name] = {variant.name: sizes(variant.model) for variant in variants}
            results["errors"][dataset.name] = measure(network, variants, dataset, threads, report)
        if rounds:
            variants = make_variants(network, folder, TIMED, samples, None, threads, report)
            times = time_variants(variants, rounds, threads, report)
            results["machine"] = asdict(times.machine)
            results["times"] = {result.name: asdict(result) for result in times.results}
    write_json(output, results)
    print_line("written", output, "green")


def make_variants(
    network: Network, base: Path, size: tuple[int, int], samples: int, budget: float | None, threads: int,
    report: Callable[..., None],
) -> list[Variant]:  # fmt: skip
    """All forms of the network for one size, as a user makes them; those that are there already stay."""
    height, width = size
    folder = base / f"{height}x{width}"
    folder.mkdir(parents=True, exist_ok=True)
    for precision in ("fp32", "fp16"):
        if not (model := folder / f"{precision}.onnx").exists():
            report(0, None, f"export {precision}")
            export_onnx(network, model, height=height, width=width, precision=precision)
    variants = [
        Variant("FP32", folder / "fp32.onnx"),
        Variant("FP16, every operator rounding", folder / "fp16.onnx", oracle=True),
    ]
    for target in ("tensorrt", "cpu"):
        for limit in (None, budget) if budget else (None,):
            name = f"INT8 for {target}" + (f", within {limit:g} px" if limit else "")
            model = folder / f"int8-{target}{'-budget' if limit else ''}.onnx"
            config = CalibrationConfig(target=target, synthetic=samples, threads=threads, budget=limit)
            if not model.exists():
                calibrate(folder / "fp32.onnx", model, config=config, progress=report)
            variants.append(Variant(name, model))
    return variants


def datasets(pairs: int) -> Iterator[Dataset]:
    """Pairs that neither training nor calibration nor repair has seen."""
    height, width = SIZES["synthetic"]
    config = SyntheticConfig(height, width, MOTION * width, "evaluation")
    whole = synthetic(config, HELD_OUT + pairs)
    yield Dataset(whole.name, whole.samples[HELD_OUT:], whole.protocol, whole.facts)
    yield motorcycle()


def measure(
    network: Network, variants: Sequence[Variant], dataset: Dataset, threads: int, report: Callable[..., None]
) -> dict[str, Row]:
    """Errors of all variants, and of PyTorch itself."""
    truths = [sample.load() for sample in dataset.samples]
    base = []
    for number, truth in enumerate(truths):
        report(number, len(truths), f"PyTorch on {dataset.name}")
        base.append(estimate_flow(network, truth.reference, truth.query))
    rows = {BASE: summary(base, base, truths)}
    for variant in variants:
        with ExitStack() as stack:
            estimator = stack.enter_context(variant.open(threads))
            flows = []
            for number, truth in enumerate(truths):
                report(number, len(truths), f"{variant.name} on {dataset.name}")
                flows.append(estimator(truth.reference, truth.query))
        rows[variant.name] = summary(flows, base, truths)
    return rows


def summary(flows: Sequence[np.ndarray], base: Sequence[np.ndarray], truths: Sequence[Any]) -> Row:
    """One variant's errors over all pairs."""
    drifts = [end_point_error(flow, other) for flow, other in zip(flows, base, strict=True)]
    everything = np.concatenate([drift.ravel() for drift in drifts])
    truth = [FlowError.between(flow, t.flow, t.valid).aepe for flow, t in zip(flows, truths, strict=True)]
    return Row(
        truth=float(np.mean(truth)),
        aepe=float(everything.mean()),
        p99=float(np.percentile(everything, 99)),
        maximum=float(everything.max()),
        worst_p99=max(float(np.percentile(drift, 99)) for drift in drifts),
    )


def sizes(model: Path) -> dict[str, int]:
    """Bytes of a file, and of the network's weights in it."""
    import onnx

    return {"weights": weight_bytes(onnx.load(model)), "file": model.stat().st_size}


def time_variants(
    variants: Sequence[Variant], rounds: int, threads: int, report: Callable[..., None]
) -> BenchmarkReport:
    """ONNX Runtime and OpenVINO with each model that a CPU is meant to run."""
    models = []
    for variant in variants:
        if not variant.oracle:
            built = build_openvino(variant.model, variant.model.with_suffix(".xml"))
            models += [variant.model, built.path]
    return benchmark_models(models, rounds=rounds, threads=threads, progress=report)


def tables(results: dict[str, Any]) -> str:
    """Results as Markdown."""
    return "\n\n".join((errors_table(results), times_table(results)))


def errors_table(results: dict[str, Any]) -> str:
    """Sizes and errors of each variant."""
    sizes = results["sizes"]["synthetic"]
    whole = sizes["FP32"]
    head = ["", "weights", "file", *(f"{n}: AEPE to truth | to FP32 | 99 %" for n in results["errors"])]
    lines = [_line(" | ".join(head).split(" | ")), _line(["---"] * (3 + 3 * len(results["errors"])))]
    for name in next(iter(results["errors"].values())):
        size = sizes.get(name)
        cells = [name, *((f"{100 * size[k] / whole[k]:.1f} %" if size else "") for k in ("weights", "file"))]
        for rows in results["errors"].values():
            row = rows[name]
            change = 100 * (row["truth"] / rows[BASE]["truth"] - 1)
            moved = f" ({change:+.1f} %)" if abs(change) >= 0.05 else ""
            cells += [f"{row['truth']:.3f} px{moved}", f"{row['aepe']:.2g} px", f"{row['p99']:.2g} px"]
        lines.append(_line(cells))
    return "\n".join(lines)


def times_table(results: dict[str, Any]) -> str:
    """Median times of each model in each library, and ratios to its FP32."""
    lines = [_line(["", "ONNX Runtime", "of its FP32", "OpenVINO", "of its FP32"]), _line(["---"] * 5)]
    files = {"FP32": "fp32", "INT8 for tensorrt": "int8-tensorrt", "INT8 for cpu": "int8-cpu"}
    for name, stem in files.items():
        cells = [name]
        for ending in (".onnx · cpu", ".xml · openvino"):
            time, whole = (results["times"][f"{s}{ending}"] for s in (stem, "fp32"))
            ratio = time["median_ms"] / whole["median_ms"]
            cells += [f"{time['median_ms']:.0f} ± {time['spread_ms']:.0f} ms", f"{ratio:.2f}"]
        lines.append(_line(cells))
    machine = results["machine"]
    about = f"{machine['cpu']}, instruction sets {', '.join(machine.get('instruction_sets', ()))}"
    return "\n".join(lines) + f"\n\n{about}."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
