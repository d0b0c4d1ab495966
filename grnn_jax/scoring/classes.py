"""What needs the probabilities of all classes of an event: entropy, calibration, temperature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.errors import InputError
from grnn_jax.model import Model


def read_classes(
    model: Model,
    read: Callable[[Float[Array, "... V"], Int[Array, "..."]], dict[str, Any]],
) -> Callable[..., dict[str, Any]]:
    """A `read` of `event_statistics` that sees the logits of all classes.

    Args:
        model: a model whose events are classes.
        read: (logits [..., V], event [...]) -> numbers [...] by name.

    Returns:
        The function; large vocabularies are read in pieces of the window.

    Raises:
        InputError: the events of the model are no classes.
    """
    check_classes(model)
    logits = model.distribution.logits
    num_tokens = model.distribution.num_tokens
    assert logits is not None and num_tokens is not None

    def read_window(params: PyTree, hidden: Array, event: Array) -> dict[str, Any]:
        return read(logits(params, hidden), event)

    return cut_in_time(read_window, num_tokens)


def check_classes(model: Model) -> None:
    """Raises InputError unless events are classes of one softmax."""
    if model.distribution.logits is None:
        raise InputError(
            f"the output distribution of this run, {model.distribution.name}, is no softmax over "
            "classes, as that of text, lines and other tokens is"
        )


def class_statistics(
    logits: Float[Array, "... V"], event: Int[Array, "..."]
) -> dict[str, Float[Array, "..."]]:
    r"""Nats, predictive entropy, and confidence and correctness of the most probable class.

        nats = -log p(x),   entropy = -Σ_k p(k) log p(k),   confidence = max_k p(k)

    Args:
        logits: log-probabilities of the classes up to a constant.
        event: the class that occurred.

    Returns:
        nats, entropy (nats), confidence, and correct (1 where the most probable class occurred).
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    chosen = jnp.arange(logits.shape[-1]) == event[..., None]
    # A class of probability zero adds nothing to the entropy.
    terms = jnp.where(p > 0, p * log_p, 0)
    return {
        "nats": -jnp.where(chosen, log_p, 0).sum(-1),
        "entropy": -terms.sum(-1),
        "confidence": p.max(-1),
        "correct": (logits.argmax(-1) == event).astype(jnp.float32),
    }
