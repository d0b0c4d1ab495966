"""One column of a CSV file of any size, as text with one value a line."""

import csv
import os
from collections.abc import Iterable, Iterator

from grnn_jax.errors import InputError

ROWS_PER_CHUNK = 4096
MAX_FIELD = 1 << 24
"""Most characters of a value; a forgotten quote is not searched for beyond."""


def is_csv(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file says that it is CSV, gzip-compressed or not."""
    return os.fspath(path).lower().endswith((".csv", ".csv.gz"))


def column_text(chunks: Iterable[str], path: str | os.PathLike[str], column: str) -> Iterator[str]:
    """The values of one column of CSV as text: line i is the value whose row ends on line i.

    Args:
        chunks: the contents of the file, cut anywhere.
        path: the file, for messages.
        column: name of the column, as in the first row.

    Yields:
        Text, many rows at a time; a line without a row's end is empty.

    Raises:
        InputError: names the file and the line of a row that cannot be used.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    rows = csv.reader(_lines_with_ends(chunks), strict=True)
    index, num_fields, done = -1, 0, 0
    text: list[str] = []
    try:
        for row in rows:
            line = rows.line_num
            if not row:
                continue
            text.append("\n" * (line - 1 - done))
            done = line
            if index < 0:
                if row.count(column) != 1:
                    number = "two columns" if column in row else "no column"
                    raise InputError(
                        f"{path} has {number} {column!r}; its columns are "
                        f"{', '.join(map(repr, row))}"
                    )
                index, num_fields = row.index(column), len(row)
                text.append("\n")
                continue
            if len(row) != num_fields:
                raise InputError(
                    f"{path}, line {line}: expected {num_fields} cells as in the header, "
                    f"got {len(row)}"
                )
            if "\n" in row[index]:
                raise InputError(
                    f"{path}, line {line}, column {column!r}: expected one line of text, got a "
                    "cell with a line break"
                )
            text.append(row[index] + "\n")
            if len(text) > ROWS_PER_CHUNK:
                yield "".join(text)
                text = []
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not valid CSV: {error}") from error
    yield "".join(text)


def _lines_with_ends(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        lines = (rest + chunk).split("\n")
        rest = lines.pop()
        yield from (line + "\n" for line in lines)
    if rest:
        yield rest
