"""Stochastic beam search: k distinct sequences, sampled without replacement."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.model import Carry, Model
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.beams import (
    History,
    end_classes,
    flat,
    no_history,
    pick,
    repeat,
    step_beams,
    unflat,
)
from grnn_jax.sampling.settings import check_counts, check_tokens_model
from grnn_jax.sampling.state import start


class DistinctSamples(NamedTuple):
    """Sequences sampled without replacement, by falling perturbed log-probability.

    Attributes:
        events: [B, k, T]; after the end of a sequence, zeros.
        mask: [B, k, T], True for events of the sequence, its end included; all False where there
            are fewer than k sequences.
        log_probs: [B, k, T], nats under the model, 0 where not mask.
        perturbed: [B, k], G(x) = log p(x) + Gumbel noise; -inf where there is no sequence.
        threshold: [B], κ, the perturbed log-probability that came next; -inf where none did.
        done: [B, k], True where the sequence ended, False where it only reached the length.
    """

    events: Int[Array, "B k T"]
    mask: Bool[Array, "B k T"]
    log_probs: Float[Array, "B k T"]
    perturbed: Float[Array, "B k"]
    threshold: Float[Array, " B"]
    done: Bool[Array, "B k"]

    @property
    def log_inclusion(self) -> Float[Array, "B k"]:
        """Log-probability, given κ, of being among the k: log(1 - exp(-exp(log p(x) - κ)))."""
        excess = self.log_probs.sum(-1) - self.threshold[:, None]
        rate = jnp.exp(excess)
        # The rate vanishes for long sequences, its logarithm does not.
        return jnp.where(excess < -10, excess - rate / 2, jnp.log(-jnp.expm1(-rate)))

    @property
    def log_weights(self) -> Float[Array, "B k"]:
        """Logarithms of `weights`, finite where long sequences make these vanish."""
        log_weights = self.log_probs.sum(-1) - self.log_inclusion
        return jnp.where(self.perturbed > -jnp.inf, log_weights, -jnp.inf)

    @property
    def weights(self) -> Float[Array, "B k"]:
        """Weights with which Σ weight f(x) is an unbiased estimate of E f(x); 0 where no sequence.

        w(x) = p(x) / (1 - exp(-exp(log p(x) - κ)))
        """
        return jnp.exp(self.log_weights)


def stochastic_beam_search(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_distinct: int,
    length: int,
    *,
    num_samples: int = 1,
    first_index: int | Int[AnyArray, ""] = 0,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
) -> DistinctSamples:
    r"""Samples k distinct sequences without replacement.

        G(x) = log p(x) + Gumbel(0),   the k sequences with the largest G

    which is sampling without replacement in the order of G, found top down: the largest G of all
    sequences that begin alike is Gumbel with location log p(beginning), and the noise of the
    children is drawn conditional on their maximum being that of the parent. A sequence is one
    that ends, or that reaches `length`. The noise of a node is keyed by the events that lead to
    it, so the k sequences of a key are the first k of any larger number.

    Args:
        model: a model of tokens.
        params: its parameters.
        key: a typed key.
        num_distinct: k.
        length: most events of a sequence, its end included.
        num_samples: B, independent sets of k sequences, side by side.
        first_index: index of the first set, for drawing many in parts.
        prefix: events [P] or [B, P] that come before.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.

    Returns:
        The sequences, with what makes estimates unbiased: Σ_x weights(x) f(x).

    Raises:
        ValueError: for a number below 1, or a model of something else than tokens.

    Reference: W. Kool, H. van Hoof, M. Welling, "Stochastic beams and where to find them: the
    Gumbel-top-k trick for sampling sequences without replacement", ICML 2019.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> key = jax.random.key(1)
        >>> drawn = sampling.stochastic_beam_search(model, params, key, num_distinct=9, length=2)
        >>> len({tuple(events) for events in drawn.events[0].tolist()})  # all there are, each once
        9
    """
    check_counts(num_distinct=num_distinct, length=length, num_samples=num_samples)
    check_tokens_model(model, "stochastic beam search")
    state = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
        first_index=first_index,
    )
    samples: DistinctSamples = _search(
        model, (num_distinct, length), params, state.carry, state.key
    )
    return samples


@entry(num_static=2, rows=(3,))
def _search(
    model: Model, sizes: tuple[int, int], params: Params, carry: Carry, keys: Array
) -> DistinctSamples:
    num_distinct, length = sizes
    batch_size = keys.shape[0]
    width = num_distinct + 1  # One more for the threshold.
    step = model.make_step(params, num_events=batch_size * width * length)

    # time, carry, keys, history, log-probabilities, perturbed log-probabilities, done
    Loop = tuple[Array, Carry, Array, History, Array, Array, Array]

    def unfinished(loop: Loop) -> Array:
        time, _, _, _, _, perturbed, done = loop
        return (time < length) & (~done & (perturbed > -jnp.inf)).any()

    def advance(loop: Loop) -> Loop:
        time, carry, keys, history, total, perturbed, done = loop
        logs, carry = step_beams(model, params, step, carry)
        num_classes = logs.shape[-1]
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (num_classes,)))(flat(keys))
        children = _given_maximum(flat(total[..., None] + logs) + noise, flat(perturbed))
        children = unflat(children, batch_size)
        # A sequence that ended stays as it is: its only child is itself.
        itself = jnp.where(jnp.arange(num_classes) == 0, perturbed[..., None], -jnp.inf)
        children = jnp.where(done[..., None], itself, children)
        perturbed, best = jax.lax.top_k(children.reshape(batch_size, -1), width)
        parent, token = best // num_classes, best % num_classes
        nats = jnp.take_along_axis(logs.reshape(batch_size, -1), best, 1)
        history, total, done, keys = pick((history, total, done, keys), parent)
        longer = history.append(token, nats)
        history = jax.tree.map(
            lambda old, new: jnp.where(done.reshape(*done.shape, *[1] * (old.ndim - 2)), old, new),
            history,
            longer,
        )
        total = jnp.where(done, total, total + nats)
        done = done | end_classes(model, num_classes)[token]
        keys = jax.vmap(jax.vmap(jax.random.fold_in))(keys, token)
        carry = model.feed(pick(carry, parent), token)
        return time + 1, carry, keys, history, total, perturbed, done

    shape = (batch_size, width)
    only = jnp.arange(width) == 0
    keys, root_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    root = jax.vmap(jax.random.gumbel)(root_keys)
    loop = (
        jnp.int32(0),
        repeat(carry, width),
        repeat(keys, width),
        no_history(shape, length),
        jnp.broadcast_to(jnp.where(only, 0.0, -jnp.inf), shape),
        jnp.where(only, root[:, None], -jnp.inf),
        jnp.zeros(shape, bool),
    )
    loop = vary_alike(loop, params)
    *_, history, _, perturbed, done = jax.lax.while_loop(unfinished, advance, loop)
    mask = history.mask & (perturbed > -jnp.inf)[..., None]
    return DistinctSamples(
        jnp.where(mask, history.events, 0)[:, :num_distinct],
        mask[:, :num_distinct],
        jnp.where(mask, history.log_probs, 0)[:, :num_distinct],
        perturbed[:, :num_distinct],
        perturbed[:, num_distinct],
        (done & (perturbed > -jnp.inf))[:, :num_distinct],
    )


def _given_maximum(values: Float[Array, "N V"], maximum: Float[Array, " N"]) -> Float[Array, "N V"]:
    """Gumbel variables moved so that the largest of each row is `maximum` (Kool et al., app. B.3).

    -log(exp(-maximum) - exp(-largest) + exp(-value)), without cancellation.
    """
    largest = values.max(-1, keepdims=True)
    possible = (values > -jnp.inf) & (maximum > -jnp.inf)[:, None]
    # Where nothing is possible, any finite numbers do.
    values, largest = jnp.where(possible, values, 0), jnp.where(jnp.isfinite(largest), largest, 0)
    target = jnp.where(jnp.isfinite(maximum), maximum, 0)[:, None]
    below = jnp.where(possible, jnp.minimum(values - largest, 0), -1.0)
    rest = jnp.where(below < 0, jnp.log(-jnp.expm1(jnp.where(below < 0, below, -1.0))), -jnp.inf)
    v = target - values + rest
    moved = target - jnp.maximum(v, 0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
    return jnp.where(possible, jnp.where(below < 0, moved, target), -jnp.inf)
