"""Small grey images, read pixel by pixel."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from grnn_jax.data.array_sequences import is_array_file, read_array_sequences
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.declared import gib_limit
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences
from grnn_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ImagesCodec(SequenceCodec):
    """One level a pixel, row after row, each from left to right.

    Pixels become the levels 0 .. levels - 1 as `pixels` says, which the training split decides:

    - "bool": False is 0, True the highest level.
    - "unit", for floats: v in [0, 1] becomes min(floor(v · levels), levels - 1).
    - "levels", for integers none of which exceeds levels - 1: they are the levels.
    - "bytes", for other integers: v in 0 .. 255 becomes floor(v · levels / 256).

    Attributes:
        levels: a power of two.
        height: pixels of a column.
        width: pixels of a row.
        pixels: what the pixels of a file are.
        as_is: whether an array [H, W] is one image whatever its shape, as in runs of earlier
          versions, whose codec does not say.
    """

    levels: int = 2
    height: int = 0
    width: int = 0
    pixels: str = "bytes"
    as_is: bool = True
    name: ClassVar[str] = "images"
    condition_options: ClassVar[tuple[str, ...]] = ("condition_on",)
    options: ClassVar[tuple[str, ...]] = ("levels", "as_is")

    @property
    def event_type(self) -> EventType:
        return EventType("levels", (self.levels,))

    @property
    def num_events(self) -> int:
        return self.height * self.width

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads an .npz or .npy: arrays [N, H, W] (or [H, W], a single image).

        Arrays named train, valid and test are the splits.
        """
        if not is_array_file(path):
            raise InputError(f"{argument}: expected an .npz or .npy file of images, got {path}")
        bad = BadRecords(options.get("skip_bad", False))
        read = read_array_sequences(
            path,
            2,
            axes="H, W",
            one_width=False,
            bad=bad,
            max_gib=gib_limit(options),
            conditions=asked(options).columns,
        )
        bad.finish("images")
        if not options.get("as_is", False):
            for images in read.values():
                _check_not_flat(images)
        return read

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "ImagesCodec":
        levels = options["levels"]
        if levels not in [2**n for n in range(1, 17)]:
            raise InputError(f"levels must be a power of two from 2 to 65536, got {levels}")
        first = train.items[0]
        if first.ndim != 2 or not first.size:
            raise InputError(f"{train.names[0]}: expected an image [H, W], got {list(first.shape)}")
        kind = first.dtype.kind
        if kind not in "biuf":
            raise InputError(f"{train.names[0]}: expected an image of numbers, got {first.dtype}")
        integers = [item for item in train.items if item.dtype.kind in "iu"]
        is_levels = max((int(item.max(initial=0)) for item in integers), default=0) < levels
        pixels = {"b": "bool", "f": "unit"}.get(kind, "levels" if is_levels else "bytes")
        height, width = first.shape
        return cls(with_end, levels, height, width, pixels, options["as_is"])

    def empty(self) -> Events:
        return np.empty(0, np.uint8 if self.levels <= 256 else np.uint16)

    def encode(self, item: Any, name: str) -> Events:
        if item.shape != (self.height, self.width):
            raise InputError(
                f"{name}: expected an image [{self.height}, {self.width}], as the first one for "
                f"training, got {list(item.shape)}"
            )
        kinds, highest = {
            "bool": ("b", 1),
            "unit": ("f", 1),
            "levels": ("iu", self.levels - 1),
            "bytes": ("iu", 255),
        }[self.pixels]
        if item.dtype.kind not in kinds:
            raise InputError(
                f"{name}: expected {self._pixels_in_words()} as in training, got {item.dtype}"
            )
        bad = ~((item >= 0) & (item <= highest))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"{name}, row {row}, column {column}: expected {self._pixels_in_words()}, "
                f"got {item[row, column]}"
            )
        if self.pixels == "bool":
            levels = item * (self.levels - 1)
        elif self.pixels == "unit":
            levels = np.minimum(np.floor(item.astype(np.float64) * self.levels), self.levels - 1)
        elif self.pixels == "bytes":
            levels = item.astype(np.int64) * self.levels // 256
        else:
            levels = item
        return levels.reshape(-1).astype(self.empty().dtype)

    def _pixels_in_words(self) -> str:
        return {
            "bool": "booleans",
            "unit": "floats in [0, 1]",
            "levels": f"integers in 0 .. {self.levels - 1}",
            "bytes": "integers in 0 .. 255",
        }[self.pixels]


def _check_not_flat(images: Sequences) -> None:
    """Raises InputError for an array [N, H·W], which is more likely many images than one."""
    for name, item in zip(images.names, images.items, strict=True):
        is_array = not name.endswith("]")  # Not an element of one.
        side = math.isqrt(item.shape[1]) if item.ndim == 2 else 0
        if is_array and side >= 4 and side * side == item.shape[1] and len(item) != side * side:
            raise InputError(
                f"{name}: expected images [N, H, W], got {list(item.shape)}, which looks like "
                f"{len(item)} images of {side * side} pixels; reshape it to [{len(item)}, {side}, "
                f"{side}]; as_is=true takes it as one image of {len(item)} rows"
            )
