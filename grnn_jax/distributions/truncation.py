"""Temperature and truncation of categorical logits, as pure functions."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Float


def truncate(
    logits: Float[Array, "B V"],
    temperature: float | Float[AnyArray, "..."] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[AnyArray, ""] | None = None,
) -> Float[Array, "B V"]:
    r"""Logits of the tempered and truncated distribution.

        q ∝ p^{1/temperature}, then zero outside the top_k most probable classes, then zero
        outside the smallest set of the rest whose probability reaches top_p

    Args:
        logits: of p, normalised or not.
        temperature: positive; below 1 sharpens. 0 leaves only the mode.
        top_k: classes kept; ties go to the lower index. None keeps all.
        top_p: probability kept (nucleus), in (0, 1]. None keeps all.

    Returns:
        Unnormalised logits, -inf where the probability is zero.

    Reference: A. Holtzman et al., "The curious case of neural text degeneration", ICLR 2020.
    """
    temperature = jnp.asarray(temperature, logits.dtype).reshape(-1, 1)
    greedy = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
    tempered = logits / jnp.where(temperature > 0, temperature, 1)
    logits = jnp.where((temperature > 0) | greedy, tempered, -jnp.inf)
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(-logits, axis=-1, stable=True)
    ranked = jnp.take_along_axis(logits, order, -1)
    keep = jnp.ones(ranked.shape, bool)
    if top_k is not None:
        keep &= jnp.arange(ranked.shape[-1]) < top_k
    if top_p is not None:
        probability = jax.nn.softmax(jnp.where(keep, ranked, -jnp.inf), axis=-1)
        before = jnp.cumsum(probability, -1) - probability
        keep &= before < top_p
    keep = jnp.take_along_axis(keep, jnp.argsort(order, axis=-1), -1)
    return jnp.where(keep, logits, -jnp.inf)
