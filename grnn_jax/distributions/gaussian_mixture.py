"""A mixture of Gaussians over D real numbers: a mixture density network."""

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.gaussian import affine_layer, normal_log_prob
from grnn_jax.distributions.layer import apply_layer, init_layer
from grnn_jax.distributions.standardize import (
    Reals,
    column,
    standardize,
)
from grnn_jax.distributions.truncation import truncate
from grnn_jax.ops.factories import cached_factory


@cached_factory
def gaussian_mixture(
    size: int,
    *,
    num_components: int = 10,
    covariance: str = "diagonal",
    shift: Reals | None = None,
    scale: Reals | None = None,
    min_scale: float = 1e-4,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""Mixture of K Gaussians.

        log p(x | h) = log Σ_k π_k N(z; μ_k, Σ_k) - Σ_d log scale_d,     z = (x - shift) / scale
        π = softmax(o),     μ_k and the precision of Σ_k as in `gaussian`

    Args:
        size: D.
        num_components: K.
        covariance: "diagonal" or "full", of each component.
        shift: length D; None is zeros.
        scale: length D, positive; None is ones.
        min_scale: smallest conditional standard deviation, in units of `scale`.
        dtype: compute dtype of the output matmul; everything after it is float32.

    Returns:
        The distribution; events are float32 [D] and log_prob is a log density. `sample` takes
        - temperature: divides o and multiplies the covariances (Ha & Eck 2018), which is not
          quite p^(1/temperature) where components overlap; 0 gives `mode`.
        - bias: b >= 0 multiplies o by 1 + b and standard deviations by exp(-b) (Graves 2013,
          equations 61 and 62): likelier samples of less variety.
        `mode` is the mean of the component of largest π_k, which is approximate.

    Raises:
        ValueError: for an argument outside its range.

    References: C. M. Bishop, "Mixture density networks", 1994. A. Graves, "Generating sequences
    with recurrent neural networks", 2013. D. Ha, D. Eck, "A neural representation of sketch
    drawings", ICLR 2018.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.gaussian_mixture(1, num_components=2)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.linspace(-40, 40, 8001)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((8001, 4)), x[:, None])
        >>> float((jnp.exp(nats) * 0.01).sum().round(2))  # the integral of the density
        1.0
    """
    affine = affine_layer(size, covariance, min_scale)
    K = num_components
    if K < 1:
        raise ValueError(f"num_components must be at least 1, got {K}")

    def init(key: PRNGKey, hidden_size: int) -> Params:
        layer_key, mean_key = jax.random.split(key)
        # Components that start alike would stay alike.
        means = jax.random.normal(mean_key, (K, size), jnp.float32)
        components = jnp.zeros((K, affine.size), jnp.float32).at[:, :size].set(means)
        bias = jnp.concatenate([jnp.zeros((K,), jnp.float32), components.reshape(-1)])
        gain = np.concatenate([np.ones(K), np.tile(affine.gain, K)])
        return init_layer(layer_key, hidden_size, bias, gain)

    def outputs(
        params: Params, hidden: Float[Array, "... H"]
    ) -> tuple[Float[Array, "... K"], Float[Array, "... K O"]]:
        """The logits o, and each component's outputs for `affine`."""
        out = apply_layer(params, hidden, dtype)
        components = out[..., K:].reshape(*out.shape[:-1], K, affine.size)
        return out[..., :K], components

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], z: Float[Array, "... D"]
    ) -> Float[Array, "..."]:
        logits, components = outputs(params, hidden)
        nats = normal_log_prob(*affine.whiten(components, z[..., None, :]))
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + nats, -1)

    def choose(components: Array, index: Array) -> Array:
        return jnp.take_along_axis(components, index[..., None, None], -2)[..., 0, :]

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
        bias: float | Array = 0.0,
    ) -> Float[Array, "B D"]:
        logits, components = outputs(params, hidden)
        logits = truncate(logits * (1 + column(bias, logits)), temperature)
        keys = jax.vmap(jax.random.split)(key)
        index = jax.vmap(jax.random.categorical)(keys[:, 0], logits)
        noise = jax.vmap(lambda row: jax.random.normal(row, (size,), logits.dtype))(keys[:, 1])
        spread = jnp.exp(-column(bias, noise)) * jnp.sqrt(column(temperature, noise))
        return affine.unwhiten(choose(components, index), noise * spread)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        logits, components = outputs(params, hidden)
        return choose(components, logits.argmax(-1))[..., :size]

    z = Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, K * affine.numbers),
        sample=sample,
        mode=mode,
        encode=lambda params, event: event,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.float32),
        name="gaussian_mixture",
        options=("temperature", "bias"),
    )
    return standardize(z, size, shift, scale)
