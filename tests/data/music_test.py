"""Piano rolls, voices and MIDI: files of every kind, their errors, transposition."""

import json
import re

import numpy as np
import pytest
import scipy.io

from grnn_jax.data import FORMATS, load_file, load_splits, train_iterator
from grnn_jax.data.augmentation import make_augmentation
from grnn_jax.data.corpus import event_arrays
from grnn_jax.data.formats import codec_from_dict
from grnn_jax.data.midi import read_midi, write_midi
from grnn_jax.errors import InputError

ROLL = {"options": {"frames_per_beat": 2}, "format": "pianoroll"}
VOICES = {"options": {"frames_per_beat": 4}, "format": "voices"}


def rolls(lengths, seed=0, low=30, high=50):
    rng = np.random.default_rng(seed)
    found = np.empty(len(lengths), object)
    for i, n in enumerate(lengths):
        found[i] = np.zeros((n, 88), np.uint8)
        found[i][:, low:high] = rng.random((n, high - low)) < 0.2
    return found


def write_mat(path, train, valid, test):
    scipy.io.savemat(path, {"traindata": train, "validdata": valid, "testdata": test})


def test_matlab_splits(tmp_path):
    parts = rolls([5, 9, 3]), rolls([4], 1), rolls([7, 2], 2)
    write_mat(tmp_path / "a.mat", *parts)
    splits = load_splits(data=str(tmp_path / "a.mat"), cache_dir=tmp_path / "cache", **ROLL)
    for corpus, expected in zip(splits[:3], parts, strict=True):
        np.testing.assert_array_equal(corpus.events, np.concatenate(list(expected)))
        np.testing.assert_array_equal(np.diff(corpus.offsets), [len(roll) for roll in expected])
        assert isinstance(corpus.events, np.memmap) and corpus.events.dtype == np.uint8
    assert "pianoroll" in splits.description and "0 of valid, 0 of test" in splits.description
    codec = codec_from_dict(json.loads(json.dumps(splits.codec.to_dict())))
    assert codec == splits.codec
    whole = load_file(str(tmp_path / "a.mat"), "pianoroll", codec)
    assert whole.num_events == 30 and whole.num_sequences == 6


def test_the_end_can_be_modelled(tmp_path):
    write_mat(tmp_path / "a.mat", rolls([5, 9]), rolls([4]), rolls([7]))
    splits = load_splits(data=str(tmp_path / "a.mat"), model_end=True, **ROLL)
    assert set(dict(event_arrays(splits.train.events))) == {"event", "end"}
    np.testing.assert_array_equal(np.flatnonzero(splits.train.events["end"]), [5, 15])
    assert splits.train.num_events == 16
    assert not splits.train.events["event"][[5, 15]].any()


def test_fractions_and_duplicates(tmp_path):
    parts = rolls([6] * 20)
    parts[3] = parts[12]
    np.savez(tmp_path / "a.npz", **{f"tune{i}": roll for i, roll in enumerate(parts)})
    splits = load_splits(
        data=str(tmp_path / "a.npz"), valid_fraction=0.3, test_fraction=0.2, **ROLL
    )
    assert [corpus.num_sequences for corpus in splits[:3]] == [10, 6, 4]
    found = np.concatenate([corpus.events.reshape(-1, 6, 88) for corpus in splits[:3]])
    ordered = sorted(roll.tobytes() for roll in found)
    assert ordered == sorted(roll.tobytes() for roll in parts)
    counts = [int(n) for n in re.findall(r"(\d+) of (?:valid|test)", splits.description)]
    train = {roll.tobytes() for roll in splits.train.events.reshape(-1, 6, 88)}
    assert counts == [
        sum(roll.tobytes() in train for roll in corpus.events.reshape(-1, 6, 88))
        for corpus in splits[1:3]
    ]


def test_a_split_may_have_its_own_file(tmp_path):
    np.savez(tmp_path / "train.npz", train=rolls([5, 5]), test=rolls([3], 1))
    np.save(tmp_path / "valid.npy", np.stack(list(rolls([4, 4], 2))))
    np.savez(tmp_path / "valid.npz", np.stack(list(rolls([4, 4], 2))))
    for name in ("valid.npy", "valid.npz"):
        splits = load_splits(
            data=str(tmp_path / "train.npz"), valid_data=str(tmp_path / name), **ROLL
        )
        assert [corpus.num_events for corpus in splits[:3]] == [10, 8, 3]
    # Frames end to end, as many in each roll as lengths says.
    ends = np.concatenate(list(rolls([4, 2, 3], 2)))
    np.savez(tmp_path / "ends.npz", rolls=ends, lengths=[4, 2, 3])
    splits = load_splits(data=str(tmp_path / "ends.npz"), valid_fraction=0, test_fraction=0, **ROLL)
    assert splits.train.offsets.tolist() == [0, 4, 6, 9]
    assert (splits.train.events == ends).all()


def test_midi_round_trip(tmp_path):
    roll = rolls([40])[0]
    roll[0, 40], roll[-1, 41] = 1, 1
    roll[3:20, 35] = 1
    write_midi(tmp_path / "a.mid", [roll], 2)
    np.testing.assert_array_equal(read_midi(tmp_path / "a.mid", 2), roll)
    doubled = read_midi(tmp_path / "a.mid", 4)
    np.testing.assert_array_equal(doubled, np.repeat(roll, 2, axis=0))
    (tmp_path / "b.MID").write_bytes((tmp_path / "a.mid").read_bytes())
    splits = load_splits(data=str(tmp_path), valid_fraction=0.0, test_fraction=0.5, **ROLL)
    assert splits.train.num_events == splits.test.num_events == 40 and splits.valid is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mid", b"not midi", r"a.mid is not a readable MIDI file: \w"),
        ("a.txt", b"x", "expected a .mat, .npz, .npy or MIDI file, or a folder of MIDI files, got"),
        ("a.mat", b"x", "a.mat is not a readable MATLAB file"),
        ("a.npz", b"x", "a.npz is not a valid"),
    ],
)
def test_broken_rolls(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_splits(data=str(tmp_path / name), **ROLL)


def test_wrong_rolls(tmp_path):
    with pytest.raises(InputError, match="data: there is no file"):
        load_splits(data=str(tmp_path / "none.mat"), **ROLL)
    with pytest.raises(InputError, match="has no MIDI files"):
        load_splits(data=str(tmp_path), **ROLL)
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 60)))
    with pytest.raises(InputError, match=r"a\.npz, x: expected a roll \[T, 88\] .* \(4, 60\)"):
        load_splits(data=str(tmp_path / "a.npz"), **ROLL)
    wide = np.zeros((4, 128))
    wide[2, 5] = 1
    np.savez(tmp_path / "b.npz", x=wide)
    with pytest.raises(InputError, match=r"b\.npz, x, row 2: a note lies outside"):
        load_splits(data=str(tmp_path / "b.npz"), **ROLL)
    for value in (np.nan, -1):
        odd = np.zeros((4, 88))
        odd[3, 5] = value
        np.savez(tmp_path / "c.npz", x=odd)
        with pytest.raises(InputError, match=r"c\.npz, x, row 3, column 5: .* at least 0, got"):
            load_splits(data=str(tmp_path / "c.npz"), **ROLL)


TUNES = {
    "train": [[[60, 55, -1, 40], [60, 57, -1, 40]], [[70, 60, 50, 45]] * 3],
    "valid": [[[62, 57, 50, -1]]],
    "test": [[[60, 55, -1, 40], [60, 57, -1, 40]]],
}


def test_voices(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TUNES))
    splits = load_splits(data=str(path), **VOICES)
    np.testing.assert_array_equal(
        splits.train.events, [[40, 35, 0, 20], [40, 37, 0, 20]] + [[50, 40, 30, 25]] * 3
    )
    np.testing.assert_array_equal(splits.train.offsets, [0, 2, 5])
    assert "0 of valid, 1 of test" in splits.description
    assert splits.codec.event_type.arguments == ((89,) * 4,)
    assert codec_from_dict(json.loads(json.dumps(splits.codec.to_dict()))) == splits.codec


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not readable JSON"),
        ("{}", "expected a list of tunes or an object with train"),
        ('{"train": 3}', "train: expected a list of tunes, got int"),
        ("[[[60, 61], [60]]]", "tune 0, frame 1: expected whole MIDI pitches"),
        ("[[[61, 60], [60.5, 61]]]", "pitches, as many as in the first frame, got [60.5, 61]"),
        ("[[[61, 60], [Infinity, 61]]]", "tune 0, frame 1: expected whole MIDI pitches"),
        ('[[["60", "61"], ["60", "61"]]]', "tune 0, frame 0: expected whole MIDI pitches"),
        ('[[[60, 61], [60, "61"]]]', "frame 1: expected whole MIDI pitches"),
        (f"[[[60, {10**400}]]]", "frame 0: expected whole MIDI pitches"),
        ("[" * 100_000, "is not readable JSON"),
        ("[[[60, 61]], [[60, 130]]]", "tune 1, frame 0, voice 1: pitch 130 lies outside 21 .. 108"),
        ("[[[60, 61]], [[60, 61, 62]]]", "tune 1: expected 2 voices, got 3"),
        ("[[[]]]", "tune 0, frame 0: expected whole MIDI pitches"),
        ("[[], []]", "data: the training tunes have no frames"),
    ],
)
def test_wrong_voices(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(words)):
        load_splits(data=str(tmp_path / "a.json"), valid_fraction=0.0, test_fraction=0.0, **VOICES)


@pytest.mark.parametrize("model_end", [False, True])
@pytest.mark.parametrize("format", ["pianoroll", "voices"])
def test_transposition_moves_whole_tunes_and_no_note_is_lost(tmp_path, format, model_end):
    if format == "pianoroll":
        path = tmp_path / "a.mat"
        parts = rolls([9, 30, 14, 21], low=1, high=85)  # Near both ends of the keyboard.
        write_mat(path, parts, rolls([1]), rolls([1]))
        settings = ROLL
    else:
        path = tmp_path / "a.json"
        tunes = [[[21, 60, -1, 107]] * 9, [[50, 60, -1, 70]] * 30, [[105, 100, 90, 80]] * 14]
        path.write_text(json.dumps(tunes))
        settings = VOICES | {"valid_fraction": 0.0, "test_fraction": 0.0}
    splits = load_splits(data=str(path), model_end=model_end, **settings)
    corpus = splits.train
    augmentation = make_augmentation(splits.codec, corpus, transpose=5)
    windows = {name: [] for name in ("events", "mask", "reset")}
    iterator = train_iterator(corpus, 1, 7, seed=1, augmentation=augmentation)
    plain = train_iterator(corpus, 1, 7, seed=1)
    shifts = set()
    for epoch_window in range(60):
        moved, original = next(iterator), next(plain)
        for name in ("mask", "reset"):
            np.testing.assert_array_equal(getattr(moved, name), getattr(original, name))
        windows["events"].append((moved, original))
        del epoch_window
    current = None
    for moved, original in windows["events"]:
        events = [b.events["event"] if model_end else b.events for b in (moved, original)]
        for t in range(7):
            if not original.mask[0, t]:
                continue
            if original.reset[0, t]:
                current = None
            found, expected = events[0][0, t].astype(int), events[1][0, t].astype(int)
            if format == "pianoroll":
                keys = np.flatnonzero(found), np.flatnonzero(expected)
            else:
                keys = found[found > 0], expected[expected > 0]
                np.testing.assert_array_equal(found > 0, expected > 0)
            assert len(keys[0]) == len(keys[1])
            if len(keys[0]):
                (shift,) = set(keys[0] - keys[1])
                assert abs(shift) <= 5 and current in (None, shift)
                current = shift
                shifts.add(shift)
    assert len(shifts) > 3
    with pytest.raises(InputError, match="transpose=2 needs a format of music, got"):
        text = tmp_path / "t.txt"
        text.write_text("abc")
        make_augmentation(load_splits(data=str(text)).codec, corpus, transpose=2)


def test_formats_have_their_own_names():
    names = [name for name in FORMATS if name not in ("text", "lines")]
    assert [list(FORMATS[name].codecs) for name in names] == [[name] for name in names]
