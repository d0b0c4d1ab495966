"""Temperature and truncation of categorical logits, as pure functions."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int

TRUNCATION_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""The arguments of `truncate` beside the logits: the options of the families of classes."""


def truncate(
    logits: Float[Array, "B V"],
    temperature: float | Float[AnyArray, "..."] = 1.0,
    top_k: int | Int[AnyArray, "..."] | None = None,
    top_p: float | Float[AnyArray, "..."] | None = None,
    min_p: float | Float[AnyArray, "..."] | None = None,
    typical_p: float | Float[AnyArray, "..."] | None = None,
) -> Float[Array, "B V"]:
    r"""Logits of the tempered and truncated distribution.

        q ∝ p^{1/temperature}, then zero outside the top_k most probable classes, then zero
        outside the smallest set of the rest whose probability reaches top_p, then zero where
        q < min_p max q, then zero outside the locally typical set

    The typical set holds the classes with the smallest |−log q − H(q)| whose probability reaches
    typical_p. Each truncation sees what the ones before it left, renormalised. Every setting is
    one number, or one for each row [B].

    Args:
        logits: of p, normalised or not.
        temperature: positive; below 1 sharpens. 0 leaves only the mode.
        top_k: classes kept; ties go to the lower index. None, or V, keeps all.
        top_p: probability kept (nucleus), in (0, 1]. None keeps all.
        min_p: least probability kept, as a share of the largest, in [0, 1]. None, or 0, keeps all.
        typical_p: probability kept of the typical classes, in (0, 1]. None keeps all.

    Returns:
        Unnormalised logits, -inf where the probability is zero.

    References: A. Holtzman et al., "The curious case of neural text degeneration", ICLR 2020;
    C. Meister et al., "Locally typical sampling", TACL 2023; M. N. Nguyen et al., "Turning up
    the heat: min-p sampling for creative and coherent LLM outputs", ICLR 2025.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.1, 0.1]]))
        >>> kept = jax.nn.softmax(distributions.truncate(logits, top_p=0.7))
        >>> [round(float(p), 3) for p in kept[0]]
        [0.625, 0.375, 0.0, 0.0]
    """
    temperature = jnp.asarray(temperature, logits.dtype).reshape(-1, 1)
    greedy = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
    tempered = logits / jnp.where(temperature > 0, temperature, 1)
    logits = jnp.where((temperature > 0) | greedy, tempered, -jnp.inf)
    if top_k is not None or top_p is not None:
        order = jnp.argsort(-logits, axis=-1, stable=True)
        ranked = jnp.take_along_axis(logits, order, -1)
        if top_k is not None:
            first = jnp.arange(ranked.shape[-1])[None] < jnp.asarray(top_k).reshape(-1, 1)
            ranked = jnp.where(first, ranked, -jnp.inf)
        if top_p is not None:
            ranked = jnp.where(_nucleus(ranked, top_p), ranked, -jnp.inf)
        keep = jnp.take_along_axis(ranked > -jnp.inf, jnp.argsort(order, axis=-1), -1)
        logits = jnp.where(keep, logits, -jnp.inf)
    if min_p is not None:
        share = jnp.exp(logits - logits.max(-1, keepdims=True))
        logits = jnp.where(share >= jnp.asarray(min_p).reshape(-1, 1), logits, -jnp.inf)
    if typical_p is not None:
        log_p = jax.nn.log_softmax(logits, -1)
        possible = log_p > -jnp.inf
        entropy = -jnp.where(possible, jnp.exp(log_p) * log_p, 0).sum(-1, keepdims=True)
        order = jnp.argsort(jnp.where(possible, jnp.abs(log_p + entropy), jnp.inf), stable=True)
        keep = _nucleus(jnp.take_along_axis(logits, order, -1), typical_p)
        keep = jnp.take_along_axis(keep, jnp.argsort(order, axis=-1), -1)
        logits = jnp.where(keep, logits, -jnp.inf)
    return logits


def _nucleus(logits: Array, mass: float | AnyArray) -> Bool[Array, "B V"]:
    """The first classes, in the order given, whose probability reaches `mass`."""
    mass = jnp.asarray(mass).reshape(-1, 1)
    probability = jax.nn.softmax(logits, axis=-1)
    before = jnp.cumsum(probability, -1) - probability
    # The rounded sum of many classes reaches 1 before the last of them: 1 keeps all.
    return ((before < mass) | (mass >= 1)) & (logits > -jnp.inf)
