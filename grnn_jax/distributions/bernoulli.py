"""Independent bits: keys of a piano, pixels, baskets."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.bits import independent_bits, initial_bias
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.ops.factories import cached_factory


@cached_factory
def bernoulli(size: int, *, mean: float = 0.5, dtype: DType = jnp.float32) -> Distribution:
    r"""D bits that are independent of each other, given the past.

        log p(x | h) = Σ_d x_d log σ(o_d) + (1 - x_d) log σ(-o_d),     o = W h + b_o

    Args:
        size: D.
        mean: part of all bits that is set in the training data; the biases start there.
        dtype: compute dtype of the output matmul; logits and log-probabilities are float32.

    Returns:
        The distribution; events are arrays [D] of zeros and ones, any other number counts as one.
        `sample` takes `temperature`, which divides the logits.

    Raises:
        ValueError: for a size below 1, or a mean that is not inside (0, 1).

    Example:
        >>> import itertools
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.bernoulli(3)
        >>> params = family.init(jax.random.key(0), 4)
        >>> events = jnp.array(list(itertools.product((0, 1), repeat=3)), jnp.uint8)
        >>> hidden = jnp.ones((8, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, events)
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    bias = initial_bias(size, mean)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        kernel = jax.nn.initializers.lecun_normal()(key, (hidden_size, size), jnp.float32)
        return {"kernel": kernel, "bias": jnp.full((size,), bias, jnp.float32)}

    def logits(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        return apply_layer(params, hidden, dtype)

    return independent_bits("bernoulli", size, init, logits)
