"""Text into tokens: a document as one sequence, or a line as one."""

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.corpus import TextSource
from grnn_jax.data.store import CorpusWriter
from grnn_jax.data.text_codec import TextCodec, complete_pieces
from grnn_jax.data.unseen import Unseen, UnseenError


def write_text(
    source: TextSource,
    codec: TextCodec,
    writer: CorpusWriter,
    bad: BadRecords | None = None,
    unseen: Unseen | None = None,
) -> None:
    """Encodes a source as text: each document one sequence, without an end token.

    Args:
        source: where the text comes from.
        codec: its codec.
        writer: where the tokens go.
        bad: is told which lines cannot be used, and are empty; without it they are errors.
        unseen: leaves out what has symbols that the codec does not know; None to refuse them.

    Raises:
        InputError: a symbol is not known to the codec.
    """
    for name, chunks in source.documents(codec.decode_errors, bad):
        writer.start_sequence()
        pieces: Iterable[str] = complete_pieces(chunks, codec)
        if unseen is not None:
            _write_known_text(name, pieces, codec, writer, unseen)
            continue
        for piece, line, column in _located(pieces):
            writer.append(codec.encode(piece, name, line=line, column=column))


def _write_known_text(
    name: str, pieces: Iterable[str], codec: TextCodec, writer: CorpusWriter, unseen: Unseen
) -> None:
    """Encodes a document but for its lines that are left out; or of one sequence all or nothing."""

    def encode(piece: str, line: int, column: int) -> Integer[np.ndarray, " T"]:
        unseen.check(codec, piece, f"{name}, line {line}")
        return codec.encode(piece, name, line=line, column=column)

    if unseen.each_line:
        taken = 0
        for each in _located(_lines(pieces)):
            ids = unseen.take(taken, functools.partial(encode, *each))
            if ids is not None:
                writer.append(ids)
                taken += 1
        return

    def write_all() -> bool:
        errors: list[UnseenError] = []
        for each in _located(pieces):
            try:
                writer.append(encode(*each))
            except UnseenError as error:
                errors.append(error)
        if errors:
            symbols = itertools.chain(*(error.symbols.elements() for error in errors))
            raise UnseenError(str(errors[0]), symbols)
        return True

    unseen.take(0, write_all)


def _located(pieces: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """The pieces of a document, each with the line and the column of its first character."""
    line, column = 1, 1
    for piece in pieces:
        yield piece, line, column
        newlines = piece.count("\n")
        line += newlines
        column = len(piece) - piece.rfind("\n") if newlines else column + len(piece)


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a document, each with its line end."""
    rest: list[str] = []
    for piece in pieces:
        *lines, last = piece.split("\n")
        for line in lines:
            yield "".join([*rest, line, "\n"])
            rest = []
        rest.append(last)
    if last := "".join(rest):
        yield last


def _encode_line(
    codec: TextCodec, place: tuple[str, int], line: str, unseen: Unseen | None
) -> Integer[np.ndarray, " T"]:
    """The tokens of a line; with `unseen`, an `UnseenError` tells all symbols not known."""
    name, number = place
    if unseen is not None:
        unseen.check(codec, line, f"{name}, line {number}")
    return codec.encode(line, name, line=number)


def write_line(
    codec: TextCodec,
    place: tuple[str, int],
    line: str,
    writer: CorpusWriter,
    unseen: Unseen | None = None,
    taken: int = 0,
) -> bool:
    """Encodes a line as one sequence that ends with the end token.

    Args:
        codec: a codec with an end.
        place: name of the document and number of the line, from 1, for messages.
        line: its text.
        writer: where the tokens go.
        unseen: leaves out a line with symbols that the codec does not know; None to refuse it.
        taken: how many lines of the file were written before.

    Returns:
        Whether it was written.

    Raises:
        InputError: a symbol is not known to the codec.
    """
    assert codec.end is not None
    # No function of its own: defined for each line it would take as long as the line.
    encode = functools.partial(_encode_line, codec, place, line, unseen)
    ids = encode() if unseen is None else unseen.take(taken, encode)
    if ids is None:
        return False
    writer.start_sequence()
    writer.append(np.append(ids, np.int32(codec.end)))
    return True
