"""Samples of every format as files: what other programs, and the codecs, read from them."""

import csv
import itertools
import json
import re
import sys
import weakref
import xml.etree.ElementTree

import jax
import mido
import numpy as np
import pytest
from pyarrow import parquet

from grnn_jax import cells, distributions, drawing
from grnn_jax.cli import large_request, text_samples, writers
from grnn_jax.cli.writers import drawings, images, tables
from grnn_jax.cli.writers.texts import text_form
from grnn_jax.config import Config
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.images import ImagesCodec
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.data.text_codec import build_codec
from grnn_jax.data.voices import VoicesCodec
from grnn_jax.distributions.ended import with_end
from grnn_jax.errors import InputError
from grnn_jax.likelihood import log_prob
from grnn_jax.model import make_model
from grnn_jax.workdir import Run


def write(target, samples):
    def records(first):
        return (large_request.Record(sample, b"") for sample in samples[first:])

    large_request.write_request(target, len(samples), {}, records)


def write_folder(codec, samples, folder, data=()):
    """What the folder then holds, the picture last."""
    write(writers.folder_target(codec, folder, len(samples), lambda count: [*data]), samples)
    return sorted(folder.iterdir(), key=lambda path: (path.suffix == ".png", path.name))


def notes(path):
    """For each track of a MIDI file its notes: (pitch, first beat, last beat)."""
    file = mido.MidiFile(path)
    found = []
    for track in file.tracks:
        now, sounding, ended = 0, {}, []
        for message in track:
            now += message.time
            if message.type == "note_on":
                assert message.note not in sounding
                sounding[message.note] = now
            elif message.type == "note_off":
                begin = sounding.pop(message.note)
                ended.append((message.note, begin / file.ticks_per_beat, now / file.ticks_per_beat))
        assert not sounding
        found.append(sorted(ended))
    return found


def test_a_piano_roll_as_midi(tmp_path):
    roll = np.zeros((6, 88), np.uint8)
    roll[0:4, 39] = 1  # Middle C, two beats of two frames each.
    roll[2:3, 87] = 1
    roll[4:6, 87] = 1
    empty = np.zeros((0, 88), np.uint8)
    written = write_folder(PianorollCodec(), [roll, empty], tmp_path / "new", [roll])
    assert [path.name for path in written] == ["sample_0.mid", "sample_1.mid", "pianorolls.png"]
    assert notes(written[0]) == [[(60, 0, 2), (108, 1, 1.5), (108, 2, 3)]]
    assert notes(written[1]) == [[]]
    assert written[2].read_bytes().startswith(b"\x89PNG")
    read = PianorollCodec.read(str(written[0]), "data", {"frames_per_beat": 2})[""].items[0]
    np.testing.assert_array_equal(read, roll)


def test_voices_are_tracks(tmp_path):
    tune = np.array([[60, 48], [60, -1], [62, 48], [-1, 48]])
    codec = VoicesCodec(num_voices=2, frames_per_beat=4)
    (path, whole, _) = write_folder(codec, [codec.encode(tune, "tune")], tmp_path)
    assert notes(path) == [
        [(60, 0, 0.5), (62, 0.5, 0.75)],
        [(48, 0, 0.25), (48, 0.5, 1)],
    ]
    assert whole.name == "samples.json" and json.loads(whole.read_text()) == [tune.tolist()]


DRAWING = [[[10, 20], [13, 24]], [[0, 0]], [[50, 5], [50, 45], [10, 45]]]


def test_strokes_are_those_of_the_data(tmp_path):
    (tmp_path / "d.json").write_text(f"[{DRAWING}]")
    (item,) = StrokesCodec.read(str(tmp_path / "d.json"), "data", {})[""].items
    found = drawings.strokes(StrokesCodec().encode(item, "drawing"))
    assert [stroke.tolist() for stroke in found] == DRAWING
    # A sample that was cut off before its end has the same strokes.
    events = {key: leaf[:-1] for key, leaf in StrokesCodec().encode(item, "drawing").items()}
    assert [stroke.tolist() for stroke in drawings.strokes(events)] == DRAWING


def test_svg(tmp_path):
    codec = StrokesCodec()
    points = np.concatenate([np.array(stroke, float) for stroke in DRAWING])
    pen = np.array([0, 1, 1, 0, 0, 1])
    events = {"offset": np.diff(points, axis=0, prepend=np.zeros((1, 2))), "pen": pen}
    nothing = {"offset": np.zeros((1, 2)), "pen": np.array([2])}
    paths = write_folder(codec, [events, nothing], tmp_path, [events])
    assert [path.suffix for path in paths] == [".svg", ".svg", ".npz", ".png"]
    root = xml.etree.ElementTree.parse(paths[0]).getroot()
    width, height = float(root.get("width")), float(root.get("height"))
    strokes = [
        np.array(re.findall(r"[\d.-]+", part), float).reshape(-1, 2)
        for part in root[0].get("d").split("M")[1:]
    ]
    # A stroke of one point goes from there to there, which round ends make a dot.
    assert [len(stroke) for stroke in strokes] == [2, 2, 3]
    np.testing.assert_array_equal(strokes[1][0], strokes[1][1])
    drawn = np.concatenate([strokes[0], strokes[1][:1], strokes[2]])
    assert (drawn > 0).all() and (drawn < [width, height]).all()
    # Shifted and scaled alike along both axes, and not turned upside down.
    scale = (drawn[-2] - drawn[0]) / (points[-2] - points[0])
    assert scale[0] > 0 and np.isclose(scale[0], scale[1], rtol=1e-3)
    np.testing.assert_allclose(drawn - drawn[0], (points - points[0]) * scale, atol=0.02)
    assert xml.etree.ElementTree.parse(paths[1]).getroot()[0].get("d") == ""


@pytest.mark.parametrize(
    ("pixels", "levels"),
    [
        *itertools.product(["bool", "unit", "levels"], [2, 8, 256, 1024]),
        *itertools.product(["bytes"], [2, 4, 8, 16, 32, 64, 128]),
    ],
)
def test_images_read_back_are_the_levels(tmp_path, pixels, levels):
    codec = ImagesCodec(levels=levels, height=32, width=32, pixels=pixels)
    every = np.arange(1024) % levels
    if pixels == "bool":
        every = every % 2 * (levels - 1)
    (path, _) = write_folder(codec, [every.astype(np.int32), every[:40]], tmp_path)
    whole, cut = ImagesCodec.read(str(path), "data", {})[""].items
    np.testing.assert_array_equal(codec.encode(whole, "image"), every)
    # The pixels after those that were drawn are zeros in the file, and left out of the picture.
    expected = np.where(np.arange(1024) < 40, every, 0)
    np.testing.assert_array_equal(codec.encode(cut, "image"), expected)
    assert np.isnan(images.brightness(codec, every[:40])).sum() == 1024 - 40


EVENTS_TABLE = (
    "patient,when,what,ward,other\n"
    "p,0.5,visit,A,1\n"
    'p,2.25,drug,"B, ""C""",2\n'
    "q,7,drug,A,3\n"
    "p,1000000.5,visit,A,3\n"
)
COLUMNS = {
    "sequence_column": "patient", "time_column": "when", "mark_columns": "what,ward",
    "time_unit": "days", "origin": "zero", "end_column": "",
}  # fmt: skip


def test_events_read_back_are_the_samples(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text(EVENTS_TABLE)
    data = EventsCodec.read(str(path), "data", COLUMNS)[""]
    codec = EventsCodec.fit(data, False, COLUMNS)
    samples = [codec.encode(item, "p") for item in data.items]
    written = write_folder(codec, samples, tmp_path / "out", samples)
    assert [path.name for path in written] == ["samples.csv", "events.png"]
    with open(written[0], newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["patient", "when", "what", "ward"],
        ["0", "0.5", "visit", "A"],
        ["0", "2.25", "drug", 'B, "C"'],
        ["0", "1000000.5", "visit", "A"],
        ["1", "7", "drug", "A"],
    ]
    table = tmp_path / "e.parquet"
    write(tables.to_parquet(codec, table, len(samples)), samples)
    for path in (written[0], table):
        again = EventsCodec.read(str(path), "data", COLUMNS)[""]
        for item, sample in zip(again.items, samples, strict=True):
            jax.tree.map(np.testing.assert_array_equal, codec.encode(item, "p"), sample)
    # Types are those of the columns, also where there is no row to tell them from.
    nothing = jax.tree.map(lambda leaf: leaf[:0], samples[0])
    write(tables.to_parquet(codec, tmp_path / "none.parquet", 1), [nothing])
    schemas = [parquet.read_schema(path) for path in (table, tmp_path / "none.parquet")]
    assert schemas[0] == schemas[1] and [str(kind) for kind in schemas[0].types] == [
        "int64", "double", "string", "string"
    ]  # fmt: skip


def test_a_wait_for_nothing_is_no_row(tmp_path):
    codec = EventsCodec(sequence_column="", time_column="t", mark_columns="")
    waits = {"wait": np.float32([1, 2, 4]), "censored": np.array([False, False, True])}
    path = tmp_path / "e.csv"
    write(tables.to_csv(codec, path, 1), [{"wait": waits}])
    assert path.read_text() == "t\n1\n3\n"
    write(tables.to_csv(codec, path, 2), [{"wait": waits}] * 2)
    assert path.read_text() == "sequence,t\n0,1\n0,3\n1,1\n1,3\n"


@pytest.mark.parametrize(
    ("time", "kept", "reached"), [(0.5, 0, True), (3.0, 2, True), (6.9, 2, True), (7.0, 3, False)]
)
def test_a_sample_ends_at_a_time(time, kept, reached):
    waits = {"wait": np.float32([1, 2, 4]), "censored": np.zeros(3, bool)}
    events, goes_so_far = tables.events_until({"wait": waits, "mark": np.arange(3)}, time)
    assert goes_so_far is reached
    np.testing.assert_array_equal(events["mark"], np.arange(kept))
    np.testing.assert_array_equal(events["wait"]["wait"], waits["wait"][:kept])


def test_a_sample_up_to_a_time_ends_there_in_the_file(tmp_path):
    waits = {"wait": np.float32([0.1, 0.7, 4]), "censored": np.zeros(3, bool)}
    codec = EventsCodec(time_column="t", mark_columns="", end_column="end")
    part, _ = tables.events_until({"wait": waits}, 3.0, with_rest=True)
    nothing, _ = tables.events_until({"wait": waits}, 0.05, with_rest=True)
    write(tables.to_csv(codec, tmp_path / "e.csv", 3), [part, nothing, {"wait": waits}])
    times = [repr(float(t)) for t in np.cumsum(np.float32([0.1, 0.7, 4]), dtype=np.float64)]
    assert (tmp_path / "e.csv").read_text() == (
        f"sequence,t,end\n0,{times[0]},3\n0,{times[1]},3\n1,,0.05\n"
        f"2,{times[0]},\n2,{times[1]},\n2,{times[2]},\n"
    )


def test_what_a_file_of_text_cannot_hold_is_told(monkeypatch):
    codec = build_codec("words", ["the cat sat.\n"], end=True)
    run = Run(None, {}, codec, Config(), 0)
    texts = [["the", " ", "cat", "the"], ["sat", "."], [], ["the"]]
    drawn = [[int(codec.encode(word)[0]) for word in words] for words in texts]
    samples = [
        drawing.Drawn(np.array(ids + [codec.end] * (ids != drawn[3]), np.int32), 1.0, len(ids))
        for ids in drawn
    ]
    told = []
    for name in ("info", "warning"):
        monkeypatch.setattr(text_samples.logging, name, lambda text, *v: told.append(text % v))
    form = text_form(codec, "a.txt")
    records = text_samples.text_records(run, np.zeros(0, np.int32), lambda first: samples, form)
    assert [r.value.text for r in records(0)] == ["the catthe", "sat.", "", "the"]
    assert told[1].startswith("1 of 4 samples are read back from such a file as other symbols, as")
    assert "'the catthe'" in told[1]
    assert told[2].startswith("of 4 samples 1 are empty, ") and "and 1 were cut off" in told[2]


@pytest.mark.parametrize("name", ["s.csv", "s.npz", "s.parquet"])
def test_series_read_back_are_the_samples(tmp_path, name):
    rng = np.random.default_rng(0)
    samples = [(1e3 * rng.normal(size=(length, 2))).astype(np.float32) for length in (5, 1, 8)]
    codec = SeriesCodec(
        sequence_column="id", channels=("0", "1"), shift=(0.0, 0.0), scale=(1.0, 1.0)
    )
    make = writers.WRITERS["series"].to_file[name[1:]]
    write(make(codec, tmp_path / name, len(samples)), samples)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    options = {"sequence_column": "id", "value_columns": ""}
    read = SeriesCodec.read(str(tmp_path / name), "data", options)[""]
    for item, sample in zip(read.items, samples, strict=True):
        np.testing.assert_array_equal(codec.encode(item, "series"), sample)
    (table, picture) = write_folder(codec, samples, tmp_path / "out")
    assert table.read_text().startswith("id,0,1\n") and picture.name == "series.png"


@pytest.mark.parametrize("end", [False, True])
def test_drawn_sequences_are_scored_as_the_model_scores_them(end):
    family = distributions.bernoulli(88)
    model = make_model(cells.gru(4), with_end(family) if end else family)
    run = Run(model, jax.jit(model.init)(jax.random.key(0)), PianorollCodec(end), Config(), 0)
    drawn = list(drawing.iterate_samples(run, num_samples=4, length=9, seed=3, options={}))
    counts = np.array([sample.num_events for sample in drawn])
    proper = [drawing.without_end(run.codec, sample.events) for sample in drawn]
    lengths = np.array([len(events) for events in proper])
    assert ((counts - lengths == 1) | (lengths == 9)).all()
    assert (lengths < 9).any() == end
    rolls = np.stack([np.pad(x, ((0, 9 - len(x)), (0, 0))) for x in proper])
    events = {"event": rolls, "end": np.arange(9) == lengths[:, None]} if end else rolls
    scored = log_prob(model, run.params, events, np.arange(9) < counts[:, None])
    np.testing.assert_allclose([sample.nats for sample in drawn], -scored, rtol=1e-4)


def test_the_row_of_the_end_is_no_event():
    events = {"event": {"x": np.array([3, 4, 0])}, "end": np.array([False, False, True])}
    found = drawing.without_end(PianorollCodec(True), events)
    np.testing.assert_array_equal(found["x"], [3, 4])
    assert drawing.without_end(PianorollCodec(), events) is events


def test_lengths_where_none_is_asked_for():
    assert drawing.default_length(PianorollCodec()) == 600
    assert drawing.default_length(ImagesCodec(height=3, width=5)) == 15
    assert drawing.default_length(ImagesCodec(True, height=3, width=5)) == 16


def test_what_cannot_be_written(tmp_path, monkeypatch):
    roll = np.zeros((2, 88), np.uint8)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to .*file: File exists"):
        write_folder(PianorollCodec(), [roll], tmp_path / "file")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (path,) = write_folder(PianorollCodec(), [roll], tmp_path / "a")
    assert path.suffix == ".mid"
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(InputError, match="pip install mido"):
        write_folder(PianorollCodec(), [roll], tmp_path / "b")


def test_drawing_holds_few_samples(monkeypatch):
    monkeypatch.setattr(drawing, "BATCH_SIZE", 4)
    model = make_model(cells.gru(4), distributions.bernoulli(88))
    run = Run(model, jax.jit(model.init)(jax.random.key(0)), PianorollCodec(), Config(), 0)
    alive, most, on_device = [], 0, []
    for sample in drawing.iterate_samples(run, num_samples=80, length=9, seed=3, options={}):
        alive = [ref for ref in alive if ref() is not None] + [weakref.ref(sample.events)]
        most = max(most, len(alive))
        on_device.append(sum(array.nbytes for array in jax.live_arrays()))
    assert most <= 2
    assert max(on_device[40:70]) <= max(on_device[10:40])


def test_blocks_of_long_sequences_are_smaller():
    def batches(family, length):
        run = Run(make_model(cells.gru(4), family), {}, PianorollCodec(), Config(), 0)
        return drawing.block_batches(run, length)

    events = jax.tree.leaves(distributions.bernoulli(88).event)
    (width,) = [spec.shape[0] * np.dtype(spec.dtype).itemsize for spec in events]
    assert [batches(distributions.bernoulli(88), length) for length in (1, 10**6)] == [8, 1]
    assert batches(distributions.bernoulli(88), 2**16 // width) == 4


def test_a_long_text_is_not_held(monkeypatch, tmp_path):
    codec = build_codec("chars", ["ab"])
    model = make_model(cells.gru(4), distributions.categorical(2))
    run = Run(model, jax.jit(model.init)(jax.random.key(0)), codec, Config(), 0)
    looked = []
    monkeypatch.setattr(text_samples, "MOST_CHECKED", 64)
    monkeypatch.setattr(text_samples._Losses, "count", lambda self, *each: looked.append(each))
    for length in (64, 65):
        with open(tmp_path / "a.txt", "w", newline="") as file:
            form = text_form(codec, "a.txt")
            text_samples.write_samples(run, file, length=length, form=form)
        text = (tmp_path / "a.txt").read_text()
        assert len(text) == length
        assert len(looked) == 1 and text.startswith(looked[0][1])
