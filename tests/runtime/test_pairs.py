import os
import subprocess
import sys

import numpy as np
import pytest

from gocor.core.errors import ConfigError, DependencyError, ImageError
from gocor.runtime.images import load_image, save_image
from gocor.runtime.pairs import PairList, find_pairs


@pytest.fixture
def make(tmp_path):
    """Makes small images, each of its own grey, and returns the path of the first."""
    count = 0

    def make_images(*names):
        nonlocal count
        for name in names:
            count += 1
            save_image(tmp_path / name, np.full((4, 6, 3), count, np.uint8))
        return tmp_path / names[0]

    return make_images


def described(pairs):
    return [(pair.name, *(path.name for path in pair.files)) for pair in pairs]


def test_two_files(make):
    a, b = make("a.png"), make("b.png")
    pairs = find_pairs(a, b)
    assert (pairs.single, pairs.expected) == (True, 1)
    (pair,) = pairs
    assert pair.name == "a"
    np.testing.assert_array_equal(pair.load()[0], load_image(a))
    np.testing.assert_array_equal(pair.load()[1], load_image(b))


def test_files_are_read_late(tmp_path):
    (pair,) = find_pairs(tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"a\.png: does not exist"):
        pair.load()
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(No such file or directory\)"):
        pair.fingerprint()


def test_fingerprint_changes_with_the_file(make):
    a, b = make("a.png"), make("b.png")
    (pair,) = find_pairs(a, b)
    before = pair.fingerprint()
    assert pair.fingerprint() == before
    os.utime(b, ns=(1, 1))
    assert pair.fingerprint() != before


def test_folders_by_name(make, tmp_path):
    make("l/x.png", "l/y.png", "r/y.jpg", "r/x.png")
    (tmp_path / "l" / "notes.txt").write_text("")
    pairs = find_pairs(tmp_path / "l", tmp_path / "r")
    assert (pairs.single, pairs.expected) == (False, 2)
    assert described(pairs) == [("x", "x.png", "x.png"), ("y", "y.png", "y.jpg")]
    assert described(pairs) == described(pairs)


def test_folders_in_natural_order(make, tmp_path):
    make("l/f10.png", "l/f9.png", "r/g9.png", "r/g10.png")
    pairs = find_pairs(tmp_path / "l", tmp_path / "r")
    assert described(pairs) == [("f9", "f9.png", "g9.png"), ("f10", "f10.png", "g10.png")]


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (["a", "b"], ["c"], r"r: holds 1 images and .*l 2; equally many images"),
        (
            ["a", "b"],
            ["a", "c"],
            r"r: 1 images have a partner of the same name, .*b\.png has none; the same names",
        ),
        (["a", "b"], ["a"], r"1 images have a partner of the same name, .*b\.png has none"),
    ],
)
def test_folders_that_do_not_match(make, tmp_path, left, right, text):
    make(*(f"l/{name}.png" for name in left), *(f"r/{name}.png" for name in right))
    with pytest.raises(ImageError, match=text):
        find_pairs(tmp_path / "l", tmp_path / "r")


def test_folder_without_images_and_with_one_name_twice(make, tmp_path):
    make("l/a.png", "twice/a.png", "twice/a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty: holds no images; files ending in \.png"):
        find_pairs(tmp_path / "l", tmp_path / "empty")
    with pytest.raises(ImageError, match=r"twice: a\.jpg and a\.png have one name"):
        find_pairs(tmp_path / "l", tmp_path / "twice")


def test_folder_that_cannot_be_read(make, tmp_path, monkeypatch):
    make("l/a.png")

    def refuse(_self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(ImageError, match=r"l: cannot be read \(Permission denied\); a folder of images"):
        find_pairs(tmp_path / "l", tmp_path / "l")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, r"REFERENCE: is missing; two images, two folders, a video, or --pairs"),
        ({"reference": "a.png"}, "QUERY: is missing; a second image or folder"),
        ({"reference": "a.mp4", "query": "b.png"}, "QUERY: was given with a video"),
        ({"reference": "a.png", "table": "p.csv"}, "--pairs: was given together with images"),
        ({"reference": ".", "query": "b.png"}, r"QUERY: \. is a folder and b\.png is not"),
        ({"reference": "b.png", "query": "."}, r"QUERY: \. is a folder and b\.png is not"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, text):
    with pytest.raises(ConfigError, match=text):
        find_pairs(**arguments)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_table(make, tmp_path):
    make("d/a.png", "d/b.png", "d/c.png")
    absolute = tmp_path / "d" / "c.png"
    text = f"\ufeffquery, reference,name,note\nb.png,a.png,first,x\n\n{absolute},a.png,,\nb.png,a.png,,\n"
    pairs = find_pairs(table=write(tmp_path / "d" / "pairs.csv", text))
    assert (pairs.single, pairs.expected) == (False, 3)
    assert described(pairs) == [
        ("first", "a.png", "b.png"),
        ("a", "a.png", "c.png"),
        ("a_2", "a.png", "b.png"),
    ]


def test_names_of_many_images_of_one_name(make, tmp_path):
    make("a.png")
    rows = "a.png,a.png,\n" * 3 + "a.png,a.png,a_5\n" + "a.png,a.png,\n" * 2
    pairs = find_pairs(table=write(tmp_path / "p.csv", f"reference,query,name\n{rows}"))
    names = [pair.name for pair in pairs]
    assert names == ["a", "a_2", "a_3", "a_5", "a_4", "a_6"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p\.csv: has no column 'reference', its first line is ''; reference,query as the first line"),
        (
            "reference,qeury\na.png,b.png\n",
            r"p\.csv: has no column 'query', its first line is 'reference,qeury';",
        ),
        (
            "reference;query\na.png;b.png\n",
            r"its first line is 'reference;query'; reference,query as the first",
        ),
        ("reference,query\n", r"p\.csv: lists no pairs"),
        ("reference,query\na.png,b.png\na.png\n", r"p\.csv:3: has no query; values for reference, query"),
        ("reference,query\na.png,no.png\n", r"p\.csv:2: .*no\.png does not exist; paths relative to the CSV"),
        ("reference,query,name\na.png,b.png,x\na.png,b.png,x\n", r"p\.csv:3: the name 'x' was given before"),
        (
            "reference,query,name\na.png,b.png,../x\n",
            r"p\.csv:2: the name '\.\./x' cannot be that of a folder",
        ),
        ("reference,query,name\na.png,b.png,..\n", r"p\.csv:2: the name '\.\.' cannot be"),
        ('reference,query\n"a.png,b.png\n', r"p\.csv: is no CSV file in UTF-8"),
    ],
)
def test_bad_tables(make, tmp_path, text, message):
    make("a.png", "b.png")
    with pytest.raises(ImageError, match=message):
        find_pairs(table=write(tmp_path / "p.csv", text))


def write_parquet(path, columns):
    """A Parquet file of lists, or of Arrow arrays."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_tables(make, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    make("a.png", "b.png")
    columns = {
        "query": ["b.png", " a.png"], "flow": [b"x" * 1000, None], "name": pyarrow.array([7, None]),
        "reference": pyarrow.array(["a.png", "a.png"]).dictionary_encode(), "weight": [0.5, None],
    }  # fmt: skip
    path = write_parquet(tmp_path / "p.parquet", columns)
    assert described(find_pairs(table=path)) == [("7", "a.png", "b.png"), ("a", "a.png", "a.png")]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            {"query": ["b"]},
            r"p\.parquet: has no column 'reference' of text, its columns are 'query'; columns",
        ),
        (
            {"reference": [b"a"], "query": ["b"]},
            r"has no column 'reference' of text, its columns are 'query'",
        ),
        ({"reference": [["a"]], "query": ["b"]}, r"has no column 'reference' of text"),
        ({"reference": ["a", None], "query": ["b", "b"]}, r"p\.parquet:2: has no reference; values for"),
    ],
)
def test_bad_parquet_tables(tmp_path, columns, text):
    path = write_parquet(tmp_path / "p.parquet", columns)
    with pytest.raises(ImageError, match=text):
        PairList(path)


def test_parquet_tables_that_are_none(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "p.parquet", {"reference": ["a"] * 999, "query": ["b"] * 999})
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-20], content[:10] + b"\xff" * 30 + content[40:]):
        path.write_bytes(damaged)
        with pytest.raises(
            ImageError, match=r"p\.parquet: (is no Parquet file, or damaged|cannot be read) \("
        ):
            PairList(path)
    with pytest.raises(ImageError, match=r"no\.parquet: cannot be read \(No such file"):
        PairList(tmp_path / "no.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"p\.parquet: Parquet needs pyarrow.*gocor-deploy\[parquet\]"):
        PairList(path)


def test_a_list_is_read_again_and_again(tmp_path):
    rows = "".join(f"no{i}.png,b.png,{'' if i % 2 else f'n{i}'}\n" for i in range(6))
    pairs = PairList(write(tmp_path / "p.csv", f"reference,query,name\n{rows}"))
    assert (pairs.expected, pairs.single) == (6, False)
    for _ in range(2):
        assert [pair.name for pair in pairs] == ["n0", "00000002", "n2", "00000004", "n4", "00000006"]
    first = next(iter(pairs))
    assert first.files == (tmp_path / "no0.png", tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"no0\.png: does not exist"):
        first.load()


def test_a_list_has_the_hash_of_its_content(tmp_path):
    one = PairList(write(tmp_path / "a.csv", "reference,query,name\na,b,x\nc,d,y\n"))
    assert (
        one.sha256 == PairList(write(tmp_path / "b.csv", "\ufeffname,query,reference\nx,b,a\ny,d,c\n")).sha256
    )
    parquet = write_parquet(
        tmp_path / "a.parquet", {"reference": ["a", "c"], "query": ["b", "d"], "name": ["x", "y"]}
    )
    assert one.sha256 == PairList(parquet).sha256
    for other in ("a,b,x\n", "c,d,y\na,b,x\n", "a,b,x\nc,e,y\n", "a,b,x\nc,d,z\n"):
        assert PairList(write(tmp_path / "b.csv", f"reference,query,name\n{other}")).sha256 != one.sha256


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("", r"p\.csv: lists no pairs; rows of reference and query below the header"),
        (
            "a,b,x\na,b,y\na,b,x\n",
            r"p\.csv:4: the name 'x' was given before; a name of its own for each pair",
        ),
        ("a,b,\na,b,00000001\n", r"p\.csv:3: the name '00000001' was given before"),
        ("a,b,x/y\n", r"p\.csv:2: the name 'x/y' cannot be that of a folder"),
        (f"a,b,{'x' * 201}\n", r"p\.csv:2: the name 'x{20}'… has 201 letters; at most 200"),
        ('a,b,"x\ry"\n', r"p\.csv:3: the name 'x\\ry' cannot be that of a folder"),
        (
            '"a\rb",b,x\n',
            r"p\.csv:3: 'a\\rb' cannot be the path of an image; at most 4096 characters, and no",
        ),
        (f"a,b/{'x' * 4095},x\n", r"p\.csv:2: 'b/x{38}' cannot be the path of an image"),
        ("a,b,x\na,,y\n", r"p\.csv:3: has no query; values for reference, query"),
    ],
)
def test_bad_lists(tmp_path, rows, text):
    with pytest.raises(ImageError, match=text):
        PairList(write(tmp_path / "p.csv", f"reference,query,name\n{rows}"))


def test_a_list_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "p.csv")
    with pytest.raises(ImageError, match=r"p\.csv: is no regular file, and is read more than once; a CSV or"):
        PairList(tmp_path / "p.csv")


@pytest.fixture
def video(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(4):
        writer.write(np.full((48, 64, 3), (10, 20, 60 * index), np.uint8))  # BGR
    writer.release()
    return path


def test_video(video):
    pairs = find_pairs(video)
    assert (pairs.single, pairs.expected) == (False, 3)
    found = list(pairs)
    assert [pair.name for pair in found] == ["frame_000000", "frame_000001", "frame_000002"]
    for index, pair in enumerate(found):
        reference, query = pair.load()
        assert reference.shape == (48, 64, 3)
        np.testing.assert_allclose(reference[24, 32], (60 * index, 20, 10), atol=6)
        np.testing.assert_allclose(query[24, 32], (60 * index + 60, 20, 10), atol=6)
    assert len({str(pair.fingerprint()) for pair in found}) == 3


def test_video_that_ends_early(video, caplog):
    pairs = find_pairs(video)
    pairs.expected = 7  # headers promise more than there is when a recording was cut off
    assert len(list(pairs)) == 3
    assert "v.avi: ends after 4 of the 8 frames that it announces" in caplog.text


def test_videos_that_are_none(tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(ImageError, match=r"no\.mp4: does not exist; the path of a video"):
        find_pairs(tmp_path / "no.mp4")
    (tmp_path / "a.mp4").write_bytes(b"this is no video" * 99)
    with pytest.raises(ImageError, match=r"a\.mp4: is no video that OpenCV can read; an MP4"):
        find_pairs(tmp_path / "a.mp4")
    code = "import sys; from gocor.runtime.pairs import find_pairs; find_pairs(sys.argv[1])"
    command = [sys.executable, "-c", code, tmp_path / "a.mp4"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    assert lines[0].startswith("Traceback"), "OpenCV or FFmpeg spoke first"


def test_video_of_one_frame(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(ImageError, match=r"v\.avi: has fewer than two frames"):
        list(find_pairs(path))


def test_video_without_opencv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match=r"v\.mp4: video needs OpenCV.*gocor-deploy\[video\]"):
        find_pairs(tmp_path / "v.mp4")
