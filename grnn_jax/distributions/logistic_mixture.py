"""A discretised mixture of logistics over 2^n ordered levels: pixels, audio samples."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Int, Params, PRNGKey
from grnn_jax.distributions.acceptance import accept_numbers, within
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.layer import apply_layer, init_layer
from grnn_jax.distributions.standardize import LARGEST, bounded, column
from grnn_jax.distributions.truncation import truncate
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align

MIN_SCALE = 0.02
"""Softly, the smallest scale s of a component, in levels; the largest is the number of levels."""


@cached_factory
def logistic_mixture(
    num_levels: int, *, num_components: int = 10, dtype: DType = jnp.float32
) -> Distribution:
    r"""Mixture of K logistic distributions, each rounded to the nearest level.

        p(x | h) = Σ_i π_i [F((x + 1/2 - m_i) / s_i) - F((x - 1/2 - m_i) / s_i)],     F sigmoid
        π = softmax(o),     m = (N - 1)(μ + 1)/2,     log s = log((N - 1)/2) + σ

    o, μ and σ are outputs of a linear layer of h; μ in [-1, 1] is a level scaled to [-1, 1].
    The first and the last level hold what lies beyond them, so that p sums to 1. With
    a, b = (x ± 1/2 - m) / s the difference is formed without cancellation, as

        log(F(a) - F(b)) = log F(a) + log F(-b) + log(1 - exp(-1/s))

    s is bounded softly to [0.02, N] levels.

    Args:
        num_levels: N = 2^n, n in 1..16.
        num_components: K.
        dtype: compute dtype of the output matmul; everything after it is float32.

    Returns:
        The distribution; events are integers in [0, N), any other has log-probability NaN. They
        enter the network as the level scaled to [-1, 1] and, for each j in 2..n, the sine and
        cosine of its phase in a period of 2^j levels, from which every level can be told.
        `sample` takes `temperature`, which divides o and multiplies s, so that the tails are
        those of p^(1/temperature); 0 gives `mode`: the level nearest to the location m of the
        component of largest π_i, which is approximate.

    Raises:
        ValueError: for an argument outside its range.

    Reference: T. Salimans, A. Karpathy, X. Chen, D. P. Kingma, "PixelCNN++", ICLR 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.logistic_mixture(16, num_components=2)
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden = jnp.ones((16, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, jnp.arange(16))
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    if num_levels not in [2**n for n in range(1, 17)]:
        raise ValueError(f"num_levels must be a power of two from 2 to 65536, got {num_levels}")
    K = num_components
    if K < 1:
        raise ValueError(f"num_components must be at least 1, got {K}")
    spec = jax.ShapeDtypeStruct((), jnp.int32)
    accept = accept_numbers(spec, within(0, num_levels))
    half_range = (num_levels - 1) / 2
    periods = 2 ** np.arange(2, num_levels.bit_length())

    def init(key: PRNGKey, hidden_size: int) -> Params:
        # Components start side by side, each as wide as its share of the levels.
        location = jnp.linspace(-1, 1, K + 1)[:-1] + 1 / K
        scale = jnp.full((K,), -math.log(K))
        bias = jnp.concatenate([jnp.zeros((K,)), location, scale]).astype(jnp.float32)
        return init_layer(key, hidden_size, bias)

    def components(params: Params, hidden: Float[Array, "... H"]) -> tuple[Array, Array, Array]:
        """o, m and log s, each [..., K]; m and s in levels."""
        out = jnp.clip(apply_layer(params, hidden, dtype), -LARGEST, LARGEST)
        logits, location, scale = jnp.split(out, 3, -1)
        log_scale = bounded(scale + math.log(half_range), math.log(MIN_SCALE), math.log(num_levels))
        return logits, half_range * (location + 1), log_scale

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        event, valid = accept(event)
        logits, location, log_scale = components(params, hidden)
        level = jnp.clip(event, 0, num_levels - 1)[..., None]
        precision = jnp.exp(-log_scale)
        above = (level + 0.5 - location) * precision
        below = (level - 0.5 - location) * precision
        log_below_edge = jax.nn.log_sigmoid(above)
        log_above_edge = jax.nn.log_sigmoid(-below)
        inside = log_below_edge + log_above_edge + jnp.log(-jnp.expm1(-precision))
        nats = jnp.where(
            level == 0,
            log_below_edge,
            jnp.where(level == num_levels - 1, log_above_edge, inside),
        )
        nats = jax.nn.logsumexp(jax.nn.log_softmax(logits) + nats, -1)
        return jnp.where(valid, nats, jnp.nan)

    def nearest_level(location: Array, index: Array) -> Array:
        chosen = jnp.take_along_axis(location, index[..., None], -1)[..., 0]
        return jnp.round(jnp.clip(chosen, 0, num_levels - 1)).astype(jnp.int32)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
    ) -> Int[Array, " B"]:
        logits, location, log_scale = components(params, hidden)
        keys = jax.vmap(jax.random.split)(key)
        index = jax.vmap(jax.random.categorical)(keys[:, 0], truncate(logits, temperature))
        noise = jax.vmap(lambda row: jax.random.logistic(row, (1,), logits.dtype))(keys[:, 1])
        spread = jnp.exp(log_scale) * column(temperature, log_scale)
        return nearest_level(location + noise * spread, index)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Int[Array, "..."]:
        logits, location, _ = components(params, hidden)
        return nearest_level(location, logits.argmax(-1))

    def encode(params: Params, event: Int[Array, "..."]) -> Float[Array, "... X"]:
        level = jnp.clip(event, 0, num_levels - 1)[..., None]
        dtype = params["bias"].dtype
        cycle = align(periods, level)
        phase = (2 * math.pi) * ((level % cycle).astype(dtype) + 0.5) / cycle
        scaled = level.astype(dtype) / half_range - 1
        return jnp.concatenate([scaled, jnp.sin(phase), jnp.cos(phase)], -1)

    return Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, 3 * K),
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=1 + 2 * len(periods),
        event=spec,
        name="logistic_mixture",
        options=("temperature",),
        accept=accept,
    )
