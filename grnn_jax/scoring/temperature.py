"""The softmax temperature that scores a corpus best."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from grnn_jax.array_types import Batch
from grnn_jax.compiler import outermost_jit
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.likelihood import event_statistics
from grnn_jax.model import Model
from grnn_jax.scoring.classes import check_classes, read_classes
from grnn_jax.scoring.events import Report, sum_windows
from grnn_jax.sharding import shard_batch

MOST_PASSES = 30
LIMITS = (1e-3, 1e3)
"""Inverse temperatures beyond these are not looked at."""


def make_tempered_sums(model: Model, config: Config, mesh: Mesh) -> Callable[..., dict[str, float]]:
    r"""Makes the function that scores a corpus by softmax(o / temperature).

    With β = 1 / temperature the sum of nats is L(β) = Σ log Σ_k exp(β o_k) - β o_x, which is
    convex: L' = Σ E[o] - o_x, L'' = Σ Var[o] ≥ 0.

    Args:
        model: a model whose events are classes.
        config: `eval_batch_size` and `sequence_length` are read.
        mesh: mesh with the axis "data", of one process.

    Returns:
        Function (params, corpus, temperature, report=None) -> sums: nats, their derivatives with
        respect to β as slope and curvature, and num_events.

    Raises:
        InputError: the events of the model are no classes.
    """
    size = config.eval_batch_size

    def sums_of(
        params: PyTree, inverse: Array, carry: PyTree, batch: Batch
    ) -> tuple[PyTree, dict[str, Array]]:
        def tempered(scores: Array, event: Array) -> dict[str, Array]:
            # No number depends on an offset of all scores, but its digits would.
            scores -= scores.max(-1, keepdims=True)
            chosen = jnp.arange(scores.shape[-1]) == event[..., None]
            score = jnp.where(chosen, scores, 0).sum(-1)
            probability = jax.nn.softmax(inverse * scores)
            mean = jnp.sum(probability * scores, -1)
            variance = jnp.sum(probability * jnp.square(scores - mean[..., None]), -1)
            nats = jax.nn.logsumexp(inverse * scores, -1) - inverse * score
            return {"nats": nats, "slope": mean - score, "curvature": variance}

        read = read_classes(model, tempered)
        statistics, carry = event_statistics(model, params, carry, batch, read)
        sums = {name: jnp.sum(values) for name, values in statistics.items()}
        return carry, sums | {"num_events": jnp.sum(batch.mask)}

    check_classes(model)
    jitted = outermost_jit(sums_of)

    def sums(
        params: PyTree, corpus: Corpus, temperature: float, report: Report | None = None
    ) -> dict[str, float]:
        windows = eval_windows(corpus, size, config.sequence_length)
        inverse = jnp.float32(1 / temperature)

        def step(carry: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
            return jitted(params, inverse, carry, shard_batch(batch, mesh))

        return sum_windows(step, model.initial_state(params, size), windows, report)

    return sums


def fit_temperature(
    sums: Callable[[float], Mapping[str, float]], *, tolerance: float = 1e-5
) -> float:
    """The temperature with the least nats, by Newton's method on its inverse inside a bracket.

    Args:
        sums: temperature -> slope and curvature, as `make_tempered_sums` says, on held-out data
            (not on what is to be scored).
        tolerance: relative, of the temperature.

    Returns:
        The temperature; near an end of 1e-3 … 1e3 where the nats have no minimum inside.

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural
    networks", ICML 2017.
    """
    low, high = LIMITS
    inverse = 1.0
    for _ in range(MOST_PASSES):
        derivatives = sums(1 / inverse)
        if derivatives["slope"] > 0:
            high = inverse
        else:
            low = inverse
        following = inverse - derivatives["slope"] / max(derivatives["curvature"], 1e-30)
        if not low < following < high:
            following = (low * high) ** 0.5
        done = abs(following - inverse) <= tolerance * inverse
        inverse = following
        if done:
            break
    return 1 / inverse
