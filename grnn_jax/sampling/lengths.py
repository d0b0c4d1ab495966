"""How long sampled sequences are."""

from collections.abc import Mapping
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
    """Statistics of the lengths of samples, from `samples.mask` and `samples.state.done`.

    Example:
        >>> from grnn_jax import sampling
        >>> import numpy as np
        >>> mask = np.array([[True, True, False], [True, True, True]])
        >>> statistics = sampling.length_statistics(mask, done=np.array([True, False]))
        >>> statistics.mean, statistics.longest, statistics.num_ended
        (2.5, 3, 1)
    """
    lengths, counts = np.unique(np.asarray(mask).sum(1), return_counts=True)
    of_each_length = dict(zip(lengths.tolist(), counts.tolist(), strict=True))
    return statistics_of_counts(of_each_length, int(np.asarray(done).sum()))


def statistics_of_counts(counts: Mapping[int, int], num_ended: int = 0) -> LengthStatistics:
    """Statistics of lengths that were counted one by one, in memory that only T bounds.

    Args:
        counts: how many sequences there are of each length; at least one in all.
        num_ended: how many ended by themselves, where it is known.

    Returns:
        The statistics.

    Example:
        >>> from grnn_jax import sampling
        >>> sampling.statistics_of_counts({2: 3, 7: 1}).mean
        3.25
    """
    lengths = np.array(sorted(counts))
    weights = np.array([counts[length] for length in lengths.tolist()])
    total, below = int(weights.sum()), np.cumsum(weights)
    mean = float(lengths @ weights / total)
    middle = lengths[np.searchsorted(below, [(total - 1) // 2, total // 2], "right")]
    return LengthStatistics(
        num_sequences=total,
        num_ended=num_ended,
        mean=mean,
        standard_deviation=float(np.sqrt((lengths - mean) ** 2 @ weights / total)),
        shortest=int(lengths[0]),
        median=float(middle.mean()),
        longest=int(lengths[-1]),
    )
