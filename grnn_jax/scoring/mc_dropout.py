"""Evaluation with dropout left on, averaged over draws of its masks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from grnn_jax.array_types import Batch
from grnn_jax.compiler import outermost_jit
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.likelihood import event_log_probs
from grnn_jax.model import Model
from grnn_jax.scoring.events import Report, sum_windows
from grnn_jax.sharding import shard_batch


def make_mc_dropout_step(model: Model, num_draws: int) -> Callable[..., tuple[PyTree, Array]]:
    r"""Makes the step that scores a window by the mean probability over draws of the masks.

        p(x_{t+1} | x_≤t) = 1/K Σ_k p(x_{t+1} | x_≤t, masks k)

    The mean of normalised distributions, so normalised itself. Each draw carries a recurrent state
    of its own.

    Args:
        model: the model, with dropout.
        num_draws: K.

    Returns:
        Pure function (params, carries [K, B, ...], batch, key) -> (carries, nats [B, T]); draw k
        has the key folded from k.

    Reference: Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
    neural networks", NeurIPS 2016.
    """

    def step(params: PyTree, carries: PyTree, batch: Batch, key: Array) -> tuple[PyTree, Array]:
        def draw(number: Array, carry: PyTree) -> tuple[Array, PyTree]:
            folded = jax.random.fold_in(key, number)
            return event_log_probs(model, params, carry, batch, key=folded)

        log_probs, carries = jax.vmap(draw)(jnp.arange(num_draws), carries)
        mean = jax.nn.logsumexp(log_probs, 0) - math.log(num_draws)
        return carries, jnp.where(batch.mask, -mean, 0)

    return step


def mc_dropout_nats(
    model: Model,
    params: PyTree,
    corpus: Corpus,
    config: Config,
    mesh: Mesh,
    *,
    num_draws: int,
    seed: int = 0,
    report: Report | None = None,
) -> tuple[float, int]:
    """The nats of a corpus by the mean probability over draws of dropout.

    Args:
        model: the model, with dropout.
        params: its parameters.
        corpus: what to score.
        config: `eval_batch_size` and `sequence_length` are read.
        mesh: mesh with the axis "data", of one process.
        num_draws: K.
        seed: of the masks.
        report: is told how many events are done.

    Returns:
        The sum of the nats, and the number of events.
    """
    size, key = config.eval_batch_size, jax.random.key(seed)
    windows = eval_windows(corpus, size, config.sequence_length)
    draw_step = make_mc_dropout_step(model, num_draws)

    @outermost_jit
    def run(carries: PyTree, batch: Batch, number: Array) -> tuple[PyTree, dict[str, Array]]:
        carries, nats = draw_step(params, carries, batch, jax.random.fold_in(key, number))
        return carries, {"nats": jnp.sum(nats), "num_events": jnp.sum(batch.mask)}

    def step(state: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
        carries, number = state
        carries, sums = run(carries, shard_batch(batch, mesh), number)
        return (carries, number + 1), sums

    carry = model.initial_state(params, size)
    carries = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), carry)
    sums = sum_windows(step, (carries, jnp.int32(0)), windows, report)
    return sums["nats"], int(sums["num_events"])
