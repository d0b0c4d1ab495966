"""The Gaussian over D real numbers, with independent or correlated elements."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.layer import apply_layer, init_layer
from grnn_jax.distributions.standardize import (
    LARGEST,
    Reals,
    bounded,
    column,
    standardize,
)
from grnn_jax.ops.factories import cached_factory

MAX_SCALE = 1e6
"""Softly, standard deviations of standardized values stay below this."""


@cached_factory
def gaussian(
    size: int,
    *,
    covariance: str = "diagonal",
    shift: Reals | None = None,
    scale: Reals | None = None,
    min_scale: float = 1e-4,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""Gaussian, by mean and Cholesky factor of the precision.

        z = (x - shift) / scale,     ε = S⁻¹ L (z - μ),     S = diag(s)
        log p(x | h) = -|ε|²/2 - (D/2) log 2π - Σ_d log s_d - Σ_d log scale_d

    μ, log s and, for a full covariance, the elements of the unit lower triangular L below its
    diagonal are outputs of a linear layer of h. S⁻¹ L is a Cholesky factor of the precision
    (Williams 1996): s_d is the standard deviation of z_d given z_1 … z_{d-1}. The density needs
    one triangular product, and neither a factorisation nor a solve.

    log s is bounded softly to [log min_scale, log 1e6]: repeated values cannot drive the
    density to infinity. Elements of ε are clipped to ±1e12, so that log p is finite everywhere.

    Args:
        size: D.
        covariance: "diagonal" for L = I, or "full".
        shift: length D; None is zeros.
        scale: length D, positive; None is ones.
        min_scale: smallest s, in units of `scale`.
        dtype: compute dtype of the output matmul; everything after it is float32.

    Returns:
        The distribution; events are float32 [D] and log_prob is a log density. `sample` takes
        `temperature`: it multiplies the covariance, which draws from p^(1/temperature).
        `mode` is exact.

    Raises:
        ValueError: for an argument outside its range.

    Reference: P. M. Williams, "Using neural networks to model conditional multivariate
    densities", Neural Computation 8, 1996.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.gaussian(1, shift=[2.0], scale=[0.5])
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.linspace(-40, 40, 8001)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((8001, 4)), x[:, None])
        >>> float((jnp.exp(nats) * 0.01).sum().round(2))  # the integral of the density
        1.0
    """
    affine = affine_layer(size, covariance, min_scale)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        return init_layer(key, hidden_size, jnp.zeros((affine.size,), jnp.float32), affine.gain)

    def outputs(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... O"]:
        return apply_layer(params, hidden, dtype)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], z: Float[Array, "... D"]
    ) -> Float[Array, "..."]:
        return normal_log_prob(*affine.whiten(outputs(params, hidden), z))

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> Float[Array, "B D"]:
        out = outputs(params, hidden)
        noise = jax.vmap(lambda row: jax.random.normal(row, (size,), out.dtype))(key)
        return affine.unwhiten(out, noise * jnp.sqrt(column(temperature, noise)))

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        return outputs(params, hidden)[..., :size]

    z = Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, affine.numbers),
        sample=sample,
        mode=mode,
        encode=lambda params, event: event,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.float32),
        name="gaussian",
        options=("temperature",),
    )
    return standardize(z, size, shift, scale)


class Affine(NamedTuple):
    """z = μ + L⁻¹ S ε, with S and L as in `gaussian`, from the outputs of a linear layer.

    Attributes:
        size: O, outputs for each event: μ, log s, then L below its diagonal.
        gain: of the initial weights, [O]; small for L, whose rows are sums over up to D elements.
        numbers: the size of the largest array that `whiten` makes for each event.
        whiten: (outputs [..., O], z [..., D]) -> ε [..., D], log |dε/dz| [...].
        unwhiten: (outputs [..., O], ε [..., D]) -> z [..., D].
    """

    size: int
    gain: np.ndarray
    numbers: int
    whiten: Callable[[Array, Array], tuple[Array, Array]]
    unwhiten: Callable[[Array, Array], Array]


def affine_layer(size: int, covariance: str, min_scale: float) -> Affine:
    """The `Affine` of `gaussian`, with its arguments and errors."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if covariance not in ("diagonal", "full"):
        raise ValueError(f'covariance must be "diagonal" or "full", got {covariance!r}')
    if not 0 < min_scale < 1:
        raise ValueError(f"min_scale must lie in (0, 1), got {min_scale}")
    below = size * (size - 1) // 2 if covariance == "full" else 0
    low, high = math.log(min_scale), math.log(MAX_SCALE)

    def split(outputs: Array) -> tuple[Array, Array, Array]:
        outputs = jnp.clip(outputs, -LARGEST, LARGEST)
        mean, raw, lower = jnp.split(outputs, (size, 2 * size), -1)
        return mean, bounded(raw, low, high), lower

    def whiten(
        outputs: Float[Array, "... O"], z: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... D"], Float[Array, "..."]]:
        mean, log_scale, lower = split(outputs)
        residual = z - mean
        if below:
            # A product and a sum, not a matmul, which accelerators round to fewer bits.
            moved = (triangle(lower, size - 1) * residual[..., None, :-1]).sum(-1)
            residual = jnp.concatenate([residual[..., :1], residual[..., 1:] + moved], -1)
        noise = jnp.clip(residual * jnp.exp(-log_scale), -LARGEST, LARGEST)
        return noise, -log_scale.sum(-1)

    def unwhiten(
        outputs: Float[Array, "... O"], noise: Float[Array, "... D"]
    ) -> Float[Array, "... D"]:
        mean, log_scale, lower = split(outputs)
        residual = noise * jnp.exp(log_scale)
        if below:
            edges = [(0, 0)] * (lower.ndim - 1) + [(1, 0), (0, 1)]
            factor = jnp.pad(triangle(lower, size - 1), edges)  # the unit diagonal is implied
            residual = jax.lax.linalg.triangular_solve(
                factor, residual[..., None], left_side=True, lower=True, unit_diagonal=True
            )[..., 0]
        return mean + residual

    gain = np.concatenate([np.ones(2 * size), np.full(below, 1 / size)])
    numbers = max(2 * size, (size - 1) ** 2 if below else 0)
    return Affine(2 * size + below, gain, numbers, whiten, unwhiten)


def triangle(elements: Float[Array, "... P"], n: int) -> Float[Array, "... n n"]:
    """Lower triangular matrices, diagonal included, of n (n + 1) / 2 elements in a fixed order.

    The elements from the n-th on, followed by all of them in reverse, fill the square by rows:
    below and on the diagonal every element stands once, and no gather is needed.
    """
    both = jnp.concatenate([elements[..., n:], jnp.flip(elements, -1)], -1)
    return jnp.tril(both.reshape(*elements.shape[:-1], n, n))


def normal_log_prob(noise: Float[Array, "... D"], log_det: Float[Array, "..."]) -> Array:
    """Log density of a standard Gaussian ε, plus the logarithm of the Jacobian."""
    return log_det - 0.5 * (jnp.square(noise).sum(-1) + noise.shape[-1] * math.log(2 * math.pi))
