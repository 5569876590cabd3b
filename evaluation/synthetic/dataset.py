"""The synthetic pairs that models are measured on, disjoint from all that they are trained on."""

from dataclasses import asdict
from functools import partial

from gocor.evaluation.sample import Dataset, Protocol, Sample
from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.generator import sample
from gocor.evaluation.synthetic.photographs import data_folder

EVALUATION = SyntheticConfig(height=192, width=256, max_displacement=24.0, split="evaluation")
PAIRS = 200
PROTOCOL = Protocol(
    source="AEPE: mean over the pairs' AEPE, hidden pixels included; Fl and PCK: all pixels pooled"
)


def synthetic(config: SyntheticConfig = EVALUATION, pairs: int = PAIRS) -> Dataset:
    """The first pairs of a config.

    Raises:
        DependencyError: the config wants photographs and scikit-image is not installed.
    """
    if config.photographs:
        data_folder("synthetic")
    samples = [Sample(f"{index:04d}", partial(sample, index, config)) for index in range(pairs)]
    return Dataset("synthetic", samples, PROTOCOL, asdict(config))
