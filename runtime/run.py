"""Runs a model over image pairs and writes what one wants of each, so that a run can be taken up again."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gocor.core.errors import ConfigError, ImageError, ModelError, OutputError, ShapeError
from gocor.core.files import atomic_path, sha256
from gocor.core.reading import DOCUMENT, read_json
from gocor.runtime.flipping import estimate_with_flip_check
from gocor.runtime.flow import FlowFormat, check_finite, consistent, encode_flow, sample_flow, warp
from gocor.runtime.images import check_same_size, encode_image, pad_pair
from gocor.runtime.model_hash import model_sha256
from gocor.runtime.package_session import PackageEstimator
from gocor.runtime.pairs import Pair, PairSource
from gocor.runtime.session import FlowEstimator
from gocor.runtime.tables import read_table
from gocor.runtime.visualize import consistency_picture, flow_picture, overview

RECORD = "result.json"  # written last: where it is, the pair is done
_FLOW_FILES = {"flo": "flow.flo", "kitti": "flow_kitti.png", "npy": "flow.npy"}
_BACKWARD_FILES = {"flo": "flow_backward.flo", "kitti": "flow_backward_kitti.png", "npy": "flow_backward.npy"}
_PICTURES = ("flow.png", "warped.png", "overview.png")
_CONSISTENCY_FILES = ("consistent.png", "occlusions.png")
_POINTS_FILE = "points.csv"
_ALL_FILES = {
    *_FLOW_FILES.values(), *_BACKWARD_FILES.values(), *_PICTURES, *_CONSISTENCY_FILES, _POINTS_FILE,
}  # fmt: skip

Progress = Callable[[int, int | None, str], None]

_log = logging.getLogger("gocor")


@dataclass(frozen=True)
class RunConfig:
    """What to compute and write.

    Attributes:
        output: folder for the results; each pair has one of its own in it, unless only one was named.
        format: of the flow file.
        pad: pad images of two sizes to their common size instead of refusing them.
        flip_check: test whether the query shows the reference mirrored (GLU-Net family).
        consistency: estimate the flow back, too, and write where both agree.
        points: CSV file with columns x and y, points of the reference to write the flow at.
        max_flow: magnitude of full colour in the pictures, px; each flow's largest when None.
        overwrite: compute pairs again that are already done.
    """

    output: Path
    format: FlowFormat = "flo"
    pad: bool = False
    flip_check: bool = False
    consistency: bool = False
    points: Path | None = None
    max_flow: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in get_args(FlowFormat):
            raise ConfigError(
                "--format", f"unknown {self.format!r}", f"one of {', '.join(get_args(FlowFormat))}"
            )
        if self.max_flow is not None and not 0 < self.max_flow < float("inf"):
            raise ConfigError("--max-flow", f"is {self.max_flow}", "a positive number of pixels")

    def file_names(self) -> tuple[str, ...]:
        """Names of the files that a pair's folder will hold, besides the record."""
        names = [_FLOW_FILES[self.format], *_PICTURES]
        if self.consistency:
            names += [_BACKWARD_FILES[self.format], *_CONSISTENCY_FILES]
        return (*names, _POINTS_FILE) if self.points else tuple(names)


@dataclass(frozen=True)
class PairResult:
    """What came out for a pair.

    Attributes:
        name: of the pair.
        folder: where its files are.
        width: of the reference, px.
        height: of the reference, px.
        mean_flow: mean magnitude, px.
        max_flow: largest magnitude, px.
        seconds: that the estimation took, reading and writing not counted.
        consistent: share of the reference's pixels whose flow there and back agree; None if not asked for.
        flipped: the reference fits better mirrored; None if not asked for.
        skipped: done in an earlier run, whose numbers these are.
    """

    name: str
    folder: Path
    width: int
    height: int
    mean_flow: float
    max_flow: float
    seconds: float
    consistent: float | None = None
    flipped: bool | None = None
    skipped: bool = False


@dataclass(frozen=True)
class RunReport:
    """What came out of a run: results in order, and for pairs that failed their name and error."""

    results: tuple[PairResult, ...]
    failures: tuple[tuple[str, str], ...]


def run_pairs(
    estimator: FlowEstimator, pairs: PairSource, config: RunConfig, progress: Progress | None = None
) -> RunReport:
    """Estimates the flow of every pair and writes the files of ``config.file_names()``.

    A pair is skipped if it was done before by the same model, provider and options and its images have not
    changed since. A pair that fails does not stop the others, unless the user named no others.

    Args:
        estimator: the model.
        pairs: what to run it on.
        config: what to write.
        progress: called before each pair with how many are done, how many there are, and its name.

    Raises:
        ConfigError: the model cannot do what is asked, or results would overwrite an input.
        ImageError: the points cannot be read; or the only pair cannot.
        ModelError: the model fails on the only pair.
        OutputError: results cannot be written. Earlier pairs keep theirs; of this one nothing is left.
    """
    if config.flip_check and estimator.metadata.spec.family != "glunet":
        name = estimator.metadata.network
        raise ConfigError(
            "--flip-check", f"{name} cannot judge orientations", "a GLUNet or GLUNet_GOCor model"
        )
    if (batch := estimator.metadata.batch) > 1 and not estimator.metadata.varies("batch"):
        text = "%s computes %d pairs at a time and is given one; a model of --batch 1 is that much faster"
        _log.warning(text, estimator.path.name, batch)
    run = _Run(estimator, config)
    results, failures = [], []
    for index, pair in enumerate(pairs):
        if progress:
            progress(index, pairs.expected, pair.name)
        folder = config.output if pairs.single else config.output / pair.name
        try:
            results.append(run.process(pair, folder))
        except (ImageError, ShapeError, ModelError) as error:
            if pairs.single:
                raise
            failures.append((pair.name, str(error)))
    return RunReport(tuple(results), tuple(failures))


class _Run:
    """A model and options, ready for any number of pairs."""

    def __init__(self, estimator: FlowEstimator, config: RunConfig) -> None:
        self.estimator, self.config = estimator, config
        self.points = _Points(config.points) if config.points else None
        options = dataclasses.asdict(config)
        del options["output"], options["overwrite"]
        options["points"] = sha256(config.points) if config.points else None
        # Of a package one precision is asked for, and its index has all.
        candidates = estimator.candidates if isinstance(estimator, PackageEstimator) else ()
        self.identity = {
            "model_sha256": model_sha256(estimator.path),
            "models": [model.path for model in candidates],
            "provider": estimator.provider,
            "options": options,
        }

    def process(self, pair: Pair, folder: Path) -> PairResult:
        """Computes and writes one pair, or finds it done."""
        self._check_inputs_survive(pair, folder)
        identity = self.identity | pair.fingerprint()
        earlier = _read_record(folder)
        if not self.config.overwrite and (done := _done(earlier, identity, pair.name, folder)):
            return done
        contents, result = self._compute(pair, folder)
        facts = {
            k: v for k, v in dataclasses.asdict(result).items() if k not in ("name", "folder", "skipped")
        }
        record = {"identity": identity, "result": facts, "files": sorted(contents)}
        contents[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
        _write_all(folder, contents)
        for name in _ALL_FILES.intersection(earlier.get("files", ())) - contents.keys():
            (folder / name).unlink(missing_ok=True)  # of a run with other options; it would not fit the rest
        return result

    def _check_inputs_survive(self, pair: Pair, folder: Path) -> None:
        inputs = {path.resolve(): path for path in (*pair.files, self.config.points) if path}
        # Not only what this run writes: it also takes away what an earlier run with other options wrote.
        for name in (RECORD, *_ALL_FILES):
            if path := inputs.get((folder / name).resolve()):
                raise ConfigError(
                    "-o", f"results in {folder} would overwrite the input {path}", "another folder"
                )

    def _compute(self, pair: Pair, folder: Path) -> tuple[dict[str, bytes], PairResult]:
        """Contents of the pair's files, and its numbers."""
        config = self.config
        reference, query = pair.load()
        if not config.pad:
            check_same_size(reference, query, pair.name)
        start = time.perf_counter()
        flow, flipped = self._estimate(reference, query, pair.name)
        backward = self._estimate(query, reference, pair.name)[0] if config.consistency else None
        seconds = time.perf_counter() - start
        warped = warp(query, flow)
        pictures = {
            "flow.png": flow_picture(flow, config.max_flow),
            "warped.png": warped,
            "overview.png": overview(reference, query, warped, flow, config.max_flow),
        }
        name = _FLOW_FILES[config.format]
        contents = {name: encode_flow(flow, config.format, where=folder / name)}
        agree = None
        if backward is not None:
            mask = consistent(flow, backward)
            agree = float(mask.mean())
            pictures["consistent.png"] = mask.astype(np.uint8) * 255
            pictures["occlusions.png"] = consistency_picture(reference, mask)
            name = _BACKWARD_FILES[config.format]
            contents[name] = encode_flow(backward, config.format, where=folder / name)
        if self.points:
            contents[_POINTS_FILE] = self.points.table(flow)
        contents |= {name: encode_image(picture, ".png") for name, picture in pictures.items()}
        magnitudes = np.hypot(*flow)
        mean, largest = float(magnitudes.mean()), float(magnitudes.max())
        height, width = magnitudes.shape
        return contents, PairResult(pair.name, folder, width, height, mean, largest, seconds, agree, flipped)

    def _estimate(
        self, reference: np.ndarray, query: np.ndarray, name: str
    ) -> tuple[np.ndarray, bool | None]:
        """Flow on the reference's own grid, and whether it was taken with the mirrored reference."""
        height, width = reference.shape[:2]
        reference, query = pad_pair(reference, query)
        flipped = None
        if self.config.flip_check:
            flow, decision = estimate_with_flip_check(self.estimator, reference, query)
            flipped = decision.flipped
        else:
            flow = self.estimator(reference, query)
        flow = flow[:, :height, :width]
        check_finite(flow, self.estimator.path, name)
        return flow, flipped


class _Points:
    """Points of the reference, from a CSV file with columns x and y."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines, self.values = [], []
        for line, row in read_table(path, ("x", "y")):
            try:
                values = float(row["x"]), float(row["y"])
            except ValueError as error:
                raise ImageError(f"{path}:{line}", f"{error}", "numbers for x and y, in pixels") from error
            self.lines.append(line)
            self.values.append(values)
        if not self.values:
            raise ImageError(path, "lists no points", "lines x,y below the header")

    def table(self, flow: np.ndarray) -> bytes:
        """CSV file with the flow at each point and where it leads.

        Raises:
            ImageError: a point lies outside the flow; with the line that it stands on.
        """
        height, width = flow.shape[1:]
        for line, (x, y) in zip(self.lines, self.values, strict=True):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                inside = f"x from 0 to {width - 1}, y from 0 to {height - 1}"
                raise ImageError(f"{self.path}:{line}", f"({x:g}, {y:g}) is outside the reference", inside)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("x", "y", "u", "v", "x_query", "y_query"))
        for (x, y), vector in zip(self.values, sample_flow(flow, np.array(self.values)), strict=True):
            u, v = (round(float(value), 4) for value in vector)
            writer.writerow((x, y, u, v, round(x + u, 4), round(y + v, 4)))
        return text.getvalue().encode()


def _write_all(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes all files or none: each gets its name only when the last one has been written."""
    with contextlib.ExitStack() as files:
        # Contexts are left in reverse order, and so the record, entered first, gets its name last.
        for name in sorted(contents, key=lambda name: name != RECORD):
            files.enter_context(atomic_path(folder / name)).write_bytes(contents[name])
        # Between the renames the files are those of two runs; no record must call them done.
        (folder / RECORD).unlink(missing_ok=True)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = read_json(folder / RECORD, DOCUMENT, OutputError)
    except (OSError, ValueError, OutputError):
        return {}
    return record if isinstance(record, dict) else {}


def _done(record: dict[str, Any], identity: dict[str, Any], name: str, folder: Path) -> PairResult | None:
    """The earlier result, if it is that of the same inputs and all its files are there."""
    if record.get("identity") != identity:
        return None
    try:
        if all((folder / file).is_file() for file in record["files"]):
            return PairResult(name=name, folder=folder, skipped=True, **record["result"])
    except (KeyError, TypeError, OSError):  # the last for a name that is too long for a file
        _log.info("%s: is damaged; the pair is computed again", folder / RECORD)
    return None
