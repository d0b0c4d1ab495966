"""Which columns of a table are numbers, judged by all of its rows."""

import array
import bisect
import re
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.errors import InputError

# Events are float32, in which a number of greater size is infinite.
LARGEST = float(np.finfo(np.float32).max)

_MOST_CELLS = 1000
"""Odd cells of a column that are kept to be shown; the others are only counted."""

MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "-nan", "+nan", "null", "none", "nil", "?",
                      "-", "--", ".", "missing", "<na>", "nat"))  # fmt: skip
_BOOLEAN = frozenset(("true", "false", "yes", "no", "t", "f"))
_TIME = re.compile(r"\d{4}-\d\d?(-\d\d?)?\b.*|\d\d?([:/.])\d\d?(\2\d{1,4})?\b.*")
# As pandas writes the index of a frame: to CSV, read back from CSV, to Parquet.
_UNNAMED = re.compile(r"\s*|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")
_NUMBERING = frozenset(("index", "idx", "id", "no", "no.", "nr", "#", "row", "row_id", "rowid",
                        "rownames", "rowname", "row_names", "obs", "level_0"))  # fmt: skip


class OddCells:
    """The cells of a column that are no finite numbers.

    Attributes:
        rows: their rows, from 0, in order.

    Args:
        expected: what stands in the others.
        hint: what the user may do about it, or "".
    """

    def __init__(self, expected: str = "a finite number", hint: str = ""):
        self.rows = array.array("q")
        self._cells: list[Any] = []
        self._expected, self._hint = expected, hint

    def add(self, row: int, cell: Any) -> None:
        """Adds a cell, or the InputError of reading it."""
        self.rows.append(row)
        if len(self._cells) < _MOST_CELLS:
            self._cells.append(cell)

    def first(self, rows: Integer[np.ndarray, " G"]) -> int | None:
        """Which of some rows, which are in order, is the first of these; None where none is."""
        every = np.frombuffer(self.rows, np.int64)
        at = np.searchsorted(every, rows)
        is_odd = every[np.minimum(at, len(every) - 1)] == rows
        return int(rows[is_odd.argmax()]) if is_odd.any() else None

    def error(self, row: int, where: str) -> InputError:
        """The error for the cell of a row.

        Args:
            row: one of `rows`.
            where: what the cell is called.
        """
        index = bisect.bisect_left(self.rows, row)
        if index >= len(self._cells):
            return InputError(f"{where}: expected {self._expected}{self._hint}")
        cell = self._cells[index]
        if isinstance(cell, InputError):
            return InputError(f"{where}: {cell}")
        what = "an empty cell" if cell in ("", None) else f"{cell!r:.80}"
        return InputError(f"{where}: expected {self._expected}, got {what}{self._hint}")


def parse(cell: str) -> float:
    """The number in a cell, NaN where there is none."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


class Candidate:
    """A column that may be one of numbers, filled cell by cell.

    Attributes:
        values: its numbers, NaN where there is none.
        odd: its cells that are no finite numbers.
    """

    def __init__(self) -> None:
        self.values = array.array("d")
        self.odd = OddCells(hint="; value_columns names columns without it")
        self._text: str | None = None
        self._num_texts = self._num_missing = 0

    def append(self, cell: str) -> None:
        """Adds a cell."""
        value = parse(cell)
        if not abs(value) <= LARGEST:
            self.odd.add(len(self.values), cell)
            if cell.strip().lower() in MISSING:
                self._num_missing += 1
            elif value != value:  # Infinity is a number, and an error.
                self._num_texts += 1
                if self._text is None:
                    self._text = cell
        self.values.append(value)

    def why_not(self) -> str | None:
        """Why the column is not one of numbers; None where it is, be it with odd cells.

        One in which more cells are text than numbers is one of text; other cells that are none are
        errors, so that a column of numbers is not lost because one of them is missing.
        """
        num_numbers = len(self.values) - self._num_texts - self._num_missing
        if self._text is not None and self._num_texts > num_numbers:
            return f"{_kind(self._text)}, as {self._text!r:.40}"
        if self._num_missing == len(self.values):
            return "no number in any row"
        return None


def _kind(text: str) -> str:
    if text.strip().lower() in _BOOLEAN:
        return "true or false"
    return "times" if _TIME.fullmatch(text.strip()) else "text"


def why_index(name: str, values: Float[np.ndarray, " R"]) -> str | None:
    """Why a column of numbers only says which row it is; None where it does not.

    >>> why_index("Unnamed: 0", np.arange(3.0)), why_index("x", np.arange(3.0))
    ('the index of a data frame', None)

    Args:
        name: of the column.
        values: its numbers.
    """
    if len(values) < 2 or (values != np.round(values)).any():
        return None
    if _UNNAMED.fullmatch(name) and len(np.unique(values)) == len(values):
        return "the index of a data frame"
    if name.strip().lower() in _NUMBERING and values[0] in (0, 1) and (np.diff(values) == 1).all():
        return "it numbers the rows"
    return None
