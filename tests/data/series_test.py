import csv
import json
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
    found = load(table, options={"value_columns": "c"})
    assert found.codec.channels == ("c",)
    np.save(tmp_path / "s.npy", values(9, 3))
    array = whole(tmp_path / "s.npy", options={"value_columns": "2,0"})
    np.testing.assert_array_equal(array.events, values(9, 3)[:, [2, 0]])
    # The same channels are read from another file, which has more of them.
    codec = load(table).codec
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
        (np.array([[0.0, 1], [np.inf, 2]]), "row 1, channel 0: expected a finite number, got inf"),
        (np.array([["a"]]), "expected numbers, got <U1"),
        (np.zeros((2, 2, 2, 2)), r"s\.npy\[0\]: expected an array \[T, 2\], got \[2, 2, 2\]"),
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
    with pytest.raises(InputError, match="has no column of numbers"):
        load(write_csv(tmp_path / "t.csv", ("id", "x"), [("a", "b")]))
