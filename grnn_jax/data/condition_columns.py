"""The conditions of lines: other columns of the file whose rows the lines are."""

import json
import os
from collections.abc import Iterator

from grnn_jax.data.bad_records import BadRecords, report
from grnn_jax.data.column import (
    ROWS_PER_CHUNK,
    csv_rows,
    index_of,
    lines_with_ends,
    parquet_file,
)
from grnn_jax.data.conditions import Values, of_one_row
from grnn_jax.data.declared import MAX_FILE_GIB, open_expanded
from grnn_jax.data.decoding import decoded
from grnn_jax.data.file_kinds import kind_of
from grnn_jax.errors import InputError


def conditions_by_line(
    path: str | os.PathLike[str],
    names: tuple[str, ...],
    max_gib: float = MAX_FILE_GIB,
    bad: BadRecords | None = None,
) -> list[Values | None]:
    """What columns of a file say of each line of the text that one of its columns is.

    Args:
        path: a .csv, .tsv, .smi, .jsonl or .parquet file, gzipped or not.
        names: columns (keys, numbers from 1), as for `column_text`.
        max_gib: the GiB that the file may expand to.
        bad: is told which rows cannot be read; without it the first of them is an error.

    Returns:
        At the number of each line, from 1, its values; None where no row ends there.

    Raises:
        InputError: the file has no such column, or a value is a structure.
    """
    found: list[Values | None] = [None]
    known: dict[Values, Values] = {}  # One object for equal rows.
    for number, values in _rows(path, names, max_gib, bad):
        found += [None] * (number - len(found))
        # 1, 1.0 and True are equal, and no text is any of them.
        found.append(known.setdefault(tuple(map(repr, values)), values))
    return found


def _rows(
    path: str | os.PathLike[str], names: tuple[str, ...], max_gib: float, bad: BadRecords | None
) -> Iterator[tuple[int, Values]]:
    """The number of the line on which each row ends, and its values."""
    kind = kind_of(path)
    if kind == "parquet":
        yield from _parquet_rows(path, names, max_gib)
        return
    with open_expanded(path, max_gib) as file:
        chunks = decoded(file, path, "strict", bad)
        if kind == "jsonl":
            yield from _json_rows(lines_with_ends(chunks), path, names, bad)
        elif kind == "smi":
            lines = enumerate(lines_with_ends(chunks), start=1)
            yield from _cells(((number, line.split()) for number, line in lines), path, names)
        else:
            rows = csv_rows(chunks, "\t" if kind == "tsv" else ",", path, bad)
            yield from _cells(_whole(rows, path, bad), path, names)


def _whole(
    rows: Iterator[tuple[int, list[str]]], path: str | os.PathLike[str], bad: BadRecords | None
) -> Iterator[tuple[int, list[str]]]:
    """The rows that are as long as the first one."""
    num_cells = 0
    for number, row in rows:
        num_cells = num_cells or len(row)
        if len(row) == num_cells:
            yield number, row
            continue
        where = f"{path}, line {number}"
        report(
            InputError(f"{where}: expected {num_cells} cells as in the header, got {len(row)}"), bad
        )


def _cells(
    rows: Iterator[tuple[int, list[str]]],
    path: str | os.PathLike[str],
    names: tuple[str, ...],
) -> Iterator[tuple[int, Values]]:
    """The cells of some columns; None where a row is too short, as nothing says how long it is."""
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
        yield number, tuple(row[i] if i < len(row) else None for i in indices)


def _json_rows(
    lines: Iterator[str],
    path: str | os.PathLike[str],
    names: tuple[str, ...],
    bad: BadRecords | None,
) -> Iterator[tuple[int, Values]]:
    some: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(InputError(f"{where}: not JSON: {error}"), bad)
            continue
        if not isinstance(record, dict):
            report(InputError(f"{where}: expected a JSON object, got {record!r:.80}"), bad)
            continue
        some |= set(names) & set(record)
        yield number, tuple(of_one_row(record.get(n), f"{where}, key {n!r}") for n in names)
    for name in names:
        if name not in some:
            raise InputError(f"{path} has no key {name!r} in any line")


def _parquet_rows(
    path: str | os.PathLike[str], names: tuple[str, ...], max_gib: float
) -> Iterator[tuple[int, Values]]:
    number = 0
    with parquet_file(path, names, max_gib) as file:
        for batch in file.iter_batches(ROWS_PER_CHUNK, columns=list(names)):
            cells = batch.to_pydict()
            for values in zip(*(cells[name] for name in names), strict=True):
                number += 1
                where = f"{path}, row {number}, column"
                pairs = zip(names, values, strict=True)
                yield number, tuple(of_one_row(value, f"{where} {name!r}") for name, value in pairs)
