"""Records as JSON lines, CSV or Parquet: any number of them, a block at a time."""

import contextlib
import csv
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from grnn_jax.errors import InputError

SUFFIXES = (".jsonl", ".csv", ".parquet")
BLOCK = 1 << 14
"""Records in a block."""


def check_suffix(path: str) -> None:
    """Raises InputError unless a file can be written by that name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"--output must end in {', '.join(SUFFIXES)}, got {path}")


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for numbers that JSON has not: infinities and NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def write_json_lines(records: Iterable[dict[str, Any]], file: TextIO) -> None:
    """Writes one JSON object a line."""
    for record in records:
        file.write(json.dumps(finite(record), ensure_ascii=False) + "\n")


def write_records(records: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Writes records, all with the same names, to a file whose suffix says how.

    The file appears under its name when it is complete.

    Args:
        records: at least one.
        path: ends in one of `SUFFIXES`.

    Raises:
        InputError: the suffix is another one, the file cannot be written, or pyarrow is missing.
    """
    path = Path(path)
    check_suffix(str(path))
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _removed_on_error(temporary):
            if path.suffix.lower() == ".parquet":
                _write_parquet(records, temporary)
            else:
                with open(temporary, "w", encoding="utf-8", newline="") as file:
                    if path.suffix.lower() == ".jsonl":
                        write_json_lines(records, file)
                    else:
                        _write_csv(records, file)
            os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"--output: cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_csv(records: Iterable[dict[str, Any]], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for number, record in enumerate(records):
        if number == 0:
            writer.writerow(record)
        writer.writerow(finite(record).values())


def _write_parquet(records: Iterable[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError("--output: a .parquet file needs pyarrow; pip install pyarrow") from error
    rows = iter(records)
    writer = None
    try:
        while block := list(itertools.islice(rows, BLOCK)):
            table = pyarrow.Table.from_pylist(block, None if writer is None else writer.schema)
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
