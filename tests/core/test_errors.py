import pickle

import pytest

from gocor.core import errors
from gocor.core.errors import GocorError, ImageError


def test_the_text_says_where_what_and_what_next() -> None:
    error = ImageError("left.png", "is empty", "give a PNG")
    assert str(error) == "left.png: is empty; give a PNG"
    assert (error.where, error.got, error.expected) == ("left.png", "is empty", "give a PNG")


def test_the_text_can_do_without_advice() -> None:
    assert str(GocorError("left.png", "is empty")) == "left.png: is empty"


def test_the_text_is_one_line_whatever_came_in() -> None:
    assert str(GocorError("model", "first\n  second\tthird", "a\nb")) == "model: first second third; a b"


def test_the_text_is_no_book() -> None:
    text = str(GocorError("model", f"holds {'x' * 1_000_000}", "another"))
    assert len(text) < 4010
    assert text.startswith("model: holds xxx")
    assert text.endswith("xxx; another")


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type)])
def test_every_error_can_be_caught_as_one_of_ours(kind: type) -> None:
    assert issubclass(kind, GocorError)
    assert kind.__doc__


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("left.png", "is empty", "give a PNG")))
    assert type(error) is ImageError
    assert (str(error), error.expected) == ("left.png: is empty; give a PNG", "give a PNG")
