import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import column as column_lib
from grnn_jax.data import decoding
from grnn_jax.data.column import column_text
from grnn_jax.data.corpus import FileSource, iter_lines
from grnn_jax.data.formats import load_file, load_splits
from grnn_jax.errors import InputError

CELL = st.text(st.sampled_from("ab,\"' ß\n"), max_size=6)
LINE = st.text(st.sampled_from("ab,\"' ß"), max_size=6)


@pytest.fixture(params=[1, 5, 1 << 22])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", request.param)


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


def sequences(path, codec_object=None, **settings):
    """The lines of a file as they are trained on, or as the codec of a run reads them."""
    if codec_object is not None:
        corpus, codec = load_file(path, "lines", codec_object, **settings), codec_object
    else:
        splits = load_splits(
            data=path, format="lines", valid_fraction=0, test_fraction=0, **settings
        )
        corpus, codec = splits.train, splits.codec
    bounds = zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    return [codec.decode(corpus.events[a:b]) for a, b in bounds]


MOLECULES = ["CCl", "c1cc[nH]c1", "BrCBr", "C%10CC%10"]
ROWS = list(enumerate(MOLECULES))
COLUMN_FILES = {
    "m.csv": ("id,SMILES\n" + "".join(f"{i},{m}\n" for i, m in ROWS), "SMILES"),
    "m.tsv": ("id\tSMILES\n" + "".join(f"{i}\t{m}\n" for i, m in ROWS), "SMILES"),
    "named.smi": ("SMILES id\n" + "".join(f"{m} z{i}\n" for i, m in ROWS), "SMILES"),
    "tab.smi": ("".join(f"{m}\tZINC{i}\n" for i, m in ROWS), "1"),
    "blank.smi": ("".join(f"{m} two words\n" for m in MOLECULES), "smiles"),
    "second.smi": ("".join(f"z{i}   {m}\n" for i, m in ROWS), "2"),
    "m.jsonl": ("".join(json.dumps({"id": i, "mol": m}) + "\n\n" for i, m in ROWS), "mol"),
    "m.ndjson": ("".join(json.dumps({"mol": m}) + "\r\n" for m in MOLECULES), "mol"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", COLUMN_FILES)
def test_files_that_have_columns(tmp_path, chunk_bytes, name, suffix):
    text, column = COLUMN_FILES[name]
    path = write(tmp_path / (name + suffix), text)
    assert sequences(path, codec="smiles", column=column) == MOLECULES
    codec = load_splits(data=path, format="lines", codec="smiles", column=column).codec
    assert sequences(path, codec, column=column) == MOLECULES
    with pytest.raises(InputError, match=f"{name}.* looks like .* give column="):
        load_splits(data=path, format="lines")
    with pytest.raises(InputError, match=f"{name}.* looks like .* give column="):
        load_file(path, "lines", codec)
    # Its lines, if that is wanted.
    with_everything = load_splits(data=path, format="lines", options={"as_is": True}).train
    assert with_everything.num_events > sum(map(len, MOLECULES)) + len(MOLECULES)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_column_of_parquet(tmp_path, suffix):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    table = pyarrow.table({"id": range(4), "mol": [*MOLECULES[:3], None], "two": ["a\nb"] * 4})
    parquet.write_table(table, file, compression="none", use_dictionary=False)
    path = tmp_path / f"m.parquet{suffix}"
    path.write_bytes(gzip.compress(file.getvalue()) if suffix else file.getvalue())
    assert sequences(str(path), codec="smiles", column="mol") == MOLECULES[:3]
    for column, message in (
        ("x", "no column 'x'; its columns are 'id', 'mol', 'two'"),
        ("id", "row 1, column 'id': expected text, got 0"),
        ("two", "row 1, column 'two': expected one line of text"),
    ):
        with pytest.raises(InputError, match=message):
            sequences(str(path), column=column)
    whole = file.getvalue().replace(MOLECULES[1].encode(), b"\xff" * len(MOLECULES[1]))
    path.write_bytes(gzip.compress(whole) if suffix else whole)
    with pytest.raises(InputError, match="row 2, column 'mol': not text in UTF-8"):
        sequences(str(path), column="mol")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is not a"):
        sequences(str(path), column="mol")


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("m.smi", "CC a\nC\n", "2", "line 2: expected at least 2 cells, parted by blanks, got 1"),
        ("m.smi", "CC a\n", "0", "no column '0': its first line is 'CC a'; give column=1"),
        ("m.jsonl", '{"a": "x"}\n{"b": "y"}\n', "a", "line 2: no key 'a'; its keys are 'b'"),
        ("m.jsonl", '{"a": "x"}\n[1]\n', "a", r"line 2: expected a JSON object, got '\[1\]'"),
        ("m.jsonl", '{"a": 5}\n', "a", "line 1, key 'a': expected text, got 5"),
        ("m.jsonl", '{"a": "x\\ny"}\n', "a", "line 1, key 'a': expected one line of text"),
        ("m.jsonl", '{"a": "\\ud800"}\n', "a", "line 1, key 'a': not valid Unicode"),
        ("m.jsonl", '{"a": "x"\n', "a", "line 1: not valid JSON"),
        ("m.jsonl", "[" * 100_000, "a", "line 1: not valid JSON"),
    ],
)
def test_bad_cells(tmp_path, name, text, column, message):
    with pytest.raises(InputError, match=message):
        sequences(write(tmp_path / name, text), column=column)


GENES = ["ACGTAC", "GG", "TTTTA"]
FASTA = "; made up\n>a first\nACGT\nAC\n\n>b\r\nGG\n>c\nTT\nTT A\n"


@pytest.mark.parametrize("name", ["g.fa", "g.fasta.gz", "G.FAA", "g.fna"])
def test_fasta_is_a_record_a_sequence(tmp_path, chunk_bytes, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(FASTA.encode()) if name.endswith("gz") else FASTA.encode())
    assert sequences(str(path)) == GENES
    source = FileSource(path, by_line=True, as_is=False)
    assert [number for _, number, _ in iter_lines(source)] == [5, 7, 10]
    as_is = sequences(str(path), options={"as_is": True})
    assert as_is[:3] == ["; made up", ">a first", "ACGT"]
    codec = load_splits(data=str(path), format="lines").codec
    other = write(tmp_path / "o.fa", ">x\nAC\nGX\n")
    with pytest.raises(InputError, match="line 3, column 4: character 'X'"):
        load_file(other, "lines", codec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ACGT\n>a\nAC\n", "line 1: expected a FASTA record that begins with >, got 'ACGT'"),
        (">a\n>b\nAC\n", "line 1: the record '>a' has no sequence"),
        (">a\nAC\n\n>b\n\n", "line 4: the record '>b' has no sequence"),
    ],
)
def test_bad_fasta(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        sequences(write(tmp_path / "g.fa", text))


def test_where_a_column_does_not_fit(tmp_path):
    path = write(tmp_path / "m.txt", "a\nb\n")
    with pytest.raises(InputError, match=r"column=x needs a \.csv, .* or \.parquet file"):
        load_splits(data=path, format="lines", column="x")
    with pytest.raises(InputError, match="column=x needs format=lines, got format=text"):
        load_splits(data=path, column="x")


@pytest.mark.parametrize(("name", "parted"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_a_column_without_a_name(tmp_path, name, parted, caplog):
    text = "".join(f"{line}{parted}{i + 9}\n" for i, line in enumerate(["CCO", "CN", "OC"]))
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    settings = {"data": str(path), "format": "lines", "valid_fraction": 0, "test_fraction": 0}
    with caplog.at_level("INFO", "grnn_jax"):
        splits = load_splits(**settings, column="1")
    told = f"{path}: column=1 is a number, so the first row holds no names: its cell 'CCO' is a"
    assert [told in message for message in caplog.messages].count(True) == 1
    assert sequences(str(path), column="1") == ["CCO", "CN", "OC"]
    for column, message in (("0", "numbered from 1"), ("3", "it has 2 cells"), ("x", "by number")):
        with pytest.raises(InputError, match=message):
            load_splits(**settings, column=column)
    assert load_file(str(path), "lines", splits.codec, column="1").num_sequences == 3


def test_a_number_may_be_the_name_of_a_column(tmp_path):
    path = write(tmp_path / "m.csv", "2,1\nA,B\nC,D\n")
    assert sequences(path, column="1") == ["B", "D"]
