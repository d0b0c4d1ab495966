"""SMILES: molecules as lines of text, a symbol of the notation at a time."""

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Options
from grnn_jax.data.text_codec_base import Ids, TextCodec, locate
from grnn_jax.errors import InputError

# An atom in brackets, an element of two letters, a ring closure of two digits, or a character.
_SYMBOL = re.compile(r"\[[^\[\]\s]*\]|Br|Cl|%[0-9]{2}|.", re.DOTALL)


def split_smiles(text: str) -> list[str]:
    """Splits SMILES into symbols, losing nothing.

    >>> split_smiles("Cl[C@@H]1C%10Br")
    ['Cl', '[C@@H]', '1', 'C', '%10', 'Br']
    """
    return _SYMBOL.findall(text)


@dataclasses.dataclass(frozen=True)
class SmilesCodec(TextCodec):
    """One token for each symbol of SMILES, in alphabetical order.

    Reference: D. Weininger, "SMILES, a chemical language and information system", Journal of
    Chemical Information and Computer Sciences 28, 1988.
    """

    vocabulary: tuple[str, ...] = ()
    name: ClassVar[str] = "smiles"

    def __post_init__(self):
        if self.lowercase:
            raise InputError("codec smiles cannot lowercase: a small letter is an aromatic atom")

    @classmethod
    def fit(cls, pieces: Iterable[str], with_end: bool, options: Options) -> "SmilesCodec":
        symbols: set[str] = set()
        for piece in pieces:
            symbols.update(split_smiles(piece))
        return cls(with_end, options["lowercase"], tuple(sorted(symbols)))

    @classmethod
    def split(cls, text: str) -> list[str]:
        return split_smiles(text)

    @property
    def num_symbols(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.vocabulary)}

    @classmethod
    def complete(cls, text: str) -> int:
        return max(text.rfind(" "), text.rfind("\n")) + 1  # No symbol holds either and more.

    def encode(
        self, text: str, source: str = "text", *, line: int = 1, column: int = 1
    ) -> Integer[np.ndarray, " T"]:
        symbols = split_smiles(text)
        ids = np.fromiter((self._index.get(s, -1) for s in symbols), np.int32, len(symbols))
        unknown = ids < 0
        if unknown.any():
            first = int(unknown.argmax())
            line, column = locate(text, len("".join(symbols[:first])), line, column)
            raise InputError(
                f"{source}, line {line}, column {column}: symbol {symbols[first]!r} is not among "
                f"the {self.num_symbols} symbols known to the codec of this run"
            )
        return ids

    def decode(self, ids: Ids) -> str:
        return "".join([self.vocabulary[i] for i in self._text_ids(ids)])
