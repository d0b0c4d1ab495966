"""Bad sequences are listed all at once, or left out with a count, in every format."""

import csv
import json

import numpy as np
import pytest

from grnn_jax.data import load_file, load_splits
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


def write_series(folder):
    good = np.arange(6.0).reshape(3, 2)
    np.save(folder / "a.npy", ragged(good, good * np.nan, good[:, 0].astype(str), good + 1))
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
}  # fmt: skip


@pytest.mark.parametrize("format", WRITERS)
def test_two_of_four_sequences_are_bad(tmp_path, format, caplog):
    name, options = WRITERS[format](tmp_path)
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
