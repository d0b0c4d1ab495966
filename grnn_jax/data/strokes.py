"""Drawings and handwriting: the movements of a pen."""

import dataclasses
import json
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from grnn_jax.config import SPLITS
from grnn_jax.data.array_sequences import finite_numbers, is_array_file, read_array_sequences
from grnn_jax.data.codec import EventType
from grnn_jax.data.corpus import Events
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences
from grnn_jax.errors import InputError

END_OF_DRAWING = 2
_COLUMNS = ("Δx", "Δy", "pen")


@dataclasses.dataclass(frozen=True)
class StrokesCodec(SequenceCodec):
    """Offsets (Δx, Δy) of the pen, each with what the pen does after it.

    The pen is 0 where it goes on drawing, 1 where it is lifted, 2 at the end of the drawing: one
    more event with offset 0, which every drawing has, whatever `with_end` is.

    Attributes:
        scale: standard deviation of all offsets of the training split, along both axes together.
    """

    scale: float = 1.0
    name: ClassVar[str] = "strokes"

    @property
    def event_type(self) -> EventType:
        return EventType("pen", (), {"scale": self.scale})

    @property
    def wraps_end(self) -> bool:
        return False

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads an .npz (or .npy) or JSON.

        In an .npz a drawing is an array [T, 3] of rows (Δx, Δy, lifted), as in the stroke-3 format
        of sketch-rnn: lifted is 1 where the pen is lifted after the movement, else 0.

        JSON is a list of drawings, or an object with lists train, valid and test of drawings. A
        drawing is a list of strokes, a stroke a list of points [x, y]; or it is a list of such rows
        [Δx, Δy, lifted]. The first point counts as an offset from (0, 0).
        """
        is_array = is_array_file(path)
        splits = read_array_sequences(path, 2) if is_array else _read_json(path, argument)
        return {split: _checked(sequences) for split, sequences in splits.items()}

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "StrokesCodec":
        offsets = np.concatenate([item[:, :2] for item in train.items])
        scale = float(offsets.std()) if len(offsets) else 0.0
        if not scale:
            raise InputError("data: the training drawings have no two offsets that differ")
        return cls(with_end, scale)

    def empty(self) -> Events:
        return {"offset": np.empty((0, 2), np.float32), "pen": np.empty(0, np.int8)}

    def encode(self, item: Any, name: str) -> Events:
        return {
            "offset": np.concatenate([item[:, :2], np.zeros((1, 2))]).astype(np.float32),
            "pen": np.append(item[:, 2], END_OF_DRAWING).astype(np.int8),
        }


def _checked(sequences: Sequences) -> Sequences:
    """The drawings as rows (Δx, Δy, lifted) of finite numbers."""
    items = []
    for item, name in zip(sequences.items, sequences.names, strict=True):
        rows = finite_numbers(item, name, _COLUMNS)
        bad = (rows[:, 2] != 0) & (rows[:, 2] != 1)
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{name}, row {row}, pen: expected 0 (drawing) or 1 (lifted after this movement), "
                f"got {rows[row, 2]:g}"
            )
        items.append(rows)
    return Sequences(sequences.names, items)


def _read_json(path: str, argument: str) -> dict[str, Sequences]:
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{argument}: {path} is neither .npz nor readable JSON: {error}"
        ) from error
    drawings_of = {"": values}
    if isinstance(values, dict):
        drawings_of = {name: values[name] for name in SPLITS if name in values}
        if "train" not in drawings_of:
            raise InputError(
                f"{argument}: {path}: expected a list of drawings, or an object with lists train, "
                "valid and test"
            )
    splits = {}
    for split, drawings in drawings_of.items():
        label = f"{path}, {split}" if split else path
        if not isinstance(drawings, list):
            raise InputError(f"{label}: expected a list of drawings, got {type(drawings).__name__}")
        names = [f"{label} drawing {index}" for index in range(len(drawings))]
        rows = [_rows(drawing, name) for drawing, name in zip(drawings, names, strict=True)]
        splits[split] = Sequences(names, rows)
    return splits


def _rows(drawing: Any, name: str) -> Float[np.ndarray, "T C"]:
    """The rows of a drawing of either kind."""
    if not isinstance(drawing, list) or not all(isinstance(part, list) for part in drawing):
        raise InputError(f"{name}: expected a list of strokes or of rows [Δx, Δy, lifted]")
    if not drawing:
        return np.empty((0, 3))
    if not any(isinstance(part, list) for part in drawing[0]):
        return _array(drawing, 3, name)
    strokes = [_array(stroke, 2, f"{name}, stroke {index}") for index, stroke in enumerate(drawing)]
    points = np.concatenate(strokes)
    lifted = np.zeros(len(points))
    lifted[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    return np.column_stack([np.diff(points, axis=0, prepend=np.zeros((1, 2))), lifted])


def _array(values: Any, width: int, name: str) -> Float[np.ndarray, "T C"]:
    """A list of at least one list of `width` numbers."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != width:
        kind, what = ("point", "[x, y]") if width == 2 else ("row", "[Δx, Δy, lifted]")
        odd = [index for index, row in enumerate(values) if not _is_row(row, width)]
        if odd:
            name, values = f"{name}, {kind} {odd[0]}", values[odd[0]]
        else:
            what = f"a list of {kind}s {what}"
        raise InputError(f"{name}: expected {what}, all of them numbers, got {values!r:.80}")
    return array


def _is_row(row: Any, width: int) -> bool:
    is_list = isinstance(row, list) and len(row) == width
    return is_list and all(isinstance(number, int | float) for number in row)
