"""Pen movements: an offset and the state of the pen, as in handwriting and sketches."""

import math

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, DType, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.distributions.acceptance import cast
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.gaussian_mixture import gaussian_mixture
from grnn_jax.distributions.layer import apply_layer, init_layer
from grnn_jax.distributions.truncation import truncate
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align

NUM_PEN_STATES = 3
END_OF_DRAWING = 2


@cached_factory
def pen(
    *,
    num_components: int = 20,
    scale: float = 1.0,
    min_scale: float = 1e-4,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""A categorical pen state, and a mixture of bivariate Gaussians for the offset.

        log p(x | h) = log p(pen | h) + [pen != 2] log Σ_k π_k N(offset; μ_k, Σ_k)

    The pen is 0 while drawing, 1 where it is lifted after this stroke, 2 at the end of the
    drawing. The end has no offset: any given with it is ignored, and samples hold zeros. Offset
    and pen are independent given h, as in the references; h knows the previous pen state.
    The components have correlations; they are `gaussian_mixture` with full covariance.

    Args:
        num_components: K.
        scale: typical size of an offset in the training data, the same for both axes.
        min_scale: smallest conditional standard deviation, in units of `scale`.
        dtype: compute dtype of the output matmuls; everything after them is float32.

    Returns:
        The distribution; events are dict(offset: float32 [2], pen: int32), a pen outside
        {0, 1, 2} has log-probability NaN. log_prob is a log density, save at the end of the
        drawing, where it is the logarithm of a probability. `sample` takes
        - temperature: divides the logits of components and pen, and multiplies the covariances
          (Ha & Eck 2018); 0 gives `mode`.
        - bias: b >= 0 multiplies the logits of the components by 1 + b and standard deviations
          by exp(-b) (Graves 2013, equations 61 and 62).
        `mode` is the most probable pen state, with the mean of the heaviest component.

    Raises:
        ValueError: for an argument outside its range.

    References: A. Graves, "Generating sequences with recurrent neural networks", 2013. D. Ha,
    D. Eck, "A neural representation of sketch drawings", ICLR 2018.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.pen(num_components=2)
        >>> params = family.init(jax.random.key(0), 4)
        >>> keys = jax.random.split(jax.random.key(1), 6)
        >>> event = jax.jit(family.sample)(keys, params, jnp.ones((6, 4)))
        >>> event["offset"].shape, event["pen"].shape
        ((6, 2), (6,))
        >>> bool((event["offset"][family.is_end(event)] == 0).all())
        True
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    offsets = gaussian_mixture(
        2,
        num_components=num_components,
        covariance="full",
        scale=(scale, scale),
        min_scale=min_scale,
        dtype=dtype,
    )

    def accept(event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        state, whole = cast(event["pen"], jnp.int32)
        offset, finite = cast(event["offset"], jnp.float32)
        valid = whole & (state >= 0) & (state < NUM_PEN_STATES)
        valid = valid & (finite.all(-1) | (state == END_OF_DRAWING))
        return {"offset": offset, "pen": state}, valid

    def init(key: PRNGKey, hidden_size: int) -> Params:
        pen_key, offset_key = jax.random.split(key)
        zeros = jnp.zeros((NUM_PEN_STATES,), jnp.float32)
        return {
            "pen": init_layer(pen_key, hidden_size, zeros),
            "offset": offsets.init(offset_key, hidden_size),
        }

    def pen_logits(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... 3"]:
        return apply_layer(params["pen"], hidden, dtype)

    def make_event(offset: Float[Array, "... 2"], state: Int[Array, "..."]) -> dict[str, Array]:
        end = jnp.equal(state, END_OF_DRAWING)
        return {"offset": jnp.where(end[..., None], 0, offset), "pen": state}

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: dict[str, Array]
    ) -> Float[Array, "..."]:
        event = make_event(event["offset"], event["pen"])
        state = event["pen"]
        chosen = align(jnp.arange(NUM_PEN_STATES), state[..., None]) == state[..., None]
        nats = jnp.where(chosen, jax.nn.log_softmax(pen_logits(params, hidden)), 0).sum(-1)
        offset_nats = offsets.log_prob(params["offset"], hidden, event["offset"])
        nats = nats + jnp.where(is_end(event), 0, offset_nats)
        return jnp.where((state >= 0) & (state < NUM_PEN_STATES), nats, jnp.nan)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
        bias: float | Array = 0.0,
    ) -> dict[str, Array]:
        keys = jax.vmap(jax.random.split)(key)
        logits = truncate(pen_logits(params, hidden), temperature)
        state = jax.vmap(jax.random.categorical)(keys[:, 0], logits).astype(jnp.int32)
        offset = offsets.sample(
            keys[:, 1], params["offset"], hidden, temperature=temperature, bias=bias
        )
        return make_event(offset, state)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> dict[str, Array]:
        state = pen_logits(params, hidden).argmax(-1).astype(jnp.int32)
        return make_event(offsets.mode(params["offset"], hidden), state)

    def encode(params: Params, event: dict[str, Array]) -> Float[Array, "... 5"]:
        event = make_event(event["offset"], event["pen"])
        offset = offsets.encode(params["offset"], event["offset"])
        state = jax.nn.one_hot(event["pen"], NUM_PEN_STATES, dtype=offset.dtype)
        return jnp.concatenate([offset, state], -1)

    def is_end(event: dict[str, Array]) -> Bool[Array, "..."]:
        return jnp.equal(event["pen"], END_OF_DRAWING)

    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=2 + NUM_PEN_STATES,
        event={
            "offset": jax.ShapeDtypeStruct((2,), jnp.float32),
            "pen": jax.ShapeDtypeStruct((), jnp.int32),
        },
        is_end=is_end,
        is_density=True,
        name="pen",
        options=("temperature", "bias"),
        accept=accept,
    )
