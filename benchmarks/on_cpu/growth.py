"""How the cost grows: with the image, with GOCor's iterations, with the batch."""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load
from on_cpu.plan import OPENVINO, ORT, Entries, Entry, Plan
from on_cpu.workshop import Size, Workshop

PLAIN, GOCOR = "PWCNet", "PWCNet_GOCor"
SIZES: tuple[Size, ...] = ((256, 320), (384, 512), (512, 640), (768, 1024))
ITERATIONS = tuple(range(6))
BATCHES = (1, 2, 4)
AT: Size = (384, 512)


def plans(quick: bool, rounds: int | None) -> Iterator[Plan]:
    """A group for each thing that can grow; the case is the number or size."""
    at = (128, 192) if quick else AT
    sizes = ((128, 192), (192, 256)) if quick else SIZES
    iterations, batches = (ITERATIONS[:2], BATCHES[:2]) if quick else (ITERATIONS, BATCHES)
    about = f"{at[0]}×{at[1]}"
    count = rounds or (2 if quick else 15)
    yield Plan("image size", "growth", count, 1, partial(by_size, sizes))
    yield Plan(f"iterations at {about}", "growth", count, 1, partial(by_iterations, at, iterations))
    yield Plan(f"batch at {about}", "growth", count, 1, partial(by_batch, at, batches))


def by_size(sizes: Iterable[Size], workshop: Workshop) -> Entries:
    """Both PWC-Nets at several sizes."""
    made = Entries()
    for size in sizes:
        for name in (PLAIN, GOCOR):
            made.ready += _entries(workshop, f"{size[0]}×{size[1]}", name, size)
    return made


def by_iterations(size: Size, iterations: Iterable[int], workshop: Workshop) -> Entries:
    """PWC-Net-GOCor with more and more iterations, beside plain PWC-Net."""
    made = Entries(list(_entries(workshop, "plain", PLAIN, size)))
    for count in iterations:
        made.ready += _entries(workshop, str(count), GOCOR, size, iterations=count)
    return made


def by_batch(size: Size, batches: Iterable[int], workshop: Workshop) -> Entries:
    """PWC-Net-GOCor with several pairs in a call."""
    made = Entries(notes=["Time of a call, which has so many pairs."])
    for batch in batches:
        made.ready += _entries(workshop, str(batch), GOCOR, size, batch=batch)
    return made


def _entries(
    workshop: Workshop, case: str, name: str, size: Size, iterations: int = 3, batch: int = 1
) -> Iterator[Entry]:
    model = workshop.onnx(name, size, iterations, batch)
    pairs = [sample_pair(*size, seed)[:2] for seed in range(batch)]
    reference, query = (np.stack(images) for images in zip(*pairs, strict=True))
    for library, path in ((ORT, model), (OPENVINO, workshop.openvino(model))):
        estimator = load(path, threads=workshop.threads)
        tensors = preprocess(estimator.metadata.spec, reference, query)
        yield Entry(case, f"{name} · {library}", partial(estimator.run, tensors))
