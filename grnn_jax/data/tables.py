"""Columns of tables: CSV files, gzipped or not, and Parquet files."""

import array
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.data.dates import TimeReader, seconds_of
from grnn_jax.data.declared import MAX_FILE_GIB, check_expanded, open_expanded
from grnn_jax.data.number_columns import LARGEST, Candidate, OddCells, parse, why_index
from grnn_jax.errors import InputError

_PARQUET_MAGIC = b"PAR1"
_BYTES_OF_CELL = 8
_BYTES_PER_BYTE = 4  # In CSV a cell is rarely less than two bytes, with its comma.


class MissingColumnError(InputError):
    """A file lacks a column.

    Attributes:
        column: its name.
    """

    def __init__(self, column: str, message: str):
        super().__init__(message)
        self.column = column


class Table(NamedTuple):
    """Some columns of a file.

    Attributes:
        path: the file.
        numbers: columns of numbers. All are finite but where there is an odd cell, see
          `check_cells`, and where a cell is empty and may be, which is NaN.
        texts: columns of text.
        rows: where each row stands in the file: its line in a CSV file (the last one, if a quoted
          cell has line breaks), its number from 1 in a Parquet file.
        unit: what `rows` counts, "line" or "row".
        left_out: where all columns of numbers were asked for, the others, each with the reason.
        odd: cells of columns of numbers that are none.
    """

    path: str
    numbers: dict[str, Float[np.ndarray, " R"]]
    texts: dict[str, list[str]]
    rows: Integer[np.ndarray, " R"]
    unit: str
    left_out: dict[str, str] = {}
    odd: dict[str, OddCells] = {}

    def where(self, row: Any, column: str) -> str:
        """What a cell is called in messages."""
        return f"{self.path}, {self.unit} {self.rows[row]}, column {column!r}"

    def check_cells(self, rows: Integer[np.ndarray, " G"]) -> None:
        """Raises InputError for the first cell of columns of numbers in some rows that is none."""
        found = [(odd.first(rows), name) for name, odd in self.odd.items()]
        rows_of = [(row, name) for row, name in found if row is not None]
        if rows_of:
            row, name = min(rows_of, key=lambda each: each[0])
            raise self.odd[name].error(row, self.where(row, name))

    def check_not_empty(self, column: str, rows: Iterable[Any]) -> None:
        """Raises InputError where a text column has an empty cell in one of some rows."""
        cells = self.texts[column]
        for row in rows:
            if not cells[row]:
                raise InputError(f"{self.where(row, column)}: expected a name, got an empty cell")

    def constant(self, columns: Iterable[str], rows: Integer[np.ndarray, " G"]) -> tuple[str, ...]:
        """The cells of text columns that are equal in all of some rows.

        Raises:
            InputError: they are not.
        """
        values = []
        for column in columns:
            cells = self.texts[column]
            values.append(cells[rows[0]])
            for row in rows:
                if cells[row] != cells[rows[0]]:
                    raise InputError(
                        f"{self.where(row, column)}: expected one value in all rows of a sequence, "
                        f"{cells[rows[0]]!r:.80}, got {cells[row]!r:.80}"
                    )
        return tuple(values)

    def groups(self, column: str) -> dict[str, Integer[np.ndarray, " G"]]:
        """The rows of each value of a text column, values and rows in the order of the file.

        Those of an empty cell are under "".
        """
        codes: dict[str, int] = {}
        group = [codes.setdefault(cell, len(codes)) for cell in self.texts[column]]
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group))
        return dict(zip(codes, np.split(order, ends[:-1]), strict=True))


def column_names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """The names in a setting, parted by commas; names that are parted already stay as they are."""
    if isinstance(names, tuple):
        return names
    return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


class _Request(NamedTuple):
    """What is to be read; the arguments of `read_table`."""

    path: str
    argument: str
    numbers: Mapping[str, str] | None
    texts: Mapping[str, str]
    may_be_empty: Collection[str]
    may_be_missing: Collection[str]
    dates: Mapping[str, str]

    def with_columns(self, columns: list[str]) -> "_Request":
        """The request without columns that may be missing and are; checks the names of the rest."""
        for name in columns:
            if columns.count(name) > 1:
                raise InputError(f"{self.argument}: {self.path} has two columns {name!r}")
        texts = {
            name: flag
            for name, flag in self.texts.items()
            if name in columns or name not in self.may_be_missing
        }
        for name, flag in {**(self.numbers or {}), **texts}.items():
            if name not in columns:
                raise MissingColumnError(
                    name,
                    f"{self.argument}: {self.path} has no column {name!r}, which {flag} names; "
                    f"its columns are {', '.join(map(repr, columns)) or 'none'}",
                )
        return self._replace(texts=texts)

    def odd_cells(self, column: str) -> OddCells:
        """Where the cells of a column that are no numbers are kept."""
        is_date = column in self.dates
        return OddCells("a finite number or a date in ISO 8601" if is_date else "a finite number")


def read_table(
    path: str,
    argument: str,
    *,
    numbers: Mapping[str, str] | None,
    texts: Mapping[str, str] | None = None,
    may_be_empty: Collection[str] = (),
    may_be_missing: Collection[str] = (),
    dates: Mapping[str, str] | None = None,
    max_gib: float = MAX_FILE_GIB,
) -> Table:
    """Reads columns of a CSV file with a header line, plain or gzipped, or of a Parquet file.

    The first bytes of a file say which it is, not its name. In a CSV file commas part the cells,
    which may be quoted by double quotes; empty lines are skipped.

    Args:
        path: the file.
        argument: the argument that named it, for messages.
        numbers: columns of numbers, each with the setting that names it. None takes all columns of
          numbers but those in `texts` and those that only number the rows. Of a CSV file all rows
          are looked at: a column of which a few cells are no numbers is not left out.
        texts: columns of text, likewise; other values of a Parquet file are turned into text.
        may_be_empty: columns of numbers in which a cell may be empty.
        may_be_missing: columns of text that the file need not have.
        dates: columns of numbers that may hold dates in ISO 8601 (of Parquet: dates), each with
          the unit of time in which they are read, since 1970.
        max_gib: the GiB that the file may expand to.

    Returns:
        The columns; `Table.check_cells` says which rows have cells that are no numbers.

    Raises:
        InputError: the file cannot be read, or a column is missing.
    """
    request = _Request(
        path, argument, numbers, texts or {}, may_be_empty, may_be_missing, dates or {}
    )
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
        if magic == _PARQUET_MAGIC:
            table = _read_parquet(request, max_gib)
        else:
            with io.TextIOWrapper(
                open_expanded(path, max_gib, _BYTES_PER_BYTE), encoding="utf-8-sig", newline=""
            ) as text:
                table = _read_csv(request, text)
    except UnicodeDecodeError as error:
        if magic == _PARQUET_MAGIC:
            raise InputError(
                f"{path} is not a readable Parquet file: text that is not UTF-8: {error.reason}"
            ) from error
        with open_expanded(path, max_gib) as file:
            line = next(n for n, line in enumerate(file, start=1) if not _is_utf8(line))
        raise InputError(f"{path}, line {line}: not text in UTF-8: {error.reason}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not len(table.rows):
        raise InputError(f"{argument}: {path} has no rows")
    return table


def _read_csv(request: _Request, file: Iterable[str]) -> Table:
    reader = csv.reader(file, strict=True)
    path, rows = request.path, array.array("q")
    known: dict[str, str] = {}  # One object for equal cells.
    try:
        columns = next(reader, [])
        request = request.with_columns(columns)
        texts: dict[str, list[str]] = {name: [] for name in request.texts}
        text_columns = [(columns.index(name), cells) for name, cells in texts.items()]
        numbers = {name: array.array("d") for name in request.numbers or ()}
        readers = {name: TimeReader(unit).read for name, unit in request.dates.items()}
        odd = {name: request.odd_cells(name) for name in numbers}
        number_columns = [
            (columns.index(n), n, readers.get(n, parse), values) for n, values in numbers.items()
        ]
        candidates: dict[str, Candidate] = {}
        if request.numbers is None:
            candidates = {name: Candidate() for name in columns if name not in texts}
        candidate_columns = [(columns.index(n), each) for n, each in candidates.items()]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells as in the "
                    f"header, got {len(cells)}"
                )
            rows.append(reader.line_num)
            for index, text in text_columns:
                text.append(known.setdefault(cells[index], cells[index]))
            for index, name, read, values in number_columns:
                try:
                    value = read(cells[index])
                except InputError as error:
                    value = np.nan
                    odd[name].add(len(values), error)
                else:
                    may_be = not cells[index] and name in request.may_be_empty
                    if not abs(value) <= LARGEST and not may_be:
                        odd[name].add(len(values), cells[index])
                values.append(value)
            for index, candidate in candidate_columns:
                candidate.append(cells[index])
    except csv.Error as error:
        after = f", in the row after line {rows[-1]}" if rows else ""
        where = f"{path}, line {reader.line_num}"
        raise InputError(f"{where}: not valid CSV: {error}{after}") from error
    left_out = {name: why for name, each in candidates.items() if (why := each.why_not())}
    for name in left_out:
        del candidates[name]
    arrays = {
        name: np.array(values, np.float64)
        for name, values in [*numbers.items(), *((n, c.values) for n, c in candidates.items())]
    }
    odd |= {name: each.odd for name, each in candidates.items()}
    odd = {name: cells for name, cells in odd.items() if cells.rows}
    table = Table(path, arrays, texts, np.array(rows, np.int64), "line", left_out, odd)
    return table if request.numbers is not None else _without_indices(table)


def _without_indices(table: Table) -> Table:
    """A table with all columns of numbers, without those that only number its rows."""
    indices = {
        name: why for name, values in table.numbers.items() if (why := why_index(name, values))
    }
    numbers = {name: values for name, values in table.numbers.items() if name not in indices}
    return table._replace(numbers=numbers, left_out=table.left_out | indices)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_parquet(request: _Request, max_gib: float) -> Table:
    path = request.path
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"reading {path} needs pyarrow: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        request = request.with_columns(schema.names)
        names, left_out = request.numbers, {}
        if names is None:
            left_out = {
                field.name: why
                for field in schema
                if field.name not in request.texts and (why := _why_no_numbers(schema, field))
            }
            names = {n: "" for n in schema.names if n not in request.texts and n not in left_out}
        # A column of one value repeated takes next to nothing in the file.
        num_cells = file.metadata.num_rows * (len(names) + len(request.texts))
        check_expanded(path, num_cells * _BYTES_OF_CELL, max_gib)
        columns = file.read(columns=[*names, *request.texts])
    except InputError:
        raise
    except Exception as error:  # Beside its own it raises those of names that are no text.
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    texts = {
        name: ["" if cell is None else str(cell) for cell in columns[name].to_pylist()]
        for name in request.texts
    }
    table = Table(path, {}, texts, np.arange(1, columns.num_rows + 1), "row", left_out, {})
    for name in names:
        cells = columns[name]
        if name in request.dates:
            try:
                cells = _since_1970(cells, request.dates[name])
            except InputError as error:
                raise InputError(f"{path}, column {name!r}: {error}") from error
        try:
            values = cells.cast(pyarrow.float64(), safe=False).to_numpy()
        except pyarrow.ArrowException as error:
            raise InputError(
                f"{path}, column {name!r}: expected numbers, got {cells.type}"
            ) from error
        bad = ~(np.abs(values) <= LARGEST)
        if name in request.may_be_empty:
            bad &= ~cells.is_null().to_numpy()
        if bad.any():
            odd = table.odd.setdefault(name, request.odd_cells(name))
            for row in np.flatnonzero(bad).tolist():
                odd.add(row, cells[row].as_py())
        table.numbers[name] = np.asarray(values, np.float64)
    return table if request.numbers is not None else _without_indices(table)


def _since_1970(cells: Any, unit: str) -> Any:
    """Dates as numbers of a unit; other cells as they are, text read as in CSV."""
    import pyarrow
    from pyarrow import types

    if types.is_string(cells.type) or types.is_large_string(cells.type):
        read = TimeReader(unit).read
        return pyarrow.chunked_array(
            [[None if cell is None else read(cell) for cell in cells.to_pylist()]],
            pyarrow.float64(),
        )
    if not (types.is_timestamp(cells.type) or types.is_date(cells.type)):
        return cells
    whole = cells.cast(pyarrow.timestamp("us")).cast(pyarrow.int64())
    microseconds = seconds_of(unit) * 1e6
    return pyarrow.compute.divide(whole.cast(pyarrow.float64(), safe=False), microseconds)


def _why_no_numbers(schema: Any, field: Any) -> str | None:
    """Why a column of a Parquet file is not one of numbers; None where it is."""
    from pyarrow import types

    if field.name in (schema.pandas_metadata or {}).get("index_columns", ()):
        return "the index of a data frame"
    kinds = types.is_integer, types.is_floating, types.is_decimal
    if any(is_kind(field.type) for is_kind in kinds):
        return None
    if types.is_null(field.type):
        return "no number in any row"
    if types.is_boolean(field.type):
        return "true or false"
    return "times" if types.is_temporal(field.type) else f"text ({field.type})"
