"""Independent bits with output weights shared across sites, for sitewise cells."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.bits import independent_bits, initial_bias
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align
from grnn_jax.ops.sites import neighbour_kernel, see_neighbours

PERIOD = 12
"""Classes of distances that sites see the sums over: semitones of an octave."""


@cached_factory
def sitewise_bernoulli(
    size: int,
    *,
    mean: float = 0.5,
    window: int = 24,
    site_bias: bool = False,
    with_input: bool = False,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""N bits, independent given the past, the n-th read from the n-th site of the hidden state.

        log p(x_{t+1} | h) = Σ_n log σ(±o_n),      o_n = b + w · h[n]
                                                   (+ b_n) (+ Σ_k r_k z_k[n])

    with one w for all sites; z[n] is what site n sees of the last event: the bits at most `window`
    from it, and the numbers of bits set at each distance modulo 12.

    Args:
        size: N.
        mean: part of all bits that is set in the training data; the bias starts there.
        window: see above.
        site_bias: learns a bias b_n of each site.
        with_input: the encoded last event stands behind the hidden state, as `make_model` puts it
            there with `skip_input`, and is read too.
        dtype: compute dtype of the products; logits and log-probabilities are float32.

    Returns:
        The distribution; events are arrays [N] of zeros and ones, any other number counts as one.
        `sample` takes `temperature`, which divides the logits.

    Raises:
        ValueError: for a number out of range; from `init`, for a hidden size that is not that of N
            sites. `make_model` names a cell that is not shared over N sites.

    Reference: D. D. Johnson, "Generating polyphonic music using tied parallel networks",
    EvoMUSART 2017.

    Example:
        >>> import itertools
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.sitewise_bernoulli(3)
        >>> params = family.init(jax.random.key(0), 6)
        >>> events = jnp.array(list(itertools.product((0, 1), repeat=3)), jnp.uint8)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((8, 6)), events)  # two units a site
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    bias = initial_bias(size, mean)
    split = split_sites(size, with_input)
    neighbours = window_kernel(size, window)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        units = site_units(hidden_size, size, with_input)
        params = {
            "kernel": jax.nn.initializers.lecun_normal()(key, (units, 1), jnp.float32),
            "bias": jnp.full((1,), bias, jnp.float32),
        }
        if site_bias:
            params["site_bias"] = jnp.zeros((size,), jnp.float32)
        if with_input:
            seen = neighbours.shape[-1] // size
            params["input_kernel"] = jnp.zeros((seen, 1), jnp.float32)
        return params

    def logits(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... N"]:
        sites, before = split(hidden)
        scores = apply_layer(params, sites, dtype)
        if before is not None:
            seen = see_neighbours(before, neighbours, dtype)
            scores += dense(seen, params["input_kernel"], dtype)
        scores = scores[..., 0]
        return scores + align(params["site_bias"], scores) if site_bias else scores

    return independent_bits("sitewise_bernoulli", size, init, logits, num_sites=size)


def site_units(hidden_size: int, num_sites: int, with_input: bool) -> int:
    """Units of a site; raises ValueError where the hidden state is not one of N sites."""
    units, rest = divmod(hidden_size, num_sites)
    units -= with_input
    if rest or units < 1:
        beside = f" and an input of {num_sites}" if with_input else ""
        raise ValueError(
            f"hidden_size must be that of {num_sites} sites{beside}, a multiple of {num_sites}, "
            f"got {hidden_size}"
        )
    return units


def split_sites(num_sites: int, with_input: bool) -> Callable[[Array], tuple[Array, Array | None]]:
    """The function from h [..., H] to its sites [..., N, D] and the last event [..., N] or None."""

    def split(hidden: Float[Array, "... H"]) -> tuple[Array, Array | None]:
        before = hidden[..., -num_sites:] if with_input else None
        sites = hidden[..., :-num_sites] if with_input else hidden
        return sites.reshape(*sites.shape[:-1], num_sites, -1), before

    return split


def window_kernel(num_sites: int, window: int) -> Float[np.ndarray, "N NF"]:
    """What a site sees of the last event, see `neighbour_kernel`."""
    if window < 0:
        raise ValueError(f"window must be at least 0, got {window}")
    return neighbour_kernel(num_sites, range(-window, window + 1), PERIOD)
