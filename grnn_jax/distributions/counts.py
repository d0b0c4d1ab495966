"""Counts 0, 1, 2, …: Poisson, negative binomial, and both with more zeros."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, DType, Float, Int, Params, PRNGKey
from grnn_jax.distributions.acceptance import accept_numbers
from grnn_jax.distributions.base import Distribution
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align
from grnn_jax.ops.special import log_gamma

LOG_RATE_LIMIT = 20.0
"""Softly, |log(rate / mean)| stays below this."""

LOG_DISPERSION_LIMIT = 12.0
"""Softly, |log dispersion| stays below this."""

LARGEST_RATE = 2e9
"""Samples are drawn with at most this rate, so that they are int32."""

Mean = float | np.floating | Sequence[float] | AnyArray


@cached_factory
def poisson(size: int, *, mean: Mean = 1.0, dtype: DType = jnp.float32) -> Distribution:
    r"""D independent Poisson counts.

        log p(x | h) = Σ_d x_d log λ_d - λ_d - log x_d!,     λ = mean · exp(W h + b)

    W h + b is bounded softly (to ±20), and the sum is formed from the deviance, so that it is
    exact to float32 for counts in the millions. Samples of rates above 1e4 come from a
    Cornish-Fisher expansion, whose distribution function is right to 1e-5, for the rate that
    float32 holds (rates up to 2e9, where every int32 can occur). There is no temperature.

    Args:
        size: D.
        mean: mean of the counts in the training data, a number or D of them: the initial rate,
            and the scale of the encoding log(1 + x) / (1 + log(1 + mean)).
        dtype: compute dtype of the matmul.

    Returns:
        The distribution; an event is int32 [D]; anything that is no count, as -1 and 2.9, has
        log-probability NaN. `mode` is exact.

    Raises:
        ValueError: for a size below 1, or a mean that is not positive or not of length D.

    Reference: C. Loader, "Fast and accurate computation of binomial probabilities", 2000.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.poisson(1, mean=3.0)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.arange(200)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((200, 4)), x[:, None])
        >>> float(jnp.exp(nats).sum().round(3))
        1.0
    """
    return _counts("poisson", size, mean, dtype, overdispersed=False, zero_inflated=False)


@cached_factory
def negative_binomial(size: int, *, mean: Mean = 1.0, dtype: DType = jnp.float32) -> Distribution:
    r"""D independent negative binomial counts, by mean λ and dispersion α.

        log p(x | h) = Σ_d log Γ(x + r) - log Γ(r) - log x! - r log(1 + α λ) - x log(1 + r / λ)
        r = 1 / α,   λ = mean · exp(W h + b),   α = exp(W' h + b');   variance λ + α λ²

    The limit α → 0 is the Poisson distribution. Arguments, bounds (log α softly to ±12) and
    everything else are those of `poisson`.

    Reference: J. M. Hilbe, "Negative binomial regression", 2nd edition, 2011.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.negative_binomial(1)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.arange(200)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((200, 4)), x[:, None])
        >>> float(jnp.exp(nats).sum().round(3))
        1.0
    """
    return _counts("negative_binomial", size, mean, dtype, overdispersed=True, zero_inflated=False)


@cached_factory
def zero_inflated_poisson(
    size: int, *, mean: Mean = 1.0, dtype: DType = jnp.float32
) -> Distribution:
    r"""D independent counts that are 0 with probability ρ(h), else `poisson`.

        p(x | h) = Π_d ρ_d [x_d = 0] + (1 - ρ_d) Poisson(x_d; λ_d),     ρ = sigmoid(W' h + b')

    Arguments and everything else are those of `poisson`.

    Reference: D. Lambert, "Zero-inflated Poisson regression, with an application to defects in
    manufacturing", Technometrics 34, 1992.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.zero_inflated_poisson(1, mean=3.0)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.arange(200)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((200, 4)), x[:, None])
        >>> float(jnp.exp(nats).sum().round(3))
        1.0
    """
    return _counts(
        "zero_inflated_poisson", size, mean, dtype, overdispersed=False, zero_inflated=True
    )


@cached_factory
def zero_inflated_negative_binomial(
    size: int, *, mean: Mean = 1.0, dtype: DType = jnp.float32
) -> Distribution:
    """As `zero_inflated_poisson`, with `negative_binomial` in place of the Poisson.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.zero_inflated_negative_binomial(1)
        >>> params = family.init(jax.random.key(0), 4)
        >>> x = jnp.arange(200)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((200, 4)), x[:, None])
        >>> float(jnp.exp(nats).sum().round(3))
        1.0
    """
    return _counts(
        "zero_inflated_negative_binomial", size, mean, dtype, overdispersed=True, zero_inflated=True
    )


def _counts(
    family: str, size: int, mean: Mean, dtype: DType, *, overdispersed: bool, zero_inflated: bool
) -> Distribution:
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    means = np.asarray(mean, np.float32)
    if means.shape not in ((), (size,)) or not ((means > 0) & (means < np.inf)).all():
        raise ValueError(f"mean must be positive, one number or {size} of them, got {mean}")
    spec = jax.ShapeDtypeStruct((size,), jnp.int32)
    accept = accept_numbers(spec, lambda event: (event >= 0).all(-1))
    names = ["rate"] + ["dispersion"] * overdispersed + ["zero"] * zero_inflated

    def init(key: PRNGKey, hidden_size: int) -> Params:
        lecun_normal = jax.nn.initializers.lecun_normal()
        params: Params = {}
        for name, own_key in zip(names, jax.random.split(key, len(names)), strict=True):
            params[f"kernel_{name}"] = lecun_normal(own_key, (hidden_size, size), jnp.float32)
            params[f"bias_{name}"] = jnp.zeros((size,), jnp.float32)
        if zero_inflated:  # half of the counts are zeros, and the mean is the same
            params["bias_rate"] += math.log(2.0)
        return params

    def parameters(params: Params, hidden: Array) -> tuple[Array, Array | None, Array | None]:
        """Log rate, log dispersion and the logit of ρ, each [..., D]."""
        products = [dense(hidden, params[f"kernel_{n}"], dtype) for n in names]
        outputs = [p + align(params[f"bias_{n}"], p) for n, p in zip(names, products, strict=True)]
        log_rate = LOG_RATE_LIMIT * jnp.tanh(outputs[0] / LOG_RATE_LIMIT) + np.log(means)
        log_dispersion = None
        if overdispersed:
            log_dispersion = LOG_DISPERSION_LIMIT * jnp.tanh(outputs[1] / LOG_DISPERSION_LIMIT)
        return log_rate, log_dispersion, outputs[-1] if zero_inflated else None

    def count_log_prob(params: Params, hidden: Array, count: Array) -> Array:
        log_rate, log_dispersion, zero_logit = parameters(params, hidden)
        nats = _log_prob(count.astype(log_rate.dtype), log_rate, log_dispersion)
        if zero_logit is None:
            return nats
        nats = jax.nn.log_sigmoid(-zero_logit) + nats
        return jnp.where(count == 0, jnp.logaddexp(jax.nn.log_sigmoid(zero_logit), nats), nats)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Int[Array, "... D"]
    ) -> Float[Array, "..."]:
        event, valid = accept(event)
        nats = count_log_prob(params, hidden, jnp.maximum(event, 0)).sum(-1)
        return jnp.where(valid, nats, jnp.nan)

    def sample(key: Array, params: Params, hidden: Float[Array, "B H"]) -> Int[Array, "B D"]:
        draw = functools.partial(_draw, means)
        return jax.vmap(draw)(key, *parameters(params, hidden))

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Int[Array, "... D"]:
        log_rate, log_dispersion, zero_logit = parameters(params, hidden)
        rate = jnp.exp(log_rate)
        if log_dispersion is not None:
            rate = rate * jnp.maximum(1 - jnp.exp(log_dispersion), 0)
        count = jnp.floor(jnp.minimum(rate, LARGEST_RATE)).astype(jnp.int32)
        if zero_logit is None:
            return count
        zero = count_log_prob(params, hidden, jnp.zeros_like(count))
        return jnp.where(count_log_prob(params, hidden, count) > zero, count, 0)

    def encode(params: Params, event: Int[Array, "... D"]) -> Float[Array, "... X"]:
        count = jnp.maximum(event, 0).astype(params["bias_rate"].dtype)
        return jnp.log1p(count) / (1 + np.log1p(means))

    return Distribution(
        init, log_prob, sample, mode, encode, size, spec, name=family, accept=accept
    )


def _log_prob(count: Array, log_rate: Array, log_dispersion: Array | None) -> Array:
    """The sum of the docstrings, without the large terms that cancel in it."""
    rate, above = jnp.exp(log_rate), jnp.maximum(count, 1)
    shift = jnp.log(above) - log_rate
    # log x! = x log x - x + log x + remainder(x)
    factorial = _remainder(above) + jnp.log(above)
    if log_dispersion is None:
        return jnp.where(count == 0, -rate, -above * _deviance(shift) - factorial)
    dispersion, r = jnp.exp(log_dispersion), jnp.exp(-log_dispersion)
    ratio = jnp.log1p(dispersion * rate) - jnp.log1p(dispersion * above)
    nats = -above * _deviance(shift + ratio) - r * _deviance(ratio)
    nats = nats + _remainder(above + r) - _remainder(r) - factorial
    return jnp.where(count == 0, -r * jnp.log1p(dispersion * rate), nats)


def _deviance(log_ratio: Array) -> Array:
    """exp(-a) - 1 + a, which is near a²/2 where a is small."""
    return jnp.expm1(-log_ratio) + log_ratio


def _remainder(z: Array) -> Array:
    """Log Γ(z) - z log z + z: Stirling's series from z = 8 on."""
    small, large = jnp.minimum(z, 8), jnp.maximum(z, 8)
    inverse = 1 / large
    tail = inverse * (1 / 12 - inverse**2 * (1 / 360 - inverse**2 / 1260))
    series = 0.5 * jnp.log(2 * math.pi * inverse) + tail
    return jnp.where(z < 8, log_gamma(small) - small * jnp.log(small) + small, series)


def _draw(
    means: np.ndarray,
    key: PRNGKey,
    log_rate: Array,
    log_dispersion: Array | None,
    zero_logit: Array | None,
) -> Int[Array, " D"]:
    gamma_key, count_key, normal_key, zero_key = jax.random.split(key, 4)
    if log_dispersion is not None:  # a Poisson count whose rate is Gamma(r, r / λ)
        log_gamma = jax.random.loggamma(gamma_key, jnp.exp(-log_dispersion))
        log_rate = log_rate + log_gamma + log_dispersion
    rate = jnp.minimum(jnp.exp(log_rate), LARGEST_RATE)
    count = jax.random.poisson(count_key, jnp.minimum(rate, 1e4), dtype=jnp.int32)
    # jax.random.poisson compares log-probabilities that float32 cannot tell apart at 1e6.
    normal = jax.random.normal(normal_key, rate.shape, rate.dtype)
    # The logarithm of a large rate, rounded, moves the rate by more than a count.
    large = jnp.minimum(means * jnp.exp(log_rate - np.log(means)), LARGEST_RATE)
    # Added up as integers: above 2^24 float32 has no odd ones.
    whole = jnp.floor(large)
    residual = (large - whole) + jnp.sqrt(large) * normal + (normal**2 - 1) / 6
    expansion = whole.astype(jnp.int32) + jnp.round(residual).astype(jnp.int32)
    count = jnp.where(rate > 1e4, expansion, count)
    if zero_logit is None:
        return count
    return jnp.where(jax.random.bernoulli(zero_key, jax.nn.sigmoid(zero_logit)), 0, count)
