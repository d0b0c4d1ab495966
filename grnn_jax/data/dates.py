"""Times in a table: numbers, or dates in ISO 8601 as numbers of some unit."""

import datetime

import numpy as np

from grnn_jax.data.number_columns import parse
from grnn_jax.errors import InputError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECONDS = {
    "microsecond": 1e-6, "us": 1e-6, "millisecond": 1e-3, "ms": 1e-3, "second": 1, "sec": 1, "s": 1,
    "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "h": 3600, "day": 86400, "d": 86400,
    "week": 604800, "w": 604800,
}  # fmt: skip


def seconds_of(unit: str) -> float:
    """The seconds of a unit of time.

    >>> seconds_of("Days")
    86400.0

    Args:
        unit: its name, singular or plural.

    Raises:
        InputError: it has no fixed number of seconds, or is none.
    """
    name = unit.strip().lower()
    if name not in _SECONDS:
        name = name.removesuffix("s")
    if name not in _SECONDS:
        raise InputError(
            "time_unit must be microseconds, milliseconds, seconds, minutes, hours, days or weeks "
            f"where times are dates, got {unit!r}"
        )
    return float(_SECONDS[name])


class TimeReader:
    """Reads the cells of one column, which are all numbers or all dates.

    A date without a time zone is one of UTC. Dates become the time since 1970 in the unit.

    Args:
        unit: of the times.
    """

    def __init__(self, unit: str):
        self._unit = unit
        self._kind = ""

    def read(self, cell: str) -> float:
        """The number of a cell, NaN where it is neither a number nor a date.

        Raises:
            InputError: it is not of the kind of those before, or no date can be read in the unit.
        """
        value, kind = parse(cell), "a number"
        if value != value:
            try:
                date = datetime.datetime.fromisoformat(cell.strip())
            except ValueError:
                return np.nan
            kind = "a date" if date.tzinfo is None else "a date with its time zone"
            date = date.replace(tzinfo=datetime.UTC) if date.tzinfo is None else date
            value = (date - _EPOCH).total_seconds() / seconds_of(self._unit)
        if self._kind and kind != self._kind:
            raise InputError(f"expected {self._kind}, as in the rows before, got {cell!r}")
        self._kind = kind
        return value
