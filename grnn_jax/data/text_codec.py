"""Codecs of text by character, by byte and by word, and how a codec is chosen."""

import codecs
import collections
import dataclasses
import functools
import logging
import re
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Options
from grnn_jax.data.smiles import SmilesCodec
from grnn_jax.data.text_codec_base import (
    Ids,
    IncrementalDecoder,
    TextCodec,
    complete_pieces,
    locate,
)
from grnn_jax.data.unseen import UnseenError
from grnn_jax.errors import InputError

UNKNOWN = "<unk>"
# A word with inner apostrophes, a whitespace character, or any other one: nothing is lost.
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|\s|[^\w\s]")
_WORD_OR_UNKNOWN = re.compile(f"{UNKNOWN}|{_WORD.pattern}")


@dataclasses.dataclass(frozen=True)
class CharCodec(TextCodec):
    """One token for each Unicode character, in the order of their code points."""

    characters: str = ""
    name: ClassVar[str] = "chars"
    options: ClassVar[tuple[str, ...]] = ("lowercase",)

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "CharCodec":
        characters: set[str] = set()
        for piece in pieces:
            characters.update(piece.lower() if options["lowercase"] else piece)
        return cls(with_end, options["lowercase"], "".join(sorted(characters)))

    @property
    def num_symbols(self) -> int:
        return len(self.characters)

    @functools.cached_property
    def _table(self) -> Integer[np.ndarray, " P"]:
        points = [ord(c) for c in self.characters]
        table = np.full(max(points, default=0) + 2, -1, np.int32)
        table[points] = np.arange(len(points))
        return table

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        text = text.lower() if self.lowercase else text
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        unknown = ids < 0
        if unknown.any():
            at = int(unknown.argmax())
            line, column = locate(text, at, line, column)
            raise UnseenError(
                f"{source}, line {line}, column {column}: character {text[at]!r} "
                f"(U+{ord(text[at]):04X}) is not among the {self.num_symbols} characters known "
                "to the codec of this run",
                (text[int(i)] for i in np.flatnonzero(unknown)),
                text,
            )
        return ids

    def decode(self, ids: Ids) -> str:
        return "".join([self.characters[i] for i in self._text_ids(ids)])


@dataclasses.dataclass(frozen=True)
class ByteCodec(TextCodec):
    """The 256 bytes of the file, whatever its encoding; text is encoded as UTF-8."""

    name: ClassVar[str] = "bytes"
    # Bytes that are not UTF-8 become lone surrogates, which `encode` turns back into these bytes.
    decode_errors: ClassVar[str] = "surrogateescape"
    is_bytes: ClassVar[bool] = True

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "ByteCodec":
        del pieces
        return cls(with_end, options["lowercase"])

    @property
    def num_symbols(self) -> int:
        return 256

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        del source, line, column
        text = text.lower() if self.lowercase else text
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.int32)

    def decode(self, ids: Ids) -> str:
        return self._text_ids(ids).astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def incremental_decoder(self) -> IncrementalDecoder:
        return self._decoder("replace")

    def file_decoder(self) -> IncrementalDecoder:
        return self._decoder("surrogateescape")

    def _decoder(self, errors: str) -> IncrementalDecoder:
        utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        return IncrementalDecoder(
            lambda ids: utf8.decode(self._text_ids(ids).astype(np.uint8).tobytes()),
            lambda: utf8.decode(b"", final=True),
        )


@dataclasses.dataclass(frozen=True)
class WordCodec(TextCodec):
    """One token for each frequent word, punctuation mark and whitespace character.

    Token 0 is `<unk>`, which stands for every token outside the vocabulary; the others follow by
    falling frequency, equal ones in the order of their code points.

    Attributes:
        vocabulary: the tokens from 1 on.
        reads_unknown: whether `<unk>` in a text is token 0, as it is written, and as texts have it
          whose rare words were replaced before. In runs of earlier versions, whose codec does not
          say, it is three symbols.
    """

    vocabulary: tuple[str, ...] = ()
    reads_unknown: bool = False
    name: ClassVar[str] = "words"
    options: ClassVar[tuple[str, ...]] = ("lowercase", "max_vocabulary")
    fits_train: ClassVar[bool] = True
    unknown: ClassVar[int | None] = 0

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "WordCodec":
        """Keeps the most frequent tokens: `max_vocabulary` symbols with `<unk>` among them."""
        lowercase, size = options["lowercase"], options["max_vocabulary"]
        counts: collections.Counter[str] = collections.Counter()
        for piece in pieces:
            counts.update(cls.split(piece.lower() if lowercase else piece))
        if number := counts.pop(UNKNOWN, 0):
            logging.getLogger(__name__).info(
                "the training text has %d words %s, which stand for unknown ones", number, UNKNOWN
            )
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        return cls(with_end, lowercase, tuple(ranked[: size - 1]), reads_unknown=True)

    @classmethod
    def split(cls, text: str) -> list[str]:
        return _WORD_OR_UNKNOWN.findall(text)

    @property
    def num_symbols(self) -> int:
        return len(self.vocabulary) + 1

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.vocabulary, start=1)}

    @classmethod
    def complete(cls, text: str) -> int:
        return max(text.rfind(" "), text.rfind("\n")) + 1

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        del source, line, column
        split, unknown = self.split if self.reads_unknown else split_words, self.unknown
        words = split(text.lower() if self.lowercase else text)
        return np.fromiter((self._index.get(w, unknown) for w in words), np.int32, len(words))

    def decode(self, ids: Ids) -> str:
        symbols = (UNKNOWN, *self.vocabulary)
        return "".join([symbols[i] for i in self._text_ids(ids)])


def split_words(text: str, lowercase: bool = False) -> list[str]:
    """Splits text into words, punctuation marks and whitespace characters, losing nothing.

    >>> split_words("Don't stop, now")
    ["Don't", ' ', 'stop', ',', ' ', 'now']

    Args:
        text: the text.
        lowercase: whether it is lowercased first.

    Returns:
        The symbols.
    """
    return _WORD.findall(text.lower() if lowercase else text)


CODECS: dict[str, type[TextCodec]] = {
    codec.name: codec for codec in (CharCodec, ByteCodec, WordCodec, SmilesCodec)
}
"""The codecs of text by name, as settings give it; a new one is one file and one line here."""


def check_codec_options(name: str, max_vocabulary: int) -> None:
    """Raises InputError unless the options describe a codec."""
    if name not in CODECS:
        raise InputError(f"codec must be one of {', '.join(CODECS)}, got {name!r}")
    if max_vocabulary < 2:
        raise InputError(f"max_vocabulary must be at least 2, got {max_vocabulary}")


def build_codec(
    name: str,
    chunks: Iterable[str],
    *,
    end: bool = False,
    max_vocabulary: int = 20_000,
    lowercase: bool = False,
) -> TextCodec:
    """Builds a codec from text that arrives in chunks, none of which is kept.

    >>> codec = build_codec("chars", ["an old ", "cat"])
    >>> codec.encode("cat").tolist()
    [2, 1, 7]
    >>> codec.decode([2, 1, 7])
    'cat'

    Args:
        name: one of `CODECS`.
        chunks: the text the vocabulary comes from, cut anywhere.
        end: whether to add a token that ends a sequence.
        max_vocabulary: greatest number of symbols of the words codec, `<unk>` included.
        lowercase: whether text is lowercased.

    Returns:
        The codec.

    Raises:
        InputError: an option is out of range.
    """
    check_codec_options(name, max_vocabulary)
    codec, options = CODECS[name], {"lowercase": lowercase, "max_vocabulary": max_vocabulary}
    return codec.fit(complete_pieces(chunks, codec), end, options)
