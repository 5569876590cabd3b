"""Errors a user can act on. Every one says where, what came, and what was expected or what to do next."""

LONGEST = 4000  # characters of an error


class GocorError(Exception):
    """Base of all errors of this package; its text is one line.

    Args:
        where: file, argument or tensor the error is about.
        got: what was found there.
        expected: what would have been right, or the next command to run.
    """

    def __init__(self, where: object, got: str, expected: str = "") -> None:
        self.where, self.got, self.expected = str(where), got, expected
        text = f"{where}: {got}; {expected}" if expected else f"{where}: {got}"
        super().__init__(visible(_shortened(" ".join(text.split()))))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Lets the error travel between processes: by default only its text would, in one argument."""
        return type(self), (self.where, self.got, self.expected)


def _shortened(text: str) -> str:
    """Beginning and end of a text that no person would read, such as one that quotes half a file."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 400]} … {text[-400:]}"


def visible(text: str) -> str:
    """A line that a terminal shows and does not obey: files that it quotes may hold escape sequences."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CheckpointError(GocorError):
    """A checkpoint cannot be read, or does not fit the network."""


class ModelError(GocorError):
    """A model file is not one of ours, damaged, or does not fit what it is used with."""


class MachineError(ModelError):
    """A built model is whole, and made for another GPU or another version of its library."""


class ImageError(GocorError):
    """An image, video or list of pairs cannot be read or does not fit."""


class ShapeError(GocorError):
    """An array has the wrong shape or dtype."""


class ConfigError(GocorError):
    """An option or argument has a value that makes no sense."""


class ProviderError(GocorError):
    """The execution provider asked for is unknown or not available here."""


class DependencyError(GocorError):
    """An optional package is missing; the text says which extra brings it."""


class OutputError(GocorError):
    """A result cannot be written; nothing was left behind."""
