r"""Sampling under a constraint C, a set of sequences of at most L events.

Three methods, which sample from different distributions:

    sample_masked    at each step p(· | x_<t) restricted to the tokens after which C can still be
                     satisfied. Every sample satisfies C, but the distribution is
                         q(x) = Π_t p(x_t | x_<t) / Z_t(x_<t),   Z_t the probability of those tokens
                     and not p(x | C), except where Π_t Z_t is the same for all of C (as for free
                     events after fixed ones). The weight p(x) / q(x) comes with each sample:
                     E_q[weight] = P(C), and weighted averages are those under p(· | C).
    sample_particles sequential Monte Carlo: N masked samples side by side, resampled by their
                     weights. The estimate of P(C) is unbiased for every N; the sample chosen from
                     the N has distribution p(x | C) in the limit N → ∞.
    sample_enumerated exactly p(x | C), by enumeration of the beginnings after which C is certain,
                     where they are few.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey
from grnn_jax.model import Carry, Model
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.beams import (
    History,
    class_log_probs,
    end_classes,
    no_history,
)
from grnn_jax.sampling.constraint import Constraint, check_constraint
from grnn_jax.sampling.settings import check_counts
from grnn_jax.sampling.state import start


class ConstrainedSamples(NamedTuple):
    """Sequences that satisfy a constraint.

    Attributes:
        events: [B, T]; after the end of a sequence, zeros.
        mask: [B, T], True for events of the sequence, its end included.
        log_probs: [B, T], nats under the model (not the constrained one), 0 where not mask.
        log_weights: [B], log p(x) / q(x), q the distribution sampled from; see each method.
        log_evidence: [B], the method's estimate of log P(C) that belongs to each sample.
    """

    events: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    log_probs: Float[Array, "B T"]
    log_weights: Float[Array, " B"]
    log_evidence: Float[Array, " B"]


class Rows(NamedTuple):
    """Sequences being drawn, [R, ...]."""

    carry: Carry
    state: Int[Array, " R"]
    history: History
    done: Bool[Array, " R"]


def sample_masked(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    constraint: Constraint,
    *,
    prefix: Int[AnyArray, "..."] | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    temperature: float | Float[AnyArray, ""] = 1.0,
    first_index: int | Int[AnyArray, ""] = 0,
) -> ConstrainedSamples:
    """Draws sequences that satisfy a constraint from the locally masked model q (see above).

    Args:
        model: a model of tokens.
        params: its parameters.
        key: a typed key; sample i of a key does not depend on the others.
        num_samples: B.
        constraint: of `make_constraint`; it holds for the events drawn, without the prefix.
        prefix: events [P] or [B, P] that come before.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.
        temperature: of q, positive; the weights take it into account.
        first_index: index of the first sequence.

    Returns:
        The samples. exp(log_weights) has expectation P(C).

    Raises:
        ValueError: for an argument outside its range.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> drawn = sampling.sample_masked(model, params, jax.random.key(1), 4, constraint)
        >>> drawn.events[:, 0].tolist(), drawn.events[:, 2].tolist()
        ([1, 1, 1, 1], [2, 2, 2, 2])
    """
    check_counts(num_samples=num_samples)
    check_constraint(model, constraint)
    if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    begun = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
        first_index=first_index,
    )
    samples: ConstrainedSamples = _masked(
        model, params, begun.carry, begun.key, constraint, temperature
    )
    return samples


@entry(num_static=1, rows=(2,))
def _masked(
    model: Model,
    params: Params,
    carry: Carry,
    keys: Array,
    constraint: Constraint,
    temperature: float | Array,
) -> ConstrainedSamples:
    rows = begin_rows(carry, constraint)
    step = model.make_step(params, num_events=keys.shape[0] * constraint.length)

    Loop = tuple[Array, Rows, Array]  # time, rows, log_weight

    def advance(loop: Loop) -> Loop:
        time, rows, log_weight = loop
        rows, gained = advance_rows(model, step, params, rows, keys, time, constraint, temperature)
        return time + 1, rows, log_weight + gained

    loop = (jnp.int32(0), rows, jnp.zeros(keys.shape[0], jnp.float32))
    loop = vary_alike(loop, params)
    _, rows, log_weight = jax.lax.while_loop(unfinished(constraint), advance, loop)
    history = rows.history
    return ConstrainedSamples(
        history.events, history.mask, history.log_probs, log_weight, log_weight
    )


def begin_rows(carry: Carry, constraint: Constraint) -> Rows:
    """Rows without events."""
    num_rows = carry.started.shape[0]
    zeros = jnp.zeros(num_rows, jnp.int32)
    return Rows(carry, zeros, no_history((num_rows,), constraint.length), zeros.astype(bool))


def unfinished(constraint: Constraint) -> Callable[[tuple[Any, ...]], Array]:
    """The condition of a loop over (time, rows, …)."""
    return lambda loop: (loop[0] < constraint.length) & ~loop[1].done.all()


def advance_rows(
    model: Model,
    step: Callable[[Carry], tuple[Array, Carry]],
    params: Params,
    rows: Rows,
    keys: Array,
    time: Int[Array, ""],
    constraint: Constraint,
    temperature: float | Array,
) -> tuple[Rows, Float[Array, " R"]]:
    """The next event of every row, and log p(event) / q(event); 0 for rows that were done."""
    hidden, carry = step(rows.carry)
    logs = class_log_probs(model, params, hidden)
    left = jnp.full_like(rows.state, constraint.length) - time
    allowed = constraint.allowed(rows.state, left)
    proposal = jax.nn.log_softmax(jnp.where(allowed, logs / temperature, -jnp.inf), -1)
    noise = jax.vmap(jax.random.fold_in, (0, None))(keys, time)
    token = jax.vmap(jax.random.categorical)(noise, proposal).astype(jnp.int32)
    nats, log_q = (jnp.take_along_axis(a, token[:, None], -1)[:, 0] for a in (logs, proposal))

    # In place, as all rows write at the same time; `History.append` would copy.
    history = History(
        rows.history.events.at[:, time].set(jnp.where(rows.done, 0, token)),
        rows.history.log_probs.at[:, time].set(jnp.where(rows.done, 0, nats)),
        rows.history.lengths + ~rows.done,
    )
    state = jnp.where(rows.done, rows.state, constraint.table[rows.state, token])
    done = rows.done | end_classes(model, logs.shape[-1])[token]
    gained = jnp.where(rows.done, 0, nats - log_q)
    return Rows(model.feed(carry, token), state, history, done), gained
