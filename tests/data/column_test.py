import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import column as column_lib
from grnn_jax.data import corpus as corpus_lib
from grnn_jax.data.column import column_text
from grnn_jax.data.corpus import FileSource, iter_lines
from grnn_jax.data.formats import load_file, load_splits
from grnn_jax.errors import InputError

CELL = st.text(st.sampled_from("ab,\"' ß\n"), max_size=6)
LINE = st.text(st.sampled_from("ab,\"' ß"), max_size=6)


@pytest.fixture(params=[1, 5, 1 << 22])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(corpus_lib, "CHUNK_BYTES", request.param)


def write(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELL, LINE), max_size=6), st.sampled_from(["\n", "\r\n"]), st.data())
def test_cells_as_the_csv_writer_wrote_them(rows, line_end, data):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=line_end)
    writer.writerows([("note", "name"), *rows])
    text = file.getvalue()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = "".join(column_text(chunks, "f.csv", "name")).split("\n")
    # The last line of each row in the file, counted by hand.
    line, expected = 1, {}
    for note, name in rows:
        line += 1 + note.count("\n")
        expected[line] = name
    assert {i: value for i, value in enumerate(found, 1) if value} == {
        i: name for i, name in expected.items() if name
    }


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz"])
def test_values_keep_the_line_numbers_of_the_file(tmp_path, chunk_bytes, name):
    text = '\ufeffid,SMILES,note\r\n1,CCl,"two\r\nlines"\r\n2,,x\r\n\r\n3,"C,C",\r\n4,[nH],y'
    source = FileSource(write(tmp_path / name, text), column="SMILES")
    lines = [(number, value) for _, number, value in iter_lines(source)]
    assert lines == [(3, "CCl"), (6, "C,C"), (7, "[nH]")]


def test_many_rows_arrive_in_parts(monkeypatch):
    monkeypatch.setattr(column_lib, "ROWS_PER_CHUNK", 10)
    rows = (f"{i},line {i}\n" for i in range(1000))  # An iterator: it is read as it is needed.
    chunks = column_text(iter(["i,name\n", *[next(rows) for _ in range(100)]]), "f.csv", "name")
    first = next(chunks)
    assert first.startswith("\nline 0\n") and len(first.split("\n")) < 20
    assert (first + "".join(chunks)).split("\n")[1:-1] == [f"line {i}" for i in range(100)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"m\.csv has no column 'SMILES'; its columns are 'a', 'b'"),
        ("SMILES,SMILES\n1,2\n", r"m\.csv has two columns 'SMILES'"),
        ("a,SMILES\n1,C\n2\n", r"m\.csv, line 3: expected 2 cells as in the header, got 1"),
        ('a,SMILES\n1,"C\nC"\n', r"m\.csv, line 3, column 'SMILES': expected one line of text"),
        ('a,SMILES\n1,"C"C\n', r"m\.csv, line 2: not valid CSV"),
        ("a,SMILES\n", "the data has no line that is not empty"),
        ("a,SMILES\n1,\n", "the data has no line that is not empty"),
        ("", r"m\.csv is empty"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(InputError, match=message):
        load_splits(data=path, format="lines", codec="smiles", column="SMILES")


def test_the_run_of_a_column(tmp_path):
    molecules = ["CCl", "c1cc[nH]c1", "BrCBr", "C%10CC%10"] * 5
    rows = "".join(f"{i},{m},x{i}\n" for i, m in enumerate(molecules))
    path = write(tmp_path / "m.csv.gz", "i,SMILES,name\n" + rows)
    settings = {"data": path, "format": "lines", "codec": "smiles", "valid_fraction": 0.25}
    splits = load_splits(**settings, column="SMILES", cache_dir=tmp_path / "cache")
    found = [
        splits.codec.decode(corpus.events[a:b])
        for corpus in splits[:3]
        for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    ]
    assert sorted(found) == sorted(molecules)
    # Another column of the same file is other data, not what the cache holds.
    names = load_splits(**settings, column="name", cache_dir=tmp_path / "cache")
    assert "x" in names.codec.vocabulary

    other = write(tmp_path / "other.csv", "SMILES\nCC\n\nC[Xe]\n")
    with pytest.raises(InputError) as error:
        load_file(other, "lines", splits.codec, column="SMILES")
    message = "other.csv, text of 'SMILES', line 4, column 2: symbol '[Xe]'"
    assert message in str(error.value)
    # A file of lines serves as well where the run was trained on a column.
    plain = write(tmp_path / "other.smi", "CC\nBrC\n")
    assert load_file(plain, "lines", splits.codec, column="SMILES").num_events == 6


def test_where_a_column_does_not_fit(tmp_path):
    path = write(tmp_path / "m.txt", "a\nb\n")
    with pytest.raises(InputError, match=r"data: column=x needs a \.csv or \.csv\.gz file, got"):
        load_splits(data=path, format="lines", column="x")
    with pytest.raises(InputError, match="column=x needs format=lines, got format=text"):
        load_splits(data=path, column="x")
