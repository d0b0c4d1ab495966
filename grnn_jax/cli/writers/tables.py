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
from grnn_jax.data.number_columns import LARGEST
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.tables import column_names

TableCodec = EventsCodec | SeriesCodec


def _events(events: Events) -> tuple[np.ndarray, Events]:
    """When each event happened, and the events; the wait for no event is left out."""
    happened = ~np.asarray(events["wait"]["censored"], bool)
    events = map_events(lambda leaf: np.asarray(leaf)[happened], events)
    return np.cumsum(events["wait"]["wait"], dtype=np.float64), events


def events_until(events: Events, time: float, *, with_rest: bool = False) -> tuple[Events, bool]:
    """The events of a sample that happened up to a time, and whether the sample goes so far.

    Args:
        events: the sample.
        time: where it is to end.
        with_rest: whether the wait in which nothing happened up to then is its last event.
    """
    times = np.cumsum(np.asarray(events["wait"]["wait"], np.float64))
    kept = int((times <= time).sum())
    reaches = kept < len(times)
    # The next event becomes the wait for it, as far as it is seen.
    part = map_events(lambda leaf: np.array(leaf[: kept + (with_rest and reaches)]), events)
    if with_rest and reaches:
        part["wait"]["wait"][kept] = time - (times[kept - 1] if kept else 0)
        part["wait"]["censored"][kept] = True
    return part, reaches


def float32_text(value: float) -> str:
    """Text that gives a number of 32 bits back.

    >>> float32_text(float(np.float32(0.1))), float32_text(float(np.finfo(np.float32).max))
    ('0.100000001', '3.4028234663852886e+38')
    """
    text = f"{value:.9g}"  # So many digits suffice, but the largest number is rounded to infinity.
    return text if abs(float(text)) <= LARGEST else repr(float(value))


def _float64_text(value: float) -> str:
    """The shortest text that gives a number of 64 bits back."""
    return repr(float(value)).removesuffix(".0")


def _end_text(last: float, rest: float) -> str:
    """The shortest text of an end that is read as a wait of 32 bits after the last event."""
    for digits in range(1, 17):
        end = float(f"{last + rest:.{digits}g}")
        if np.float32(end - last) == np.float32(rest):
            return _float64_text(end)
    return _float64_text(last + rest)


def _rows(codec: TableCodec, events: Events) -> Iterator[list[str]]:
    """The cells of a sample, without its name."""
    if isinstance(codec, SeriesCodec):
        for step in np.asarray(events).tolist():
            yield [float32_text(value) for value in step]
        return
    waits, censored = events["wait"]["wait"], np.asarray(events["wait"]["censored"])
    is_seen = bool(censored[-1:].any())  # Up to an end of observation.
    times, events = _events(events)
    last = float(times[-1]) if len(times) else 0.0
    end = [_end_text(last, float(waits[-1])) if is_seen else ""] * bool(codec.end_column)
    columns = column_names(codec.mark_columns)
    no_marks = [""] * len(columns)
    if codec.origin == "first":
        yield ["0", *no_marks, *end]  # The event from which the others are counted.
    elif is_seen and end and not len(times):
        yield ["", *no_marks, *end]
    for row, time in enumerate(times):
        pairs = zip(columns, codec.marks, strict=True)
        yield [
            _float64_text(time),
            *(names[int(events[column][row])] for column, names in pairs),
            *end,
        ]


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
    ends = [(codec.end_column, "float64")] * bool(codec.end_column)
    return [*columns, (codec.time_column, "float64"), *marks, *ends]


def csv_row(cells: Iterable[object], delimiter: str = ",") -> str:
    r"""A row of CSV that ends in \n; cells with either character of a line end are quoted.

    >>> csv_row([1, "a,b", "c\r"])
    '1,"a,b","c\r"\n'

    Args:
        cells: its cells.
        delimiter: what parts them.
    """
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _lines(codec: TableCodec, num_samples: int) -> tuple[str, Callable[[int, Events], str]]:
    """The first line of a table, and the function that makes the lines of a sample."""
    is_named = _is_named(codec, num_samples)

    def to_text(number: int, events: Events) -> str:
        rows = ([number, *row] if is_named else row for row in _rows(codec, events))
        return "".join(map(csv_row, rows))

    return csv_row(name for name, _ in _columns(codec, num_samples)), to_text


def to_csv(codec: TableCodec, path: Path, num_samples: int) -> Target:
    """A table of the samples as CSV, as the codec reads it.

    Args:
        codec: the codec of the run.
        path: the file.
        num_samples: number of samples. Several are told apart by a column "sequence" where the data
            have no such column.

    Returns:
        Where samples go. Times of events count from the origin of their sequence, which is 0; where
        that is its first event, this is a row without marks. The end of observation is empty where
        a sample has none, as one has that was drawn up to a time.
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
