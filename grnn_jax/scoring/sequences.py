"""Scores of sequences, from the nats of their events: sums, order, units. NumPy alone."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.likelihood import bits, per_event

RANKS = ("nats", "nats_per_event", "log_ratio")
"""What sequences can be ordered by."""


class SequenceScores(NamedTuple):
    """Scores of the sequences of a corpus.

    Attributes:
        num_events: events of each, [S].
        nats: negative log-probability of each, [S] float64.
        other_nats: the same under another model, or None.
    """

    num_events: Integer[np.ndarray, " S"]
    nats: Float[np.ndarray, " S"]
    other_nats: Float[np.ndarray, " S"] | None = None

    def record(self, index: int) -> dict[str, Any]:
        """The score of one sequence: nats, bits, those of an event, its perplexity.

        With another model also `other_nats` and `log_ratio`, log p(x) - log p_other(x) in nats.
        """
        nats, count = float(self.nats[index]), int(self.num_events[index])
        record = {"num_events": count, "nats": nats, "bits": bits(nats), **per_event(nats, count)}
        if self.other_nats is not None:
            other = float(self.other_nats[index])
            record |= {"other_nats": other, "log_ratio": other - nats}
        return record

    def order(self, rank: str) -> Integer[np.ndarray, " S"]:
        """The sequences, the most probable first, those of equal rank in the order of the file.

        Args:
            rank: "nats"; "nats_per_event"; "log_ratio", first those that this model finds more
                probable than the other one; "" for the order of the file.

        Returns:
            Their numbers.

        Raises:
            ValueError: there is no such order, or no other model.
        """
        if not rank:
            return np.arange(len(self.nats))
        if rank not in RANKS:
            raise ValueError(f"rank must be one of {', '.join(RANKS)}, got {rank!r}")
        if rank == "log_ratio":
            if self.other_nats is None:
                raise ValueError("rank 'log_ratio' needs the scores of another model, got none")
            return np.argsort(self.nats - self.other_nats, kind="stable")
        by = self.nats if rank == "nats" else self.nats / np.maximum(self.num_events, 1)
        return np.argsort(by, kind="stable")


def sum_sequences(
    values: Float[np.ndarray, " N"], offsets: Integer[np.ndarray, " O"]
) -> Float[np.ndarray, " S"]:
    """Sums over the events of each sequence, in float64.

    Args:
        values: one number an event, memory-mapped or not.
        offsets: sequence i is `values[offsets[i]:offsets[i + 1]]`.

    Returns:
        The sums.
    """
    starts = np.asarray(offsets[:-1])
    sums = np.zeros(len(starts))
    filled = np.diff(offsets) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(values, starts[filled], dtype=np.float64)
    return sums


def summary(scores: SequenceScores) -> dict[str, Any]:
    """The score of all sequences together, by the names of evaluate.py.

    Args:
        scores: scores of the sequences.

    Returns:
        num_sequences, num_events, nats_per_event, bits_per_event, perplexity, nats_per_sequence;
        with another model also other_nats_per_sequence and log_ratio_per_sequence.
    """
    count, events = len(scores.nats), int(scores.num_events.sum())
    nats = math.fsum(scores.nats)
    values = {
        "num_sequences": count,
        "num_events": events,
        **per_event(nats, events),
        "nats_per_sequence": nats / max(count, 1),
    }
    if scores.other_nats is not None:
        other = math.fsum(scores.other_nats)
        values["other_nats_per_sequence"] = other / max(count, 1)
        values["log_ratio_per_sequence"] = (other - nats) / max(count, 1)
    return values
