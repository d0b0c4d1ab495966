"""Drawings and handwriting: the movements of a pen."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from grnn_jax.data.array_sequences import finite_numbers, is_array_file, read_array_sequences
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.declared import gib_limit
from grnn_jax.data.drawings import read_drawings
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences, convert_each
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
        as_is: whether JSON in which all strokes are two pairs of numbers holds points, as all did
          in runs of earlier versions, whose codec does not say.
    """

    scale: float = 1.0
    as_is: bool = True
    name: ClassVar[str] = "strokes"
    condition_options: ClassVar[tuple[str, ...]] = ("condition_on",)
    options: ClassVar[tuple[str, ...]] = ("as_is",)

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

        JSON holds drawings as strokes of points, as such rows, or as Quick Draw does, see
        `read_drawings`. The first point counts as an offset from (0, 0).
        """
        bad = BadRecords(options.get("skip_bad", False))
        given = asked(options).columns
        if is_array_file(path):
            splits = read_array_sequences(
                path, 2, axes="T, 3", bad=bad, max_gib=gib_limit(options), conditions=given
            )
            checked = {split: convert_each(read, _checked, bad) for split, read in splits.items()}
        else:
            splits, to_rows = read_drawings(
                path, argument, options.get("as_is", False), bad, gib_limit(options), given
            )
            checked = {
                split: convert_each(
                    read, lambda item, name: _checked(to_rows(item, name), name), bad
                )
                for split, read in splits.items()
            }
        bad.finish("drawings")
        return checked

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "StrokesCodec":
        offsets = np.concatenate([item[:, :2] for item in train.items])
        scale = float(offsets.std()) if len(offsets) else 0.0
        if not scale:
            raise InputError("data: the training drawings have no two offsets that differ")
        return cls(with_end, scale, options["as_is"])

    def empty(self) -> Events:
        return {"offset": np.empty((0, 2), np.float32), "pen": np.empty(0, np.int8)}

    def encode(self, item: Any, name: str) -> Events:
        return {
            "offset": np.concatenate([item[:, :2], np.zeros((1, 2))]).astype(np.float32),
            "pen": np.append(item[:, 2], END_OF_DRAWING).astype(np.int8),
        }


def _checked(drawing: Any, name: str) -> Float[np.ndarray, "T 3"]:
    """A drawing as rows (Δx, Δy, lifted) of finite numbers."""
    rows = finite_numbers(drawing, name, _COLUMNS)
    bad = (rows[:, 2] != 0) & (rows[:, 2] != 1)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{name}, row {row}, pen: expected 0 (drawing) or 1 (lifted after this movement), "
            f"got {rows[row, 2]:g}"
        )
    return rows
