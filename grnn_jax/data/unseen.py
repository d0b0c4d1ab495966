"""Sequences with symbols that training never saw: these have no probability."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from grnn_jax.errors import InputError

MOST_LISTED = 100
Result = TypeVar("Result")


class UnseenError(InputError):
    """A sequence has a symbol that the codec does not know.

    Attributes:
        symbols: each such symbol, as often as it occurs.
        text: the text that was encoded, if it was one.
    """

    def __init__(self, message: str, symbols: Iterable[Any], text: str = ""):
        super().__init__(message)
        self.symbols = collections.Counter(map(str, symbols))
        self.text = text


class LeftOut(NamedTuple):
    """A sequence that is not scored.

    Attributes:
        symbols: those that training never saw, each as often as it occurs.
        text: the sequence, if it is text.
    """

    symbols: Mapping[str, int]
    text: str


class Unseen:
    """Leaves out the sequences of a file that have such symbols, and notes what they are.

    >>> unseen = Unseen()
    >>> def encode():
    ...     raise UnseenError("a.txt, line 1: character 'Z' is not known", "ZZ")
    >>> unseen.take(0, encode), unseen.take(0, lambda: [1, 2])
    (None, [1, 2])
    >>> unseen.listing()
    "'Z' (2)"

    Args:
        each_line: whether each line of a text is a sequence; else all of it is one.
        also: sequences that are left out too, by their number.
        unknown: whether words that a codec has no symbol for are among the symbols, though it has
            one for them all.

    Attributes:
        sequences: those that were left out by their number in the file, from 0.
        first: the message of the first of them.
    """

    def __init__(
        self,
        *,
        each_line: bool = False,
        also: Mapping[int, LeftOut] | None = None,
        unknown: bool = False,
    ):
        self.each_line, self.unknown = each_line, unknown
        self._also = also or {}
        self.sequences: dict[int, LeftOut] = {}
        self.first = ""

    def take(self, taken: int, encode: Callable[[], Result]) -> Result | None:
        """Encodes a sequence.

        Args:
            taken: how many were encoded and not left out before.
            encode: encodes it.

        Returns:
            What `encode` returned; None where the sequence is left out.
        """
        number = taken + len(self.sequences)
        if number in self._also:
            self.sequences[number] = self._also[number]
            return None
        try:
            return encode()
        except UnseenError as error:
            self.sequences[number] = LeftOut(dict(error.symbols), error.text)
            self.first = self.first or str(error)
        return None

    def check(self, codec: Any, text: str, source: str) -> None:
        """Raises UnseenError where a text has symbols that a codec takes for its unknown one."""
        if not self.unknown or codec.unknown is None:
            return
        text = text.lower() if codec.lowercase else text
        if codec.unknown not in codec.encode(text):
            return
        counts = collections.Counter(codec.split(text))
        symbols = unknown_symbols(codec, counts)
        if symbols:
            spelled = codec.decode([codec.unknown])
            found = collections.Counter({symbol: counts[symbol] for symbol in symbols})
            raise UnseenError(
                f"{source}: {symbols[0]!r} is no symbol of this run, which takes it for {spelled}",
                found.elements(),
                text,
            )

    def listing(self) -> str:
        """All symbols, the most frequent first, each with its count."""
        return listing(each.symbols for each in self.sequences.values())


def unknown_symbols(codec: Any, symbols: Iterable[str]) -> list[str]:
    """Those of some symbols that a codec takes for its unknown one, but for that one itself."""
    unknown = codec.unknown
    encoded = {symbol: codec.encode(symbol).tolist() for symbol in symbols}
    itself = codec.decode([unknown])
    return [s for s, ids in encoded.items() if unknown in ids and (s != itself or len(ids) > 1)]


def listing(symbols: Iterable[Mapping[str, int]]) -> str:
    """Symbols with their counts in one line, the most frequent first."""
    counts: collections.Counter[str] = collections.Counter()
    for each in symbols:
        counts.update(each)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{symbol!r} ({count})" for symbol, count in ranked[:MOST_LISTED])
    more = len(ranked) - MOST_LISTED
    return shown + (f" and {more} more" if more > 0 else "")
