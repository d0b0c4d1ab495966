"""Standard MIDI files to piano rolls and back, by the library mido."""

import os

import numpy as np
from jaxtyping import UInt8

from grnn_jax.errors import InputError

_PERCUSSION = 9
TICKS_PER_BEAT = 480


def read_midi(path: str | os.PathLike[str], frames_per_beat: int) -> UInt8[np.ndarray, "T 88"]:
    """Reads all notes of a MIDI file, percussion excepted.

    A key is set in every frame that its note sounds in, and at least in the frame nearest to its
    beginning.

    Args:
        path: the file.
        frames_per_beat: frames of a quarter note.

    Returns:
        The roll, from the first frame with a note to the last.

    Raises:
        InputError: the file cannot be read, or has no note of the piano.
    """
    import mido

    try:
        file = mido.MidiFile(path)
    except Exception as error:  # mido raises many kinds for a broken file.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is not a readable MIDI file: {reason}") from error
    per_frame = (file.ticks_per_beat or TICKS_PER_BEAT) / frames_per_beat
    notes: list[tuple[int, int, int]] = []
    for track in file.tracks:
        now = 0
        sounding: dict[tuple[int, int], int] = {}
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off") or message.channel == _PERCUSSION:
                continue
            voice = message.channel, message.note
            if voice in sounding:
                begin = round(sounding.pop(voice) / per_frame)
                notes.append((message.note - 21, begin, max(begin + 1, round(now / per_frame))))
            if message.type == "note_on" and message.velocity:
                sounding[voice] = now
    notes = [note for note in notes if 0 <= note[0] < 88]
    if not notes:
        raise InputError(f"{path}: there is no note of the piano in it")
    first = min(begin for _, begin, _ in notes)
    roll = np.zeros((max(end for *_, end in notes) - first, 88), np.uint8)
    for key, begin, end in notes:
        roll[begin - first : end - first, key] = 1
    return roll


def write_midi(
    path: str | os.PathLike[str],
    tracks: list[UInt8[np.ndarray, "T 88"]],
    frames_per_beat: int,
    beats_per_minute: float = 100.0,
) -> None:
    """Writes piano rolls as a MIDI file; a key that stays set is one long note.

    Args:
        path: the file.
        tracks: one roll a track.
        frames_per_beat: frames of a quarter note.
        beats_per_minute: tempo.
    """
    import mido

    file = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT)
    per_frame = TICKS_PER_BEAT // frames_per_beat
    for number, roll in enumerate(tracks):
        track = mido.MidiTrack()
        if number == 0:
            track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute)))
        edges = np.diff(np.pad(roll.astype(np.int8), ((1, 1), (0, 0))), axis=0)
        now = 0
        for frame, key in np.argwhere(edges).tolist():
            on = edges[frame, key] > 0
            track.append(
                mido.Message(
                    "note_on" if on else "note_off",
                    note=key + 21,
                    velocity=72 if on else 0,
                    time=frame * per_frame - now,
                )
            )
            now = frame * per_frame
        file.tracks.append(track)
    file.save(path)
