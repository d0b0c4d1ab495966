"""Events in continuous time: when each happened, and what it was."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.config import SPLITS
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.declared import gib_limit
from grnn_jax.data.number_columns import LARGEST
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences, convert_each
from grnn_jax.data.splitting import Fractions
from grnn_jax.data.tables import Table, column_names, read_table
from grnn_jax.data.unseen import UnseenError
from grnn_jax.errors import InputError

_DWARFED = 100
"""Times as long as the others are first waits that the user is warned of."""


class History(NamedTuple):
    """The events of one sequence.

    Attributes:
        start: when its observation began.
        end: when its observation ended, or None where that is not known.
        times: when each event happened.
        rows: the rows of the table in which they stand.
        table: the file.
    """

    start: float
    end: float | None
    times: Float[np.ndarray, " T"]
    rows: Integer[np.ndarray, " T"]
    table: Table

    def waits(self) -> Float[np.ndarray, " W"]:
        """The time to each event, and at last to the end of observation if it is known."""
        ends = [] if self.end is None else [self.end]
        return np.diff(np.concatenate([[self.start], self.times, ends]))


@dataclasses.dataclass(frozen=True)
class EventsCodec(SequenceCodec):
    """The wait for each event, from the event before it, and its marks.

    The first wait begins at the origin of a sequence: time 0, or with `origin` "first" its first
    event, which is then given and not modelled, neither its time nor its marks.

    Where the end of observation is known (`end_column`), the last event is the censored wait from
    the last thing that happened to it; it has no marks. So the log-probability of a sequence is
    that of its events and of nothing more up to the end.

    Attributes:
        sequence_column: column that tells sequences apart; empty if the file is one sequence.
        time_column: column of times.
        mark_columns: columns of marks, parted by commas.
        time_unit: unit of the times, a word for reports; dates are read in it.
        origin: "zero" or "first".
        end_column: column of the time at which the observation of the row's sequence ended; empty
          cells where that is not known.
        scale: median of all waits of the training split that are positive and not censored.
        marks: the marks of each column that occur there, sorted.
    """

    sequence_column: str = "sequence"
    time_column: str = "time"
    mark_columns: str = "mark"
    time_unit: str = ""
    origin: str = "zero"
    end_column: str = ""
    scale: float = 1.0
    marks: Sequence[Sequence[str]] = ()
    name: ClassVar[str] = "events"
    condition_options: ClassVar[tuple[str, ...]] = ("condition_on",)
    options: ClassVar[tuple[str, ...]] = (
        "sequence_column", "time_column", "mark_columns", "time_unit", "origin", "end_column",
    )  # fmt: skip

    @property
    def event_type(self) -> dict[str, EventType]:
        types = {"wait": EventType("waits", (), {"scale": self.scale})}
        for column, marks in zip(column_names(self.mark_columns), self.marks, strict=True):
            types[column] = EventType("tokens", (len(marks),))
        return types

    @property
    def unit(self) -> str:
        return self.time_unit

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads a table, CSV or Parquet, with one event a row.

        Times are numbers, or dates in ISO 8601, which become the time since 1970 in `time_unit`.
        Rows of different sequences may be mixed; the times of each sequence must not decrease. With
        `end_column` a row without a time is no event: it stands for a sequence in which nothing
        happened up to its end. With `origin` "first" the first event needs no marks.
        """
        sequence, time, end = (options[f"{n}_column"] for n in ("sequence", "time", "end"))
        marks = column_names(options["mark_columns"])
        for column in marks:
            if column == "wait" or not re.fullmatch(r"\w[\w -]*", column):
                raise InputError(
                    f"mark_columns: {column!r} cannot be the name of a mark; rename the column, "
                    "with letters, digits, _, - and spaces, and other than wait"
                )
        given = asked(options).columns
        table = read_table(
            path,
            argument,
            numbers={time: "time_column"} | ({end: "end_column"} if end else {}),
            texts=dict.fromkeys(given, "condition_on")
            | dict.fromkeys(marks, "mark_columns")
            | ({sequence: "sequence_column"} if sequence else {}),
            may_be_empty=(time, end) if end else (),
            dates=dict.fromkeys([time, end] if end else [time], options["time_unit"]),
            max_gib=gib_limit(options),
        )
        if not sequence:
            rows = np.arange(len(table.rows))
            conditions = [table.constant(given, rows)] if given else None
            history = _history(table, rows, options)
            return {"": Sequences([path], [history], conditions=conditions)}
        groups = table.groups(sequence)
        names = [f"{path}, sequence {name!r}" for name in groups]
        bad = BadRecords(options.get("skip_bad", False))
        conditions = None
        if given:
            conditions = [table.constant(given, rows[:1]) for rows in groups.values()]
        histories = convert_each(
            Sequences(names, list(groups.values()), list(groups), conditions),
            lambda rows, _: _named_history(table, sequence, rows, options),
            bad,
        )
        bad.finish("sequences")
        return {"": histories}

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "EventsCodec":
        if with_end and options["end_column"]:
            raise InputError(
                "model_end and end_column exclude each other: the end of a sequence is an event, "
                "or it is when observation ended"
            )
        if with_end and len(train.items) == 1:
            raise InputError("model_end needs several sequences to learn where they end, got one")
        waits = np.concatenate([item.waits()[: len(item.times)] for item in train.items])
        if not (waits > 0).any():
            raise InputError("data: the training sequences have no wait that is positive")
        vocabularies = []
        for column in column_names(options["mark_columns"]):
            marks = {item.table.texts[column][row] for item in train.items for row in item.rows}
            vocabularies.append(tuple(sorted(marks)))
        if options["origin"] == "zero":
            _warn_of_first_waits([item.waits()[: len(item.times)] for item in train.items])
        scale = float(np.median(waits[waits > 0]))
        return cls(with_end, **options, scale=scale, marks=tuple(vocabularies))

    @classmethod
    def parts(cls, item: Any, held_out: Fractions) -> dict[str, Any]:
        total = len(item.times)
        bounds = (0, *held_out.bounds(total), total)
        parts = {}
        for split, start, stop in zip(SPLITS, bounds[:-1], bounds[1:], strict=True):
            if stop > start:
                parts[split] = item._replace(
                    start=float(item.times[start - 1]) if start else item.start,
                    end=item.end if stop == total else None,
                    times=item.times[start:stop],
                    rows=item.rows[start:stop],
                )
        return parts

    def empty(self) -> Events:
        events: dict[str, Any] = {
            "wait": {"wait": np.empty(0, np.float32), "censored": np.empty(0, bool)}
        }
        for column, marks in zip(column_names(self.mark_columns), self.marks, strict=True):
            small = len(marks) <= 256
            events[column] = np.empty(0, np.uint8 if small else np.int32)
        return events

    def encode(self, item: Any, name: str) -> Events:
        waits = item.waits()
        tiny = (waits > 0) & (waits < np.finfo(np.float32).tiny)
        if tiny.any():
            raise InputError(
                f"{name}, column {self.time_column!r}: a wait of {waits[int(tiny.argmax())]:g} is "
                f"too short for 32-bit numbers; give times in a smaller unit"
            )
        if (waits > LARGEST).any():
            raise InputError(
                f"{name}, column {self.time_column!r}: a wait of {waits.max():g} is too long for "
                "32-bit numbers; give times in a greater unit"
            )
        waits = waits.astype(np.float32)
        censored = np.arange(len(waits)) >= len(item.times)
        events: dict[str, Any] = {"wait": {"wait": waits, "censored": censored}}
        unseen: list[tuple[Any, str, str]] = []
        for column, marks in zip(column_names(self.mark_columns), self.marks, strict=True):
            codes = {mark: code for code, mark in enumerate(marks)}
            marks_of_events = np.zeros(len(waits), np.int32)
            for index, row in enumerate(item.rows):
                mark = item.table.texts[column][row]
                if mark not in codes:
                    unseen.append((row, column, mark))
                    continue
                marks_of_events[index] = codes[mark]
            events[column] = marks_of_events
        if unseen:
            row, column, mark = unseen[0]
            raise UnseenError(
                f"{item.table.where(row, column)}: the mark {mark!r} does not occur in the "
                "training split",
                (mark for _, _, mark in unseen),
            )
        return events


def _warn_of_first_waits(waits: Sequence[np.ndarray]) -> None:
    """Warns where the waits from time 0 to the first events dwarf those between events."""
    first = np.array([each[0] for each in waits if len(each)])
    others = np.concatenate([each[1:] for each in waits])
    others = others[others > 0]
    if len(others) and np.median(first) > _DWARFED * np.median(others):
        logging.getLogger(__name__).warning(
            "data: the first waits (median %.4g) dwarf the others (median %.4g): times seem to be "
            "counted from long before each sequence, as those since 1970; origin=first begins "
            "each sequence at its first event",
            np.median(first),
            np.median(others),
        )


def _cell(value: float) -> str:
    return "an empty cell" if np.isnan(value) else f"{value:g}"


def _named_history(
    table: Table, sequence: str, rows: Integer[np.ndarray, " G"], options: Options
) -> History:
    """The events in the rows of one value of the column of sequences."""
    table.check_not_empty(sequence, rows)
    table.constant(asked(options).columns, rows)
    return _history(table, rows, options)


def _history(table: Table, rows: Integer[np.ndarray, " G"], options: Options) -> History:
    """The events in some rows of a table, which are one sequence."""
    table.check_cells(rows)
    column, end_column = options["time_column"], options["end_column"]
    end = None
    if end_column:
        ends = table.numbers[end_column][rows]
        differs = (ends != ends[0]) & ~(np.isnan(ends) & np.isnan(ends[0]))
        if differs.any():
            row = rows[int(differs.argmax())]
            raise InputError(
                f"{table.where(row, end_column)}: expected one end in all rows of a sequence, "
                f"{_cell(ends[0])}, got {_cell(table.numbers[end_column][row])}"
            )
        end = None if np.isnan(ends[0]) else float(ends[0])
    first_row = rows[0]
    rows = rows[~np.isnan(table.numbers[column][rows])]
    times = table.numbers[column][rows]
    if end_column and end is None and not len(rows):
        raise InputError(
            f"{table.where(first_row, column)}: expected a time, or an end in column "
            f"{end_column!r}, got two empty cells"
        )
    # A first event that is given needs no marks: nothing looks at them.
    given = int(options["origin"] == "first")
    for mark_column in column_names(options["mark_columns"]):
        table.check_not_empty(mark_column, rows[given:])
    late = np.diff(times) < 0
    if late.any():
        index = int(late.argmax())
        raise InputError(
            f"{table.where(rows[index + 1], column)}: expected times that do not decrease within a "
            f"sequence, got {times[index + 1]:.15g} after {times[index]:.15g}"
        )
    start = 0.0
    if options["origin"] == "first":
        if not len(times):
            raise InputError(
                f"{table.where(first_row, column)}: expected a time, got an empty cell; "
                "origin first needs an event in every sequence"
            )
        start, times, rows = float(times[0]), times[1:], rows[1:]
    elif len(times) and times[0] < 0:
        raise InputError(
            f"{table.where(rows[0], column)}: expected a time of at least 0 with origin zero, got "
            f"{times[0]:.15g}"
        )
    last = float(times[-1]) if len(times) else start
    if end is not None and end < last:
        raise InputError(
            f"{table.where(rows[-1] if len(rows) else first_row, end_column)}: expected an end not "
            f"before {last:.15g}, got {end:.15g}"
        )
    return History(start, end, times, rows, table)
