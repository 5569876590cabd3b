import sys

import numpy as np
import pytest

from gocor.core.errors import DependencyError
from gocor.evaluation.datasets import open_dataset

pytest.importorskip("torch")


def test_the_pairs_that_figures_are_reported_on() -> None:
    pytest.importorskip("skimage")
    dataset = open_dataset("synthetic")
    assert len(dataset.samples) == 200
    assert dataset.facts is not None
    assert dataset.facts["max_displacement"] == 24
    truth = dataset.samples[7].load()
    assert truth.reference.shape == (192, 256, 3)
    np.testing.assert_array_equal(truth.flow, dataset.samples[7].load().flow)


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    text = r'^synthetic: needs scikit-image, which is not installed; pip install "gocor-deploy\[train\]"$'
    with pytest.raises(DependencyError, match=text):
        open_dataset("synthetic")
