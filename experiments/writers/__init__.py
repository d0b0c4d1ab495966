"""How samples of each format are written: the files of a format, and a picture of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from absl import logging

from grnn_jax.data import Codec
from grnn_jax.data.corpus import Events
from grnn_jax.errors import InputError
from writers import drawings, images, music, tables
from writers.names import SAMPLE


class Writer(NamedTuple):
    """How samples of a format are written.

    Attributes:
        write: writes samples into a folder, and says which files.
        plot: draws samples, beside held-out data where there are any.
        picture: name of the picture.
        write_csv: writes all samples to one open file, where the format is a table.
        write_npz: writes all samples to one file of arrays, where the format has another.
    """

    write: Callable[[Any, list[Events], Path], list[Path]]
    plot: Callable[[Any, list[Events], list[Events], Path], Path]
    picture: str
    write_csv: Callable[[Any, list[Events], TextIO], None] | None = None
    write_npz: Callable[[Any, list[Events], Path], None] | None = None


WRITERS = {
    "pianoroll": Writer(music.write, music.plot, "pianorolls.png"),
    "voices": Writer(music.write, music.plot, "pianorolls.png"),
    "strokes": Writer(drawings.write, drawings.plot, "drawings.png"),
    "images": Writer(images.write, images.plot, "images.png"),
    "events": Writer(tables.write, tables.plot, "events.png", tables.write_csv),
    "series": Writer(tables.write, tables.plot, "series.png", tables.write_csv, tables.write_npz),
}
"""By the name of the codec; a new format is one file and one line here."""


def write_folder(
    codec: Codec, samples: list[Events], folder: str | Path, data: list[Events] | None = None
) -> list[Path]:
    """Writes samples and a picture of them into a folder.

    Args:
        codec: the codec of the run.
        samples: events.
        folder: made where it does not exist.
        data: held-out sequences, for the picture.

    Returns:
        The files that were written; the picture is missing where matplotlib is.

    Raises:
        InputError: the folder cannot be written to, or a package is missing.
    """
    writer, folder = WRITERS[codec.name], Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = writer.write(codec, samples, folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    except ImportError as error:
        raise InputError(f"cannot write such samples: {error}; pip install {error.name}") from error
    others = {path.name for path in folder.glob(f"{SAMPLE}*")} - {path.name for path in paths}
    if others:
        logging.warning("%s holds %d samples of an earlier request too", folder, len(others))
    try:
        paths.append(writer.plot(codec, samples, data or [], folder / writer.picture))
    except ImportError as error:
        logging.warning("could not draw the samples: %s", error)
    return paths
