import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gocor.core.errors import DependencyError

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

from gocor.evaluation.synthetic import photographs as module  # noqa: E402
from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.dataset import EVALUATION  # noqa: E402
from gocor.evaluation.synthetic.generator import generate  # noqa: E402
from gocor.evaluation.synthetic.photographs import HELD_OUT, NEVER, TRAINING  # noqa: E402


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the photographs that are opened during the test."""
    names: set[str] = set()

    def load(path: Path) -> np.ndarray:
        names.add(path.name)
        return np.random.default_rng(0).integers(0, 256, (180, 200, 3), dtype=np.uint8)

    monkeypatch.setattr(module, "load_image", load)
    module.photographs.cache_clear()
    yield names
    module.photographs.cache_clear()


def test_training_never_sees_what_models_are_measured_on(opened: set[str]) -> None:
    generate(range(20), SyntheticConfig(32, 32, photographs=1))
    assert opened == set(TRAINING)
    assert HELD_OUT == ("chelsea.png", "coffee.png", "rocket.jpg")
    assert not opened & {*HELD_OUT, *NEVER}
    assert {"motorcycle_left.png", "motorcycle_right.png"} == set(NEVER)


def test_measuring_uses_the_held_out_photographs_alone(opened: set[str]) -> None:
    generate(range(4), EVALUATION)
    assert opened == set(HELD_OUT)
    assert EVALUATION.split == "evaluation"
    assert SyntheticConfig().split == "train"


def test_every_photograph_is_there() -> None:
    folder = module.data_folder("test")
    assert [name for name in (*TRAINING, *HELD_OUT, *NEVER) if not (folder / name).is_file()] == []


def test_reductions_halve_down_to_a_useful_size() -> None:
    levels = module.photographs("evaluation", torch.device("cpu"))[HELD_OUT.index("rocket.jpg")]
    assert [tuple(level.shape) for level in levels] == [(3, 427, 640), (3, 213, 320)]
    assert all(level.dtype == torch.uint8 for level in levels)


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    module.photographs.cache_clear()
    text = r'^a share of photographs above 0: needs scikit-image.*; pip install "gocor-deploy\[train\]"$'
    with pytest.raises(DependencyError, match=text):
        generate([0], SyntheticConfig(32, 32, photographs=1))
    assert generate([0], SyntheticConfig(32, 32, photographs=0)).reference.shape == (1, 3, 32, 32)
