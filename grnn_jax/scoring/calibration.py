"""Calibration, entropy and scores by position, from what is known of each event. NumPy alone."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

BLOCK = 1 << 20
"""Events that are looked at at once."""
MOST_POSITIONS = 200
"""Positions with a bin of their own; in longer sequences bins grow with the position."""


class Binned(NamedTuple):
    """Means of numbers over the events of each bin.

    Attributes:
        edges: bin i holds what lies in [edges[i], edges[i + 1]), the last one its upper end too.
        num_events: events in each bin.
        means: by name, the mean over the events of each bin; NaN where there are none.
    """

    edges: Float[np.ndarray, " E"]
    num_events: Integer[np.ndarray, " N"]
    means: dict[str, Float[np.ndarray, " N"]]


def bin_means(
    by: Float[np.ndarray, " T"],
    edges: Float[np.ndarray, " E"],
    values: Mapping[str, Float[np.ndarray, " T"]],
) -> Binned:
    """Means over the events of each bin, in float64 and a block at a time.

    Args:
        by: what decides the bin of an event; memory-mapped or not.
        edges: of the bins, rising; what lies outside belongs to the nearest bin.
        values: numbers of each event, by name.

    Returns:
        The means.
    """
    count = len(edges) - 1
    num_events = np.zeros(count, np.int64)
    sums = {name: np.zeros(count) for name in values}
    for start in range(0, len(by), BLOCK):
        part = slice(start, start + BLOCK)
        where = np.clip(np.searchsorted(edges, by[part], "right") - 1, 0, count - 1)
        num_events += np.bincount(where, minlength=count)
        for name, numbers in values.items():
            sums[name] += np.bincount(where, np.asarray(numbers[part], np.float64), count)
    filled = np.where(num_events > 0, num_events, np.nan)
    return Binned(np.asarray(edges, float), num_events, {n: s / filled for n, s in sums.items()})


def reliability(
    confidence: Float[np.ndarray, " T"], correct: Float[np.ndarray, " T"], num_bins: int = 15
) -> Binned:
    """How often the most probable class occurred, by the probability that it was given.

    Args:
        confidence: probability of the most probable class of each event.
        correct: 1 where this class occurred, else 0.
        num_bins: bins of equal width over [0, 1].

    Returns:
        Means `confidence` and `correct` (the accuracy) of each bin; they agree in a calibrated
        model.

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural
    networks", ICML 2017.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    return bin_means(confidence, edges, {"confidence": confidence, "correct": correct})


def expected_calibration_error(binned: Binned) -> float:
    r"""Mean over events of the gap between accuracy and confidence of their bin.

        ECE = Σ_b n_b / N |accuracy_b - confidence_b|

    Args:
        binned: of `reliability`.

    Returns:
        The error, a probability.
    """
    gaps = np.abs(binned.means["correct"] - binned.means["confidence"])
    return float(np.nansum(binned.num_events * gaps) / max(binned.num_events.sum(), 1))


def entropy_bins(
    entropy: Float[np.ndarray, " T"], nats: Float[np.ndarray, " T"], num_bins: int = 20
) -> Binned:
    """The mean nats of events, by their predictive entropy; they agree in a calibrated model.

    Args:
        entropy: predictive entropy of each event, nats.
        nats: negative log-probability of each event.
        num_bins: bins of equal width from 0 to the greatest entropy.

    Returns:
        Means `entropy` and `nats` of each bin.
    """
    top = max(float(np.max(entropy, initial=0)), 1e-6)
    return bin_means(entropy, np.linspace(0, top, num_bins + 1), {"entropy": entropy, "nats": nats})


def position_edges(longest: int, most: int = 60) -> Float[np.ndarray, " E"]:
    """Bins of positions in a sequence: one for each in short sequences, else growing ones."""
    if longest <= MOST_POSITIONS:
        return np.arange(longest + 1, dtype=float)
    return np.unique(np.geomspace(1, longest + 1, most + 1).astype(np.int64)) - 1.0


def position_means(
    offsets: Integer[np.ndarray, " O"], values: Mapping[str, Float[np.ndarray, " T"]]
) -> Binned:
    """Means by position in the sequence, from 0.

    Args:
        offsets: sequence i is the events `offsets[i]` … `offsets[i + 1] - 1`.
        values: numbers of each event, by name.

    Returns:
        The means; positions with an edge of their own where no sequence is longer than 200.
    """
    offsets = np.asarray(offsets)
    edges = position_edges(int(np.diff(offsets).max()))
    count, total = len(edges) - 1, int(offsets[-1])
    num_events = np.zeros(count, np.int64)
    sums = {name: np.zeros(count) for name in values}
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        places = np.arange(start, stop)
        positions = places - offsets[np.searchsorted(offsets, places, "right") - 1]
        part = bin_means(
            positions.astype(float), edges, {n: v[start:stop] for n, v in values.items()}
        )
        num_events += part.num_events
        for name in values:
            sums[name] += np.nan_to_num(part.means[name]) * part.num_events
    filled = np.where(num_events > 0, num_events, np.nan)
    return Binned(edges, num_events, {name: s / filled for name, s in sums.items()})
