"""Events in time and series as tables, with the columns of the data."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from grnn_jax.cli.targets import Target, array_file, parquet_file, text_file
from grnn_jax.cli.writers.pictures import plot_fans, plot_rasters
from grnn_jax.data.corpus import Events, map_events
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.tables import column_names

TableCodec = EventsCodec | SeriesCodec


def _events(events: Events) -> tuple[np.ndarray, Events]:
    """When each event happened, and the events; the wait for no event is left out."""
    happened = ~np.asarray(events["wait"]["censored"], bool)
    events = map_events(lambda leaf: np.asarray(leaf)[happened], events)
    return np.cumsum(events["wait"]["wait"], dtype=np.float64), events


def events_until(events: Events, time: float) -> tuple[Events, bool]:
    """The events of a sample that happened up to a time, and whether the sample goes so far."""
    times = np.cumsum(np.asarray(events["wait"]["wait"], np.float64))
    kept = int((times <= time).sum())
    return map_events(lambda leaf: np.asarray(leaf)[:kept], events), kept < len(times)


def _rows(codec: TableCodec, events: Events) -> Iterator[list[str]]:
    """The cells of a sample, without its name; nine digits give a float32 back."""
    if isinstance(codec, SeriesCodec):
        for step in np.asarray(events):
            yield [f"{value:.9g}" for value in step]
        return
    times, events = _events(events)
    columns = column_names(codec.mark_columns)
    for row, time in enumerate(times):
        marks = zip(columns, codec.marks, strict=True)
        yield [f"{time:.9g}", *(names[int(events[column][row])] for column, names in marks)]


def _is_named(codec: TableCodec, num_samples: int) -> bool:
    """Whether a column tells samples apart; several get one where the data have none."""
    return bool(codec.sequence_column) or num_samples > 1


def _columns(codec: TableCodec, num_samples: int) -> list[tuple[str, str]]:
    """The columns of a table, each with Arrow's name of its type."""
    name = codec.sequence_column or "sequence"
    columns = [(name, "int64")] if _is_named(codec, num_samples) else []
    if isinstance(codec, SeriesCodec):
        return columns + [(name, "float32") for name in codec.channels]
    marks = [(name, "string") for name in column_names(codec.mark_columns)]
    return [*columns, (codec.time_column, "float64"), *marks]


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _lines(codec: TableCodec, num_samples: int) -> tuple[str, Callable[[int, Events], str]]:
    """The first line of a table, and the function that makes the lines of a sample."""
    is_named = _is_named(codec, num_samples)

    def to_text(number: int, events: Events) -> str:
        return _csv([number, *row] if is_named else row for row in _rows(codec, events))

    return _csv([[name for name, _ in _columns(codec, num_samples)]]), to_text


def to_csv(codec: TableCodec, path: Path, num_samples: int) -> Target:
    """A table of the samples as CSV, as the codec reads it.

    Args:
        codec: the codec of the run.
        path: the file.
        num_samples: number of samples. Several are told apart by a column "sequence" where the data
            have no such column.

    Returns:
        Where samples go. Times of events count from the origin of their sequence, which is 0.
    """
    return text_file(path, *_lines(codec, num_samples))


def to_parquet(codec: TableCodec, path: Path, num_samples: int) -> Target:
    """The table of `to_csv` as Parquet."""
    return parquet_file(path, *_lines(codec, num_samples), dict(_columns(codec, num_samples)))


def to_npz(codec: SeriesCodec, path: Path, num_samples: int) -> Target:
    """Series as arrays samples [N, T, C] and lengths [N]; zeros follow the end of one."""
    del num_samples
    return array_file(path, np.float32, (None, len(codec.channels)), np.asarray)


def to_folder(codec: TableCodec, folder: Path, num_samples: int) -> Target:
    """The file samples.csv."""
    return to_csv(codec, folder / "samples.csv", num_samples)._replace(folder=folder)


def plot(codec: Any, samples: list[Events], data: list[Events], path: Path) -> Path:
    """Draws when events happened, or the quantiles of series."""
    if isinstance(codec, SeriesCodec):
        return plot_fans(path, samples, codec.channels, data)
    marked = column_names(codec.mark_columns)[:1]

    def raster(events: Events) -> tuple[np.ndarray, np.ndarray | None]:
        times, events = _events(events)
        return times, events[marked[0]] if marked else None

    sequences, others = ([raster(events) for events in each] for each in (samples, data))
    names = codec.marks[0] if marked else ()
    return plot_rasters(path, sequences, names, others, unit=codec.time_unit)
