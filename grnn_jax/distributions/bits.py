"""What the families of bits share: their events, and how those are drawn."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, UInt8
from grnn_jax.distributions.acceptance import as_array
from grnn_jax.distributions.base import Distribution


def bits_distribution(
    name: str,
    size: int,
    init: Callable[[PRNGKey, int], Params],
    log_prob: Callable[[Params, Array, Array], Array],
    draw: Callable[[Params, Array, Array, float | Array], Array],
    *,
    num_sites: int = 0,
) -> Distribution:
    """A distribution of D bits.

    Args:
        name: see `Distribution`.
        size: D.
        init: see `Distribution`.
        log_prob: see `Distribution`.
        draw: (params, hidden [..., H], noise [..., D], temperature) -> bits [..., D], from standard
            logistic noise; with noise and temperature 0 it gives the mode.
        num_sites: see `Distribution`.

    Returns:
        The distribution; events are arrays [D] of zeros and ones, any other number counts as one.
        `sample` takes `temperature`.
    """

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> UInt8[Array, "B D"]:
        noise = jax.vmap(lambda row: jax.random.logistic(row, (size,), jnp.float32))(key)
        return draw(params, hidden, noise, temperature)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> UInt8[Array, "... D"]:
        return draw(params, hidden, jnp.zeros((*hidden.shape[:-1], size)), 0.0)

    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode_bits,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.uint8),
        num_sites=num_sites,
        name=name,
        options=("temperature",),
        accept=accept_bits,
    )


def independent_bits(
    name: str,
    size: int,
    init: Callable[[PRNGKey, int], Params],
    logits: Callable[[Params, Array], Array],
    *,
    num_sites: int = 0,
) -> Distribution:
    """Bits that do not depend on each other, from logits: (params, hidden [..., H]) -> [..., D]."""

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: UInt8[Array, "... D"]
    ) -> Float[Array, "..."]:
        return bit_log_probs(logits(params, hidden), event).sum(-1)

    def draw(
        params: Params, hidden: Array, noise: Float[Array, "... D"], temperature: float | Array
    ) -> UInt8[Array, "... D"]:
        return draw_bits(logits(params, hidden), noise, temperature)

    return bits_distribution(name, size, init, log_prob, draw, num_sites=num_sites)


def initial_bias(size: int, mean: float) -> float:
    """The log-odds of `mean`; raises ValueError where it or the size are out of range."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if not 0 < mean < 1:
        raise ValueError(f"mean must be greater than 0 and less than 1, got {mean}")
    return math.log(mean / (1 - mean))


def bit_log_probs(logits: Float[Array, "..."], bits: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Log σ(o) for every bit that is set, log σ(-o) for every other, in nats."""
    return jax.nn.log_sigmoid(jnp.where(bits != 0, logits, -logits))


def draw_bits(
    logits: Float[Array, "..."],
    noise: Float[Array, "..."],
    temperature: float | Float[Array, "..."],
) -> UInt8[Array, "..."]:
    """Bits with odds exp(logits / temperature), from standard logistic noise.

    Several temperatures are those of the rows, the first axis.
    """
    scale = jnp.asarray(temperature, logits.dtype)
    if scale.ndim:
        scale = scale.reshape(-1, *(1,) * (logits.ndim - 1))
    return (logits + scale * noise > 0).astype(jnp.uint8)


def accept_bits(event: AnyArray) -> tuple[AnyArray, Bool[AnyArray, "..."]]:
    """Bits as uint8: 0.5 and 256 are not 0, and a cast would make them so. NaN is no bit."""
    event = as_array(event)
    valid = (event == event).all(-1)
    return (event if event.dtype == np.uint8 else (event != 0).astype(np.uint8)), valid


def encode_bits(params: Params, event: Int[Array, "... D"] | UInt8[Array, "... D"]) -> Array:
    """Bits as numbers."""
    del params
    return (event != 0).astype(jnp.float32)
