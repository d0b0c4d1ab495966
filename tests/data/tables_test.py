import contextlib
import csv
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data.column import parquet_column_text
from grnn_jax.data.number_columns import OddCells
from grnn_jax.data.tables import Table, column_names, read_table
from grnn_jax.errors import InputError

ROWS = [("b", "1.5", "x, y", "-3"), ("a", " 2e3 ", 'say "no"', "4"), ("b", "0", "", "5")]
COLUMNS = ("id", "value", "text", "count")
NUMBERS = {"value": "value_columns", "count": "value_columns"}


def write_csv(path, rows=ROWS, columns=COLUMNS, opener=open):
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def read_checked(*args, **kwargs):
    table = read_table(*args, **kwargs)
    table.check_cells(np.arange(len(table.rows)))
    return table


def check(table):
    assert table.numbers["value"].tolist() == [1.5, 2000.0, 0.0]
    assert table.numbers["count"].tolist() == [-3.0, 4.0, 5.0]
    assert table.texts == {"text": [row[2] for row in ROWS]}


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_csv(tmp_path, opener):
    # Whatever its name, a file is what its first bytes say.
    path = write_csv(tmp_path / "t.data", opener=opener)
    table = read_table(path, "data", numbers=NUMBERS, texts={"text": "mark_columns"})
    check(table)
    assert table.where(1, "value") == f"{path}, line 3, column 'value'"


def test_byte_order_mark_and_empty_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfvalue,text\r\n\r\n1,a\r\n\r\n2,b")
    table = read_table(str(path), "data", numbers=None, texts={"text": "mark_columns"})
    assert table.numbers["value"].tolist() == [1, 2]
    assert table.rows.tolist() == [3, 5]


def test_all_columns_of_numbers(tmp_path):
    path = write_csv(tmp_path / "t.csv")
    assert list(read_table(path, "data", numbers=None).numbers) == ["value", "count"]
    found = read_table(path, "data", numbers=None, texts={"count": "sequence_column"})
    assert list(found.numbers) == ["value"] and found.texts["count"] == ["-3", "4", "5"]
    # A missing first number is an error and does not make the column one of text.
    path = write_csv(tmp_path / "u.csv", [("a", ""), ("b", "1")], ("id", "value"))
    with pytest.raises(InputError, match="line 2, column 'value': .* got an empty cell"):
        read_checked(path, "data", numbers=None)


def test_parquet_reads_as_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = str(tmp_path / "t.csv")
    columns = {
        "id": [row[0] for row in ROWS],
        "value": [1.5, 2000.0, 0.0],
        "text": [row[2] for row in ROWS],
        "count": [-3, 4, 5],
        "when": pyarrow.array([0, 1, 2], pyarrow.timestamp("us")),
    }
    parquet.write_table(pyarrow.table(columns), path)
    table = read_table(path, "data", numbers=None, texts={"text": "mark_columns"})
    check(table)
    assert list(table.numbers) == ["value", "count"]
    assert table.where(1, "value") == f"{path}, row 2, column 'value'"
    texts = read_table(path, "data", numbers={}, texts={"count": "mark_columns"}).texts
    assert texts == {"count": ["-3", "4", "5"]}
    with pytest.raises(InputError, match=r"column 'when': expected numbers, got timestamp\[us\]"):
        read_checked(path, "data", numbers={"when": "time_column"})
    with pytest.raises(InputError, match="has no column 'x', which time_column names"):
        read_checked(path, "data", numbers={"x": "time_column"})
    parquet.write_table(pyarrow.table({"value": [1.0, None, np.inf]}), path)
    with pytest.raises(InputError, match="row 2, column 'value': .* got an empty cell"):
        read_checked(path, "data", numbers=None)
    with pytest.raises(InputError, match="row 3, column 'value': .* got inf"):
        read_checked(path, "data", numbers=None, may_be_empty=("value",))
    parquet.write_table(pyarrow.table({"a": ["x", "mark"]}), path, compression="none")
    whole = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv").write_bytes(whole.replace(b"mark", b"\xff" * 4))
    with pytest.raises(InputError, match="not a readable Parquet file: text that is not UTF-8"):
        read_table(path, "data", numbers={}, texts={"a": "mark_columns"})
    (tmp_path / "t.csv").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_checked(path, "data", numbers=None)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="pip install pyarrow"):
        read_checked(str(tmp_path / "t"), "data", numbers=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data: .* has no column 'value', which time_column names; its columns are none"),
        (b"Value\n1\n", "has no column 'value', .* its columns are 'Value'"),
        (b"value,value\n1,2\n", "has two columns 'value'"),
        (b"value\n", "data: .* has no rows"),
        (b"value\n1\nx\n", r"line 3, column 'value': expected a finite number, got 'x'"),
        (b"value\n1\n\nNaN\n", r"line 4, column 'value': expected a finite number, got 'NaN'"),
        (b"value\n-inf\n", r"line 2, column 'value': expected a finite number, got '-inf'"),
        (b"value\n1e39\n", r"line 2, column 'value': expected a finite number, got '1e39'"),
        (b'value,a\n1,"b\nc"\n,d\n', r"line 4, column 'value': .* got an empty cell"),
        (b"value,a\n1,2\n1\n", r"line 3: expected 2 cells as in the header, got 1"),
        (b'value\n"1\n', r"line 2: not valid CSV"),
        (b'value\n1\n"2\n3\n4\n', r"line 5: not valid CSV: .* in the row after line 2"),
        (b"value\n1\n\xff\n", "line 3: not text in UTF-8"),
        (gzip.compress(b"value\n1\n\xff\n", mtime=0), "line 3: not text in UTF-8"),
        (gzip.compress(b"value\n" + b"1\n" * 99, mtime=0)[:-9], "not a complete gzip file"),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_checked(str(tmp_path / "t.csv"), "data", numbers={"value": "time_column"})


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_checked(str(tmp_path), "data", numbers=None)


def test_cells_and_columns_that_may_be_absent(tmp_path):
    path = write_csv(tmp_path / "t.csv", [("1", ""), ("", "x")], ("value", "mark"))
    texts = {"mark": "mark_columns", "no": "sequence_column"}
    table = read_table(
        path,
        "data",
        numbers={"value": "time_column"},
        texts=texts,
        may_be_empty=("value",),
        may_be_missing=("no",),
    )
    np.testing.assert_array_equal(table.numbers["value"], [1, np.nan])
    assert table.texts == {"mark": ["", "x"]}
    table.check_not_empty("mark", [1])
    with pytest.raises(InputError, match="line 2, column 'mark': expected a name"):
        table.check_not_empty("mark", table.groups("mark")[""])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", "c", "aa"]), min_size=1))
def test_groups(cells):
    table = Table("t", {}, {"id": cells}, np.arange(len(cells)), "row")
    expected = {}
    for row, cell in enumerate(cells):
        expected.setdefault(cell, []).append(row)
    found = table.groups("id")
    assert list(found) == list(expected)
    assert {name: rows.tolist() for name, rows in found.items()} == expected


def test_column_names():
    assert column_names(" a, b b,,a,") == ("a", "b b")
    assert column_names("") == ()
    assert column_names(("a,b", "c")) == ("a,b", "c")


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_rows_with_odd_cells(data):
    """The first odd cell of some rows is found as by looking at each of them."""
    num_rows = data.draw(st.integers(1, 30))
    odd = {}
    for name in ("a", "b"):
        odd[name] = OddCells()
        for row in data.draw(st.sets(st.integers(0, num_rows - 1), min_size=1).map(sorted)):
            odd[name].add(row, f"{name}{row}")
    table = Table("t", {}, {}, np.arange(num_rows), "row", odd=odd)
    rows = data.draw(st.sets(st.integers(0, num_rows - 1), min_size=1).map(sorted))
    found = [(row, name) for row in rows for name in odd if row in odd[name].rows]
    if not found:
        table.check_cells(np.array(rows))
        return
    row, name = found[0]
    with pytest.raises(InputError, match=f"^t, row {row}, column '{name}': .* got '{name}{row}'$"):
        table.check_cells(np.array(rows))


def test_parquet_with_a_name_that_is_no_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"value": [1.5], "text": ["a"]}), path)
    path.write_bytes(path.read_bytes().replace(b"text", b"te\xfft"))
    with pytest.raises(InputError, match="t.parquet is not a readable Parquet file"):
        read_table(str(path), "data", numbers=None, texts={"value": "mark_columns"})
    with pytest.raises(InputError, match="t.parquet is not a readable Parquet file"):
        list(parquet_column_text(path, "value"))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_damaged_parquet(tmp_path_factory, data):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = str(tmp_path_factory.mktemp("tables") / "t.parquet")
    parquet.write_table(pyarrow.table({"value": [1.5, 2.0], "text": ["a", "b"]}), path)
    with open(path, "rb") as file:
        content = bytearray(file.read())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    with open(path, "wb") as file:
        file.write(content)
    with contextlib.suppress(InputError):
        read_table(path, "data", numbers=None, texts={"text": "mark_columns"})
    with contextlib.suppress(InputError):
        for _ in parquet_column_text(path, "text"):
            pass
