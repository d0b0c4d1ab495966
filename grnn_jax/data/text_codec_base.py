"""What every codec of text is: a reversible map between text and integer tokens."""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Codec, EventType, Options
from grnn_jax.errors import InputError

Ids = Sequence[int | np.integer] | Integer[np.ndarray, " T"]


_LONGEST_WORD = 1 << 12
_PARTS_WORDS = frozenset(("Lo", "Nd", "Zs", "Zl", "Zp", "Cc", "Cs"))


class IncrementalDecoder(NamedTuple):
    """Turns tokens into text as they arrive; what is not yet complete is held back."""

    decode: Callable[[Ids], str]
    flush: Callable[[], str]


@dataclasses.dataclass(frozen=True)
class TextCodec(Codec):
    """A reversible map between text and tokens `0 .. size-1`; the entries of `text_codec.CODECS`.

    With `with_end` the last token is the end of a sequence.

    Attributes:
        lowercase: whether text is lowercased before it is encoded.
        decode_errors: how undecodable bytes of a file are treated when it is read for this codec.
        fits_train: whether `fit` sees the training split alone. Else it sees all splits, so that
          no character of theirs is unknown, which would have probability zero.
        is_bytes: whether a token is a byte of UTF-8, not a symbol of text.
        unknown: the token that stands for every symbol outside the vocabulary; None where there
          is none, and such symbols are refused.
        ends_at_blank: whether a line of the notation ends at its first blank, so that one with a
          blank holds something else too, and is not trained on.
    """

    lowercase: bool = False

    is_text: ClassVar[bool] = True
    decode_errors: ClassVar[str] = "strict"
    fits_train: ClassVar[bool] = False
    is_bytes: ClassVar[bool] = False
    unknown: ClassVar[int | None] = None
    ends_at_blank: ClassVar[bool] = False

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "TextCodec":
        """Makes the codec of a text.

        Args:
            pieces: the text in pieces that `complete` made, read once or not at all.
            with_end: whether the end of a sequence is a token.
            options: values of "lowercase" and "max_vocabulary".

        Returns:
            The codec.
        """
        raise NotImplementedError

    @classmethod
    def split(cls, text: str) -> Sequence[str]:
        """Splits a text into symbols, before any becomes unknown.

        Args:
            text: the text, lowercased where the codec does so.

        Returns:
            The symbols; joined they are the text.
        """
        return text

    @classmethod
    def complete(cls, text: str) -> int:
        """How much of a text can be encoded before the rest of it is known.

        Args:
            text: a beginning of the rest of a file.

        Returns:
            Length of the part of it whose tokens no later text can change.
        """
        return lowercase_cut(text)

    @property
    def num_symbols(self) -> int:
        """Number of tokens that stand for text."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of tokens, the end of a sequence included."""
        return self.num_symbols + int(self.with_end)

    @property
    def end(self) -> int | None:
        """The token that ends a sequence, or None."""
        return self.num_symbols if self.with_end else None

    @property
    def event_type(self) -> EventType:
        return EventType("tokens", (self.size,), {"end": self.end})

    @property
    def wraps_end(self) -> bool:
        return False

    @property
    def dtype(self) -> np.dtype:
        """The smallest storage type that holds every token."""
        for dtype in (np.uint8, np.uint16):
            if self.size <= np.iinfo(dtype).max + 1:
                return np.dtype(dtype)
        return np.dtype(np.int32)

    @property
    def summary(self) -> str:
        return f"{self.name}, {self.size} symbols"

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        """Encodes text.

        Args:
            text: the text, whole or a piece of it.
            source: what the text is (a file name, an argument), for messages.
            line: line number of the first character, from 1.
            column: its column, from 1.

        Returns:
            int32 tokens, without the end of the sequence.

        Raises:
            InputError: a symbol is not in the vocabulary; the message says where.
        """
        raise NotImplementedError

    def decode(self, ids: Ids) -> str:
        """Decodes tokens; the end of a sequence stands for no text.

        Args:
            ids: the tokens.

        Returns:
            Their text.

        Raises:
            InputError: a number is no token.
        """
        raise NotImplementedError

    def incremental_decoder(self) -> IncrementalDecoder:
        """Returns an object whose `decode(ids)` and `flush()` give the text piece by piece."""
        return IncrementalDecoder(self.decode, lambda: "")

    def file_decoder(self) -> IncrementalDecoder:
        """The decoder of text for a file, written with the error handler "surrogateescape".

        What `incremental_decoder` shows for tokens that spell no text, as bytes that are no UTF-8,
        would be read back as other tokens.
        """
        return self.incremental_decoder()

    def _text_ids(self, ids: Ids) -> Integer[np.ndarray, " N"]:
        array = np.asarray(ids, np.int64).reshape(-1)
        bad = (array < 0) | (array >= self.size)
        if bad.any():
            raise InputError(f"token {array[bad][0]} is outside 0 .. {self.size - 1}")
        return array[array < self.num_symbols]


def lowercase_cut(text: str) -> int:
    """Where a text may be cut so that its parts are lowercased as the whole is.

    Of all letters the capital sigma alone depends on those around it: it ends a word as another
    letter. What is neither a letter with a case nor a mark between letters parts words.

    >>> "ΟΔΟΣ ΟΔ"[: lowercase_cut("ΟΔΟΣ ΟΔ")]
    'ΟΔΟΣ '

    Args:
        text: a beginning of the rest of a file.

    Returns:
        The length of what may be taken; all of a long text whose end is no word.
    """
    for length in range(len(text), max(len(text) - _LONGEST_WORD, 0), -1):
        # Not a letter with cases, and of no category in which a mark may stand inside a word.
        character = text[length - 1]
        is_cased = character in "ªº"  # The two letters of category Lo that are.
        if unicodedata.category(character) in _PARTS_WORDS and not is_cased:
            return length
    return len(text) if len(text) >= _LONGEST_WORD else 0


def locate(text: str, at: int, line: int, column: int) -> tuple[int, int]:
    r"""Where a character stands.

    >>> locate("ab\ncd", 4, line=7, column=10)
    (8, 2)

    Args:
        text: a part of a file.
        at: index of the character in it.
        line: line of `text[0]`.
        column: column of `text[0]`.

    Returns:
        Line and column of `text[at]`.
    """
    before = text[:at].rpartition("\n")
    return line + text.count("\n", 0, at), len(before[2]) + (1 if before[1] else column)


def complete_pieces(chunks: Iterable[str], codec: TextCodec | type[TextCodec]) -> Iterable[str]:
    """Moves the cuts between chunks to places where no token is cut in two.

    Args:
        chunks: text, cut anywhere.
        codec: says by `complete` where it may be cut.

    Yields:
        The same text in other pieces.
    """
    rest: list[str] = []
    for chunk in chunks:
        cut = codec.complete(chunk)
        if cut:
            yield "".join(rest) + chunk[:cut]
            rest = []
        rest.append(chunk[cut:])
    tail = "".join(rest)
    if tail:
        yield tail
