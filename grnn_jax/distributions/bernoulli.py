"""Independent bits: keys of a piano, pixels, baskets."""

import math

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Int, Params, PRNGKey, UInt8
from grnn_jax.cells.products import dense
from grnn_jax.distributions.base import Distribution


def bernoulli(size: int, *, mean: float = 0.5, dtype: DType = jnp.float32) -> Distribution:
    r"""D bits that are independent of each other, given the past.

        log p(x | h) = Σ_d x_d log σ(o_d) + (1 - x_d) log σ(-o_d),     o = W h + b_o

    Args:
        size: D.
        mean: part of all bits that is set in the training data; the biases start there.
        dtype: compute dtype of the output matmul; logits and log-probabilities are float32.

    Returns:
        The distribution; events are arrays [D] of zeros and ones, anything else counts as one.
        `sample` takes `temperature`, which divides the logits.

    Raises:
        ValueError: for a size below 1, or a mean that is not inside (0, 1).
    """
    bias = initial_bias(size, mean)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        kernel = jax.nn.initializers.lecun_normal()(key, (hidden_size, size), jnp.float32)
        return {"kernel": kernel, "bias": jnp.full((size,), bias, jnp.float32)}

    def logits(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        return dense(hidden, params["kernel"], dtype) + params["bias"]

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: UInt8[Array, "... D"]
    ) -> Float[Array, "..."]:
        return bit_log_probs(logits(params, hidden), event).sum(-1)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> UInt8[Array, "B D"]:
        scores = logits(params, hidden)
        noise = jax.vmap(lambda row: jax.random.logistic(row, (size,)))(key)
        return draw_bits(scores, noise, temperature)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> UInt8[Array, "... D"]:
        return (logits(params, hidden) > 0).astype(jnp.uint8)

    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode_bits,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.uint8),
    )


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
    logits: Float[Array, "B ..."],
    noise: Float[Array, "B ..."],
    temperature: float | Float[Array, "..."],
) -> UInt8[Array, "B ..."]:
    """Bits with odds exp(logits / temperature), from standard logistic noise."""
    column = jnp.asarray(temperature, logits.dtype)
    column = column.reshape(column.size, *(1,) * (logits.ndim - 1))
    return (logits + column * noise > 0).astype(jnp.uint8)


def encode_bits(params: Params, event: Int[Array, "... D"] | UInt8[Array, "... D"]) -> Array:
    """Bits as numbers."""
    del params
    return (event != 0).astype(jnp.float32)
