"""Any samples, empty, silent and extreme ones too, written by a writer and read by its codec."""

import string
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grnn_jax.cli.large_request import Record, write_request
from grnn_jax.cli.writers import WRITERS, tables
from grnn_jax.cli.writers.texts import TextSample, text_form
from grnn_jax.data.corpus import FileSource, iter_lines
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.formats import load_file
from grnn_jax.data.images import ImagesCodec
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.data.text_codec import build_codec
from grnn_jax.data.voices import VoicesCodec
from grnn_jax.errors import InputError

LARGEST = float(np.finfo(np.float32).max)
FLOATS = st.floats(-LARGEST, LARGEST, width=32)
WAITS = st.one_of(st.just(0.0), st.floats(2**-10, 1e3, width=32))


def write(target, samples):
    write_request(target, len(samples), {}, lambda first: (Record(s, b"") for s in samples[first:]))


def check(codec, name, samples):
    """Samples that are written to a file, or to a folder of which all is read, are read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        writer = WRITERS[codec.name]
        to_target = writer.to_file.get(path.suffix, writer.to_folder)
        write(to_target(codec, path, len(samples)), samples)
        corpus = load_file(str(path), codec.name, codec)
        # What is empty has an event where ends are modelled, and is left out elsewhere.
        ends = bool(codec.wraps_end)
        lengths = [len(jax.tree.leaves(sample)[0]) + ends for sample in samples]
        assert np.diff(corpus.offsets).tolist() == [length for length in lengths if length]
        kept = [sample for sample, length in zip(samples, lengths, strict=True) if length]
        expected = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)
        found = corpus.events
        if ends:
            assert np.flatnonzero(found["end"]).tolist() == (corpus.offsets[1:] - 1).tolist()
            found = jax.tree.map(lambda leaf: leaf[~np.asarray(found["end"])], found["event"])
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def samples_of(element, max_length=5, min_length=0):
    """One to four samples of some steps."""
    one = st.lists(element, min_size=min_length, max_size=max_length)
    return st.lists(one, min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(
    samples_of(st.frozensets(st.integers(0, 87), max_size=3)),
    st.sampled_from([1, 2, 7, 9, 480, 481, 32767]),
    st.booleans(),
    st.sampled_from(["folder", "a.npz"]),
)
def test_piano_rolls(samples, frames_per_beat, earlier, name):
    codec = PianorollCodec(True, frames_per_beat=frames_per_beat, earlier_midi=earlier)
    rolls = []
    for sample in samples:
        roll = np.zeros((len(sample), 88), np.uint8)
        for frame, keys in enumerate(sample):
            roll[frame, sorted(keys)] = 1
        rolls.append(roll)
    check(codec, name, rolls)


@settings(max_examples=25, deadline=None)
@given(
    samples_of(st.tuples(*[st.sampled_from([0, 1, 2, 88])] * 2)),
    st.sampled_from([1, 7, 480, 32767]),
    st.sampled_from(["a.json", "folder"]),
)
def test_voices(samples, frames_per_beat, name):
    tunes = [np.array(sample, np.uint8).reshape(-1, 2) for sample in samples]
    check(VoicesCodec(True, num_voices=2, frames_per_beat=frames_per_beat), name, tunes)


@settings(max_examples=40, deadline=None)
@given(
    samples_of(st.tuples(FLOATS, FLOATS, st.integers(0, 1))),
    st.sampled_from(["a.npz", "a.json", "a.ndjson"]),
)
def test_strokes(samples, name):
    drawings = [
        {
            "offset": np.array([each[:2] for each in [*sample, (0, 0)]], np.float32),
            "pen": np.array([each[2] for each in sample] + [2], np.int8),
        }
        for sample in samples
    ]
    check(StrokesCodec(as_is=False), name, drawings)


@settings(max_examples=40, deadline=None)
@given(
    samples_of(st.tuples(FLOATS, FLOATS), min_length=1),
    st.sampled_from(["a.csv", "a.parquet", "a.npz"]),
    st.tuples(st.text(string.printable, min_size=1), st.text(string.printable, min_size=1)),
)
def test_series(samples, name, channels):
    if len({"id", *channels}) < 3 or any(each.isdecimal() for each in channels):
        channels = ("0", "1")
    codec = SeriesCodec(sequence_column="id", channels=channels, whole_table=False)
    check(codec, name, [np.array(sample, np.float32) for sample in samples])


MARKS = st.lists(st.text(string.printable + "äß", min_size=1), min_size=1, max_size=4, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    samples_of(st.tuples(WAITS, st.integers(0, 3)), min_length=1),
    MARKS,
    st.sampled_from(["zero", "first"]),
    st.one_of(st.none(), st.floats(0, 3e3)),
    st.sampled_from(["a.csv", "a.parquet"]),
)
def test_events(samples, marks, origin, until, name):
    codec = EventsCodec(
        marks=(tuple(marks),), origin=origin, end_column="end" if until is not None else ""
    )
    events = []
    for sample in samples:
        waits = np.array([wait for wait, _ in sample], np.float32)
        codes = np.array([code % len(marks) for _, code in sample], np.int32)
        one = {"wait": {"wait": waits, "censored": np.zeros(len(waits), bool)}, "mark": codes}
        if until is not None:
            one, _ = tables.events_until(one, until, with_rest=True)
            # What was not observed has no mark; a rest of almost nothing is rounded.
            one["mark"] = np.where(one["wait"]["censored"], 0, one["mark"])
            one["wait"]["wait"] = np.where(
                one["wait"]["censored"], np.round(one["wait"]["wait"]) + 1, one["wait"]["wait"]
            ).astype(np.float32)
        if len(one["mark"]):
            events.append(one)
    if events:
        check(codec, name, events)


@settings(max_examples=25, deadline=None)
@given(st.lists(arrays(np.int32, 6, elements=st.integers(0, 7)), min_size=1, max_size=3))
def test_images(samples):
    codec = ImagesCodec(levels=8, height=2, width=3, pixels="levels")
    check(codec, "a.npz", samples)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    st.sampled_from(["a.txt", "a.smi", "a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.fa", "a"]),
)
@example(["\ufeff\ufeffa", "\ufeff"], "a.txt")
@example(["b\r", "\ra\r\r"], "a")
def test_lines(texts, name):
    codec = build_codec("chars", texts, end=True)
    form = text_form(codec, name)
    texts = [text for text in texts if form.read(text) is not None]
    if not any(texts):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / name)
        write(form.target(path), [TextSample(text, {}) for text in texts])
        source = FileSource(
            path,
            column="text" * (form.header != "" or name == "a.jsonl"),
            by_line=True,
            as_is=name != "a.fa",
        )
        found = [line for _, _, line in iter_lines(source)]
    assert found == [seen for text in texts if (seen := form.read(text))]


@pytest.mark.parametrize("name", ["a.npz", "a.parquet", "a.fa.gz", "a.json", "a.fastq"])
def test_lines_are_not_written_to_such_files(name):
    codec = build_codec("chars", ["ab"], end=True)
    if name == "a.parquet":
        codec = build_codec("chars", ["ab"])
    else:
        assert text_form(codec, "a.csv").header == "text\n"
        assert text_form(codec, "a.csv", as_is=True).header == ""
    with pytest.raises(InputError, match=rf"--output: samples of .* \(\.txt.*\), got {name}"):
        text_form(codec, name)
