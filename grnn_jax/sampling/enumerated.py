"""Exact sampling under a constraint that few sequences satisfy: all of them are scored."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey
from grnn_jax.likelihood import event_log_probs
from grnn_jax.model import Model
from grnn_jax.sampling.constrained import ConstrainedSamples
from grnn_jax.sampling.constraint import Constraint, count_sequences, enumerate_sequences
from grnn_jax.sampling.settings import check_counts
from grnn_jax.sampling.state import sequence_keys, start

ENUMERATION_LIMIT = 100_000
"""Most sequences that `sample_enumerated` scores."""
ENUMERATION_ROWS = 1024
"""Sequences scored side by side."""


class ScoredSequences(NamedTuple):
    """All sequences of a constraint.

    Attributes:
        events: [N, T]; after the end of a sequence, zeros.
        mask: [N, T], True for events of the sequence, its end included.
        log_probs: [N, T], nats under the model, 0 where not mask.
    """

    events: Int[np.ndarray, "N T"]
    mask: Bool[np.ndarray, "N T"]
    log_probs: Float[np.ndarray, "N T"]

    def sample(
        self, key: PRNGKey, num_samples: int, *, first_index: int | Int[AnyArray, ""] = 0
    ) -> ConstrainedSamples:
        """Draws from p(x | C); arguments and result as `sample_enumerated`."""
        check_counts(num_samples=num_samples)
        total = np.float32(self.log_probs.astype(np.float64).sum(1))
        keys = sequence_keys(key, jnp.arange(num_samples) + first_index)
        chosen = np.asarray(jax.vmap(lambda key: jax.random.categorical(key, total))(keys))
        evidence = jnp.broadcast_to(jax.nn.logsumexp(total), (num_samples,))
        events, mask, log_probs = (jnp.asarray(leaf[chosen]) for leaf in self)
        return ConstrainedSamples(events, mask, log_probs, evidence, evidence)


def score_sequences(
    model: Model,
    params: Params,
    constraint: Constraint,
    *,
    prefix: Int[AnyArray, " P"] | None = None,
    limit: int = ENUMERATION_LIMIT,
) -> ScoredSequences:
    """Scores every sequence of C, for drawing from p(x | C) any number of times.

    Args:
        model: a model of tokens, without conditioning.
        params: its parameters.
        constraint: of `make_constraint`.
        prefix: events [P] that come before.
        limit: most sequences of C.

    Returns:
        The sequences and their log-probabilities.

    Raises:
        ValueError: if C has more than `limit` sequences.
    """
    check_counts(limit=limit)
    count = count_sequences(constraint)
    if count > limit:
        raise ValueError(
            f"constraint must have at most {limit} sequences to be enumerated, got {count:.3g}"
        )
    words = list(enumerate_sequences(constraint))
    events = np.zeros((len(words), constraint.length), np.int32)
    lengths = np.array([len(word) for word in words])
    for row, word in enumerate(words):
        events[row, : len(word)] = word
    mask = np.arange(constraint.length) < lengths[:, None]
    begun = start(model, params, jax.random.key(0), 1, prefix=prefix)
    num_rows = min(ENUMERATION_ROWS, len(words))
    pieces = []
    for first in range(0, len(words), num_rows):
        part = np.minimum(np.arange(first, first + num_rows), len(words) - 1)
        pieces.append(_score(model, params, begun.carry, events[part], mask[part]))
    return ScoredSequences(events, mask, np.concatenate(pieces)[: len(words)])


def sample_enumerated(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    constraint: Constraint,
    *,
    prefix: Int[AnyArray, " P"] | None = None,
    limit: int = ENUMERATION_LIMIT,
    first_index: int | Int[AnyArray, ""] = 0,
) -> ConstrainedSamples:
    """Draws from exactly p(x | C), scoring every sequence of C.

    Args:
        model: a model of tokens, without conditioning.
        params: its parameters.
        key: a typed key; sample i of a key does not depend on the others.
        num_samples: B.
        constraint: of `make_constraint`.
        prefix: events [P] that come before.
        limit: most sequences of C.
        first_index: index of the first sample.

    Returns:
        The samples; log_weights and log_evidence are log P(C), exactly.

    Raises:
        ValueError: if C has more than `limit` sequences.
    """
    sequences = score_sequences(model, params, constraint, prefix=prefix, limit=limit)
    return sequences.sample(key, num_samples, first_index=first_index)


@functools.partial(jax.jit, static_argnums=0)
def _score(model, params, carry, events, mask) -> Array:
    rows = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (events.shape[0], *leaf.shape[1:])), carry
    )
    return event_log_probs(model, params, rows, (events, mask, jnp.zeros_like(mask)))[0]
