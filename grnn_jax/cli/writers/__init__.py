"""How samples of each format are written: the files of a format, and a picture of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from grnn_jax.cli.targets import Target
from grnn_jax.cli.writers import drawings, images, music, tables
from grnn_jax.data import Codec
from grnn_jax.data.corpus import Events

MakeTarget = Callable[[Any, Path, int], Target]


class Writer(NamedTuple):
    """How samples of a format are written.

    Attributes:
        to_folder: (codec, folder, number of samples) -> where samples go in a folder.
        plot: draws samples, beside held-out data where there are any.
        picture: name of the picture.
        to_file: the same as `to_folder` for one file, by its suffix, where the format has such.
    """

    to_folder: MakeTarget
    plot: Callable[[Any, list[Events], list[Events], Path], Path]
    picture: str
    to_file: Mapping[str, MakeTarget] = {}


_TABLE = {".csv": tables.to_csv, ".parquet": tables.to_parquet}
WRITERS = {
    "pianoroll": Writer(music.to_folder, music.plot, "pianorolls.png"),
    "voices": Writer(music.to_folder, music.plot, "pianorolls.png"),
    "strokes": Writer(drawings.to_folder, drawings.plot, "drawings.png"),
    "images": Writer(images.to_folder, images.plot, "images.png"),
    "events": Writer(tables.to_folder, tables.plot, "events.png", _TABLE),
    "series": Writer(
        tables.to_folder, tables.plot, "series.png", {**_TABLE, ".npz": tables.to_npz}
    ),
}
"""By the name of the codec; a new format is one file and one line here."""


def folder_target(
    codec: Codec,
    folder: str | Path,
    num_samples: int,
    held_out: Callable[[int], list[Events]] = lambda count: [],
) -> Target:
    """A folder of samples and a picture of the first of them, which is missing where matplotlib is.

    Args:
        codec: the codec of the run.
        folder: made where it does not exist.
        num_samples: number of samples.
        held_out: number of sequences -> so many held-out ones at most, for the picture.
    """
    writer, folder = WRITERS[codec.name], Path(folder)

    def picture(samples: list[Events]) -> None:
        try:
            writer.plot(codec, samples, held_out(len(samples)), folder / writer.picture)
        except ImportError as error:
            logging.warning("could not draw the samples: %s", error)

    return writer.to_folder(codec, folder, num_samples)._replace(picture=picture)
