"""From the bytes of a file to text in UTF-8, or to what is wrong with its lines."""

import codecs
import io
import os
import re
from collections.abc import Iterator

from grnn_jax.data.bad_records import BadRecords, report
from grnn_jax.errors import InputError

CHUNK_BYTES = 1 << 22
_MOST_HELD = CHUNK_BYTES
"""Characters of a line that wait for its end."""

# What surrogateescape makes of bytes that are no UTF-8; UTF-8 itself never gives them.
_ESCAPED = re.compile("[\udc80-\udcff]")


def decoded(
    file: io.BufferedIOBase,
    path: str | os.PathLike[str],
    errors: str = "strict",
    bad: BadRecords | None = None,
) -> Iterator[str]:
    """The text of a file in chunks, without a byte order mark.

    Args:
        file: the bytes.
        path: the file, for messages.
        errors: "surrogateescape" keeps bytes that are no UTF-8, and a byte order mark.
        bad: is told which lines are no UTF-8, and they become empty; without it the first of them
            is an error.

    Yields:
        Text that is not empty.

    Raises:
        InputError: names the line, the byte and its place.
    """
    chunks = _escaped(file)
    if errors != "strict":
        return chunks
    return _without_mark(_checked(chunks, path, bad))


def _escaped(file: io.BufferedIOBase) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    while True:
        data = file.read(CHUNK_BYTES)
        text = decoder.decode(data, final=not data)
        if text:
            yield text
        if not data:
            return


def _without_mark(chunks: Iterator[str]) -> Iterator[str]:
    start = True
    for chunk in chunks:
        text = chunk.removeprefix("\ufeff") if start else chunk
        start = False
        if text:
            yield text


def _checked(
    chunks: Iterator[str], path: str | os.PathLike[str], bad: BadRecords | None
) -> Iterator[str]:
    """The chunks, cut after lines unless these are very long."""
    place, held, begun = _Place(path), "", False
    for chunk in chunks:
        held += chunk
        end = held.rfind("\n") + 1
        if not end and len(held) <= _MOST_HELD:
            continue
        # A line without an end so far goes on in two pieces or more.
        whole, held = (held[:end], held[end:]) if end else (held, "")
        yield place.check(whole, bad, begun, goes_on=not end)
        begun = not end
    yield place.check(held, bad, begun, goes_on=False)


class _Place:
    """Where the next text stands in a file."""

    def __init__(self, path: str | os.PathLike[str]):
        self._path, self._line, self._offset = path, 1, 0

    def check(self, text: str, bad: BadRecords | None, begun: bool, goes_on: bool) -> str:
        """Text whose lines that are no UTF-8 are empty; goes on to what comes after it.

        Args:
            text: lines, of which the first may have begun before and the last may go on.
            bad: is told which lines are no UTF-8.
            begun: whether the first has.
            goes_on: whether the last does.

        Raises:
            InputError: a line is no UTF-8 and there is no `bad`, or it is only a part of one.
        """
        if text.isascii() or not _ESCAPED.search(text):
            self._line += text.count("\n")
            self._offset += len(text) if text.isascii() else len(text.encode())
            return text
        lines = text.split("\n")
        for index, line in enumerate(lines):
            has_end = index < len(lines) - 1
            raw = line.encode("utf-8", "surrogateescape") + b"\n" * has_end
            if _ESCAPED.search(line):
                is_part = (index == 0 and begun) or (goes_on and not has_end)
                report(self._error(raw), None if is_part else bad)
                lines[index] = ""
            self._line += has_end
            self._offset += len(raw)
        return "\n".join(lines)

    def _error(self, line: bytes) -> InputError:
        start, reason = 0, ""
        try:
            line.decode()
        except UnicodeDecodeError as error:
            start, reason = error.start, error.reason
        return InputError(
            f"{self._path}, line {self._line}, byte offset {self._offset + start}: byte "
            f"0x{line[start]:02x} is not valid UTF-8 ({reason}); convert the file to UTF-8 or use "
            "codec bytes"
        )
