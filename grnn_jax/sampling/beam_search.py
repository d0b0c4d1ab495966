"""Beam search: an approximate search for the most probable sequences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PyTree
from grnn_jax.model import Carry, Model
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.beams import (
    end_classes,
    no_history,
    pick,
    repeat,
    step_beams,
)
from grnn_jax.sampling.settings import check_counts, check_tokens_model
from grnn_jax.sampling.state import start


class Beams(NamedTuple):
    """The sequences that a beam search found, the best first.

    Attributes:
        events: [B, W, T]; after the end of a sequence, zeros.
        mask: [B, W, T], True for events of the sequence, its end included; all False where there
            are fewer than W sequences.
        log_probs: [B, W, T], nats under the model, 0 where not mask.
        scores: [B, W], log-probability over the length penalty; -inf where there is no sequence.
        done: [B, W], True where the sequence ended, False where it only reached the length.
    """

    events: Int[Array, "B W T"]
    mask: Bool[Array, "B W T"]
    log_probs: Float[Array, "B W T"]
    scores: Float[Array, "B W"]
    done: Bool[Array, "B W"]


Group = tuple[PyTree, Array]
"""Beams of one group, a `History` (with what belongs to it) of arrays [B, w, …]; scores [B, w]."""


def beam_search(
    model: Model,
    params: Params,
    beam_width: int,
    length: int,
    *,
    num_groups: int = 1,
    diversity: float | Float[AnyArray, ""] = 0.0,
    length_penalty: float | Float[AnyArray, ""] = 0.0,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    batch_size: int = 1,
) -> Beams:
    r"""Searches for the sequences with the highest score.

        score(x) = log p(x) / ((5 + |x|) / 6)^α,     α the length penalty

    At each step every unfinished beam is extended by every token. The extensions of highest
    log-probability go on; those that end are kept apart, and compete by their score with all
    that ended before. A beam as wide as there are unfinished sequences makes the search
    exhaustive. It stops when no unfinished beam can still win.

    With several groups the beams of a group are chosen by

        log p(x_≤t) - λ · (how many beams of the groups before it chose x_t at this step)

    λ the diversity; the end of a sequence is not penalised, and scores hold no penalty.

    Args:
        model: a model of tokens.
        params: its parameters.
        beam_width: W, beams of all groups together.
        length: most events of a sequence, its end included.
        num_groups: groups of W / num_groups beams.
        diversity: λ, at least 0.
        length_penalty: α, at least 0; 0 ranks by log-probability, more prefers long sequences.
        prefix: events [P] or [B, P] that come before.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.
        batch_size: B, searches side by side (one for each prefix or conditions).

    Returns:
        The sequences found, group after group in the order of their scores; with one group the
        best first.

    Raises:
        ValueError: for an argument outside its range, or a model of something else than tokens.

    References: Y. Wu et al., "Google's neural machine translation system", 2016; A. K.
    Vijayakumar et al., "Diverse beam search", 2016.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3, end=0))
        >>> params = model.init(jax.random.key(0))
        >>> beams = sampling.beam_search(model, params, beam_width=2, length=4)
        >>> beams.events.shape, bool(beams.scores[0, 0] >= beams.scores[0, 1])
        ((1, 2, 4), True)
    """
    check_counts(beam_width=beam_width, length=length, num_groups=num_groups, batch_size=batch_size)
    check_tokens_model(model, "beam search")
    if beam_width % num_groups:
        raise ValueError(f"num_groups must divide beam_width {beam_width}, got {num_groups}")
    for name, value in (("diversity", diversity), ("length_penalty", length_penalty)):
        if not isinstance(value, jax.core.Tracer) and value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    state = start(
        model,
        params,
        jax.random.key(0),
        batch_size,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
    )
    sizes = (num_groups, beam_width // num_groups, length)
    beams: Beams = _search(model, sizes, params, state.carry, diversity, length_penalty)
    return beams


@entry(num_static=2, rows=(3,))
def _search(
    model: Model,
    sizes: tuple[int, int, int],
    params: Params,
    carry: Carry,
    diversity: float | Array,
    length_penalty: float | Array,
) -> Beams:
    num_groups, width, length = sizes
    batch_size = carry.started.shape[0]
    num_beams = num_groups * width
    step = model.make_step(params, num_events=batch_size * num_beams * length)

    def score(log_prob: Array, lengths: Array) -> Array:
        return log_prob / ((5 + lengths) / 6) ** length_penalty

    def merge(old: Group, new: Group) -> Group:
        """The best `width` of two sets of beams with scores, for each search."""
        both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), old, new)
        scores, index = jax.lax.top_k(both[1], width)
        return pick(both[0], index), scores

    def extend_group(
        alive: Group, ended: Group, logs: Array, chosen: Array
    ) -> tuple[Group, Group, Array, Array]:
        """One group [B, w] after one more event: its beams and those that ended.

        Also how many beams have chosen each token, and the beams that this group's extend.
        """
        history, total = alive
        num_classes = logs.shape[-1]
        ends = end_classes(model, num_classes)
        extended = total[..., None] + logs
        if model.distribution.is_end is not None:
            end = jnp.argmax(ends)
            finished = history.append(jnp.full(total.shape, end), logs[..., end])
            new = (finished, score(extended[..., end], finished.lengths))
            ended = merge(ended, new)
        ranked = jnp.where(ends, -jnp.inf, extended - diversity * chosen[:, None])
        _, best = jax.lax.top_k(ranked.reshape(batch_size, -1), width)
        parent, token = best // num_classes, best % num_classes
        total = jnp.take_along_axis(extended.reshape(batch_size, -1), best, 1)
        total = jnp.where(ends[token], -jnp.inf, total)
        nats = jnp.take_along_axis(logs.reshape(batch_size, -1), best, 1)
        alive = (pick(history, parent).append(token, nats), total)
        counted = jax.nn.one_hot(token, num_classes) * (total > -jnp.inf)[..., None]
        return alive, ended, chosen + counted.sum(1), parent

    Loop = tuple[Array, Carry, list[Group], list[Group]]  # time, carry, alive, ended

    def hopeful(loop: Loop) -> Array:
        time, _, alive, ended = loop
        if model.distribution.is_end is None:
            return time < length
        # No continuation of a beam has a score above this one.
        bounds = [score(total.max(1), jnp.int32(length)) for _, total in alive]
        worst = [scores.min(1) for _, scores in ended]
        hope = [(b > w).any() for b, w in zip(bounds, worst, strict=True)]
        return (time < length) & jnp.stack(hope).any()

    def advance(loop: Loop) -> Loop:
        time, carry, alive, ended = loop
        logs, carry = step_beams(model, params, step, carry)
        chosen = jnp.zeros((batch_size, logs.shape[-1]))
        parents = []
        for group in range(num_groups):
            own = slice(group * width, (group + 1) * width)
            alive[group], ended[group], chosen, parent = extend_group(
                alive[group], ended[group], logs[:, own], chosen
            )
            parents.append(parent + group * width)
        carry = pick(carry, jnp.concatenate(parents, 1))
        tokens = [
            jnp.take_along_axis(history.events, history.lengths[..., None] - 1, -1)[..., 0]
            for history, _ in alive
        ]
        carry = model.feed(carry, jnp.concatenate(tokens, 1))
        return time + 1, carry, alive, ended

    shape = (batch_size, width)
    # All beams begin alike, so that but one of them counts.
    first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    nothing = no_history(shape, length)
    alive = [(nothing, jnp.broadcast_to(first, shape))] * num_groups
    ended = [(nothing, jnp.full(shape, -jnp.inf))] * num_groups
    loop = vary_alike((jnp.int32(0), repeat(carry, num_beams), alive, ended), params)
    time, _, alive, ended = jax.lax.while_loop(hopeful, advance, loop)

    results = []
    for (history, total), (finished, scores) in zip(alive, ended, strict=True):
        cut = score(jnp.where(time == length, total, -jnp.inf), history.lengths)
        marked = ((finished, jnp.ones(shape, bool)), scores)
        results.append(merge(marked, ((history, jnp.zeros(shape, bool)), cut)))
    (history, done), scores = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *results)
    exists = scores > -jnp.inf
    mask = history.mask & exists[..., None]
    return Beams(
        jnp.where(mask, history.events, 0),
        mask,
        jnp.where(mask, history.log_probs, 0),
        scores,
        done & exists,
    )
