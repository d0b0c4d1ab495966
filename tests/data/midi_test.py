"""MIDI as it is in the wild: when notes begin and end, what is no note, what is no file."""

import json

import mido
import numpy as np
import pytest

from grnn_jax.data import load_file, load_splits
from grnn_jax.data.formats import codec_from_dict
from grnn_jax.data.midi import NoteCounts, read_midi, read_midi_tracks, write_midi
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.errors import InputError

ROLL = {"options": {"frames_per_beat": 2}, "format": "pianoroll"}


def save_midi(path, *tracks, division=480, type=1, tempo=None):
    """Writes tracks of (tick, message, pitch[, channel])."""
    file = mido.MidiFile(ticks_per_beat=division, type=type)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        if tempo:
            track.append(mido.MetaMessage("set_tempo", tempo=tempo))
        for tick, name, pitch, *channel in sorted(events, key=lambda event: event[0]):
            time, now = tick - now, tick
            if name == "end":
                track.append(mido.MetaMessage("end_of_track", time=time))
                continue
            channel = channel[0] if channel else 0
            velocity = 64 if name == "note_on" else 0
            message = mido.Message(name, note=pitch, velocity=velocity, channel=channel, time=time)
            track.append(message)
        file.tracks.append(track)
    file.save(path)


def keys(roll):
    """The pitches that sound in each frame."""
    return [[int(key) + 21 for key in np.flatnonzero(frame)] for frame in roll]


def note(begin, end, pitch, *channel):
    return [(begin, "note_on", pitch, *channel), (end, "note_off", pitch, *channel)]


def test_notes_between_two_frames_go_to_the_earlier(tmp_path):
    sixteenths = [event for i in range(16) for event in note(120 * i, 120 * i + 120, 60 + i)]
    save_midi(tmp_path / "a.mid", sixteenths)
    expected = [[60 + 2 * i, 61 + 2 * i] for i in range(8)]
    assert keys(read_midi(tmp_path / "a.mid", 2)) == expected
    # A little late or early it is the same frame, as for every other note.
    late = [
        event for i in range(8) for event in note(240 * i + i % 3 - 1 + 1, 240 * i + 200, 60 + i)
    ]
    save_midi(tmp_path / "a.mid", late)
    assert keys(read_midi(tmp_path / "a.mid", 2)) == [[60 + i] for i in range(8)]
    save_midi(tmp_path / "a.mid", sixteenths)
    earlier = read_midi(tmp_path / "a.mid", 2, earlier=True)
    assert [len(frame) for frame in keys(earlier)] == [2, 1, 3, 1, 3, 1, 3, 1, 1]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # Struck again at tick 480, where the note_off of the first comes after it.
        ([(0, "note_on", 60), (480, "note_on", 60), (480, "note_off", 60), (960, "note_off", 60)],
         [[60]] * 4),
        ([(0, "note_on", 60), (480, "note_off", 60), (480, "note_on", 60), (960, "note_off", 60)],
         [[60]] * 4),
        ([(0, "note_on", 60), (480, "note_on", 60), (720, "note_off", 60), *note(960, 1200, 62)],
         [[60]] * 3 + [[], [62]]),
        # Never closed: until the track ends.
        ([(0, "note_on", 60), *note(240, 480, 64), (960, "end", 0)], [[60], [60, 64], [60], [60]]),
        # Without duration, in the tick of another one.
        ([*note(0, 240, 62), (240, "note_on", 60), (240, "note_off", 60), *note(480, 720, 62)],
         [[62], [60], [62]]),
        # Percussion, and what lies outside the keys.
        ([*note(0, 240, 40, 9), *note(240, 480, 20), *note(480, 720, 60), *note(720, 960, 109)],
         [[60]]),
    ],
)  # fmt: skip
def test_where_notes_end(tmp_path, events, expected):
    save_midi(tmp_path / "a.mid", events)
    counts = NoteCounts()
    assert keys(read_midi(tmp_path / "a.mid", 2, counts)) == expected
    assert counts.outside == sum(each[0] == "note_on" and not 21 <= each[2] <= 108
                                 for each in ([e[1], 0, e[2]] for e in events))  # fmt: skip
    assert counts.unclosed == (events[-1][1] == "end")


@pytest.mark.parametrize(("rate", "ticks"), [(24, 80), (25, 40), (29, 100), (30, 4)])
@pytest.mark.parametrize("tempo", [None, 250_000, 1_000_000])
def test_ticks_that_are_parts_of_a_second(tmp_path, rate, ticks, tempo):
    a_second = ticks * (30 / 1.001 if rate == 29 else rate)
    beat = a_second * (tempo or 500_000) / 1e6
    events = [e for i in range(8) for e in note(round(i * beat), round((i + 1) * beat), 60 + i)]
    save_midi(tmp_path / "a.mid", events, division=-rate * 256 + ticks, tempo=tempo)
    expected = [[60 + i // 2] for i in range(16)]
    assert keys(read_midi(tmp_path / "a.mid", 2)) == expected


def test_ticks_that_cannot_be_beats(tmp_path):
    several = [mido.MetaMessage("set_tempo", tempo=t, time=40) for t in (400_000, 500_000)]
    file = mido.MidiFile(ticks_per_beat=-25 * 256 + 40)
    file.tracks.append(mido.MidiTrack(several))
    file.save(tmp_path / "a.mid")
    with pytest.raises(InputError, match=r"a.mid: .* \(SMPTE, 25 frames of 40 ticks\), .* 2 tempi"):
        read_midi(tmp_path / "a.mid", 2)
    save_midi(tmp_path / "a.mid", note(0, 9, 60), division=0)
    with pytest.raises(InputError, match="a.mid: expected ticks of a beat from 1, got 0"):
        read_midi(tmp_path / "a.mid", 2)
    save_midi(tmp_path / "a.mid", [*note(0, 9, 60), *note(2**28, 2**28 + 5, 60)], division=1)
    with pytest.raises(InputError, match="a.mid: expected at most 1048576 frames, got notes over"):
        read_midi(tmp_path / "a.mid", 2)


def test_a_file_without_notes(tmp_path):
    save_midi(tmp_path / "a.mid", note(0, 9, 20))
    with pytest.raises(InputError, match="a.mid: there is no note of the piano in it"):
        read_midi(tmp_path / "a.mid", 2)


def test_tracks_of_format_2_are_pieces(tmp_path):
    save_midi(tmp_path / "a.mid", note(0, 480, 60), [], note(240, 480, 72), type=2)
    with pytest.raises(InputError, match="a.mid: expected one piece, got 2"):
        read_midi(tmp_path / "a.mid", 2)
    read = PianorollCodec.read(str(tmp_path / "a.mid"), "data", {"frames_per_beat": 2})[""]
    assert [keys(item) for item in read.items] == [[[60]] * 2, [[72]]]
    assert read.names == [f"{tmp_path}/a.mid, track {i}" for i in (0, 1)]


def test_tracks_are_voices(tmp_path):
    tempo = [(0, "end", 0)]  # A track without notes.
    high = [*note(480, 960, 72), *note(960, 1200, 74)]
    save_midi(tmp_path / "a.mid", tempo, high, [*note(720, 960, 48), *note(1200, 1440, 48)])
    rolls = [keys(roll) for roll in read_midi_tracks(tmp_path / "a.mid", 2)]
    assert rolls == [[[72], [72], [74], []], [[], [48], [], [48]]]
    settings = {"options": {"frames_per_beat": 2}, "format": "voices", "valid_fraction": 0.0}
    splits = load_splits(data=str(tmp_path), test_fraction=0.0, **settings)
    expected = [[72, -1], [72, 48], [74, -1], [-1, 48]]
    assert (splits.train.events.astype(int) + 20).tolist() == [
        [20 if pitch < 0 else pitch for pitch in frame] for frame in expected
    ]
    save_midi(tmp_path / "a.mid", high, [*note(480, 960, 48), *note(720, 960, 50)])
    with pytest.raises(
        InputError, match="a.mid, voice 1, frame 1: expected one note at a time .* 2"
    ):
        load_splits(data=str(tmp_path / "a.mid"), test_fraction=0.0, **settings)
    save_midi(tmp_path / "a.mid", high, high, type=2)
    with pytest.raises(InputError, match="a.mid: expected the tracks of one piece, got MIDI of fo"):
        load_splits(data=str(tmp_path / "a.mid"), test_fraction=0.0, **settings)


def test_many_tracks_that_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr("grnn_jax.data.midi.MOST_FRAMES", 8)
    long = [note(0, 1440, pitch) for pitch in (60, 61, 60)]
    save_midi(tmp_path / "a.mid", *long)  # Six frames, all tracks together.
    assert keys(read_midi(tmp_path / "a.mid", 2)) == [[60, 61]] * 6
    save_midi(tmp_path / "b.mid", *long, type=2)
    with pytest.raises(InputError, match="b.mid: expected at most 8 frames, got 12 in 2 tracks"):
        read_midi(tmp_path / "b.mid", 2)
    with pytest.raises(InputError, match="a.mid: expected at most 8 frames, got 18 in 3 tracks"):
        read_midi_tracks(tmp_path / "a.mid", 2)


def test_a_broken_key_signature_does_not_matter(tmp_path):
    save_midi(tmp_path / "a.mid", note(0, 480, 60))
    data = (tmp_path / "a.mid").read_bytes()
    begin = data.index(b"MTrk")
    size = int.from_bytes(data[begin + 4 : begin + 8], "big")
    event = b"\0\xff\x59\x02\x30\x07"
    length = (size + len(event)).to_bytes(4, "big")
    (tmp_path / "a.mid").write_bytes(data[: begin + 4] + length + event + data[begin + 8 :])
    with pytest.raises(mido.KeySignatureError):
        mido.MidiFile(tmp_path / "a.mid")
    assert keys(read_midi(tmp_path / "a.mid", 2)) == [[60]] * 2


@pytest.mark.parametrize("skip", [False, True])
def test_all_bad_files_of_a_folder_are_named_at_once(tmp_path, skip, caplog):
    for i in range(4):
        save_midi(tmp_path / f"good{i}.mid", [*note(0, 480, 60 + i), *note(0, 9, 5)])
    (tmp_path / "._good0.mid").write_bytes(b"\0\5\x16\7" * 20)
    save_midi(tmp_path / "drums.mid", note(0, 480, 40, 9))
    (tmp_path / "broken.mid").write_bytes((tmp_path / "good0.mid").read_bytes()[:40])
    settings = ROLL | {"options": {"frames_per_beat": 2, "skip_bad": skip}}
    settings |= {"data": str(tmp_path), "valid_fraction": 0, "test_fraction": 0}
    if not skip:
        with pytest.raises(InputError) as error:
            load_splits(**settings)
        message = str(error.value)
        assert message.startswith(
            "2 of 6 MIDI files cannot be used; skip_bad=true leaves them out:"
        )
        assert "broken.mid is not a readable" in message and "drums.mid: there is no" in message
        return
    splits = load_splits(**settings)
    assert splits.train.num_sequences == 4
    skipped, outside = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert skipped.startswith("skipped 2 of 6 MIDI files, which cannot be used:\n")
    assert outside.startswith("4 notes outside the 88 keys of the piano were left out")
    assert load_file(str(tmp_path), "pianoroll", splits.codec, skip_bad=True).num_sequences == 4
    with pytest.raises(InputError, match="2 of 6 MIDI files"):
        load_file(str(tmp_path), "pianoroll", splits.codec)


def test_runs_of_earlier_versions_read_midi_as_they_did(tmp_path):
    sixteenths = [event for i in range(16) for event in note(120 * i, 120 * i + 120, 60 + i)]
    save_midi(tmp_path / "a.mid", [*sixteenths, (1920, "note_on", 90)])
    splits = load_splits(data=str(tmp_path / "a.mid"), valid_fraction=0, test_fraction=0, **ROLL)
    description = json.loads(json.dumps(splits.codec.to_dict()))
    assert not description.pop("earlier_midi")
    old = codec_from_dict(description)
    corpus = load_file(str(tmp_path / "a.mid"), "pianoroll", old)
    assert corpus.events.sum(1).tolist() == [2, 1, 3, 1, 3, 1, 3, 1, 1]
    assert splits.train.events.sum(1).tolist() == [2] * 8 + [1]


@pytest.mark.parametrize("frames_per_beat", [1, 2, 3, 7, 9, 96, 480, 481, 960, 32767])
def test_a_written_roll_is_read_as_it_was(tmp_path, frames_per_beat):
    path = tmp_path / "a.mid"
    roll = np.zeros((400, 88), np.uint8)
    for frame in range(5, 390, 5):  # Rests before, after and between.
        roll[frame : frame + 4, frame % 40 + 20] = 1
    write_midi(path, [roll], frames_per_beat)
    np.testing.assert_array_equal(read_midi(path, frames_per_beat), roll)
    ticks = sum(message.time for message in mido.MidiFile(path).tracks[0])
    assert ticks / mido.MidiFile(path).ticks_per_beat == pytest.approx(400 / frames_per_beat)
    for silent in (roll * 0, roll[:0]):
        write_midi(path, [silent], frames_per_beat)
        np.testing.assert_array_equal(read_midi(path, frames_per_beat), silent)
    with pytest.raises(InputError, match="frames_per_beat must be from 1 to 32767"):
        write_midi(path, [roll], 32768)
