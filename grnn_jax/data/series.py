"""Series of vectors of real numbers, as sensors give them."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.config import FIELDS, SPLITS
from grnn_jax.data.array_sequences import finite_numbers, is_array_file, read_array_sequences
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import EventType
from grnn_jax.data.conditions import asked
from grnn_jax.data.corpus import Events
from grnn_jax.data.declared import gib_limit
from grnn_jax.data.sequences import Options, SequenceCodec, Sequences, convert_each
from grnn_jax.data.splitting import Fractions
from grnn_jax.data.tables import MissingColumnError, column_names, read_table
from grnn_jax.errors import InputError

_FEWEST_STEPS = 100
"""Float32 must tell apart that many values within a standard deviation of a channel."""


class Series(NamedTuple):
    """One series.

    Attributes:
        values: its channels over time.
        channels: their names.
    """

    values: Float[np.ndarray, "T C"]
    channels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SeriesCodec(SequenceCodec):
    """Vectors of real numbers in the units of the data.

    Attributes:
        sequence_column: column of a table that tells series apart.
        value_columns: names of channels, parted by commas; empty takes them all.
        channels: names of the channels: columns of a table; of arrays their numbers from 0.
        shift: mean of each channel over the training split.
        scale: standard deviation of each channel there.
        whole_table: whether a table without the column `sequence_column` is one series, if that is
          the default: so it was in runs of earlier versions, whose codec does not say.
    """

    sequence_column: str = ""
    value_columns: str = ""
    channels: Sequence[str] = ()
    shift: Sequence[float] = ()
    scale: Sequence[float] = ()
    whole_table: bool = True
    name: ClassVar[str] = "series"
    condition_options: ClassVar[tuple[str, ...]] = ("condition_on",)
    options: ClassVar[tuple[str, ...]] = ("sequence_column", "value_columns")

    @property
    def event_type(self) -> EventType:
        return EventType("reals", (len(self.channels),), {"shift": self.shift, "scale": self.scale})

    @property
    def summary(self) -> str:
        shown = ", ".join(self.channels[:8]) + (", …" if len(self.channels) > 8 else "")
        return f"series of {len(self.channels)} channels: {shown}"

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads a table, CSV or Parquet, or arrays, .npz or .npy.

        A row of a table is a step in time, in the order of the file. Each value of the column
        `sequence_column` is a series; with "" for it the whole table is one. Channels are the
        columns that are named, or all columns of numbers but that one and those that only number
        the rows; the log says which, and why the others are none.

        A series of an .npz or .npy is an array [T, C], or [T] for a single channel; [N, T, C] is a
        stack of them, an object array holds one a series. Arrays named train, valid and test are
        the splits; `NAME_lengths` says how long each series of a stack is. A run on a table takes
        as many channels as it has in the order of its columns.
        """
        names = column_names(options["value_columns"])
        if not is_array_file(path):
            return {"": _read_table(path, argument, options, names)}
        bad = BadRecords(options.get("skip_bad", False))
        splits = read_array_sequences(
            path, 2, bad=bad, max_gib=gib_limit(options), conditions=asked(options).columns
        )
        # Not in training: all channels of the run are named, those of arrays by their numbers.
        in_order = "whole_table" in options and not any(name.isdecimal() for name in names)
        if in_order:
            logging.getLogger(__name__).info(
                "%s: the channels are taken for the columns %s, in this order",
                path,
                ", ".join(map(repr, names)),
            )
        # A run that was told which channels to take finds them among others.
        every_channel = options.get("every_channel", False)
        channels: tuple[str, ...] | None = None

        def convert(array: np.ndarray, name: str) -> Series:
            nonlocal channels
            series = _from_array(array, name, names, in_order)
            if every_channel and array.ndim == 2 and array.shape[1] > len(names):
                raise InputError(
                    f"{name}: expected the {len(names)} channels that the run was trained on, "
                    f"got {array.shape[1]}"
                )
            channels = series.channels if channels is None else channels
            _check_channels(series, channels, name)
            return series

        series = {split: convert_each(read, convert, bad) for split, read in splits.items()}
        bad.finish("series")
        return series

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "SeriesCodec":
        if with_end and len(train.items) == 1:
            raise InputError("model_end needs several series to learn where they end, got one")
        channels = train.items[0].channels
        for item, name in zip(train.items, train.names, strict=True):
            _check_channels(item, channels, name)
        values = np.concatenate([item.values for item in train.items])
        if not len(values):
            raise InputError("data: the training series have no steps")
        shift, scale = values.mean(0), values.std(0)
        for index, channel in enumerate(channels):
            spacing = np.spacing(np.float32(np.abs(values[:, index]).max()))
            if scale[index] == 0 or np.ptp(values[:, index]) == 0:
                raise InputError(
                    f"data: channel {channel!r} is {values[0, index]:g} in all training series; "
                    "leave it out with value_columns"
                )
            if scale[index] < _FEWEST_STEPS * spacing:
                raise InputError(
                    f"data: channel {channel!r} varies by {scale[index]:g} around "
                    f"{shift[index]:g}, too little for 32-bit numbers; subtract a constant from "
                    "it, or leave it out with value_columns"
                )
        return cls(
            with_end,
            **options,
            channels=channels,
            shift=tuple(shift.tolist()),
            scale=tuple(scale.tolist()),
            whole_table=False,
        )

    @classmethod
    def parts(cls, item: Any, held_out: Fractions) -> dict[str, Any]:
        bounds = (0, *held_out.bounds(len(item.values)), len(item.values))
        return {
            split: item._replace(values=item.values[start:stop])
            for split, start, stop in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
            if stop > start
        }

    def empty(self) -> Events:
        return np.empty((0, len(self.channels)), np.float32)

    def encode(self, item: Any, name: str) -> Events:
        _check_channels(item, self.channels, name)
        return item.values.astype(np.float32)

    def read_options(self) -> dict[str, Any]:
        return {
            "sequence_column": self.sequence_column,
            "whole_table": self.whole_table,
            "value_columns": self.channels,
            "every_channel": not self.value_columns,
        }


def _check_channels(item: Series, channels: Sequence[str], name: str) -> None:
    if item.channels != tuple(channels):
        raise InputError(
            f"{name}: expected the channels {', '.join(channels)}, got {', '.join(item.channels)}"
        )


def _read_table(path: str, argument: str, options: Options, names: tuple[str, ...]) -> Sequences:
    default = str(FIELDS["sequence_column"].default)
    sequence_column = options["sequence_column"]
    given = asked(options).columns
    try:
        table = read_table(
            path,
            argument,
            numbers=dict.fromkeys(names, "value_columns") if names else None,
            texts=dict.fromkeys(given, "condition_on")
            | ({sequence_column: "sequence_column"} if sequence_column else {}),
            may_be_missing=(default,) if options.get("whole_table") else (),
            max_gib=gib_limit(options),
        )
    except MissingColumnError as error:
        if error.column != sequence_column or "whole_table" in options:  # Not in training.
            raise
        raise InputError(
            f"{error}; sequence_column= takes the whole table for one series"
        ) from error
    channels = tuple(table.numbers)
    left_out = "; ".join(f"{name!r}: {why}" for name, why in table.left_out.items())
    if not channels:
        more = f" ({left_out})" if left_out else ""
        raise InputError(f"{argument}: {path} has no column of numbers{more}")
    logging.getLogger(__name__).info(
        "%s: channels are the columns %s%s",
        path,
        ", ".join(map(repr, channels)),
        f"; left out {left_out}" if left_out else "",
    )
    values = np.column_stack(list(table.numbers.values()))
    if sequence_column not in table.texts:
        every = np.arange(len(values))
        table.check_cells(every)
        conditions = [table.constant(given, every)] if given else None
        return Sequences([path], [Series(values, channels)], conditions=conditions)
    groups = table.groups(sequence_column)

    def series(rows: Integer[np.ndarray, " G"], _: str) -> Series:
        table.check_not_empty(sequence_column, rows)
        table.check_cells(rows)
        table.constant(given, rows)
        return Series(values[rows], channels)

    labels = [f"{path}, sequence {name!r}" for name in groups]
    bad = BadRecords(options.get("skip_bad", False))
    conditions = [table.constant(given, rows[:1]) for rows in groups.values()] if given else None
    every_group = Sequences(labels, list(groups.values()), list(groups), conditions)
    read = convert_each(every_group, series, bad)
    bad.finish("sequences")
    return read


def _from_array(array: np.ndarray, name: str, names: tuple[str, ...], in_order: bool) -> Series:
    """A series of the channels that are named by their numbers.

    With `in_order` names are those of columns: the array has as many channels, in their order.
    """
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise InputError(f"{name}: expected an array [T, C], got {list(array.shape)}")
    size = array.shape[1]
    channels = tuple(str(index) for index in range(size))
    values = finite_numbers(array, name, tuple(f"channel {channel}" for channel in channels))
    if in_order and len(names) == size:
        return Series(values, names)
    for channel in names:
        if channel not in channels:
            raise InputError(
                f"{name}: there is no channel {channel!r}, which value_columns names; "
                f"its channels are 0 .. {size - 1}"
            )
    if names:
        values, channels = values[:, [int(channel) for channel in names]], names
    return Series(values, channels)
