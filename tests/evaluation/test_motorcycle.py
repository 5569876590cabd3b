import sys

import numpy as np
import pytest

from gocor.core.errors import DependencyError
from gocor.evaluation.datasets import open_dataset
from gocor.runtime.flow import warp


def test_the_disparity_brings_the_right_image_onto_the_left_one() -> None:
    pytest.importorskip("skimage")
    (sample,) = open_dataset("motorcycle").samples
    truth = sample.load()
    assert truth.reference.shape == truth.query.shape == (125, 185, 3)
    assert 0.7 < truth.valid.mean() < 0.8  # blocks of which a part is unknown are left out
    assert truth.flow[0][truth.valid].max() < 0  # everything moves to the left
    unaligned = np.abs(truth.reference.astype(int) - truth.query)[truth.valid].mean()
    aligned = np.abs(truth.reference.astype(int) - warp(truth.query, truth.flow))[truth.valid].mean()
    assert aligned < 0.35 * unaligned


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    text = r'^motorcycle: needs scikit-image, which is not installed; pip install "gocor-deploy\[train\]"$'
    with pytest.raises(DependencyError, match=text):
        open_dataset("motorcycle")
