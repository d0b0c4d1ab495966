"""How samples of each format are written: the files of a format, and a picture of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from grnn_jax.cli.targets import Target
from grnn_jax.cli.writers import drawings, images, json_lines, music, tables
from grnn_jax.data import Codec
from grnn_jax.data.corpus import Events

MakeTarget = Callable[[Any, Path, int], Target]


class Writer(NamedTuple):
    """How samples of a format are written.

    Attributes:
        to_folder: (codec, folder, number of samples) -> where samples go in a folder.
        plot: draws samples, beside held-out data where there are any; None for no picture.
        picture: name of the picture.
        to_file: the same as `to_folder` for one file, by its suffix, where the format has such.
        shown: which of these files can go to standard output; "" for none.
    """

    to_folder: MakeTarget
    plot: Callable[[Any, list[Events], list[Events], Path], Path] | None = None
    picture: str = ""
    to_file: Mapping[str, MakeTarget] = {}
    shown: str = ""


_TABLE = {".csv": tables.to_csv, ".parquet": tables.to_parquet}
WRITERS = {
    "pianoroll": Writer(music.to_folder, music.plot, "pianorolls.png", {".npz": music.to_npz}),
    "voices": Writer(
        music.voices_to_folder, music.plot, "pianorolls.png", {".json": music.to_json}
    ),
    "strokes": Writer(
        drawings.to_folder,
        drawings.plot,
        "drawings.png",
        {
            ".npz": drawings.to_npz,
            ".json": drawings.to_json,
            ".ndjson": drawings.to_json_lines,
        },
    ),
    "images": Writer(images.to_folder, images.plot, "images.png", {".npz": images.to_npz}),
    "events": Writer(tables.to_folder, tables.plot, "events.png", _TABLE, ".csv"),
    "series": Writer(
        tables.to_folder, tables.plot, "series.png", {**_TABLE, ".npz": tables.to_npz}, ".csv"
    ),
}
"""By the name of the codec. A format needs no line here: others are written as JSON."""

JSON_LINES = Writer(json_lines.to_folder, to_file={".jsonl": json_lines.to_file}, shown=".jsonl")
"""For all other codecs."""


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
    writer, folder = WRITERS.get(codec.name, JSON_LINES), Path(folder)
    target = writer.to_folder(codec, folder, num_samples)
    if writer.plot is None:
        return target
    plot = writer.plot

    def picture(samples: list[Events]) -> None:
        try:
            plot(codec, samples, held_out(len(samples)), folder / writer.picture)
        except ImportError as error:
            logging.warning("could not draw the samples: %s", error)

    return target._replace(picture=picture)
