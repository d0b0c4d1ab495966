"""Events in time and series as tables, with the columns of the data."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from grnn_jax.data.corpus import Events, map_events
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.tables import column_names
from writers.pictures import plot_fans, plot_rasters

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


def csv_header(codec: TableCodec, several: bool) -> str:
    """The first line of a table; `several` samples without a column of their own get one."""
    name = codec.sequence_column or ("sequence" if several else "")
    columns = (
        codec.channels
        if isinstance(codec, SeriesCodec)
        else (codec.time_column, *column_names(codec.mark_columns))
    )
    return _csv([[name, *columns] if name else columns])


def csv_sample(codec: TableCodec, events: Events, number: int, several: bool) -> str:
    """The lines of one sample, by the columns of `csv_header`."""
    named = bool(codec.sequence_column) or several
    return _csv([number, *row] if named else row for row in _rows(codec, events))


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_csv(codec: TableCodec, samples: list[Events], file: TextIO) -> None:
    """Writes the samples as CSV, as the codec reads it.

    Args:
        codec: the codec of the run.
        samples: events. Times of events count from the origin of their sequence, which is 0.
        file: where the table goes. Several samples are told apart by a column "sequence" where the
            data have no such column.
    """
    several = len(samples) > 1
    file.write(csv_header(codec, several))
    for number, events in enumerate(samples):
        file.write(csv_sample(codec, events, number, several))


def write_npz(codec: SeriesCodec, samples: list[Events], path: Path) -> None:
    """Writes series as arrays samples [N, T, C] and lengths [N]; zeros follow the end of one."""
    lengths = np.array([len(events) for events in samples])
    stacked = np.zeros((len(samples), lengths.max(), len(codec.channels)), np.float32)
    for row, events in zip(stacked, samples, strict=True):
        row[: len(events)] = events
    np.savez_compressed(path, samples=stacked, lengths=lengths)


def write(codec: TableCodec, samples: list[Events], folder: Path) -> list[Path]:
    """Writes samples.csv."""
    path = folder / "samples.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        write_csv(codec, samples, file)
    return [path]


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
