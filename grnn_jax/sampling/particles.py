"""Sequential Monte Carlo under a constraint: particles that are resampled by their weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey
from grnn_jax.model import Carry, Model
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.beams import flat, pick, repeat
from grnn_jax.sampling.constrained import (
    ConstrainedSamples,
    Rows,
    advance_rows,
    begin_rows,
    unfinished,
)
from grnn_jax.sampling.constraint import Constraint, check_constraint
from grnn_jax.sampling.settings import check_counts
from grnn_jax.sampling.state import sequence_keys, start


class Particles(NamedTuple):
    """Weighted particles, N for each of B independent runs.

    Attributes:
        events: [B, N, T]; after the end of a sequence, zeros.
        mask: [B, N, T], True for events of the sequence, its end included.
        log_probs: [B, N, T], nats under the model, 0 where not mask.
        log_weights: [B, N], normalised: exp of them sums to 1 in each run.
        log_evidence: [B], log of an unbiased estimate of P(C).
        chosen: [B], the index of a particle drawn with these weights.
    """

    events: Int[Array, "B N T"]
    mask: Bool[Array, "B N T"]
    log_probs: Float[Array, "B N T"]
    log_weights: Float[Array, "B N"]
    log_evidence: Float[Array, " B"]
    chosen: Int[Array, " B"]

    def choice(self) -> ConstrainedSamples:
        """The chosen particle of each run, as a sample; weight p / q estimated by the evidence."""
        events, mask, log_probs = (
            jax.vmap(lambda row, at: row[at])(leaf, self.chosen)
            for leaf in (self.events, self.mask, self.log_probs)
        )
        return ConstrainedSamples(events, mask, log_probs, self.log_evidence, self.log_evidence)


def sample_particles(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    constraint: Constraint,
    *,
    num_particles: int = 64,
    prefix: Int[AnyArray, "..."] | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    resample_below: float | Float[AnyArray, ""] = 0.5,
    first_index: int | Int[AnyArray, ""] = 0,
) -> Particles:
    r"""Sequential Monte Carlo towards p(x | C).

        x_t^n ~ q(· | x_<t^n),   w^n ← w^n Z_t(x_<t^n),
        resampling (systematic) where (Σ w)² / Σ w² < resample_below · N,
        estimate of P(C) = Π over the times between resamplings of (1/N) Σ_n w^n

    Args:
        model: a model of tokens.
        params: its parameters.
        key: a typed key; run i of a key does not depend on the others.
        num_samples: B, independent runs.
        constraint: of `make_constraint`.
        num_particles: N.
        prefix: events [P] or [B, P] that come before.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.
        resample_below: share of N below which the effective number of particles makes a run
            resample; 0 never resamples, 1 nearly always.
        first_index: index of the first run.

    Returns:
        The particles of each run; `.choice()` for one sample of each.

    Raises:
        ValueError: for an argument outside its range.

    References: N. J. Gordon, D. J. Salmond, A. F. M. Smith, "Novel approach to nonlinear /
    non-Gaussian Bayesian state estimation", 1993; A. Doucet, A. M. Johansen, "A tutorial on
    particle filtering and smoothing", 2011.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> key = jax.random.key(1)
        >>> drawn = sampling.sample_particles(model, params, key, 2, constraint, num_particles=8)
        >>> drawn.events.shape, drawn.log_evidence.shape
        ((2, 8, 3), (2,))
    """
    check_counts(num_samples=num_samples, num_particles=num_particles)
    check_constraint(model, constraint)
    if not isinstance(resample_below, jax.core.Tracer) and not 0 <= resample_below <= 1:
        raise ValueError(f"resample_below must lie in [0, 1], got {resample_below}")
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
    particles: Particles = _filter(
        model, num_particles, params, begun.carry, begun.key, constraint, resample_below
    )
    return particles


@entry(num_static=2, rows=(3,))
def _filter(
    model: Model,
    num_particles: int,
    params: Params,
    carry: Carry,
    run_keys: Array,
    constraint: Constraint,
    resample_below: float | Array,
) -> Particles:
    num_runs, N = run_keys.shape[0], num_particles
    rows = begin_rows(flat(repeat(carry, N)), constraint)
    keys = jax.vmap(sequence_keys, (0, None))(run_keys, jnp.arange(N)).reshape(-1)
    own_keys = jax.vmap(jax.random.fold_in, (0, None))(run_keys, N)  # For what a run draws.
    step = model.make_step(params, num_events=keys.shape[0] * constraint.length)

    def by_run(rows: Rows) -> Rows:
        parted: Rows = jax.tree.map(lambda leaf: leaf.reshape(num_runs, N, *leaf.shape[1:]), rows)
        return parted

    Loop = tuple[Array, Rows, Array, Array]  # time, rows, log_weight, log_evidence

    def advance(loop: Loop) -> Loop:
        time, rows, log_weight, log_evidence = loop
        rows, gained = advance_rows(model, step, params, rows, keys, time, constraint, 1.0)
        log_weight = log_weight + gained.reshape(num_runs, N)
        total = jax.nn.logsumexp(log_weight, 1)
        share = jnp.exp(log_weight - total[:, None])
        poor = 1 / jnp.square(share).sum(1) < resample_below * N
        offset = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, time)))(own_keys)
        points = (offset[:, None] + jnp.arange(N)) / N
        # Each particle n is chosen floor or ceil of N times its share times.
        ancestors = jax.vmap(lambda row, at: jnp.searchsorted(jnp.cumsum(row), at))(share, points)
        ancestors = jnp.where(poor[:, None], jnp.minimum(ancestors, N - 1), jnp.arange(N))
        rows = jax.lax.cond(
            poor.any(), lambda rows: flat(pick(by_run(rows), ancestors)), lambda rows: rows, rows
        )
        log_evidence = log_evidence + jnp.where(poor, total - jnp.log(N), 0)
        return time + 1, rows, jnp.where(poor[:, None], 0, log_weight), log_evidence

    loop = (jnp.int32(0), rows, jnp.zeros((num_runs, N)), jnp.zeros(num_runs))
    loop = vary_alike(loop, params)
    _, rows, log_weight, log_evidence = jax.lax.while_loop(unfinished(constraint), advance, loop)
    total = jax.nn.logsumexp(log_weight, 1)
    log_weight = log_weight - total[:, None]
    last = jax.vmap(jax.random.fold_in, (0, None))(own_keys, constraint.length)
    chosen = jax.vmap(jax.random.categorical)(last, log_weight)
    history = by_run(rows).history
    return Particles(
        history.events,
        history.mask,
        history.log_probs,
        log_weight,
        log_evidence + total - jnp.log(N),
        chosen,
    )
