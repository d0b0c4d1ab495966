"""Waiting times, possibly censored: what every family shares, Weibull, exponential."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, DType, Float, Params, PRNGKey, PyTree
from grnn_jax.distributions.acceptance import cast
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.ops.factories import cached_factory

MEDIAN_LIMIT = 20.0
"""Softly, |log(median / scale)| of a component stays below this."""

MIN_WAIT = 1e-6
"""Shortest wait told apart from 0, in units of scale, unless a factory is told otherwise."""


class WaitFamily(NamedTuple):
    """A family of waits by functions of y = log(wait / scale) [...] and the parameters [...].

    Attributes:
        name: see `Distribution`.
        bias: initial bias of the output layer, P numbers.
        split: outputs [..., P] -> the parameters, a tuple of arrays [...] or [..., K].
        log_density: (y, *parameters) -> log density of y (not of the wait).
        log_survival: likewise, log P(Y > y).
        log_cdf: likewise, log P(Y <= y).
        draw: (key, temperature, *parameters) -> y, for one row.
        mode: parameters -> y.
    """

    name: str
    bias: tuple[float, ...]
    split: Callable[[Float[Array, "... P"]], tuple[Array, ...]]
    log_density: Callable[..., Array]
    log_survival: Callable[..., Array]
    log_cdf: Callable[..., Array]
    draw: Callable[..., Array]
    mode: Callable[..., Array]


def softly_bounded(x: Float[Array, "..."], limit: float) -> Float[Array, "..."]:
    """Near x where |x| is small, and within (-limit, limit)."""
    return limit * jnp.tanh(x / limit)


def censored_waits(family: WaitFamily, scale: float, min_wait: float, dtype: DType) -> Distribution:
    r"""The distribution of events dict(wait, censored) of a family.

        log p = log f(wait) if not censored, else log S(wait)

    Waits w below min_wait · scale = m are not told apart: f(w) = P(Y <= log min_wait) / m
    there, so that f is still a density, and finite at 0.
    """
    for name, value in (("scale", scale), ("min_wait", min_wait)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
    log_min = math.log(min_wait)

    def accept(event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        wait, finite = cast(event["wait"], jnp.float32)
        censored, kept = cast(event["censored"], jnp.bool_)
        return {"wait": wait, "censored": censored}, finite & kept & (wait >= 0)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        shape = (hidden_size, len(family.bias))
        kernel = jax.nn.initializers.lecun_normal()(key, shape, jnp.float32)
        return {"kernel": kernel, "bias": jnp.asarray(family.bias, jnp.float32)}

    def parameters(params: Params, hidden: Array) -> tuple[Array, ...]:
        return family.split(apply_layer(params, hidden, dtype))

    def standardized(event: PyTree, like: Array) -> tuple[Array, Array]:
        """Wait in units of scale, and y; any value gives finite ones."""
        wait = jnp.asarray(event["wait"], like.dtype)
        wait = jnp.where(wait >= 0, wait, 0) / scale
        wait = jnp.minimum(wait, jnp.finfo(like.dtype).max)
        return wait, jnp.log(jnp.maximum(wait, min_wait))

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: PyTree
    ) -> Float[Array, "..."]:
        values = parameters(params, hidden)
        wait, y = standardized(event, params["bias"])
        short = wait < min_wait
        smallest = jnp.full_like(y, log_min)
        log_cdf = family.log_cdf(smallest, *values)
        log_density = jnp.where(
            short, log_cdf - log_min, family.log_density(y, *values) - y
        ) - math.log(scale)
        later = jnp.log1p(-jnp.where(short, wait, 0) / min_wait)
        log_survival = family.log_survival(y, *values)
        log_survival = jnp.where(short, jnp.logaddexp(log_survival, log_cdf + later), log_survival)
        nats = jnp.where(event["censored"], log_survival, log_density)
        given = jnp.asarray(event["wait"])
        return jnp.where((given >= 0) & (given < math.inf), nats, jnp.nan)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> PyTree:
        keys = jax.vmap(jax.random.split)(key)
        values = parameters(params, hidden)
        temperature = jnp.asarray(temperature, values[0].dtype)
        temperature = jnp.broadcast_to(temperature, hidden.shape[:1])
        y = jax.vmap(family.draw)(keys[:, 0], temperature, *values)
        uniform = jax.vmap(lambda key: 1 - jax.random.uniform(key, dtype=y.dtype))(keys[:, 1])
        short = log_min + jnp.where(temperature > 0, jnp.log(uniform), 0)
        return observed(jnp.where(y < log_min, short, y))

    def observed(y: Array) -> PyTree:
        log_wait = jnp.minimum(y + math.log(scale), 88)  # exp(88) is near the end of float32
        wait = jnp.exp(log_wait).astype(jnp.float32)
        return {"wait": wait, "censored": jnp.zeros(y.shape, bool)}

    def mode(params: Params, hidden: Float[Array, "... H"]) -> PyTree:
        return observed(jnp.maximum(family.mode(*parameters(params, hidden)), log_min))

    def encode(params: Params, event: PyTree) -> Float[Array, "... X"]:
        y = softly_bounded(standardized(event, params["bias"])[1], 10.0)
        return jnp.stack([y, jnp.asarray(event["censored"], y.dtype)], -1)

    def is_end(event: PyTree) -> Bool[Array, "..."]:
        return jnp.asarray(event["censored"], bool)

    spec = {
        "wait": jax.ShapeDtypeStruct((), jnp.float32),
        "censored": jax.ShapeDtypeStruct((), jnp.bool_),
    }
    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=2,
        event=spec,
        is_end=is_end,
        is_density=True,
        name=family.name,
        options=("temperature",),
        accept=accept,
    )


@cached_factory
def weibull(
    *, scale: float = 1.0, min_wait: float = MIN_WAIT, dtype: DType = jnp.float32
) -> Distribution:
    r"""Weibull waiting times.

        log f(t | h) = log k + k log(t / λ) - log t - (t / λ)^k,     log S(t | h) = -(t / λ)^k

    with λ = scale · exp(μ); softly, |μ| < 20 and |log k| < 2.5. Temperature τ tempers the
    density of log t, exactly: (t / λ)^k ~ Gamma(1/τ, 1/τ). Temperature 0 is `mode`, the mode λ
    of that density. Events, censoring, waits near 0 and arguments as `lognormal_mixture`.

    Reference: W. Weibull, "A statistical distribution function of wide applicability", Journal
    of Applied Mechanics 18, 1951.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.weibull()
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden, censored = jnp.ones((2, 4)), jnp.array([False, True])
        >>> event = {"wait": jnp.array([0.7, 0.7]), "censored": censored}
        >>> log_prob = jax.jit(family.log_prob)
        >>> density, survival = jnp.exp(log_prob(params, hidden, event))
        >>> _, later = jnp.exp(log_prob(params, hidden, event | {"wait": jnp.array([0.7, 0.71])}))
        >>> abs((survival - later) / 0.01 - density).item() < 0.02  # f = -dS/dt
        True
    """

    def split(outputs: Array) -> tuple[Array, ...]:
        return softly_bounded(outputs[..., 0], MEDIAN_LIMIT), softly_bounded(outputs[..., 1], 2.5)

    return censored_waits(_weibull_family("weibull", 2, split), scale, min_wait, dtype)


@cached_factory
def exponential(
    *, scale: float = 1.0, min_wait: float = MIN_WAIT, dtype: DType = jnp.float32
) -> Distribution:
    r"""Exponential waiting times, in everything `weibull` with k = 1.

        log f(t | h) = -log λ - t / λ,     log S(t | h) = -t / λ

    with λ = scale · exp(W h + b).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.exponential()
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden, censored = jnp.ones((2, 4)), jnp.array([False, True])
        >>> event = {"wait": jnp.array([0.7, 0.7]), "censored": censored}
        >>> log_prob = jax.jit(family.log_prob)
        >>> density, survival = jnp.exp(log_prob(params, hidden, event))
        >>> _, later = jnp.exp(log_prob(params, hidden, event | {"wait": jnp.array([0.7, 0.71])}))
        >>> abs((survival - later) / 0.01 - density).item() < 0.02  # f = -dS/dt
        True
    """

    def split(outputs: Array) -> tuple[Array, ...]:
        location = softly_bounded(outputs[..., 0], MEDIAN_LIMIT)
        return location, jnp.zeros_like(location)

    return censored_waits(_weibull_family("exponential", 1, split), scale, min_wait, dtype)


def _weibull_family(
    name: str, num_parameters: int, split: Callable[[Array], tuple[Array, ...]]
) -> WaitFamily:
    def log_cumulative_hazard(y: Array, location: Array, log_shape: Array) -> Array:
        """Log of u = (t / λ)^k = -log S, bounded where float32 ends."""
        return jnp.minimum(jnp.exp(log_shape) * (y - location), 80)

    def log_density(y: Array, location: Array, log_shape: Array) -> Array:
        log_u = log_cumulative_hazard(y, location, log_shape)
        return log_shape + log_u - jnp.exp(log_u)

    def log_survival(y: Array, location: Array, log_shape: Array) -> Array:
        return -jnp.exp(log_cumulative_hazard(y, location, log_shape))

    def log_cdf(y: Array, location: Array, log_shape: Array) -> Array:
        log_u = log_cumulative_hazard(y, location, log_shape)
        large = jnp.maximum(log_u, -7)
        exact = jnp.log(-jnp.expm1(-jnp.exp(large)))
        return jnp.where(log_u < -7, log_u - 0.5 * jnp.exp(jnp.minimum(log_u, -7)), exact)

    def draw(key: PRNGKey, temperature: Array, location: Array, log_shape: Array) -> Array:
        tempered = jnp.where(temperature > 0, temperature, 1)
        log_u = jax.random.loggamma(key, 1 / tempered) + jnp.log(tempered)
        return location + jnp.where(temperature > 0, log_u, 0) * jnp.exp(-log_shape)

    def mode(location: Array, log_shape: Array) -> Array:
        return location

    bias = (0.0,) * num_parameters
    return WaitFamily(name, bias, split, log_density, log_survival, log_cdf, draw, mode)
