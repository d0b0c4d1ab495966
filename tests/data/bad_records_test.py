"""Bad sequences are listed all at once, or left out with a count, in every format."""

import csv
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import decoding, load_file, load_splits
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.errors import InputError


def ragged(*arrays):
    array = np.empty(len(arrays), object)
    array[:] = arrays
    return array


def write_voices(folder):
    tunes = [[[60, 61]] * 3, [[60, "x"]], [[60, 61], [5, 61]], [[62, 61]]]
    (folder / "a.json").write_text(json.dumps(tunes))
    return "a.json", {}


def write_strokes(folder):
    drawings = [[[3, 4, 0], [2, 0, 1]], [[1, 2, 7]], [[1, 2]], [[5, 4, 1]]]
    (folder / "a.json").write_text(json.dumps(drawings))
    return "a.json", {}


def write_lines_of_drawings(folder):
    good = json.dumps({"drawing": [[[0, 3], [4, 4]], [[5], [6]]]})
    (folder / "a.ndjson").write_text("\n".join([good, "[" * 9999, "", good[:-2], good]))
    return "a.ndjson", {}


def write_series(folder):
    good = np.arange(6.0).reshape(3, 2)
    np.save(folder / "a.npy", ragged(good, good * np.nan, good[:, 0].astype(str), good + 1))
    return "a.npy", {}


def write_wide_series(folder):
    good = np.arange(6.0).reshape(3, 2)
    np.save(folder / "a.npy", ragged(good, good[:, :1], np.hstack([good, good]), good + 1))
    return "a.npy", {}


def write_nothing_else(folder):
    good = np.arange(6.0).reshape(3, 2)
    np.save(folder / "a.npy", ragged(good, None, "text", good + 1), allow_pickle=True)
    return "a.npy", {}


def write_rolls(folder):
    good = np.eye(5, 88)
    np.savez(folder / "a.npz", r=ragged(good, good[:, :60], -good, good[1:]))
    return "a.npz", {}


def write_events(folder):
    times = {"a": [1, 2], "b": [2, 1], "c": [-1, 5], "d": [0.5, 3]}
    with open(folder / "a.csv", "w", newline="") as file:
        rows = [(name, time, "x") for name, listed in times.items() for time in listed]
        csv.writer(file).writerows([("sequence", "time", "mark"), *rows])
    return "a.csv", {}


def write_images(folder):
    good = np.eye(3, dtype=int)
    np.savez(folder / "a.npz", i=ragged(good, good[:2], -good, 1 - good))
    return "a.npz", {}


WRITERS = {
    "voices": write_voices, "strokes": write_strokes, "series": write_series,
    "pianoroll": write_rolls, "events": write_events, "images": write_images,
    "strokes by line": write_lines_of_drawings,
    "series of other widths": write_wide_series, "series of other things": write_nothing_else,
}  # fmt: skip


@pytest.mark.parametrize("format", WRITERS)
def test_two_of_four_sequences_are_bad(tmp_path, format, caplog):
    name, options = WRITERS[format](tmp_path)
    format = format.split()[0]
    settings = {"data": str(tmp_path / name), "format": format}
    settings |= {"valid_fraction": 0, "test_fraction": 0, "cache_dir": tmp_path / "cache"}
    with pytest.raises(InputError) as error:
        load_splits(**settings, options=options)
    first, *listed = str(error.value).split("\n  ")
    if format == "voices":  # One of them is found when it is read, the other when it is encoded.
        assert "tune 1, frame 0" in str(error.value)
    else:
        assert first.startswith("2 of 4 ") and "skip_bad=true leaves them out" in first
        assert len(listed) == 2 and all(name in line for line in listed)
    splits = load_splits(**settings, options=options | {"skip_bad": True})
    assert splits.train.num_sequences == 2
    skipped = [r.getMessage() for r in caplog.records if r.getMessage().startswith("skipped ")]
    assert sum(int(line.split()[1]) for line in skipped) == 2
    corpus = load_file(settings["data"], format, splits.codec, skip_bad=True)
    assert corpus.num_sequences == 2
    with pytest.raises(InputError):
        load_file(settings["data"], format, splits.codec)


def test_many_bad_sequences_are_counted(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([[[60]]] + [[["x"]]] * 30))
    with pytest.raises(InputError, match="(?s)30 of 31 tunes .*\n  and 10 more$") as error:
        load_splits(data=str(tmp_path / "a.json"), format="voices")
    assert len(str(error.value).split("\n")) == 22


def test_nothing_but_bad_sequences(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([[["x"]]] * 3))
    with pytest.raises(InputError, match="has no sequences"):
        load_splits(data=str(tmp_path / "a.json"), format="voices", options={"skip_bad": True})


WHOLE = {"valid_fraction": 0, "test_fraction": 0}
BAD_LINES = {
    "a.txt": (b"an old\nb\xffd\n\ncat\r\n\xe2\x82\nsat", {}, ["an old", "cat", "sat"], (2, 5)),
    "a.csv": (b'x,y\nan old,1\nb\xffd,2\n"a\nb",3\ncat,4,5\n"sat"x,6\ncat,7\n', {"column": "x"},
              ["an old", "cat"], (3, 5, 6, 7)),
    "a.jsonl": (b'{"x": "an old"}\n{"y": "cat"}\n[1]\n{"x": 1}\n{"x"\n\xff\n{"x": "a\\nb"}\n'
                b'{"x": "cat"}\n', {"column": "x"}, ["an old", "cat"], (2, 3, 4, 5, 6, 7)),
    "a.smi": (b"1 anold\n2\n\xff 3\n4 cat\n", {"column": "2"}, ["anold", "cat"], (2, 3)),
    "a.fa": (b">a\nAC\nGT\n>b\n\n>c\nAC\n>d\n", {}, ["ACGT", "AC"], (4, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines(tmp_path, name, caplog):
    content, settings, expected, numbers = BAD_LINES[name]
    path = tmp_path / name
    path.write_bytes(content)
    settings = {"data": str(path), "format": "lines", **settings, **WHOLE}
    settings["cache_dir"] = tmp_path / "cache"
    with pytest.raises(InputError) as error:
        load_splits(**settings)
    first, *listed = str(error.value).split("\n  ")
    assert first == f"{len(numbers)} lines cannot be used; skip_bad=true leaves them out:"
    # A CSV row with bad bytes is found before the row itself.
    assert sorted(int(line.split("line ")[1].split(",")[0].split(":")[0]) for line in listed) == [
        *numbers
    ]
    splits = load_splits(**settings, options={"skip_bad": True})
    decoded = [splits.codec.decode(each[:-1]) for each in sequences_of(splits.train)]
    assert decoded == expected
    told = [m for m in caplog.messages if m.startswith("skipped ")]
    assert len(told) == 1  # Though the file is read in several passes.
    assert told[0].startswith(f"skipped {len(numbers)} lines, which cannot be used:\n  {path}, ")


def sequences_of(corpus):
    return np.split(np.asarray(corpus.events), corpus.offsets[1:-1])


def test_bad_lines_of_a_text_are_empty(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes("né\n".encode() * 3 + b"n\xe9\n" + "à la\n".encode() + b"\xe9t")
    settings = {"data": str(path), **WHOLE}
    with pytest.raises(InputError, match="2 lines cannot be used; skip_bad=true leaves"):
        load_splits(**settings)
    splits = load_splits(**settings, options={"skip_bad": True})
    assert splits.codec.decode(splits.train.events) == "né\nné\nné\n\nà la\n"
    assert "byte offset 13: byte 0xe9 is not valid UTF-8 (invalid" in caplog.text
    corpus = load_file(str(path), "text", splits.codec, skip_bad=True)
    assert corpus.num_events == splits.train.num_events


def test_lines_that_a_run_does_not_know(tmp_path):
    good, other = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("CC\nCO\n")
    codec = load_splits(data=str(good), format="lines", codec="smiles", **WHOLE).codec
    other.write_text("CC\nCN\nC C\nOO\n")
    with pytest.raises(InputError, match="(?s)2 lines cannot .* line 2.*\n.* line 3"):
        load_file(str(other), "lines", codec)
    assert load_file(str(other), "lines", codec, skip_bad=True).num_sequences == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"an", "né".encode(), b"\xff", b"o\xc3", b"\xa9", b"x" * 9])),
    st.sampled_from([1, 2, 5, 1 << 22]),
    st.sampled_from([0, 3, 1 << 22]),
)
def test_lines_as_they_are_decoded_one_by_one(lines, chunk_bytes, held):
    raw = b"\n".join(lines)
    bad = BadRecords(skip=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(decoding, "_MOST_HELD", held)
        try:
            found = "".join(decoding.decoded(io.BytesIO(raw), "a.txt", bad=bad))
        except InputError:
            assert held < 9  # A part of a line was given away before its bad byte came.
            return
    expected = []
    for line in lines:
        try:
            expected.append(line.decode())
        except UnicodeDecodeError:
            expected.append("")
    assert found.split("\n") == (expected or [""])


def test_no_split_moves_where_lines_are_skipped(tmp_path):
    """The lines of each split are those of a file without the bad ones."""
    rng = np.random.default_rng(0)
    lines = [bytes(rng.choice(list(b"abc"), 4).tolist()) for _ in range(40)]
    (tmp_path / "good.txt").write_bytes(b"\n".join(lines))
    (tmp_path / "bad.txt").write_bytes(b"\n".join(b"\xff\n" + line for line in lines))
    found = [
        load_splits(
            data=str(tmp_path / name),
            format="lines",
            valid_fraction=0.3,
            options={"skip_bad": True},
        )
        for name in ("good.txt", "bad.txt")
    ]
    for a, b in zip(*(splits[:3] for splits in found), strict=True):
        np.testing.assert_array_equal(a.events, b.events)


TABLE = """sequence,time,mark,x
a,1,p,5
a,2,q,7
b,1,p,?
b,oops,q,7
,3,p,1
c,1,p,8
c,2,q,6
d,,p,NA
a,3,p,4
"""


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize(
    ("format", "first"), [("events", ("line 5, column 'time'", "got 'oops'")),
                          ("series", ("line 4, column 'x'", "got '?'"))]
)  # fmt: skip
def test_bad_cells_of_tables(tmp_path, format, first, kind, caplog):
    """A bad cell takes the sequence that it stands in, and no other."""
    path = tmp_path / f"t.{kind}"
    rows = [line.split(",") for line in TABLE.splitlines()]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
        for name in ("time", "x"):  # Parquet has no cells of two types; what is none is null.
            columns[name] = [float(cell) if cell.isdigit() else None for cell in columns[name]]
        parquet.write_table(pyarrow.table({n: list(cells) for n, cells in columns.items()}), path)
        first = first[0].replace("line 5", "row 4").replace("line 4", "row 3"), "an empty cell"
    else:
        raw = TABLE.encode()
        path.write_bytes(gzip.compress(raw) if kind == "csv.gz" else raw)
    options = {"value_columns": "x"} if format == "series" else {}
    settings = {"data": str(path), "format": format, **WHOLE}
    with pytest.raises(InputError) as error:
        load_splits(**settings, options=options)
    told, *listed = str(error.value).split("\n  ")
    assert told == "3 of 5 sequences cannot be used; skip_bad=true leaves them out:"
    assert len(listed) == 3 and all(what in listed[0] for what in first)
    assert "column 'sequence': expected a name, got an empty cell" in listed[1]
    splits = load_splits(**settings, options=options | {"skip_bad": True})
    assert np.diff(splits.train.offsets).tolist() == [3, 2]
    if format == "series":
        assert splits.train.events[:, 0].tolist() == [5, 7, 4, 8, 6]
    assert caplog.text.count("skipped 3 of 5 sequences") == 1
    # A file without sequences has nothing to leave out.
    with pytest.raises(InputError, match="cannot be used|expected"):
        load_splits(**settings, options=options | {"skip_bad": True, "sequence_column": ""})
