"""One column of a file of any size, as text with one value a line, and the records of FASTA so."""

import contextlib
import csv
import functools
import gzip
import io
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from grnn_jax.data.bad_records import BadRecords, report
from grnn_jax.data.declared import MAX_FILE_GIB, open_expanded
from grnn_jax.data.file_kinds import kind_of
from grnn_jax.errors import InputError

ROWS_PER_CHUNK = 4096
MAX_FIELD = 1 << 24
"""Most characters of a value; a forgotten quote is not searched for beyond."""


def column_text(
    chunks: Iterable[str],
    path: str | os.PathLike[str],
    column: str,
    bad: BadRecords | None = None,
) -> Iterator[str]:
    """The values of one column as text: line i is the value whose row ends on line i.

    The name of the file says how: .csv, .tsv (cells parted by tabs, quoted as in CSV), .smi (cells
    parted by blanks, not quoted), .jsonl (an object a line).

    Args:
        chunks: the contents of the file, cut anywhere.
        path: the file.
        column: name of the column, as in the first row, or its number from 1, where the first row
            has no such name and is a sequence like the others; for .jsonl the key.
        bad: is told which rows cannot be used, and are empty; without it they are errors.

    Yields:
        Text, many rows at a time; a line without a row's end is empty.

    Raises:
        InputError: names the file and the line of a row that cannot be used.
    """
    kind = kind_of(path)
    if kind in ("smi", "jsonl"):
        values = _smiles_column if kind == "smi" else _json_values
        return _in_parts(values(lines_with_ends(chunks), path, column, bad))
    return _csv_column(chunks, path, column, "\t" if kind == "tsv" else ",", bad)


def _csv_column(
    chunks: Iterable[str],
    path: str | os.PathLike[str],
    column: str,
    delimiter: str,
    bad: BadRecords | None,
) -> Iterator[str]:
    index, num_cells, done = -1, 0, 0
    text: list[str] = []
    for line, row in csv_rows(chunks, delimiter, path, bad):
        text.append("\n" * (line - 1 - done))
        done = line
        if index < 0:
            num_cells = len(row)
            index, is_names = index_of(column, row, path)
            if is_names:
                text.append("\n")
                continue
        try:
            text.append(_cell(row, index, num_cells, f"{path}, line {line}", column) + "\n")
        except InputError as error:
            report(error, bad)
            text.append("\n")
        if len(text) > ROWS_PER_CHUNK:
            yield "".join(text)
            text = []
    yield "".join(text)


def csv_rows(
    chunks: Iterable[str],
    delimiter: str,
    path: str | os.PathLike[str],
    bad: BadRecords | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not empty, each with the number of the line on which it ends.

    Args:
        chunks: the text of the table.
        delimiter: what parts the cells.
        path: the file, for messages.
        bad: is told which rows are not valid CSV; without it the first of them is an error.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    rows = csv.reader(lines_with_ends(chunks), delimiter=delimiter, strict=True)
    while True:
        before = rows.line_num
        try:
            row = next(rows, None)
        except csv.Error as error:
            wrong = InputError(f"{path}, line {rows.line_num}: not valid CSV: {error}")
            # A quote that is never closed takes all rows after it.
            report(wrong, bad if rows.line_num == before + 1 else None)
            continue
        if row is None:
            return
        if row:
            yield rows.line_num, row


def index_of(column: str, row: list[str], path: str | os.PathLike[str]) -> tuple[int, bool]:
    """Where a column stands in the first row, and whether that holds names."""
    if row.count(column) == 1:
        return row.index(column), True
    if column.isdecimal() and column not in row:
        if not 1 <= int(column) <= len(row):
            raise InputError(
                f"{path} has no column {column!r}: they are numbered from 1 where the first row "
                f"has no such name, and it has {len(row)} cells"
            )
        _say_without_names(os.fspath(path), column, row[int(column) - 1])
        return int(column) - 1, False
    number = "two columns" if column in row else "no column"
    raise InputError(
        f"{path} has {number} {column!r}; its columns are {', '.join(map(repr, row))}, or by "
        "number, from 1, if these are no names"
    )


@functools.lru_cache  # Once, though files are read in several passes.
def _say_without_names(path: str, column: str, cell: str) -> None:
    logging.getLogger(__name__).info(
        "%s: column=%s is a number, so the first row holds no names: its cell %.80r is a sequence",
        path,
        column,
        cell,
    )


def _cell(row: list[str], index: int, num_cells: int, where: str, column: str) -> str:
    """A cell that is a line of text, of a row that is as long as the first one."""
    if len(row) != num_cells:
        raise InputError(f"{where}: expected {num_cells} cells as in the header, got {len(row)}")
    if "\n" in row[index]:
        raise InputError(
            f"{where}, column {column!r}: expected one line of text, got a cell with a line break"
        )
    return row[index]


def lines_with_ends(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of text that comes in chunks, with their line breaks."""
    rest = ""
    for chunk in chunks:
        lines = (rest + chunk).split("\n")
        rest = lines.pop()
        yield from (line + "\n" for line in lines)
    if rest:
        yield rest


def _in_parts(lines: Iterable[str]) -> Iterator[str]:
    """Lines, many at a time."""
    text: list[str] = []
    for line in lines:
        text.append(line + "\n")
        if len(text) > ROWS_PER_CHUNK:
            yield "".join(text)
            text = []
    yield "".join(text)


def _smiles_column(
    lines: Iterable[str],
    path: str | os.PathLike[str],
    column: str,
    bad: BadRecords | None,
) -> Iterator[str]:
    """Cells parted by blanks, of which the first line may be the names."""
    index = -1
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells:
            yield ""
            continue
        if index < 0:
            is_header = column in cells
            if is_header:
                index = cells.index(column)
            elif column.isdecimal() and int(column) >= 1:
                index = int(column) - 1
            elif column.lower() in ("smiles", "smi"):
                index = 0
            else:
                raise InputError(
                    f"{path} has no column {column!r}: its first line is {line.strip()!r:.80}; "
                    "give column=1 for what stands before the first blank"
                )
            if is_header:
                yield ""
                continue
        if index >= len(cells):
            wrong = InputError(
                f"{path}, line {number}: expected at least {index + 1} cells, parted by blanks, "
                f"got {len(cells)}"
            )
            report(wrong, bad)
            yield ""
            continue
        yield cells[index]


def _json_values(
    lines: Iterable[str], path: str | os.PathLike[str], key: str, bad: BadRecords | None
) -> Iterator[str]:
    """The values of one key of JSON objects, one a line."""
    for number, line in enumerate(lines, start=1):
        try:
            yield _json_value(line, key, f"{path}, line {number}") if line.strip() else ""
        except InputError as error:
            report(error, bad)
            yield ""


def _json_value(line: str, key: str, where: str) -> str:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a JSON object, got {line.strip()!r:.80}")
    if key not in values:
        keys = ", ".join(map(repr, values))
        raise InputError(f"{where}: no key {key!r}; its keys are {keys:.300}")
    return _one_line(values[key], f"{where}, key {key!r}")


def _one_line(value: Any, where: str) -> str:
    """A value that is a line of text; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, UnicodeDecodeError):
        raise InputError(f"{where}: not text in UTF-8: {value.reason}") from value
    if not isinstance(value, str):
        raise InputError(f"{where}: expected text, got {value!r:.80}")
    if "\n" in value or value.endswith("\r"):
        raise InputError(
            f"{where}: expected one line of text, got a value with a line break, {value!r:.80}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may name half of a character.
        raise InputError(f"{where}: not valid Unicode: {error.reason}") from error
    return value


def parquet_column_text(
    path: str | os.PathLike[str],
    column: str,
    bad: BadRecords | None = None,
    max_gib: float = MAX_FILE_GIB,
) -> Iterator[str]:
    """The values of one column of a Parquet file as text: line i is row i.

    Args:
        path: the file; one that is gzipped is held in memory.
        column: name of the column.
        bad: is told which rows cannot be used, and are empty; without it they are errors.
        max_gib: the GiB that a gzipped file may expand to.

    Yields:
        Text, many rows at a time.

    Raises:
        InputError: the file cannot be read, or has no such column of text.
    """
    row = 0
    with parquet_file(path, [column], max_gib) as file:
        for batch in file.iter_batches(ROWS_PER_CHUNK, columns=[column]):
            lines = []
            for value in _cells(batch.column(0)):
                row += 1
                try:
                    text = _one_line(value, f"{path}, row {row}, column {column!r}")
                except InputError as error:
                    report(error, bad)
                    text = ""
                lines.append(text + "\n")
            yield "".join(lines)


@contextlib.contextmanager
def parquet_file(
    path: str | os.PathLike[str], columns: Iterable[str], max_gib: float = MAX_FILE_GIB
) -> Iterator[Any]:
    """Opens a Parquet file, as pyarrow's `ParquetFile`; what goes wrong with it is InputError.

    Args:
        path: the file; one that is gzipped is held in memory.
        columns: names of columns, each of which it must have once.
        max_gib: the GiB that a gzipped file may expand to.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"reading {path} needs pyarrow: pip install pyarrow") from error
    try:
        source: Any = os.fspath(path)
        if source.lower().endswith(".gz"):
            with open_expanded(source, max_gib) as packed:
                source = io.BytesIO(packed.read())
        file = parquet.ParquetFile(source)
        names = file.schema_arrow.names
        for column in columns:
            if names.count(column) != 1:
                number = "two columns" if column in names else "no column"
                raise InputError(
                    f"{path} has {number} {column!r}; its columns are {', '.join(map(repr, names))}"
                )
        yield file
    except InputError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file: {error}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # Beside its own pyarrow raises those of names that are no text.
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error


def _cells(column: Any) -> list[Any]:
    """The values of a column of Arrow; an error stands for text that cannot be decoded."""

    def value(cell: Any) -> Any:
        try:
            return cell.as_py()
        except UnicodeDecodeError as error:
            return error

    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # Nothing in the file says whether its text is UTF-8.
        return [value(cell) for cell in column]


def fasta_text(
    chunks: Iterable[str], path: str | os.PathLike[str], bad: BadRecords | None = None
) -> Iterator[str]:
    """The sequences of FASTA as text: each stands on the last line of its record, joined.

    A record is a line >NAME and the lines of its sequence; lines that begin with ; are comments.

    Args:
        chunks: the contents of the file, cut anywhere.
        path: the file, for messages.
        bad: is told which records have no sequence; without it they are errors.

    Yields:
        Text, many records at a time.

    Raises:
        InputError: names the line before the first record, or the record without a sequence.
    """
    return _in_parts(_fasta_lines(lines_with_ends(chunks), path, bad))


def _fasta_lines(
    lines: Iterable[str], path: str | os.PathLike[str], bad: BadRecords | None
) -> Iterator[str]:
    header, start, pending = "", 0, 0
    parts: list[str] = []

    def record() -> Iterator[str]:
        """The lines since the last residues of the record before."""
        if header and not parts:
            wrong = InputError(f"{path}, line {start}: the record {header!r:.80} has no sequence")
            report(wrong, bad)
        yield from [""] * (pending - 1)
        if pending:
            yield "".join(parts)

    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if line.startswith(">"):
            yield from record()
            header, start, parts, pending = line, number, [], 0
        elif line and not line.startswith(";"):
            if not header:
                raise InputError(
                    f"{path}, line {number}: expected a FASTA record that begins with >, got "
                    f"{line!r:.80}"
                )
            parts.append("".join(line.split()))
        pending += 1
    yield from record()
