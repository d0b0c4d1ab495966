"""SMILES: molecules as lines of text, a symbol of the notation at a time."""

import dataclasses
import re
from typing import ClassVar

from grnn_jax.data.vocabulary import VocabularyCodec
from grnn_jax.errors import InputError

# An atom in brackets, an element of two letters, a ring closure of two digits, or a character.
_SYMBOL = re.compile(r"\[[^\[\]\s]*\]|Br|Cl|%[0-9]{2}|.", re.DOTALL)


def split_smiles(text: str) -> list[str]:
    """Splits SMILES into symbols, losing nothing.

    >>> split_smiles("Cl[C@@H]1C%10Br")
    ['Cl', '[C@@H]', '1', 'C', '%10', 'Br']

    Args:
        text: molecules; what is no SMILES becomes symbols of one character.

    Returns:
        The symbols.
    """
    return _SYMBOL.findall(text)


@dataclasses.dataclass(frozen=True)
class SmilesCodec(VocabularyCodec):
    """One token for each symbol of SMILES, in alphabetical order.

    Reference: D. Weininger, "SMILES, a chemical language and information system", Journal of
    Chemical Information and Computer Sciences 28, 1988.
    """

    name: ClassVar[str] = "smiles"
    options: ClassVar[tuple[str, ...]] = ()
    ends_at_blank: ClassVar[bool] = True

    def __post_init__(self):
        if self.lowercase:
            raise InputError("codec smiles cannot lowercase: a small letter is an aromatic atom")

    @classmethod
    def split(cls, text: str) -> list[str]:
        return split_smiles(text)

    @classmethod
    def complete(cls, text: str) -> int:
        return max(text.rfind(" "), text.rfind("\n")) + 1  # No symbol holds either and more.
