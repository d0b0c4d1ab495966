import csv
import dataclasses
import json
import re
import statistics

import numpy as np
import pytest

from grnn_jax.data.codec import EventType
from grnn_jax.data.formats import codec_from_dict, load_file, load_splits
from grnn_jax.errors import InputError

OPTIONS = {"sequence_column": "sequence", "value_columns": ""}


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(5, 2, shape).astype(np.float32)


def write_csv(path, columns, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def load(path, *, options=None, **settings):
    return load_splits(
        data=str(path), format="series", options=OPTIONS | (options or {}), **settings
    )


def whole(path, **settings):
    return load(path, valid_fraction=0, test_fraction=0, **settings).train


def sequences(corpus):
    return [rows.tolist() for rows in np.split(corpus.events, corpus.offsets[1:-1])]


def test_splits_and_scales(tmp_path):
    train, test = values(4, 7, 2), values(3, 5, 2, seed=1)
    np.savez(tmp_path / "s.npz", train=train, test=test, other=np.zeros(3))
    found = load(tmp_path / "s.npz", cache_dir=tmp_path / "c")
    assert sequences(found.train) == train.tolist()
    assert sequences(found.test) == test.tolist()
    assert found.valid is None
    channels = train.reshape(-1, 2).T.astype(float)
    kind, arguments, options = found.codec.event_type
    assert (kind, arguments, set(options)) == ("reals", (2,), {"shift", "scale"})
    np.testing.assert_allclose(options["shift"], [statistics.fmean(x) for x in channels])
    np.testing.assert_allclose(options["scale"], [statistics.pstdev(x) for x in channels])
    again = codec_from_dict(json.loads(json.dumps(found.codec.to_dict())))
    assert again == found.codec and isinstance(again.event_type, EventType)
    assert load_file(str(tmp_path / "s.npz"), "series", again).num_sequences == 7


def test_lengths(tmp_path):
    stack, lengths = values(3, 6, 2), [6, 1, 4]
    stack[1, 1:] = np.nan  # What lies beyond the end of a series is not read.
    expected = [series[:n].tolist() for series, n in zip(stack, lengths, strict=True)]
    np.savez(tmp_path / "a.npz", x=stack, lengths=lengths)
    np.savez(tmp_path / "b.npz", train=stack, train_lengths=lengths)
    ragged = np.empty(3, object)
    ragged[:] = [series[:n] for series, n in zip(stack, lengths, strict=True)]
    np.save(tmp_path / "c.npy", ragged)
    for name in ("a.npz", "b.npz", "c.npy"):
        assert sequences(whole(tmp_path / name)) == expected
    count = "x_lengths: expected 3 whole numbers"
    longest = r"x_lengths\[2\]: expected a length from 0 to 6, that of the sequence, got "
    for bad, message in (
        ([6, 1], count),
        ([6.0, 1.0, 4.0], count),
        ([6, 1, 7], longest + "7"),
        ([6, 1, -1], longest + "-1"),
    ):
        np.savez(tmp_path / "a.npz", x=stack, lengths=bad)
        with pytest.raises(InputError, match=message):
            whole(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=stack, y=stack, lengths=lengths)
    with pytest.raises(InputError, match="expected x_lengths, y_lengths as names .* got lengths"):
        whole(tmp_path / "a.npz")


def test_a_table_gives_what_arrays_give(tmp_path):
    series = [values(4, 2), values(6, 2, seed=1), values(1, 2, seed=2)]
    rows = [("cba"[i], "x", *map(float, v)) for i, s in enumerate(series) for v in s]
    mixed = [rows[i] for i in np.argsort(np.arange(len(rows)) % 3, kind="stable")]
    columns = ("sequence", "text", "p", "q")
    for order in (rows, mixed):
        corpus = whole(write_csv(tmp_path / "s.csv", columns, order))
        found = {tuple(map(tuple, s)) for s in sequences(corpus)}
        by_name = {
            tuple(tuple(map(np.float32, row[2:])) for row in order if row[0] == name)
            for name in "abc"
        }
        assert found == by_name and corpus.num_sequences == 3
    one = [("0", *row[1:]) for row in rows]
    assert sequences(whole(write_csv(tmp_path / "one.csv", columns, one))) == [
        np.concatenate(series).tolist()
    ]


def test_channels_that_are_named(tmp_path):
    table = write_csv(tmp_path / "s.csv", ("t", "a,b", "c"), enumerate_rows(values(9, 2)))
    one = {"sequence_column": ""}
    found = load(table, options=one | {"value_columns": "c"})
    assert found.codec.channels == ("c",)
    np.save(tmp_path / "s.npy", values(9, 3))
    array = whole(tmp_path / "s.npy", options={"value_columns": "2,0"})
    np.testing.assert_array_equal(array.events, values(9, 3)[:, [2, 0]])
    # The same channels are read from another file, which has more of them.
    codec = load(table, options=one).codec
    assert codec.channels == ("t", "a,b", "c")
    again = codec_from_dict(json.loads(json.dumps(codec.to_dict())))
    rows = [(i, 3, *v) for i, v in enumerate(values(5, 2).tolist())]
    other = load_file(write_csv(tmp_path / "o.csv", ("t", "z", "c", "a,b"), rows), "series", again)
    np.testing.assert_array_equal(other.events[:, [2, 1]], values(5, 2))
    assert load_file(table, "series", found.codec).events.shape == (9, 1)


def enumerate_rows(array):
    return [(i, *row) for i, row in enumerate(array.tolist())]


def test_one_series_is_cut_in_time(tmp_path):
    np.save(tmp_path / "s.npy", values(50))
    found = load(tmp_path / "s.npy", valid_fraction=0.2, test_fraction=0.1)
    parts = [np.asarray(corpus.events)[:, 0] for corpus in found[:3]]
    assert [len(part) for part in parts] == [35, 10, 5]
    np.testing.assert_array_equal(np.concatenate(parts), values(50))
    np.testing.assert_allclose(found.codec.shift, values(50)[:35].mean(), rtol=1e-6)
    np.save(tmp_path / "v.npy", values(7, seed=1))
    found = load(tmp_path / "s.npy", valid_data=str(tmp_path / "v.npy"), test_fraction=0.1)
    assert [corpus.num_events for corpus in found[:3]] == [45, 7, 5]
    np.save(tmp_path / "two.npy", values(2, 50, 1))
    with pytest.raises(InputError, match="model_end needs several series"):
        load(tmp_path / "s.npy", model_end=True)
    found = load(tmp_path / "two.npy", model_end=True, valid_fraction=0, test_fraction=0)
    assert found.train.events["end"].sum() == 2


def test_a_series_belongs_to_one_split(tmp_path):
    rows = [(name, i * i) for name in "ab" for i in range(4)]
    train = write_csv(tmp_path / "t.csv", ("sequence", "x"), rows)
    valid = write_csv(tmp_path / "v.csv", ("sequence", "x"), rows[4:])
    with pytest.raises(InputError, match="the sequence 'b' stands in train and in valid"):
        load(train, valid_data=valid, test_fraction=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 5, 2)) * [[[1], [2], [3], [4], [5]]] * [1, 0], "channel '1' is 0 in all"),
        (np.full((2, 5, 1), 0.1), "channel '0' is 0.1 in all training series; leave it out"),
        (1e9 + values(2, 5, 1).astype(float), "channel '0' varies by .* too little for 32-bit"),
        (np.array([[0.0, 1], [1, np.nan]]), "row 1, channel 1: expected a finite number, got nan"),
        (
            np.array([[0, 0x7F800001]], np.uint32).view(np.float32),  # A NaN that signals.
            "row 0, channel 1: expected a finite number, got nan",
        ),
        (np.array([[0.0, 1], [np.inf, 2]]), "row 1, channel 0: expected a finite number, got inf"),
        (np.array([["a"]]), "expected numbers, got <U1"),
        (np.zeros((2, 2, 2, 2)), r"s\.npy\[0\]: expected an array \[T, C\], got \[2, 2, 2\]"),
        (np.zeros(()), r"s\.npy: expected an array"),
        (np.zeros((1, 0, 2)), "the training series have no steps"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(InputError, match=message):
        whole(tmp_path / "s.npy")


def test_bad_channels(tmp_path):
    np.savez(tmp_path / "s.npz", train=values(3, 4, 2), test=values(3, 4, 1))
    with pytest.raises(InputError, match=r"test\[0\]: expected the channels 0, 1, got 0"):
        load(tmp_path / "s.npz")
    with pytest.raises(InputError, match=r"there is no channel '2', .* channels are 0 \.\. 1"):
        load(tmp_path / "s.npz", options={"value_columns": "2"})
    path = write_csv(tmp_path / "s.csv", ("id", "x"), [("a", 1)])
    with pytest.raises(InputError, match="no column 'y', which value_columns names"):
        load(path, options={"value_columns": "y"})
    with pytest.raises(InputError, match="no column 'patient', which sequence_column names"):
        load(path, options={"sequence_column": "patient"})
    with pytest.raises(InputError, match="no column of numbers .*'id': text, as 'a'; 'x': no num"):
        table = write_csv(tmp_path / "t.csv", ("id", "x"), [("a", "NA")])
        load(table, options={"sequence_column": ""})


def test_a_table_says_which_series_it_holds(tmp_path):
    rows = [(store, i % 5) for store in "ab" for i in range(9)]
    path = write_csv(tmp_path / "s.csv", ("store", "x"), rows)
    message = "no column 'sequence', which sequence_column names; .* 'store', 'x'; sequence_column="
    with pytest.raises(InputError, match=message):
        load(path)
    assert whole(path, options={"sequence_column": "store"}).num_sequences == 2
    split = load(path, options={"sequence_column": ""})
    assert split.train.num_sequences == 1 and not split.codec.whole_table
    # A run of an earlier version took the whole table for one series, and still does.
    old = split.codec.to_dict() | {"sequence_column": "sequence"}
    del old["whole_table"]
    old = codec_from_dict(old)
    assert load_file(path, "series", old).num_sequences == 1
    assert load(path, codec_object=old, valid_fraction=0).train.num_sequences == 1
    strict = dataclasses.replace(old, whole_table=False)
    with pytest.raises(InputError, match="no column 'sequence', which sequence_column names"):
        load_file(path, "series", strict)


ONE = {"options": {"sequence_column": ""}}


def logged(caplog, path):
    """The channels of a table, and the columns that the log says were left out."""
    caplog.clear()
    with caplog.at_level("INFO", "grnn_jax"):
        channels = load(path, **ONE).codec.channels
    (line,) = [r.getMessage() for r in caplog.records if "channels are" in r.getMessage()]
    shown, _, left_out = line.partition("; left out ")
    assert shown.endswith(", ".join(map(repr, channels)))
    pairs = (each.split(": ", 1) for each in left_out.split("; ") if each)
    return channels, {name.strip("'"): why for name, why in pairs}


def test_columns_are_judged_by_all_rows_and_the_log_says_so(tmp_path, caplog):
    columns = {
        "": range(12), "No": range(1, 13), "level": [3, 5] * 6, "on": ["True", "False"] * 6,
        "when": [f"2020-01-{i:02d} 10:00" for i in range(1, 13)], "empty": [""] * 12,
        "wind": ["NW", "7", "cv", "NE"] * 3, "steps": range(5, 17),
    }  # fmt: skip
    path = write_csv(tmp_path / "t.csv", columns, zip(*columns.values(), strict=True))
    assert logged(caplog, path) == (
        ("level", "steps"),
        {
            "": "the index of a data frame",
            "No": "it numbers the rows",
            "on": "true or false, as 'True'",
            "when": "times, as '2020-01-01 10:00'",
            "empty": "no number in any row",
            "wind": "text, as 'NW'",
        },
    )
    # Named, they are channels.
    named = load(path, options={"sequence_column": "", "value_columns": "No,level"})
    assert named.codec.channels == ("No", "level")


def test_columns_of_parquet(tmp_path, caplog):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = pyarrow.array(range(6), pyarrow.timestamp("s"))
    columns = {
        "x": [1.0, 2] * 3, "on": [True, False] * 3, "when": times, "what": list("abcabc"),
        "none": pyarrow.nulls(6), "__index_level_0__": [9, 4, 5, 6, 7, 8], "id": range(6),
    }  # fmt: skip
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    channels, left_out = logged(caplog, path)
    assert channels == ("x",)
    assert left_out == {
        "on": "true or false", "when": "times", "what": "text (string)",
        "none": "no number in any row", "__index_level_0__": "the index of a data frame",
        "id": "it numbers the rows",
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["NA", "?", "", "nan", "NULL", "-", "inf", "oops"])
@pytest.mark.parametrize("rows", [range(12), range(3, 5), range(19, 20)])
def test_a_cell_without_a_number_never_hides_its_column(tmp_path, missing, rows):
    cells = [missing if i in rows else str(i % 7) for i in range(30)]
    path = write_csv(tmp_path / "t.csv", ("x", "y"), enumerate(cells))
    cell = repr(missing) if missing else "an empty cell"
    message = f"line {rows[0] + 2}, column 'y': expected a finite number, got {re.escape(cell)}"
    with pytest.raises(InputError, match=f"{message}; value_columns names"):
        load(path, **ONE)
    assert load(path, options=ONE["options"] | {"value_columns": "x"}).codec.channels == ("x",)
