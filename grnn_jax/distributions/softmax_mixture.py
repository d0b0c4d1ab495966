"""A mixture of softmaxes: classes whose log-probabilities are no linear function of h."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Int, Params, PRNGKey
from grnn_jax.distributions.acceptance import accept
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.categorical import LOGITS_LIMIT, categorical
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.distributions.softmax import class_log_prob
from grnn_jax.distributions.truncation import truncate
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense


@cached_factory
def mixture_of_softmaxes(
    num_classes: int,
    *,
    end: int | None = None,
    embedding_size: int = 0,
    num_components: int = 4,
    dtype: DType = jnp.float32,
    logits_limit: int = LOGITS_LIMIT,
) -> Distribution:
    r"""Mixture of softmaxes over one output layer.

        p(x | h) = Σ_k π_k(h) softmax(W tanh(P_k h) + b)_x,     π(h) = softmax(Q h)

    A single softmax has log-probabilities of rank at most H + 1 over all contexts; the mixture
    has no such bound. It costs `num_components` times the logits. As in `categorical`, the loss
    over [B, T] events is computed in chunks over time where it would hold more than
    `logits_limit` logits.

    Args:
        num_classes: V, the end class included.
        end: the class that ends a sequence; None if the end is not modelled.
        embedding_size: X of a learned embedding of the inputs; 0 for one-hot.
        num_components: K softmaxes.
        dtype: compute dtype of the matmuls; logits and log-probabilities are float32.
        logits_limit: see above.

    Returns:
        The distribution; events are integers in [0, V), any other has log-probability NaN.
        `sample` takes the options of `truncate`, which act on the mixed probabilities.

    Raises:
        ValueError: for sizes that do not fit.

    Reference: Z. Yang et al., "Breaking the softmax bottleneck: a high-rank RNN language
    model", ICLR 2018.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.mixture_of_softmaxes(5, num_components=2)
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden = jnp.ones((5, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, jnp.arange(5))
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}")
    softmax = categorical(num_classes, embedding_size=embedding_size, end=end, dtype=dtype)
    assert softmax.token_table is not None

    def init(key: PRNGKey, hidden_size: int) -> Params:
        softmax_key, components_key, weights_key = jax.random.split(key, 3)
        lecun_normal = jax.nn.initializers.lecun_normal()
        return softmax.init(softmax_key, hidden_size) | {
            "kernel_components": lecun_normal(
                components_key, (hidden_size, num_components * hidden_size), jnp.float32
            ),
            "kernel_weights": lecun_normal(weights_key, (hidden_size, num_components), jnp.float32),
        }

    def components(
        params: Params, hidden: Float[Array, "... H"]
    ) -> tuple[Float[Array, "... K"], Float[Array, "... K V"]]:
        """Log π and the logits of every component."""
        log_weights = jax.nn.log_softmax(dense(hidden, params["kernel_weights"], dtype))
        projected = jnp.tanh(dense(hidden, params["kernel_components"], dtype))
        projected = projected.reshape(*hidden.shape[:-1], num_components, hidden.shape[-1])
        return log_weights, apply_layer(params, projected, dtype)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        event, valid = accept(softmax, event)
        log_weights, scores = components(params, hidden)
        nats = class_log_prob(scores, event[..., None])
        return jnp.where(valid, jax.nn.logsumexp(log_weights + nats, -1), jnp.nan)

    def mixed(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... V"]:
        log_weights, scores = components(params, hidden)
        return jax.nn.logsumexp(log_weights[..., None] + jax.nn.log_softmax(scores), -2)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
        top_k: int | Array | None = None,
        top_p: float | Array | None = None,
        min_p: float | Array | None = None,
        typical_p: float | Array | None = None,
    ) -> Int[Array, " B"]:
        scores = truncate(mixed(params, hidden), temperature, top_k, top_p, min_p, typical_p)
        return jax.vmap(jax.random.categorical)(key, scores).astype(jnp.int32)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Int[Array, "..."]:
        return mixed(params, hidden).argmax(-1).astype(jnp.int32)

    return softmax._replace(
        init=init,
        log_prob=cut_in_time(log_prob, num_components * num_classes, logits_limit),
        sample=sample,
        mode=mode,
        logits=mixed,
        name="mixture_of_softmaxes",
    )
