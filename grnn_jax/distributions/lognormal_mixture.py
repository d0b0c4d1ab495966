"""A mixture of log-normal waiting times, possibly censored."""

import math
from collections.abc import Callable
from statistics import NormalDist

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from grnn_jax.array_types import Array, DType, Float, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.truncation import truncate
from grnn_jax.distributions.waits import (
    MEDIAN_LIMIT,
    MIN_WAIT,
    WaitFamily,
    censored_waits,
    softly_bounded,
)
from grnn_jax.ops.factories import cached_factory


@cached_factory
def lognormal_mixture(
    *,
    num_components: int = 8,
    scale: float = 1.0,
    min_wait: float = MIN_WAIT,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""Mixture of log-normal waiting times.

        log f(t | h) = log Σ_k π_k Normal(log(t / scale); μ_k, σ_k²) - log t
        log S(t | h) = log Σ_k π_k Φ((μ_k - log(t / scale)) / σ_k)

    An event counts log f(wait), or, if it is censored (nothing happened up to `wait`), the
    survival log S(wait). Waits below `min_wait` are not told apart: there the density is
    constant, with the family's probability of such a wait, so it stays a density and a wait of
    0 has a finite log-probability. Softly, |μ| < 20 and 0.002 < σ < 7.4.

    `sample` draws events that are not censored. Temperature τ tempers the density of log t: the
    component is drawn from π^{1/τ} and its σ is multiplied by √τ. Temperature 0 is `mode`, the
    median of the heaviest component (an approximation of the mode of the density of log t).

    Args:
        num_components: K.
        scale: a typical wait, in the units of the data.
        min_wait: shortest wait told apart from 0, in units of scale.
        dtype: compute dtype of the matmul.

    Returns:
        The distribution; an event is dict(wait float32, censored bool), and a censored one ends
        the sequence. A negative or infinite wait has log-probability NaN.

    Raises:
        ValueError: for a number of components below 1, or a scale or min_wait that is not
            positive.

    Reference: O. Shchur, M. Biloš, S. Günnemann, "Intensity-free learning of temporal point
    processes", ICLR 2020.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.lognormal_mixture(num_components=2)
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden, censored = jnp.ones((2, 4)), jnp.array([False, True])
        >>> event = {"wait": jnp.array([0.7, 0.7]), "censored": censored}
        >>> log_prob = jax.jit(family.log_prob)
        >>> density, survival = jnp.exp(log_prob(params, hidden, event))
        >>> _, later = jnp.exp(log_prob(params, hidden, event | {"wait": jnp.array([0.7, 0.71])}))
        >>> abs((survival - later) / 0.01 - density).item() < 0.02  # f = -dS/dt
        True
    """
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}")

    def split(outputs: Array) -> tuple[Array, ...]:
        logits, median, width = jnp.split(outputs, 3, -1)
        width = jnp.where(width < 0, softly_bounded(width, 6.0), softly_bounded(width, 2.0))
        return jax.nn.log_softmax(logits), softly_bounded(median, MEDIAN_LIMIT), width

    def mixed(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
        def value(y: Array, log_weights: Array, median: Array, log_width: Array) -> Array:
            z = (y[..., None] - median) * jnp.exp(-log_width)
            return jax.nn.logsumexp(log_weights + function(z, log_width), -1)

        return value

    def draw(
        key: PRNGKey, temperature: Array, log_weights: Array, median: Array, log_width: Array
    ) -> Array:
        component_key, normal_key = jax.random.split(key)
        scores = truncate(log_weights[None], temperature)[0]
        component = jax.random.categorical(component_key, scores)
        width = jnp.sqrt(temperature) * jnp.exp(log_width[component])
        return median[component] + width * jax.random.normal(normal_key, dtype=median.dtype)

    def mode(log_weights: Array, median: Array, log_width: Array) -> Array:
        heaviest = log_weights.argmax(-1)[..., None]
        return jnp.take_along_axis(median, heaviest, -1)[..., 0]

    # Medians apart from each other, so that the components are not all alike.
    medians = [NormalDist().inv_cdf((k + 0.5) / num_components) for k in range(num_components)]
    family = WaitFamily(
        name="lognormal_mixture",
        bias=(*[0.0] * num_components, *medians, *[0.0] * num_components),
        split=split,
        log_density=mixed(lambda z, s: -0.5 * z**2 - s - 0.5 * math.log(2 * math.pi)),
        log_survival=mixed(lambda z, _: _log_normal_cdf(-z)),
        log_cdf=mixed(lambda z, _: _log_normal_cdf(z)),
        draw=draw,
        mode=mode,
    )
    return censored_waits(family, scale, min_wait, dtype)


@jax.custom_jvp
def _log_normal_cdf(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log Φ(z), whose gradient does not lose its digits in the lower tail as log_ndtr's does."""
    return log_ndtr(z)


@_log_normal_cdf.defjvp
def _log_normal_cdf_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (d_z,) = primals, tangents
    near = jnp.maximum(z, -5)
    density = -0.5 * near**2 - 0.5 * math.log(2 * math.pi)
    # φ(z) / Φ(z) in the tail is a continued fraction in -z (Laplace).
    far = jnp.maximum(-z, 5)
    fraction = far
    for term in range(12, 0, -1):
        fraction = far + term / fraction
    slope = jnp.where(z < -5, fraction, jnp.exp(density - log_ndtr(near)))
    return log_ndtr(z), slope * d_z
