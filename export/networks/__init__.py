"""The four networks in PyTorch, inference-exact to the public checkpoints."""

from gocor.core.errors import ConfigError
from gocor.export.networks.glunet import GLUNet, GLUNet_GOCor
from gocor.export.networks.pwcnet import PWCNet, PWCNet_GOCor
from gocor.runtime.spec import network_spec

Network = PWCNet | GLUNet

__all__ = ["GLUNet", "GLUNet_GOCor", "Network", "PWCNet", "PWCNet_GOCor", "create_network"]

DEFAULT_ITERATIONS = 3  # what the public checkpoints are used with


def create_network(
    name: str, global_iterations: int = DEFAULT_ITERATIONS, local_iterations: int = DEFAULT_ITERATIONS
) -> Network:
    """The network called ``name`` with fresh weights; counts that it does not have are ignored.

    Raises:
        ConfigError: there is no such network, or a count is negative.
    """
    network_spec(name)
    for option, count in (("global-iterations", global_iterations), ("local-iterations", local_iterations)):
        if count < 0:
            raise ConfigError(f"--{option}", f"is {count}", "a whole number from 0")
    if name == "PWCNet_GOCor":
        return PWCNet_GOCor(iterations=local_iterations)
    if name == "GLUNet_GOCor":
        return GLUNet_GOCor(global_iterations=global_iterations, local_iterations=local_iterations)
    return PWCNet() if name == "PWCNet" else GLUNet()
