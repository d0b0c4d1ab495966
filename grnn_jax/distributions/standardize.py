"""What the families over real numbers share: units, bounded parameters, windows cut in time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import (
    AnyArray,
    Array,
    Float,
    Params,
)
from grnn_jax.distributions.base import Distribution
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align

LARGEST = 1e12
"""Standardized values are clipped to ± this: no square or gradient of one overflows float32."""

LINEAR_ENCODING = 10.0
"""Standardized values up to this enter the network as they are, larger ones logarithmically."""

Reals = Sequence[float] | AnyArray


@cached_factory
def standardize(
    distribution: Distribution, size: int, shift: Reals | None, scale: Reals | None
) -> Distribution:
    r"""A distribution of z as one of the data x = shift + scale · z, in the units of the data.

        log p(x | h) = log p_z((x - shift) / scale | h) - Σ_d log scale_d

    Args:
        distribution: over standardized values z [..., D]; its `encode` is replaced.
        size: D.
        shift: length D, such as the mean of the training data; None is zeros.
        scale: length D, positive, such as their standard deviation; None is ones.

    Returns:
        The distribution of x. Events that are not finite have log-probability NaN. Events enter
        the network as `compress(z)`.

    Raises:
        ValueError: for a shift or scale of another length, or not finite, or a scale <= 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> z = distributions.gaussian(2)
        >>> x = distributions.standardize(z, 2, shift=[1.0, -1.0], scale=[10.0, 0.1])
        >>> params, hidden = x.init(jax.random.key(0), 4), jnp.ones(4)
        >>> jnp.allclose(x.log_prob(params, hidden, x.mode(params, hidden)),
        ...              z.log_prob(params, hidden, z.mode(params, hidden)), atol=1e-4).item()
        True
    """
    shifts = _vector("shift", shift, size, 0.0)
    scales = _vector("scale", scale, size, 1.0)
    if not (scales > 0).all():
        raise ValueError(f"scale must be positive, got {scale}")
    log_volume = float(np.log(scales).sum())

    def standardized(event: Array) -> Array:
        moved, sizes = (align(jnp.asarray(v, event.dtype), event) for v in (shifts, scales))
        z = (event - moved) / sizes
        return jnp.clip(z, -LARGEST, LARGEST)

    def in_units(z: Array) -> Array:
        moved, sizes = (align(jnp.asarray(v, z.dtype), z) for v in (shifts, scales))
        return (moved + sizes * z).astype(jnp.float32)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Float[Array, "... D"]
    ) -> Float[Array, "..."]:
        nats = distribution.log_prob(params, hidden, standardized(event)) - log_volume
        return jnp.where(jnp.isfinite(event).all(-1), nats, jnp.nan)

    def sample(
        key: Array, params: Params, hidden: Float[Array, "B H"], **options: float | Array
    ) -> Float[Array, "B D"]:
        return in_units(distribution.sample(key, params, hidden, **options))

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... D"]:
        return in_units(distribution.mode(params, hidden))

    def encode(params: Params, event: Float[Array, "... D"]) -> Float[Array, "... D"]:
        del params
        return compress(standardized(event))

    return Distribution(
        init=distribution.init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=size,
        event=jax.ShapeDtypeStruct((size,), jnp.float32),
        is_density=True,
        name=distribution.name,
        options=distribution.options,
    )


def _vector(name: str, values: Reals | None, size: int, default: float) -> np.ndarray:
    vector = np.full((size,), default) if values is None else np.asarray(values, np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"{name} must be {size} finite numbers, got {values}")
    return vector


def compress(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Z where |z| <= 10, and ±10 (1 + log(|z| / 10)) outside; 0 where z is NaN."""
    size = jnp.maximum(jnp.abs(z), LINEAR_ENCODING)
    tail = jnp.sign(z) * LINEAR_ENCODING * (1 + jnp.log(size / LINEAR_ENCODING))
    return jnp.where(jnp.abs(z) > LINEAR_ENCODING, tail, jnp.where(jnp.isnan(z), 0, z))


def bounded(x: Float[Array, "..."], low: float, high: float) -> Float[Array, "..."]:
    """X inside (low, high), low below it and high above it, with smooth passages of width ~1."""
    above = low + jax.nn.softplus(x - low)
    return high - jax.nn.softplus(high - above)


def column(option: float | Array, like: Float[Array, "B ..."]) -> Float[Array, "rows ..."]:
    """A sampling option, a number or [B], as an array [1 or B, 1, ...] of the rank of `like`."""
    values = jnp.asarray(option, like.dtype)
    return values.reshape(values.size, *(1,) * (like.ndim - 1))
