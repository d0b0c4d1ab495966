"""How long sampled sequences are."""

from typing import NamedTuple

import numpy as np

from grnn_jax.array_types import AnyArray, Bool


class LengthStatistics(NamedTuple):
    """Lengths of a set of sequences, in events, ends included.

    Attributes:
        num_sequences: how many there are.
        num_ended: how many ended by themselves or by a stop, not by the greatest length alone.
        mean: of the lengths.
        standard_deviation: of the lengths.
        shortest: the least length.
        median: of the lengths.
        longest: the greatest length.
    """

    num_sequences: int
    num_ended: int
    mean: float
    standard_deviation: float
    shortest: int
    median: float
    longest: int


def length_statistics(mask: Bool[AnyArray, "B T"], done: Bool[AnyArray, " B"]) -> LengthStatistics:
    """Statistics of the lengths of samples, from `samples.mask` and `samples.state.done`."""
    lengths = np.asarray(mask).sum(1)
    return LengthStatistics(
        len(lengths),
        int(np.asarray(done).sum()),
        float(lengths.mean()),
        float(lengths.std()),
        int(lengths.min()),
        float(np.median(lengths)),
        int(lengths.max()),
    )
