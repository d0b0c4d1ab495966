"""Standard MIDI files to piano rolls and back, by the library mido."""

import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import UInt8

from grnn_jax.errors import InputError

_PERCUSSION = 9
_LOWEST_PITCH = 21
_NUM_KEYS = 88
TICKS_PER_BEAT = 480
_MOST_TICKS = 32767
"""Most ticks of a beat that the header of a file can hold."""

MOST_FRAMES = 1 << 20
"""Most frames of a roll; a broken file may declare any number."""

_MARK = "grnn_jax: {} frames, {} a beat"
_MARK_PATTERN = re.compile(r"grnn_jax: (\d{1,9}) frames, (\d{1,9}) a beat")
# Key signatures of -7 .. 7 sharps, major or minor; others stop mido, and nothing here reads any.
_KEY_SIGNATURE = re.compile(rb"(\xff\x59\x02)..", re.DOTALL)
_FRACTIONAL_RATE = 29
"""SMPTE's number for 30/1.001 frames a second."""


@dataclasses.dataclass
class NoteCounts:
    """What was done with the notes of files.

    Attributes:
        outside: notes outside the piano's 88 keys, which are left out.
        unclosed: notes without an end, which last until their track ends.
    """

    outside: int = 0
    unclosed: int = 0


def read_midi(
    path: str | os.PathLike[str],
    frames_per_beat: int,
    counts: NoteCounts | None = None,
    *,
    earlier: bool = False,
) -> UInt8[np.ndarray, "T 88"]:
    """Reads all notes of a MIDI file, percussion excepted.

    Arguments and what is raised are those of `read_midi_pieces`.

    Returns:
        The roll of the only piece.
    """
    pieces = read_midi_pieces(path, frames_per_beat, counts, earlier=earlier)
    if len(pieces) > 1:
        raise InputError(f"{path}: expected one piece, got {len(pieces)}, as MIDI of format 2")
    return pieces[0]


def read_midi_pieces(
    path: str | os.PathLike[str],
    frames_per_beat: int,
    counts: NoteCounts | None = None,
    *,
    earlier: bool = False,
) -> list[UInt8[np.ndarray, "T 88"]]:
    """Reads the pieces of a MIDI file: of format 2 each track is one, else all are one together.

    A key is set in every frame that its note sounds in, and at least in the frame nearest to its
    beginning, the earlier of two equally near. A note lasts until its note_off, until it is struck
    again or until its track ends. Where ticks are parts of a second (SMPTE), the tempo says how
    long a beat is.

    Args:
        path: the file.
        frames_per_beat: frames of a quarter note.
        counts: is told what was done with notes.
        earlier: whether to read as earlier versions did: of two equally near frames the even one,
            notes without an end left out, a note cut off by the end of the one before it in the
            same tick, all tracks together.

    Returns:
        The roll of each piece, from the first frame with a note to the last; of a file that
        `write_midi` wrote all frames.

    Raises:
        InputError: the file cannot be read, or has no note of the piano.
    """
    counts = NoteCounts() if counts is None else counts
    file = _parse(path)
    if earlier:
        per_frame = (file.ticks_per_beat or TICKS_PER_BEAT) / frames_per_beat
        notes = [note for track in file.tracks for note in _notes(track, counts, True)]
        length = _written_length(file.tracks, frames_per_beat)
        return [_roll(path, notes, lambda tick: round(tick / per_frame), length, counts)]
    frames_per_tick = frames_per_beat * _beats_per_tick(path, file)
    groups = [[track] for track in file.tracks] if file.type == 2 else [file.tracks]
    pieces = []
    for tracks in groups:
        notes = [note for track in tracks for note in _notes(track, counts, False)]
        length = _written_length(tracks, frames_per_beat)
        if file.type == 2 and not notes and length is None:
            continue  # A track of format 2 may hold a tempo alone.
        pieces.append(
            _roll(path, notes, lambda tick: _nearest(tick * frames_per_tick), length, counts)
        )
        _check_total(path, sum(map(len, pieces)), len(pieces))
    if not pieces:
        raise InputError(f"{path}: there is no note of the piano in it")
    return pieces


def read_midi_tracks(
    path: str | os.PathLike[str], frames_per_beat: int, counts: NoteCounts | None = None
) -> list[UInt8[np.ndarray, "T 88"]]:
    """Reads the tracks of a MIDI file apart, as `read_midi_pieces` reads them together.

    Args:
        path: the file, not of format 2.
        frames_per_beat: frames of a quarter note.
        counts: is told what was done with notes.

    Returns:
        Their rolls, all over the same frames; tracks without notes are left out, but not those of a
        file that `write_midi` wrote.

    Raises:
        InputError: the file cannot be read, or has no note of the piano.
    """
    counts, file = NoteCounts() if counts is None else counts, _parse(path)
    if file.type == 2:
        raise InputError(f"{path}: expected the tracks of one piece, got MIDI of format 2")
    frames_per_tick = frames_per_beat * _beats_per_tick(path, file)
    length = _written_length(file.tracks, frames_per_beat)
    tracks = [_notes(track, counts, False) for track in file.tracks]
    tracks = [notes for notes in tracks if notes or length is not None]
    every = [note for notes in tracks for note in notes]
    whole = _roll(path, every, lambda tick: _nearest(tick * frames_per_tick), length, counts)
    _check_total(path, len(whole) * len(tracks), len(tracks))
    start = 0
    if length is None:
        keys = [begin for pitch, begin, _ in every if 0 <= pitch - _LOWEST_PITCH < _NUM_KEYS]
        start = _nearest(min(keys) * frames_per_tick)
    return [
        _roll(
            path,
            notes,
            lambda tick: _nearest(tick * frames_per_tick) - start,
            len(whole),
            NoteCounts(),  # They are counted already.
        )
        for notes in tracks
    ]


def _check_total(path: str | os.PathLike[str], total: int, num_tracks: int) -> None:
    """Raises InputError where the rolls of tracks have too many frames together."""
    if total > MOST_FRAMES:
        raise InputError(
            f"{path}: expected at most {MOST_FRAMES} frames, got {total} in {num_tracks} tracks; "
            "is its timing damaged?"
        )


def _parse(path: str | os.PathLike[str]) -> Any:
    """The file as mido reads it."""
    import mido

    try:
        with open(path, "rb") as file:
            data = file.read()
        try:
            return mido.MidiFile(file=io.BytesIO(data))
        except mido.KeySignatureError:
            return mido.MidiFile(file=io.BytesIO(_KEY_SIGNATURE.sub(rb"\1\0\0", data)))
    except Exception as error:  # mido raises many kinds for a broken file.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is not a readable MIDI file: {reason}") from error


def _beats_per_tick(path: str | os.PathLike[str], file: Any) -> Fraction:
    """The part of a beat that a tick is."""
    division = file.ticks_per_beat
    if division > 0:
        return Fraction(1, division)
    if division == 0:
        raise InputError(f"{path}: expected ticks of a beat from 1, got 0")
    # SMPTE: minus the frames of a second in the upper byte, the ticks of a frame in the lower.
    rate, ticks = -(division >> 8), division & 0xFF
    tempi = {m.tempo for track in file.tracks for m in track if m.type == "set_tempo"} or {500_000}
    if not ticks or not rate or len(tempi) > 1 or 0 in tempi:
        raise InputError(
            f"{path}: its ticks are parts of a second (SMPTE, {rate} frames of {ticks} ticks), and "
            f"it has {len(tempi)} tempi; expected one, which says how long a beat is"
        )
    a_second = ticks * (Fraction(30_000, 1001) if rate == _FRACTIONAL_RATE else rate)
    return Fraction(1_000_000, tempi.pop()) / a_second


def _notes(track: Iterable[Any], counts: NoteCounts, earlier: bool) -> list[tuple[int, int, int]]:
    """Pitch, begin and end of the notes of a track, in ticks."""
    now = 0
    notes: list[tuple[int, int, int]] = []
    sounding: dict[tuple[int, int], int] = {}
    struck_again: set[tuple[int, int]] = set()  # In the present tick.
    for message in track:
        now += message.time
        if message.time:
            struck_again.clear()
        if message.type not in ("note_on", "note_off") or message.channel == _PERCUSSION:
            continue
        voice = message.channel, message.note
        is_on = message.type == "note_on" and message.velocity > 0
        if not is_on and voice in struck_again:
            struck_again.remove(voice)  # It ends the note before, which ended when this one began.
            continue
        if voice in sounding:
            begin = sounding.pop(voice)
            notes.append((message.note, begin, now))
            if is_on and begin < now and not earlier:
                struck_again.add(voice)
        if is_on:
            sounding[voice] = now
    if not earlier:
        counts.unclosed += len(sounding)
        notes += [(note, begin, now) for (_, note), begin in sounding.items()]
    return notes


def _nearest(frames: Fraction) -> int:
    """The nearest whole number, the lower of two equally near.

    Python's `round` gives the even one: 1, 3, 1, 3, … sixteenths to a frame of half a beat.
    """
    return (2 * frames.numerator + frames.denominator - 1) // (2 * frames.denominator)


def _written_length(tracks: Iterable[Any], frames_per_beat: int) -> int | None:
    """The frames of a roll that `write_midi` wrote; None of any other file."""
    for track in tracks:
        for message in track:
            if message.type == "text" and (mark := _MARK_PATTERN.fullmatch(message.text)):
                return _nearest(Fraction(int(mark[1]) * frames_per_beat, max(int(mark[2]), 1)))
    return None


def _roll(
    path: str | os.PathLike[str],
    notes: list[tuple[int, int, int]],
    to_frame: Callable[[int], int],
    length: int | None,
    counts: NoteCounts,
) -> UInt8[np.ndarray, "T 88"]:
    """The roll of some notes, from the first to the last, or of a given length."""
    framed = []
    for pitch, begin, end in notes:
        if not 0 <= pitch - _LOWEST_PITCH < _NUM_KEYS:
            counts.outside += 1
            continue
        first = to_frame(begin)
        framed.append((pitch - _LOWEST_PITCH, first, max(first + 1, to_frame(end))))
    if not framed and length is None:
        raise InputError(f"{path}: there is no note of the piano in it")
    start = min(begin for _, begin, _ in framed) if length is None else 0
    stop = max((end for *_, end in framed), default=0)
    total = max(stop, length or 0) - start
    if total > MOST_FRAMES:
        raise InputError(
            f"{path}: expected at most {MOST_FRAMES} frames, got notes over {total}; is its timing "
            "damaged?"
        )
    # How many notes of a key begin or end in each frame: many tracks may hold it for long.
    edges = np.zeros((total + 1, _NUM_KEYS), np.int32)
    for key, begin, end in framed:
        edges[begin - start, key] += 1
        edges[end - start, key] -= 1
    return (np.cumsum(edges, axis=0, out=edges)[:-1] > 0).astype(np.uint8)


def write_midi(
    path: str | os.PathLike[str],
    tracks: list[UInt8[np.ndarray, "T 88"]],
    frames_per_beat: int,
    beats_per_minute: float = 100.0,
) -> None:
    """Writes piano rolls as a MIDI file; a key that stays set is one long note.

    Rests before the first note and after the last one are kept: a text event says how many frames
    there are.

    Args:
        path: the file.
        tracks: one roll a track.
        frames_per_beat: frames of a quarter note.
        beats_per_minute: tempo.

    Raises:
        InputError: a beat has more frames than a file can tell apart.
    """
    import mido

    if not 1 <= frames_per_beat <= _MOST_TICKS:
        raise InputError(
            f"frames_per_beat must be from 1 to {_MOST_TICKS} to be written as MIDI, got "
            f"{frames_per_beat}"
        )
    # A whole number of ticks for each frame, so that no frame moves.
    per_frame = -(-TICKS_PER_BEAT // frames_per_beat)
    file = mido.MidiFile(ticks_per_beat=per_frame * frames_per_beat)
    for number, roll in enumerate(tracks):
        track = mido.MidiTrack()
        if number == 0:
            mark = _MARK.format(max(map(len, tracks)), frames_per_beat)
            track.append(mido.MetaMessage("text", text=mark))
            track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute)))
        edges = np.diff(np.pad(roll.astype(np.int8), ((1, 1), (0, 0))), axis=0)
        now = 0
        for frame, key in np.argwhere(edges).tolist():
            on = edges[frame, key] > 0
            track.append(
                mido.Message(
                    "note_on" if on else "note_off",
                    note=key + _LOWEST_PITCH,
                    velocity=72 if on else 0,
                    time=frame * per_frame - now,
                )
            )
            now = frame * per_frame
        track.append(mido.MetaMessage("end_of_track", time=len(roll) * per_frame - now))
        file.tracks.append(track)
    file.save(path)
