"""Where image pairs come from: two images, two folders, a table, or the frames of a video."""

import array
import hashlib
import logging
import os
import re
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import ConfigError, DependencyError, ImageError
from gocor.runtime.images import IMAGE_SUFFIXES, load_image
from gocor.runtime.tables import iterate_table, read_table, unreadable

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME = 200  # bytes; file systems take 255, of which suffixes and temporary names need some
_LONGEST_PATH = 4096  # characters; tables of ours with longer ones could not be read again

_log = logging.getLogger("gocor")


@dataclass(frozen=True)
class Pair:
    """One image pair, not yet loaded.

    Attributes:
        name: of the folder its results go to; unique among the pairs of a run.
        files: the one or two files that it comes from.
        frame: number of the reference's frame in a video, from 0; None for images.
        load: reads reference and query, uint8 RGB ``(H, W, 3)`` each, and may raise ``ImageError``.
    """

    name: str
    files: tuple[Path, ...]
    frame: int | None
    load: Callable[[], tuple[np.ndarray, np.ndarray]]

    def fingerprint(self) -> dict[str, Any]:
        """What tells, as JSON, whether the pair's files changed since an earlier run: size and time of each.

        Raises:
            ImageError: a file is missing.
        """
        return {"files": [_file_facts(path) for path in self.files], "frame": self.frame}


class PairSource(ABC):
    """Something to iterate for pairs, again and again.

    Attributes:
        single: the user named one pair, whose results need no folder of its own.
        expected: how many pairs there will be; for a video what its header says, or None.
    """

    single: bool = False
    expected: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Pair]:
        """The pairs, in order."""


class FilePairs(PairSource):
    """Pairs of image files."""

    def __init__(self, pairs: Sequence[Pair], single: bool = False) -> None:
        self.pairs, self.single, self.expected = tuple(pairs), single, len(pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


class VideoPairs(PairSource):
    """Every frame of a video with the next one; frames are decoded as the pairs are iterated.

    Raises:
        DependencyError: OpenCV is not installed.
        ImageError: the file is missing or no video.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        video = _open_video(self.path)
        count = int(video.get(_cv2(self.path).CAP_PROP_FRAME_COUNT))
        video.release()
        self.expected = count - 1 if count > 1 else None

    def __iter__(self) -> Iterator[Pair]:
        video = _open_video(self.path)
        try:
            previous, index = _next_frame(video), 0
            while previous is not None and (frame := _next_frame(video)) is not None:
                # Bound as defaults, so that a pair kept for later still loads its own frames.
                load = lambda pair=(previous, frame): pair  # noqa: E731
                yield Pair(f"frame_{index:06d}", (self.path,), index, load)
                previous, index = frame, index + 1
        finally:
            video.release()
        if not index:
            raise ImageError(self.path, "has fewer than two frames that can be decoded", "a longer video")
        if self.expected and index < self.expected:
            text = "%s: ends after %d of the %d frames that it announces"
            _log.warning(text, self.path, index + 1, self.expected + 1)


def find_pairs(
    reference: str | Path | None = None, query: str | Path | None = None, table: str | Path | None = None
) -> PairSource:
    """Pairs from what a user named: two images, two folders, one video, or a table.

    Images of two folders belong together if they have one name apart from the suffix. Folders that share no
    name but hold equally many images are matched in natural order (2 before 10).

    Args:
        reference: image, folder of images, or video.
        query: image or folder; None with a video or a table.
        table: CSV or Parquet file with the columns ``reference``, ``query`` and, if wanted, ``name``;
            relative paths start at the table's own folder.

    Raises:
        ConfigError: the arguments do not go together.
        ImageError: a folder, table or video cannot be read, or pairs cannot be told from it.
        DependencyError: a video needs OpenCV.
    """
    if table is not None:
        if reference is not None or query is not None:
            raise ConfigError("--pairs", "was given together with images", "one or the other")
        return FilePairs(_table_pairs(Path(table)))
    if reference is None:
        raise ConfigError("REFERENCE", "is missing", "two images, two folders, a video, or --pairs pairs.csv")
    reference = Path(reference)
    if reference.suffix.lower() in VIDEO_SUFFIXES:
        if query is not None:
            raise ConfigError("QUERY", "was given with a video", "a video alone; its frames are the pairs")
        return VideoPairs(reference)
    if query is None:
        raise ConfigError("QUERY", "is missing", "a second image or folder; only a video stands alone")
    query = Path(query)
    if reference.is_dir() != query.is_dir():
        folder, image = (reference, query) if reference.is_dir() else (query, reference)
        raise ConfigError("QUERY", f"{folder} is a folder and {image} is not", "two images or two folders")
    if reference.is_dir():
        return FilePairs(_folder_pairs(reference, query))
    return FilePairs([file_pair(reference.stem, reference, query)], single=True)


class PairList(PairSource):
    """Pairs of a table that is read anew in every iteration, so that there may be more than fit into memory.

    Pairs without a name are called by their number in the table, ``00000001`` first. That images exist is
    found out when they are loaded.

    Attributes:
        path: CSV or Parquet file with the columns ``reference``, ``query`` and, if wanted, ``name``.
        sha256: of names and paths; the same for a CSV and a Parquet file of the same content in one folder.

    Raises:
        ImageError: the table cannot be read, lists nothing, or has a name twice or one that no file can have.
        DependencyError: the table is a Parquet file and pyarrow is not installed.
    """

    expected: int

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._state = self._file_state()
        digest, names = hashlib.sha256(), array.array("Q")
        for _, *texts in self._lines():
            digest.update("\0".join((*texts, "")).encode("utf-8", "surrogateescape"))
            names.append(_hash(texts[0]))
        if not names:
            raise ImageError(self.path, "lists no pairs", "rows of reference and query below the header")
        self.expected, self.sha256 = len(names), digest.hexdigest()
        self._refuse_repeated_names(names)

    def __iter__(self) -> Iterator[Pair]:
        return (file_pair(name, Path(one), Path(other)) for _, name, one, other in self._lines())

    def check_unchanged(self) -> None:
        """Raises ImageError if the file was written since: what is iterated could be other pairs."""
        if self._file_state() != self._state:
            raise ImageError(
                self.path, "was changed since the batch began", "put it back, or begin anew: --restart"
            )

    def _file_state(self) -> tuple[int, int]:
        try:
            facts = self.path.stat()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError(
                self.path, "is no regular file, and is read more than once", "a CSV or Parquet file"
            )
        return facts.st_size, facts.st_mtime_ns

    def _lines(self) -> Iterator[tuple[int, str, str, str]]:
        """Line, name, reference and query of each pair."""
        folder = os.path.abspath(self.path.parent)
        for number, (line, row) in enumerate(iterate_table(self.path, ("reference", "query")), 1):
            name = row.get("name") or f"{number:08d}"
            _check_name(name, f"{self.path}:{line}")
            files = row["reference"], row["query"]
            for file in files:
                _check_path(file, f"{self.path}:{line}")
            one, other = (os.path.join(folder, file) for file in files)
            yield line, name, one, other

    def _refuse_repeated_names(self, names: "array.array[int]") -> None:
        """Looks for equal names among their hashes: 8 bytes for each pair, of which there may be millions."""
        values, counts = np.unique(np.frombuffer(names, np.uint64), return_counts=True)
        repeated = set(values[counts > 1].tolist())
        seen: set[str] = set()
        for line, name, _, _ in self._lines() if repeated else ():
            if name in seen:
                raise _repeated(f"{self.path}:{line}", name)
            if _hash(name) in repeated:
                seen.add(name)


def file_pair(name: str, reference: Path, query: Path) -> Pair:
    """A pair of two image files, which are read when it is loaded."""
    return Pair(name, (reference, query), None, lambda: (load_image(reference), load_image(query)))


def _file_facts(path: Path) -> list[object]:
    try:
        facts = path.stat()
    except OSError as error:
        raise ImageError(
            path, f"cannot be read ({error.strerror})", "the path of an image or video"
        ) from error
    return [str(path.resolve()), facts.st_size, facts.st_mtime_ns]


def _folder_pairs(references: Path, queries: Path) -> list[Pair]:
    left, right = _images(references), _images(queries)
    if left.keys() == right.keys():
        return [file_pair(stem, left[stem], right[stem]) for stem in left]
    if shared := left.keys() & right.keys():
        alone = next(
            iter(f"{folder[stem]}" for folder in (left, right) for stem in folder if stem not in shared)
        )
        text = f"{len(shared)} images have a partner of the same name, {alone} has none"
        raise ImageError(queries, text, "the same names in both folders, or no name in both, or --pairs")
    if len(left) != len(right):
        text = f"holds {len(right)} images and {references} {len(left)}"
        raise ImageError(queries, text, "equally many images, or the same names in both, or --pairs")
    pairs = zip(left.items(), right.values(), strict=True)
    return [file_pair(stem, reference, query) for (stem, reference), query in pairs]


def _images(folder: Path) -> dict[str, Path]:
    """Images of a folder by their name without suffix, in natural order."""
    images: dict[str, Path] = {}
    try:
        entries = sorted(folder.iterdir(), key=_natural)
    except OSError as error:
        raise ImageError(folder, f"cannot be read ({error.strerror})", "a folder of images") from error
    for path in entries:
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in images:
            text = f"{images[path.stem].name} and {path.name} have one name"
            raise ImageError(folder, text, "names that differ before the suffix, or --pairs")
        images[path.stem] = path
    if not images:
        raise ImageError(folder, "holds no images", f"files ending in {' '.join(IMAGE_SUFFIXES)}")
    return images


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]


def _table_pairs(path: Path) -> list[Pair]:
    pairs: dict[str, Pair] = {}
    used: Counter[str] = Counter()
    for line, row in read_table(path, ("reference", "query")):
        where = f"{path}:{line}"
        reference, query = (path.parent / row[name] for name in ("reference", "query"))
        for image in (reference, query):
            if not os.path.isfile(image):  # Path's method raises an OSError if the name is too long for one
                raise ImageError(where, f"{image} does not exist", "paths relative to the CSV file's folder")
        name = row.get("name") or _free_name(reference.stem, pairs, used)
        if name in pairs:
            raise _repeated(where, name)
        _check_name(name, where)
        pairs[name] = file_pair(name, reference, query)
    if not pairs:
        raise ImageError(path, "lists no pairs", "lines reference,query below the header")
    return list(pairs.values())


def _check_name(name: str, where: object) -> None:
    if name in (".", "..") or _NO_FILE_NAME.search(name):
        raise ImageError(where, f"the name {name!r} cannot be that of a folder", "letters, digits, - and _")
    if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        text = f"the name {name[:20]!r}… has {len(name)} letters"
        raise ImageError(where, text, f"at most {_LONGEST_NAME}")


def _check_path(path: str, where: object) -> None:
    if len(path) > _LONGEST_PATH or (not path.isprintable() and _CONTROL.search(path)):
        text = f"{path[:40]!r} cannot be the path of an image"
        raise ImageError(where, text, f"at most {_LONGEST_PATH} characters, and no line breaks or the like")


def _repeated(where: object, name: str) -> ImageError:
    return ImageError(where, f"the name {name!r} was given before", "a name of its own for each pair")


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _free_name(stem: str, taken: Container[str], used: Counter[str]) -> str:
    """``stem``, ``stem_2``, …; ``used`` counts on where the last call for the stem stopped."""
    while True:
        used[stem] += 1
        name = f"{stem}_{used[stem]}" if used[stem] > 1 else stem
        if name not in taken:
            return name


def _cv2(path: Path) -> Any:
    # OpenCV and its FFmpeg tell stderr what they do not like; our error says it in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            path, "video needs OpenCV, which is not installed", 'pip install "gocor-deploy[video]"'
        ) from error
    return cv2


def _open_video(path: Path) -> Any:
    cv2 = _cv2(path)
    if not path.is_file():
        raise ImageError(path, "does not exist", "the path of a video")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        video = cv2.VideoCapture(str(path))
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not video.isOpened():
        raise ImageError(path, "is no video that OpenCV can read", "an MP4, AVI, MOV, MKV or WebM file")
    return video


def _next_frame(video: Any) -> np.ndarray | None:
    read, frame = video.read()
    return np.ascontiguousarray(frame[..., ::-1]) if read else None
