"""Exact sampling under a constraint that few beginnings decide: all of them are scored."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey
from grnn_jax.compiler import outermost_jit
from grnn_jax.model import Carry, Model
from grnn_jax.ops.ahead import one_ahead
from grnn_jax.ops.entry import entry
from grnn_jax.sampling.ancestral import sample
from grnn_jax.sampling.beams import class_log_probs
from grnn_jax.sampling.constrained import ConstrainedSamples
from grnn_jax.sampling.constraint import (
    Constraint,
    check_constraint,
    count_good_prefixes,
    free_states,
)
from grnn_jax.sampling.settings import check_counts
from grnn_jax.sampling.state import SampleState, sequence_keys, start

ENUMERATION_LIMIT = 100_000
"""Most good prefixes that `sample_enumerated` scores."""
FEW_ROWS, MANY_ROWS = 32, 1024
"""Prefixes that are extended side by side."""
CHOICES = 64
"""Samples that choose their prefix side by side."""


class ScoredPrefixes(NamedTuple):
    """The shortest good prefixes of C, beginnings after which every continuation is in C.

    Attributes:
        model: the model.
        params: its parameters.
        length: L, most events of a sequence.
        prefix: events [P] that come before, or None.
        words: the N prefixes, filled up with zeros, [N, W].
        lengths: events of each, [N].
        log_probs: nats of each under the model, [N] in float64; log P(C) is log Σ_n exp of them.
        conditions: [C] of all samples, or None.
    """

    model: Model
    params: Params
    length: int
    prefix: Int[AnyArray, " P"] | None
    words: Int[np.ndarray, "N W"]
    lengths: Int[np.ndarray, " N"]
    log_probs: Float[np.ndarray, " N"]
    conditions: Float[AnyArray, " C"] | None = None

    def sample(
        self, key: PRNGKey, num_samples: int, *, first_index: int | Int[AnyArray, ""] = 0
    ) -> ConstrainedSamples:
        """Draws from p(x | C); arguments and result as `sample_enumerated`."""
        check_counts(num_samples=num_samples)
        keys = sequence_keys(key, jnp.arange(num_samples) + first_index)
        chosen = np.asarray(_choose(keys, self.length, np.float32(self.log_probs)))
        given = np.zeros((num_samples, self.length), np.int32)
        given[:, : self.words.shape[1]] = self.words[chosen]
        drawn = sample(
            self.model,
            self.params,
            key,
            num_samples,
            self.length,
            prefix=self.prefix,
            logits_callback=jax.tree_util.Partial(_force, given, self.lengths[chosen]),
            conditions=self.conditions,
            first_index=first_index,
        )
        evidence = jnp.full(num_samples, np.logaddexp.reduce(self.log_probs), jnp.float32)
        return ConstrainedSamples(drawn.events, drawn.mask, drawn.log_probs, evidence, evidence)


def score_prefixes(
    model: Model,
    params: Params,
    constraint: Constraint,
    *,
    prefix: Int[AnyArray, " P"] | None = None,
    conditions: Float[AnyArray, " C"] | None = None,
    limit: int = ENUMERATION_LIMIT,
) -> ScoredPrefixes:
    """Scores the shortest good prefixes of C, for drawing from p(x | C) any number of times.

    Args:
        model: a model of tokens, without conditioning.
        params: its parameters.
        constraint: of `make_constraint`.
        prefix: events [P] that come before.
        conditions: [C], of a model with conditions, see `log_prob`.
        limit: most good prefixes (see `count_good_prefixes`).

    Returns:
        The prefixes and their log-probabilities.

    Raises:
        ValueError: if C has more than `limit` good prefixes.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> scored = sampling.score_prefixes(model, params, constraint)
        >>> scored.words.tolist()  # the model may fill the blank in three ways
        [[1, 0, 2], [1, 1, 2], [1, 2, 2]]
    """
    check_counts(limit=limit)
    check_constraint(model, constraint)
    count = count_good_prefixes(constraint)
    if count > limit:
        raise ValueError(
            f"constraint must have at most {limit} beginnings to be enumerated, got {count:.3g}"
        )
    begun = start(model, params, jax.random.key(0), 1, prefix=prefix, conditions=conditions)
    scored = _good_prefixes(model, params, begun.carry, constraint)
    return ScoredPrefixes(model, params, constraint.length, prefix, *scored, conditions)


def sample_enumerated(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    constraint: Constraint,
    *,
    prefix: Int[AnyArray, " P"] | None = None,
    conditions: Float[AnyArray, " C"] | None = None,
    limit: int = ENUMERATION_LIMIT,
    first_index: int | Int[AnyArray, ""] = 0,
) -> ConstrainedSamples:
    r"""Draws from exactly p(x | C).

        p(x | C) = p(u) / P(C) · p(x after u | u),     P(C) = Σ_u p(u)

    u the shortest good prefixes of C: beginnings after which every continuation is in C, so that
    their backward weight P(C | u) is 1. All u are scored and one of them is drawn for each sample,
    which then goes on as the model does. A template has one u for each way to fill in its blanks
    before the last given token; where sequences end, u is a whole sequence with its end.

    Args:
        model: a model of tokens, without conditioning.
        params: its parameters.
        key: a typed key; sample i of a key does not depend on the others.
        num_samples: B.
        constraint: of `make_constraint`.
        prefix: events [P] that come before.
        conditions: [C], of a model with conditions, see `log_prob`.
        limit: most good prefixes (see `count_good_prefixes`).
        first_index: index of the first sample.

    Returns:
        The samples; log_weights and log_evidence are log P(C), exactly.

    Raises:
        ValueError: if C has more than `limit` good prefixes.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> drawn = sampling.sample_enumerated(model, params, jax.random.key(1), 4, constraint)
        >>> drawn.events[:, 0].tolist(), drawn.events[:, 2].tolist()
        ([1, 1, 1, 1], [2, 2, 2, 2])
    """
    scored = score_prefixes(
        model, params, constraint, prefix=prefix, conditions=conditions, limit=limit
    )
    return scored.sample(key, num_samples, first_index=first_index)


@outermost_jit
def _choose(keys: Array, length: int | Array, log_probs: Float[AnyArray, " N"]) -> Int[Array, " B"]:
    """One of the prefixes for each key, by noise that no event of a sequence has."""

    def choose(key: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(key, length), log_probs)

    chosen: Array = jax.lax.map(choose, keys, batch_size=CHOICES)
    return chosen


def _force(
    given: Int[Array, "B L"], lengths: Int[Array, " B"], logits: Array, state: SampleState
) -> Array:
    """Leaves but the given events their probability, as long as there are any."""
    token = jnp.take_along_axis(given, state.position[:, None], 1)
    only = jnp.where(jnp.arange(logits.shape[-1]) == token, 0.0, -jnp.inf)
    return jnp.where((state.position < lengths)[:, None], only, logits)


class _Extended(NamedTuple):
    """Prefixes [n, t] that one step found.

    Attributes:
        found_by: number of the step that found what they extend.
        which: its place there.
        logs: log-probabilities of the last events.
        row: theirs, in `logs`.
        token: their last events.
        words: the prefixes.
        good: whether they need no more events.
    """

    found_by: int
    which: Int[np.ndarray, " n"]
    logs: Float[Array, "R V"]
    row: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    words: Int[np.ndarray, "n t"]
    good: Bool[np.ndarray, " n"]


def _good_prefixes(
    model: Model, params: Params, carry: Carry, constraint: Constraint
) -> tuple[Int[np.ndarray, "N W"], Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The shortest good prefixes, filled up with zeros, their lengths and log-probabilities.

    A step for every prefix that is to be extended, `MANY_ROWS` at a time and deep ones first, so
    that few carries are held.
    """
    table, possible = np.asarray(constraint.table), np.asarray(constraint.possible)
    free = free_states(constraint)
    zero = np.zeros(1, np.int64)
    if free[-1, 0]:
        return zero[:, None], zero, np.zeros(1)
    # Prefixes [n, t]: carries before their last event and which is whose, states, and which of the
    # prefixes that some step found they are: their nats are read only when the next step runs.
    stack = [(carry, zero, np.zeros((1, 0), np.int64), zero, 0, zero)]

    def steps(carry: Carry) -> Iterator[_Extended]:
        number = 0
        while stack:
            carry, parent, words, state, found_by, which = stack.pop()
            left = constraint.length - words.shape[1] - 1
            num_rows = FEW_ROWS if len(parent) <= FEW_ROWS else MANY_ROWS
            rows = np.minimum(np.arange(num_rows), len(parent) - 1)
            carry = jax.tree.map(lambda leaf: leaf[parent[rows]], carry)  # noqa: B023
            logs, carry = _extend(model, params, carry, words[rows, -1] if words.size else None)
            row, token = np.nonzero(possible[left][table[state]])
            words = np.concatenate([words[row], token[:, None]], 1)
            state = table[state[row], token]
            good = free[left][state]
            number += 1
            rest = np.flatnonzero(~good)
            for first in range(0, len(rest), MANY_ROWS):
                part = rest[first : first + MANY_ROWS]
                stack.append((carry, row[part], words[part], state[part], number, part))
            yield _Extended(found_by, which[row], logs, row, token, words, good)

    parts: list[tuple[np.ndarray, np.ndarray]] = []
    nats = [np.zeros(1)]  # Of the prefixes that each step found; the first one is empty.
    for step in one_ahead(steps(carry)):
        of_event = np.asarray(step.logs)[step.row, step.token]
        nats.append(nats[step.found_by][step.which] + of_event)
        parts.append((step.words[step.good], nats[-1][step.good]))
    lengths = np.concatenate([np.full(len(words), words.shape[1]) for words, _ in parts])
    filled = np.zeros((len(lengths), lengths.max()), np.int64)
    filled[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(
        [words.ravel() for words, _ in parts]
    )
    return filled, lengths, np.concatenate([total for _, total in parts])


@entry(num_static=1, rows=(2,))
def _extend(
    model: Model, params: Params, carry: Carry, token: Int[AnyArray, " N"] | None
) -> tuple[Array, Carry]:
    """Log-probabilities of what may follow the prefixes with this last event, and their carries."""
    if token is not None:
        carry = model.feed(carry, token)
    step = model.make_step(params, num_events=carry.started.shape[0])
    hidden, carry = step(carry)
    return class_log_probs(model, params, hidden), carry
