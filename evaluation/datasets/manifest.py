"""One's own pairs: a table of images with flow files or homographies."""

from functools import partial
from pathlib import Path

from gocor.core.errors import ImageError
from gocor.evaluation.datasets.folders import existing
from gocor.evaluation.datasets.hpatches import load_planar
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image
from gocor.runtime.tables import read_table

PROTOCOL = Protocol(source="AEPE: mean over the pairs' AEPE; Fl and PCK: all pixels pooled, as for KITTI")


def manifest(path: Path) -> Dataset:
    """A CSV file with columns ``reference``, ``query``, and ``flow`` or ``homography``.

    Relative paths start at the table's own folder. A flow is any file that ``read_flow`` reads, a homography
    a text file of 3×3 numbers. With both columns each line fills one. A column ``name`` is optional.

    Raises:
        ImageError: naming the table's line.
    """
    if path.is_dir():
        raise ImageError(path, "is a folder", "a CSV file with columns reference, query, flow or homography")
    samples: dict[str, Sample] = {}
    for line, row in read_table(path, ("reference", "query")):
        where = f"{path}:{line}"
        name = row.get("name") or f"line {line}"
        if name in samples:
            raise ImageError(where, f"the name {name!r} was given before", "a name of its own for each pair")
        samples[name] = Sample(name, _loader(where, path.parent, row))
    return Dataset("manifest", list(samples.values()), PROTOCOL)


def _loader(where: str, folder: Path, row: dict[str, str]) -> partial[Truth]:
    given = [column for column in ("flow", "homography") if row.get(column)]
    if len(given) != 1:
        got = "has no ground truth" if not given else "has both a flow and a homography"
        raise ImageError(where, got, "a value in the column flow or homography")
    files = [
        existing(folder / row[column], f"{column} in {where}") for column in ("reference", "query", *given)
    ]
    return partial(load_planar if given == ["homography"] else load_flow_pair, *files)


def load_flow_pair(reference: Path, query: Path, flow_file: Path) -> Truth:
    """Reads two images and the file with the flow between them."""
    flow, valid = read_flow(flow_file)
    return checked(Truth(load_image(reference), load_image(query), flow, valid), flow_file, reference)
