"""What a fresh process does when its memory is measured. It imports nothing beyond what that needs."""

from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load

CALLS = 2  # the second one may grow an arena once more


def run_model(path: str, threads: int) -> None:
    """A model in its library."""
    estimator = load(path, threads=threads)
    described = estimator.metadata
    tensors = preprocess(described.spec, *sample_pair(*described.size)[:2], described.size)
    for _ in range(CALLS):
        estimator.run(tensors)


def run_pytorch(name: str, size: tuple[int, int], threads: int, shifts: bool) -> None:
    """A network in eager PyTorch."""
    import torch

    from gocor.export.checkpoint import seeded_network
    from on_cpu.networks import forward, tensors_of

    torch.set_num_threads(threads)
    network = seeded_network(name)
    tensors = tensors_of(network.spec, size)
    for _ in range(CALLS):
        forward(network, tensors, shifts)
