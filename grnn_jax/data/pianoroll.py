"""Piano rolls: which of the piano's 88 keys sound in each time frame."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from grnn_jax.data.array_sequences import is_array_file, read_array_sequences
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import CONDITIONS, Asked, Values, asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.declared import gib_limit
from grnn_jax.data.matlab import load_mat
from grnn_jax.data.midi import NoteCounts, read_midi_pieces
from grnn_jax.data.pickled_values import NoNumbers
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences, convert_each
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
        earlier_midi: whether MIDI is read as in earlier versions, see `read_midi_pieces`: so it is
          in their runs, whose codec does not say.
    """

    frames_per_beat: int = 2
    mean: float = 0.5
    earlier_midi: bool = True
    name: ClassVar[str] = "pianoroll"
    condition_options: ClassVar[tuple[str, ...]] = CONDITIONS
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
        bad = BadRecords(options.get("skip_bad", False))
        splits: dict[str, Sequences] = {}
        if suffix == ".mat":
            arrays = load_mat(path, tuple(_MAT_SPLITS.values()), gib_limit(options))
            splits = {
                split: _sequences(path, name, arrays[name]) for split, name in _MAT_SPLITS.items()
            }
        elif is_array_file(path):
            splits = read_array_sequences(
                path,
                2,
                axes="T, 88",
                one_width=False,
                bad=bad,
                max_gib=gib_limit(options),
                conditions=asked(options).columns,
            )
        if splits:
            rolls = {split: convert_each(read, _roll, bad) for split, read in splits.items()}
            bad.finish("rolls")
            return rolls
        files = midi_files(path, argument)
        if files is None:
            raise InputError(
                f"{argument}: expected a .mat, .npz, .npy or MIDI file, or a folder of MIDI "
                f"files, got {path}"
            )
        frames_per_beat, earlier = options["frames_per_beat"], options.get("earlier_midi", False)

        def pieces(file: pathlib.Path, counts: NoteCounts) -> list[np.ndarray]:
            return read_midi_pieces(file, frames_per_beat, counts, earlier=earlier)

        return {"": read_midi_files(files, pieces, bad, asked(options))}

    def read_options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("frames_per_beat", "earlier_midi")}

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "PianorollCodec":
        # One more bit of either value, so that the mean lies inside (0, 1).
        num_set = 1 + sum(int(roll.sum()) for roll in train.items)
        num_bits = 2 + sum(roll.size for roll in train.items)
        return cls(with_end, mean=num_set / num_bits, earlier_midi=False, **options)

    def empty(self) -> Events:
        return np.empty((0, NUM_KEYS), np.uint8)

    def encode(self, item: Any, name: str) -> Events:
        return item


def midi_files(path: str, argument: str) -> list[pathlib.Path] | None:
    """The MIDI files that a path names; None where it names another file.

    Args:
        path: a file, or a folder with MIDI files in it or below it.
        argument: the argument that named it.

    Raises:
        InputError: the folder has none.
    """
    found, suffixes = pathlib.Path(path), (".mid", ".midi")
    if not found.is_dir():
        return [found] if found.suffix.lower() in suffixes else None
    files = sorted(
        file
        for file in found.rglob("*")
        # What macOS keeps beside a file on other disks has its name after "._".
        if file.suffix.lower() in suffixes and not file.name.startswith("._")
    )
    if not files:
        raise InputError(f"{argument}: {path} has no MIDI files (.mid, .midi)")
    return files


def read_midi_files(
    files: Sequence[pathlib.Path],
    read: Callable[[pathlib.Path, NoteCounts], list[np.ndarray]],
    bad: BadRecords,
    what: Asked,
) -> Sequences:
    """The pieces of MIDI files.

    Args:
        files: the files.
        read: reads the pieces of one, and tells what was done with notes.
        bad: is told which cannot be read.
        what: which conditions are asked for: the folder of a file is all that is known.
    """
    counts, names, rolls = NoteCounts(), list[str](), list[np.ndarray]()
    conditions: list[Values] = []
    for file in files:
        with bad.record():
            pieces = read(file, counts)
            several = len(pieces) > 1
            names += [f"{file}, track {i}" if several else str(file) for i in range(len(pieces))]
            rolls += pieces
            conditions += [(file.absolute().parent.name,)] * len(pieces)
    bad.finish("MIDI files")
    if counts.outside or counts.unclosed:
        logging.getLogger(__name__).warning(
            "%d notes outside the 88 keys of the piano were left out; %d notes without an end last "
            "until their track ends",
            counts.outside,
            counts.unclosed,
        )
    is_asked = what.from_folder and not what.columns
    return Sequences(names, rolls, conditions=conditions if is_asked else None)


def _sequences(path: str, name: str, array: np.ndarray) -> Sequences:
    """The rolls of one array: one roll, a stack of them, or an object array of them."""
    single = array.dtype != object and array.ndim == 2
    items = [array] if single else list(array.reshape(-1) if array.dtype == object else array)
    names = [f"{path}, {name}" + ("" if single else f"[{i}]") for i in range(len(items))]
    return Sequences(names, items)


def _roll(roll: Any, name: str) -> np.ndarray:
    """A roll [T, 88] of zeros and ones."""
    if isinstance(roll, NoNumbers):
        raise InputError(f"{name}: expected a roll, got {roll.what}")
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
