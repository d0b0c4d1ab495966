"""Music in voices: the pitch that each voice sings in each time frame, or its silence."""

import dataclasses
import json
import pathlib
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.midi import NoteCounts, read_midi_tracks
from grnn_jax.data.pianoroll import LOWEST_PITCH, midi_files, read_midi_files
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences, convert_each
from grnn_jax.data.unseen import UnseenError
from grnn_jax.errors import InputError

REST = -1
"""The pitch of a silent voice in a file; class 0 of an event."""


@dataclasses.dataclass(frozen=True)
class VoicesCodec(SequenceCodec):
    """Frames of one class a voice: 0 is silence, k > 0 the pitch lowest_pitch + k - 1.

    Attributes:
        num_voices: voices of a frame.
        lowest_pitch: MIDI number of class 1.
        num_pitches: classes beside silence.
        frames_per_beat: frames of a quarter note, for reading and writing MIDI.
    """

    num_voices: int = 4
    lowest_pitch: int = 21
    num_pitches: int = 88
    frames_per_beat: int = 4
    name: ClassVar[str] = "voices"
    condition_options: ClassVar[tuple[str, ...]] = ("label_from",)
    options: ClassVar[tuple[str, ...]] = ("frames_per_beat",)
    training_options: ClassVar[tuple[str, ...]] = ("transpose",)

    @property
    def event_type(self) -> EventType:
        return EventType("fields", ((self.num_pitches + 1,) * self.num_voices,))

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads JSON, or a MIDI file or a folder of them, each a tune with one voice a track.

        JSON is a list of tunes, or an object with lists train, valid and test of tunes.

        A tune is a list of frames, a frame a list of MIDI pitches, one a voice, -1 for silence. One
        without frames is nothing but its end.
        """
        bad = BadRecords(options.get("skip_bad", False))
        if (files := midi_files(path, argument)) is not None:

            def pieces(file: pathlib.Path, counts: NoteCounts) -> list[np.ndarray]:
                return [_from_midi(file, options["frames_per_beat"], counts)]

            return {"": read_midi_files(files, pieces, bad, asked(options))}
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
        except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise InputError(f"{argument}: {path} is not readable JSON: {error}") from error
        if isinstance(values, list):
            tunes = {"": _tunes(path, "", values, bad)}
            bad.finish("tunes")
            return tunes
        names = [
            name
            for name in ("train", "valid", "test")
            if isinstance(values, dict) and name in values
        ]
        if "train" not in names:
            raise InputError(
                f"{argument}: {path}: expected a list of tunes or an object with train, valid, test"
            )
        tunes = {name: _tunes(path, name, values[name], bad) for name in names}
        bad.finish("tunes")
        return tunes

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "VoicesCodec":
        num_voices = next((item.shape[1] for item in train.items if len(item)), None)
        if num_voices is None:
            raise InputError("data: the training tunes have no frames")
        return cls(with_end, num_voices, **options)

    def empty(self) -> Events:
        return np.empty((0, self.num_voices), np.uint8)

    def encode(self, item: Any, name: str) -> Events:
        if not len(item):
            return self.empty()
        if item.shape[1] != self.num_voices:
            raise InputError(f"{name}: expected {self.num_voices} voices, got {item.shape[1]}")
        classes = np.where(item == REST, 0, item - self.lowest_pitch + 1)
        bad = (classes < 0) | (classes > self.num_pitches)
        if bad.any():
            frame, voice = (int(i) for i in np.argwhere(bad)[0])
            raise UnseenError(
                f"{name}, frame {frame}, voice {voice}: pitch {item[frame, voice]} lies outside "
                f"{self.lowest_pitch} .. {self.lowest_pitch + self.num_pitches - 1}",
                item[bad].tolist(),
            )
        return classes.astype(np.uint8)


def _from_midi(
    path: pathlib.Path, frames_per_beat: int, counts: NoteCounts
) -> Integer[np.ndarray, "T V"]:
    """The pitches of the tracks of a MIDI file, in each of which one note sounds at a time."""
    voices = []
    for number, roll in enumerate(read_midi_tracks(path, frames_per_beat, counts)):
        several = roll.sum(1) > 1
        if several.any():
            raise InputError(
                f"{path}, voice {number}, frame {int(several.argmax())}: expected one note at a "
                f"time in a track, got {roll.sum(1).max()}"
            )
        voices.append(np.where(roll.any(1), roll.argmax(1) + LOWEST_PITCH, REST))
    return np.stack(voices, 1)


def _tunes(path: str, split: str, tunes: Any, bad: BadRecords) -> Sequences:
    if not isinstance(tunes, list):
        raise InputError(f"{path}, {split}: expected a list of tunes, got {type(tunes).__name__}")
    names = [f"{path}, {split} tune {i}".replace(",  ", ", ") for i in range(len(tunes))]
    return convert_each(Sequences(names, tunes), _tune, bad)


def _tune(tune: Any, name: str) -> Integer[np.ndarray, "T V"]:
    """The pitches of a tune."""
    if tune == []:
        return np.empty((0, 0), np.int64)
    try:
        array = np.asarray(tune)
    except (TypeError, ValueError):
        array = np.empty(0)
    # JSON may hold NaN and Infinity, text that spells numbers, and integers of many digits.
    array = array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)
    is_whole = (array == np.round(array)) & (np.abs(array) < 2**31)
    if array.ndim != 2 or not array.size or not is_whole.all():
        frame, pitches = _odd_frame(tune)
        raise InputError(
            f"{name}, frame {frame}: expected whole MIDI pitches, as many as in the first "
            f"frame, got {pitches!r:.80}"
        )
    return array.astype(np.int64)


def _odd_frame(tune: Any) -> tuple[int, Any]:
    """The first frame that is not a list of whole numbers, as long as the first one."""
    frames = tune if isinstance(tune, list) else []
    for number, frame in enumerate(frames):
        if not isinstance(frame, list) or len(frame) != len(frames[0]):
            return number, frame
        if any(type(p) not in (int, float) or p % 1 or abs(p) >= 2**31 for p in frame):
            return number, frame
    return 0, tune
