"""Lists of pairs, an estimator that is quick, and a look at what a batch has left in its folder."""

import contextlib
import csv
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from gocor.core.errors import ModelError
from gocor.runtime.batch.job import BatchConfig
from gocor.runtime.flow import read_flow
from gocor.runtime.images import save_image

SIZE = (16, 24)
IMAGES = 7


class FakeEstimator(contextlib.AbstractContextManager):
    """Stands in for a model: the flow is (mean of the reference, mean of the query) everywhere.

    A reference whose first pixel is ``NAN`` gives NaN, one with ``BAD`` makes the whole batch fail.
    """

    NAN, BAD = 254, 255

    def __init__(self, path: Path, batch: int = 1) -> None:
        self.path, self.metadata = path, SimpleNamespace(batch=batch)
        self.batches: list[tuple[int, ...]] = []
        self.thread = threading.get_ident()
        if not path.exists():
            path.write_bytes(b"model")

    def __exit__(self, *_error: object) -> None:
        pass

    def __call__(self, reference: np.ndarray, query: np.ndarray) -> np.ndarray:
        assert reference.shape == query.shape
        assert threading.get_ident() == self.thread
        self.batches.append(reference.shape[:3])
        first = reference[:, 0, 0, 0]
        if (first == self.BAD).any():
            raise ModelError(self.path, "failed in the library", "see gocor doctor")
        means = np.stack([i.mean((1, 2, 3), dtype=np.float32) for i in (reference, query)], axis=1)
        means[first == self.NAN] = np.nan
        return np.broadcast_to(means[:, :, None, None], (*means.shape, *reference.shape[1:3])).copy()

    def load(self, *_arguments: object) -> "FakeEstimator":
        self.thread = threading.get_ident()
        return self


def write_image(path: Path, seed: int = 0, first: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """An image of noise whose first pixel is ``first``."""
    image = np.random.default_rng(seed).integers(0, 200, (*size, 3), np.uint8)
    image[0, 0] = first
    save_image(path, image)
    return path


def write_list(folder: Path, count: int, **extra: tuple[str, str]) -> Path:
    """``pairs.csv`` with pairs p0, p1, … of a few images, and further ones by name."""
    for number in range(IMAGES):
        if not (path := folder / f"{number}.png").exists():
            write_image(path, number)
    rows = [(f"{i % IMAGES}.png", f"{(i + 1) % IMAGES}.png", f"p{i}") for i in range(count)]
    rows += [(*images, name) for name, images in extra.items()]
    return write_rows(folder / "pairs.csv", rows)


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> Path:
    """A CSV file of references, queries and names."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("reference", "query", "name"), *rows])
    return path


def config(folder: Path, **options: object) -> BatchConfig:
    """Of a job in ``folder/out`` with shards of 4 pairs."""
    return BatchConfig(**{"model": folder / "m.onnx", "output": folder / "out", "shard": 4, **options})


def results(out: Path) -> dict[str, tuple[str, object]]:
    """Status of every pair with its flow or reason, by way of the index; each pair must be there once."""
    rows = index_rows(out)
    assert max(Counter(row["name"] for row in rows).values()) == 1
    return {
        row["name"]: (row["status"], _flow(out, row).tolist() if row["status"] == "done" else row["reason"])
        for row in rows
    }


def index_rows(out: Path) -> list[dict[str, object]]:
    """Rows of the index, CSV or Parquet, without the times."""
    if (out / "index.csv").exists():
        with (out / "index.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out / "index.parquet").to_pylist()
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def flow_files(out: Path) -> dict[str, bytes]:
    """Every file of flows by its path. Of Parquet files the flows: the times beside them differ."""
    files = {p.relative_to(out).as_posix(): p for p in sorted((out / "flows").rglob("*")) if p.is_file()}
    return {
        name: b"".join(row["flow"] or b"-" for row in parquet_rows(path))
        if path.suffix == ".parquet"
        else path.read_bytes()
        for name, path in files.items()
        if path.name != "index.csv"
    }


def parquet_rows(path: Path) -> list[dict[str, object]]:
    """Rows of a shard."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, partitioning=None).to_pylist()


def leftovers(out: Path) -> list[str]:
    """Names of what should not be there, the lock apart."""
    return [p.name for p in out.rglob(".*") if p.name != ".lock"]


def _flow(out: Path, row: dict[str, object]) -> np.ndarray:
    path = out / str(row["path"])
    if path.suffix != ".parquet":
        return read_flow(path)[0]
    import pyarrow.parquet

    dtype = pyarrow.parquet.read_schema(path).metadata[b"gocor.flow_dtype"].decode()
    stored = parquet_rows(path)[row["row"]]
    assert stored["name"] == row["name"]
    return np.frombuffer(stored["flow"], dtype).reshape(2, row["height"], row["width"]).astype(np.float32)
