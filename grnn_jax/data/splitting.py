"""Which part of a file is held out: by fractions, the same in every run."""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from grnn_jax.errors import InputError

# Sequences are dealt to the splits by this seed, not by the run's, so that runs can be compared.
_SPLIT_SEED = 0


class Fractions(NamedTuple):
    """The parts held out of the training file, exactly as they were written.

    Attributes:
        valid: for validation.
        test: for the test.
    """

    valid: Fraction = Fraction(0)
    test: Fraction = Fraction(0)

    def bounds(self, total: int) -> tuple[int, int]:
        """Where training ends and where validation ends, of `total` tokens or sequences."""
        return int(total * (1 - self.valid - self.test)), int(total * (1 - self.test))

    def to_json(self) -> Any:
        """The fractions as JSON."""
        return [str(part) for part in self]


def make_fractions(
    valid_fraction: int | float, test_fraction: int | float, valid_data: str, test_data: str
) -> Fractions:
    """The fractions that the settings ask for; a split with a file of its own takes none.

    Args:
        valid_fraction: part held out for validation.
        test_fraction: part held out for the test.
        valid_data: the file for validation, or "".
        test_data: the file for the test, or "".

    Returns:
        The fractions, exactly as they were written.

    Raises:
        InputError: a fraction is out of range, or nothing is left to train on.
    """
    fractions = Fractions(
        Fraction(0) if valid_data else _fraction("valid_fraction", valid_fraction),
        Fraction(0) if test_data else _fraction("test_fraction", test_fraction),
    )
    if sum(fractions) >= 1:
        raise InputError(
            "valid_fraction and test_fraction must add up to less than 1, "
            f"got {valid_fraction} and {test_fraction}"
        )
    return fractions


def _fraction(name: str, value: int | float) -> Fraction:
    """The decimal number that was written, exactly: 0.9 of 1000 is 900."""
    if not 0 <= value < 1:
        raise InputError(f"{name} must be at least 0 and less than 1, got {value}")
    return Fraction(repr(float(value)))


def deal(total: int, fractions: Fractions) -> Integer[np.ndarray, " S"]:
    """Deals sequences to the splits, shuffled by a fixed seed.

    >>> half = Fractions(valid=Fraction(1, 4), test=Fraction(1, 4))
    >>> np.bincount(deal(8, half)).tolist()
    [4, 2, 2]

    Args:
        total: number of sequences.
        fractions: parts held out.

    Returns:
        For each sequence 0 (train), 1 (valid) or 2 (test).
    """
    order = np.random.default_rng(_SPLIT_SEED).permutation(total)
    split = np.zeros(total, np.uint8)
    train_end, valid_end = fractions.bounds(total)
    split[order[train_end:valid_end]] = 1
    split[order[valid_end:]] = 2
    return split
