"""Student's t over D real numbers: a Gaussian with heavy tails."""

import math

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.gaussian import affine_layer
from grnn_jax.distributions.layer import apply_layer, init_layer
from grnn_jax.distributions.standardize import (
    Reals,
    bounded,
    column,
    standardize,
)
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.special import log_gamma

MIN_DEGREES, MAX_DEGREES = 2.01, 100.0
"""Range of the degrees of freedom: the variance is finite, and log Γ exact to 1e-4 in float32."""

INITIAL_DEGREES = 10.0


@cached_factory
def student_t(
    size: int,
    *,
    covariance: str = "diagonal",
    shift: Reals | None = None,
    scale: Reals | None = None,
    min_scale: float = 1e-4,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""Student's t with learned location, scale and degrees of freedom.

        full:     log p(x | h) = t_D(|ε|², ν) - Σ_d log s_d - Σ_d log scale_d
        diagonal: log p(x | h) = Σ_d t_1(ε_d², ν_d) - Σ_d log s_d - Σ_d log scale_d
        t_k(q, ν) = log Γ((ν+k)/2) - log Γ(ν/2) - (k/2) log(ν π) - ((ν+k)/2) log(1 + q/ν)

    with ε and s as in `gaussian`. A full covariance is the multivariate t with one ν, and its
    elements are dependent even where they are uncorrelated; a diagonal one is D independent t
    distributions, each with its own ν. log(ν - 2) is bounded softly so that 2.01 < ν < 100.

    Args:
        size: D.
        covariance: "diagonal" or "full".
        shift: length D; None is zeros.
        scale: length D, positive; None is ones.
        min_scale: smallest s, in units of `scale`.
        dtype: compute dtype of the output matmul; everything after it is float32.

    Returns:
        The distribution; events are float32 [D] and log_prob is a log density. `sample` takes
        `temperature`, which multiplies the covariance at the same ν; 0 gives the mode. `mode` is
        exact.

    Raises:
        ValueError: for an argument outside its range.

    Reference: K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling using
    the t distribution", JASA 84, 1989.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.student_t(1)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.linspace(-40, 40, 8001)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((8001, 4)), x[:, None])
        >>> float((jnp.exp(nats) * 0.01).sum().round(2))  # the integral of the density
        1.0
    """
    affine = affine_layer(size, covariance, min_scale)
    joint = size if covariance == "full" else 1  # elements that share a ν

    def init(key: PRNGKey, hidden_size: int) -> Params:
        layer_key, degrees_key = jax.random.split(key)
        zeros = jnp.zeros((affine.size,), jnp.float32)
        degrees = jnp.full((size // joint,), math.log(INITIAL_DEGREES - 2), jnp.float32)
        return {
            "affine": init_layer(layer_key, hidden_size, zeros, affine.gain),
            "degrees": init_layer(degrees_key, hidden_size, degrees),
        }

    def outputs(params: Params, hidden: Float[Array, "... H"]) -> tuple[Array, Array]:
        """Outputs for `affine`, and ν [..., D or 1]."""
        out, raw = (apply_layer(params[name], hidden, dtype) for name in ("affine", "degrees"))
        low, high = math.log(MIN_DEGREES - 2), math.log(MAX_DEGREES - 2)
        return out, 2 + jnp.exp(bounded(raw, low, high))

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], z: Float[Array, "... D"]
    ) -> Float[Array, "..."]:
        out, degrees = outputs(params, hidden)
        noise, log_det = affine.whiten(out, z)
        squares = jnp.square(noise)
        squares = squares.sum(-1, keepdims=True) if joint > 1 else squares
        half = 0.5 * (degrees + joint)
        nats = log_gamma(half) - log_gamma(0.5 * degrees) - 0.5 * joint * jnp.log(math.pi * degrees)
        return (nats - half * jnp.log1p(squares / degrees)).sum(-1) + log_det

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> Float[Array, "B D"]:
        out, degrees = outputs(params, hidden)

        def draw(key: PRNGKey, half: Array) -> Array:
            normal_key, gamma_key = jax.random.split(key)
            log_gamma = jax.random.loggamma(gamma_key, half)
            normal = jax.random.normal(normal_key, (size,), out.dtype)
            return normal * jnp.exp(0.5 * (jnp.log(half) - log_gamma))

        noise = jax.vmap(draw)(key, 0.5 * degrees)
        return affine.unwhiten(out, noise * jnp.sqrt(column(temperature, noise)))

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        return outputs(params, hidden)[0][..., :size]

    z = Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, affine.numbers),
        sample=sample,
        mode=mode,
        encode=lambda params, event: event,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.float32),
        name="student_t",
        options=("temperature",),
    )
    return standardize(z, size, shift, scale)
