"""Piano rolls: which of the piano's 88 keys sound in each time frame."""

import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np

from grnn_jax.data.array_sequences import is_array_file, read_array_sequences
from grnn_jax.data.arrays import load_mat
from grnn_jax.data.codec import EventType
from grnn_jax.data.corpus import Events
from grnn_jax.data.midi import read_midi
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences
from grnn_jax.errors import InputError

NUM_KEYS = 88
LOWEST_PITCH = 21
"""MIDI number of the lowest key."""

_MAT_SPLITS = {"train": "traindata", "valid": "validdata", "test": "testdata"}


@dataclasses.dataclass(frozen=True)
class PianorollCodec(SequenceCodec):
    """Frames of 88 bits, from A0 to C8.

    Attributes:
        frames_per_beat: frames of a quarter note, for reading and for writing MIDI.
        mean: part of all bits that is set in the training data.
    """

    frames_per_beat: int = 2
    mean: float = 0.5
    name: ClassVar[str] = "pianoroll"
    options: ClassVar[tuple[str, ...]] = ("frames_per_beat",)
    training_options: ClassVar[tuple[str, ...]] = ("transpose",)

    @property
    def num_pitches(self) -> int:
        return NUM_KEYS

    @property
    def event_type(self) -> EventType:
        return EventType("bits", (NUM_KEYS,), {"mean": self.mean})

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads a .mat file of the 2012 splits, .npz, .npy, a MIDI file or a folder of them.

        In an .npz or .npy every array is a sequence, [T, 88] or [T, 128], a stack of them or an
        object array of them, see `read_array_sequences`.
        """
        file_or_folder = pathlib.Path(path)
        suffix = file_or_folder.suffix.lower()
        if suffix == ".mat":
            arrays = load_mat(path, tuple(_MAT_SPLITS.values()))
            return {
                split: _sequences(path, name, arrays[name]) for split, name in _MAT_SPLITS.items()
            }
        if is_array_file(path):
            splits = read_array_sequences(path, 2, axes="T, 88", one_width=False)
            return {
                split: Sequences(
                    rolls.names,
                    [_roll(*pair) for pair in zip(rolls.items, rolls.names, strict=True)],
                )
                for split, rolls in splits.items()
            }
        files = [file_or_folder]
        if file_or_folder.is_dir():
            files = sorted(
                file
                for file in file_or_folder.rglob("*")
                if file.suffix.lower() in (".mid", ".midi")
            )
            if not files:
                raise InputError(f"{argument}: {path} has no MIDI files (.mid, .midi)")
        elif suffix not in (".mid", ".midi"):
            raise InputError(
                f"{argument}: expected a .mat, .npz, .npy or MIDI file, or a folder of MIDI "
                f"files, got {path}"
            )
        rolls = [read_midi(file, options["frames_per_beat"]) for file in files]
        return {"": Sequences([str(file) for file in files], rolls)}

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "PianorollCodec":
        # One more bit of either value, so that the mean lies inside (0, 1).
        num_set = 1 + sum(int(roll.sum()) for roll in train.items)
        num_bits = 2 + sum(roll.size for roll in train.items)
        return cls(with_end, mean=num_set / num_bits, **options)

    def empty(self) -> Events:
        return np.empty((0, NUM_KEYS), np.uint8)

    def encode(self, item: Any, name: str) -> Events:
        return item


def _sequences(path: str, name: str, array: np.ndarray) -> Sequences:
    """The rolls of one array: one roll, a stack of them, or an object array of them."""
    single = array.dtype != object and array.ndim == 2
    items = [array] if single else list(array.reshape(-1) if array.dtype == object else array)
    names = [f"{path}, {name}" + ("" if single else f"[{i}]") for i in range(len(items))]
    return Sequences(names, [_roll(item, where) for item, where in zip(items, names, strict=True)])


def _roll(roll: Any, name: str) -> np.ndarray:
    """A roll [T, 88] of zeros and ones."""
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] not in (NUM_KEYS, 128):
        raise InputError(f"{name}: expected a roll [T, {NUM_KEYS}] or [T, 128], got {roll.shape}")
    if not np.issubdtype(roll.dtype, np.number) and roll.dtype != bool:
        raise InputError(f"{name}: expected numbers, got {roll.dtype}")
    bad = ~(roll >= 0)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}, row {row}, column {column}: expected a number of at least 0, "
            f"got {roll[row, column]}"
        )
    bits = roll > 0
    if roll.shape[1] == 128:
        outside = np.delete(bits, np.s_[LOWEST_PITCH : LOWEST_PITCH + NUM_KEYS], 1)
        if outside.any():
            frame = int(outside.any(1).argmax())
            raise InputError(f"{name}, row {frame}: a note lies outside the piano's 88 keys")
        bits = bits[:, LOWEST_PITCH : LOWEST_PITCH + NUM_KEYS]
    return bits.astype(np.uint8)
