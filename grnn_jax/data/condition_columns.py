"""The conditions of lines: other columns of the file whose rows the lines are."""

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.column import ROWS_PER_CHUNK, index_of, lines_with_ends
from grnn_jax.data.conditions import Values, of_one_row
from grnn_jax.data.declared import MAX_FILE_GIB, open_expanded
from grnn_jax.data.decoding import decoded
from grnn_jax.data.file_kinds import kind_of
from grnn_jax.errors import InputError


def conditions_by_line(
    path: str | os.PathLike[str], names: tuple[str, ...], max_gib: float = MAX_FILE_GIB
) -> list[Values | None]:
    """What columns of a file say of each line of the text that one of its columns is.

    Rows that cannot be read are left to whoever reads that text, which tells them.

    Args:
        path: a .csv, .tsv, .smi, .jsonl or .parquet file, gzipped or not.
        names: columns (keys, numbers from 1), as for `column_text`.
        max_gib: the GiB that the file may expand to.

    Returns:
        At the number of each line, from 1, its values; None where no row ends there.

    Raises:
        InputError: the file has no such column, or a value is a structure.
    """
    found: list[Values | None] = [None]
    known: dict[Values, Values] = {}  # One object for equal rows.
    for number, values in _rows(path, names, max_gib):
        found += [None] * (number - len(found))
        # 1, 1.0 and True are equal, and no text is any of them.
        found.append(known.setdefault(tuple(map(repr, values)), values))
    return found


def _rows(
    path: str | os.PathLike[str], names: tuple[str, ...], max_gib: float
) -> Iterator[tuple[int, Values]]:
    """The number of the line on which each row ends, and its values."""
    kind = kind_of(path)
    if kind == "parquet":
        yield from _parquet_rows(path, names, max_gib)
        return
    with open_expanded(path, max_gib) as file:
        lines = lines_with_ends(decoded(file, path, "strict", BadRecords(skip=True)))
        if kind == "jsonl":
            yield from _json_rows(lines, path, names)
        elif kind == "smi":
            cells = ((number, line.split()) for number, line in enumerate(lines, start=1))
            yield from _cells(cells, path, names, short=True)
        else:
            yield from _cells(_csv_rows(lines, "\t" if kind == "tsv" else ","), path, names)


def _csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            continue
        if row is None:
            return
        yield rows.line_num, row


def _cells(
    rows: Iterator[tuple[int, list[str]]],
    path: str | os.PathLike[str],
    names: tuple[str, ...],
    short: bool = False,
) -> Iterator[tuple[int, Values]]:
    """The cells of some columns; a row may be too short where nothing says how long it is."""
    indices: list[int] = []
    for number, row in rows:
        if not row:
            continue
        if not indices:
            places = [index_of(name, row, path) for name in names]
            indices = [index for index, _ in places]
            if len({is_header for _, is_header in places}) > 1:
                raise InputError(
                    f"{path}: condition_on must be names of the first row, or numbers, got both"
                )
            if places[0][1]:
                continue
        if short or max(indices) < len(row):
            yield number, tuple(row[i] if i < len(row) else None for i in indices)


def _json_rows(
    lines: Iterator[str], path: str | os.PathLike[str], names: tuple[str, ...]
) -> Iterator[tuple[int, Values]]:
    some = set()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            some |= set(names) & set(record)
            where = f"{path}, line {number}, key"
            yield number, tuple(of_one_row(record.get(n), f"{where} {n!r}") for n in names)
    for name in names:
        if name not in some:
            raise InputError(f"{path} has no key {name!r} in any line")


def _parquet_rows(
    path: str | os.PathLike[str], names: tuple[str, ...], max_gib: float
) -> Iterator[tuple[int, Values]]:
    from pyarrow import parquet

    number = 0
    try:
        source: Any = os.fspath(path)
        if source.lower().endswith(".gz"):
            with open_expanded(source, max_gib) as packed:
                source = io.BytesIO(packed.read())
        file = parquet.ParquetFile(source)
        for name in names:
            if file.schema_arrow.names.count(name) != 1:
                raise InputError(f"{path} has no column {name!r}, or two of them")
        for batch in file.iter_batches(ROWS_PER_CHUNK, columns=list(names)):
            cells = batch.to_pydict()
            for values in zip(*(cells[name] for name in names), strict=True):
                number += 1
                where = f"{path}, row {number}, column"
                pairs = zip(names, values, strict=True)
                yield number, tuple(of_one_row(value, f"{where} {name!r}") for name, value in pairs)
    except InputError:
        raise
    except Exception as error:  # Beside its own pyarrow raises those of names that are no text.
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
