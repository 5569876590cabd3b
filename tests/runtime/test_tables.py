import pytest

from gocor.core.errors import ImageError
from gocor.runtime.tables import iterate_table, read_table


def test_rows_of_csv(tmp_path):
    (tmp_path / "p.csv").write_text('\ufeff y, x,note\n1,2,\n\n"3\n4",5\n', encoding="utf-8")
    rows = read_table(tmp_path / "p.csv", ("x", "y"))
    assert rows == [(2, {"y": "1", "x": "2", "note": ""}), (5, {"y": "3\n4", "x": "5", "note": ""})]


def test_rows_of_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"y": [0.5, None], "x": [" a", "b"], "flow": [b"x" * 1000, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert read_table(tmp_path / "p.parquet", ("x",)) == [
        (1, {"y": "0.5", "x": "a"}),
        (2, {"y": "", "x": "b"}),
    ]


def test_rows_without_end(tmp_path):
    for row in ("a" * (1 << 20), '"\n",' * (1 << 18)):
        (tmp_path / "p.csv").write_text("x,y\n" + row)
        with pytest.raises(ImageError, match=r"p\.csv: is no CSV file in UTF-8 \(a row has more than 104857"):
            list(iterate_table(tmp_path / "p.csv", ("x", "y")))


def test_table_missing_or_binary(tmp_path):
    with pytest.raises(ImageError, match=r"p\.csv: cannot be read \(No such file"):
        read_table(tmp_path / "p.csv", ("x", "y"))
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ImageError, match=r"p\.csv: is no CSV file in UTF-8"):
        read_table(tmp_path / "p.csv", ("x", "y"))
