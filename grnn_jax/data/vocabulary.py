"""Codecs of text by a vocabulary: how a text is split is all that tells them apart."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Options
from grnn_jax.data.text_codec_base import Ids, TextCodec, locate
from grnn_jax.data.unseen import UnseenError


@dataclasses.dataclass(frozen=True)
class VocabularyCodec(TextCodec):
    """One token for each symbol that `split` finds in the data, in alphabetical order.

    A codec of one's own needs a `name` and `split`, and `complete` where a symbol may have more
    than one character:

    >>> import re
    >>> class Syllables(VocabularyCodec):
    ...     name = "syllables"
    ...
    ...     @classmethod
    ...     def split(cls, text):
    ...         return re.findall(r".[aeiou]+|.", text)
    >>> codec = Syllables.fit(["banana"], with_end=True, options={"lowercase": False})
    >>> codec.vocabulary, codec.end
    (('ba', 'na'), 2)
    >>> codec.encode("nabana").tolist()
    [1, 0, 1]

    Attributes:
        vocabulary: the symbols.
    """

    vocabulary: tuple[str, ...] = ()
    options: ClassVar[tuple[str, ...]] = ("lowercase",)

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "VocabularyCodec":
        lowercase = options["lowercase"]
        symbols: set[str] = set()
        for piece in pieces:
            symbols.update(cls.split(piece.lower() if lowercase else piece))
        return cls(with_end, lowercase, tuple(sorted(symbols)))

    @property
    def num_symbols(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.vocabulary)}

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        text = text.lower() if self.lowercase else text
        symbols = self.split(text)
        ids = np.fromiter((self._index.get(s, -1) for s in symbols), np.int32, len(symbols))
        unknown = ids < 0
        if unknown.any():
            first = int(unknown.argmax())
            line, column = locate(text, len("".join(symbols[:first])), line, column)
            raise UnseenError(
                f"{source}, line {line}, column {column}: symbol {symbols[first]!r} is not among "
                f"the {self.num_symbols} symbols known to the codec of this run",
                (symbols[int(i)] for i in np.flatnonzero(unknown)),
                text,
            )
        return ids

    def decode(self, ids: Ids) -> str:
        return "".join([self.vocabulary[i] for i in self._text_ids(ids)])
