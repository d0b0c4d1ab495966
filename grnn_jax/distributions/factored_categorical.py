"""Several categorical fields in one event, each given the fields before it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Int, Params, PRNGKey
from grnn_jax.distributions.acceptance import accept_numbers, within
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.categorical import LOGITS_LIMIT
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.distributions.softmax import class_log_prob
from grnn_jax.distributions.truncation import TRUNCATION_OPTIONS, truncate
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.lookup import lookup


@cached_factory
def factored_categorical(
    sizes: Sequence[int],
    *,
    num_units: int = 128,
    dtype: DType = jnp.float32,
    logits_limit: int = LOGITS_LIMIT,
) -> Distribution:
    r"""Autoregressive categorical distribution over the F fields of an event.

        log p(x | h) = Σ_f log softmax(o_f)[x_f]
        o_f = W_f relu(P_f h + b_f + Σ_{g<f} E_{gf}[x_g]) + b'_f

    Any dependence between the fields of one event can be learned; the log-probability is exact
    and takes one pass. As in `categorical`, the loss over [B, T] events is computed in chunks
    over time where it would hold more than about `logits_limit` logits and hidden units.

    Args:
        sizes: number of classes of each field, in the order of the factors.
        num_units: width U of the hidden layer of each field.
        dtype: compute dtype of the matmuls; logits and log-probabilities are float32.
        logits_limit: see above.

    Returns:
        The distribution; an event is int32 [F] with x_f in [0, sizes[f]), any other has
        log-probability NaN. `sample` takes the options of `truncate`, which act on each
        field given the ones drawn before it; temperature 0 is `mode`. `mode` takes the most
        probable class field by field (greedy), which need not be the most probable event.
        An event is encoded as its fields' one-hot vectors side by side.

    Raises:
        ValueError: for sizes or num_units below 1, or no field.

    Reference: Y. Bengio, S. Bengio, "Modeling high-dimensional discrete data with multi-layer
    neural networks", NeurIPS 1999.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.factored_categorical((2, 3), num_units=8)
        >>> params = family.init(jax.random.key(0), 4)
        >>> events = jnp.array([[a, b] for a in range(2) for b in range(3)])
        >>> hidden = jnp.ones((6, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, events)
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    sizes = tuple(sizes)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be one or more numbers of at least 1, got {sizes}")
    if num_units < 1:
        raise ValueError(f"num_units must be at least 1, got {num_units}")
    num_fields = len(sizes)
    spec = jax.ShapeDtypeStruct((num_fields,), jnp.int32)

    accept = accept_numbers(spec, lambda event: within(0, np.asarray(sizes))(event).all(-1))

    def init(key: PRNGKey, hidden_size: int) -> Params:
        lecun_normal = jax.nn.initializers.lecun_normal()
        hidden_key, *keys = jax.random.split(key, 1 + num_fields)
        params: Params = {
            "kernel": lecun_normal(hidden_key, (hidden_size, num_fields * num_units), jnp.float32),
            "bias": jnp.zeros((num_fields * num_units,), jnp.float32),
        }
        for field, size in enumerate(sizes):
            kernel_key, embedding_key = jax.random.split(keys[field])
            params[f"field_{field}"] = {
                "kernel": lecun_normal(kernel_key, (num_units, size), jnp.float32),
                "bias": jnp.zeros((size,), jnp.float32),
            }
            later = num_fields - 1 - field
            if later:
                # A unit of the last field receives F - 1 rows: their sum has variance 1.
                scale = (num_fields - 1) ** -0.5
                params[f"field_{field}"]["embedding"] = scale * jax.random.normal(
                    embedding_key, (size, later * num_units), jnp.float32
                )
        return params

    def run(
        params: Params,
        hidden: Float[Array, "... H"],
        choose: Callable[[int, Array], Int[Array, "..."]],
    ) -> list[Array]:
        """Every field's logits in order; `choose` (field, logits) says its class."""
        units = apply_layer(params, hidden, dtype)
        rest = units.reshape(*hidden.shape[:-1], num_fields, num_units)
        all_logits = []
        for field in range(num_fields):
            own = params[f"field_{field}"]
            logits = apply_layer(own, jax.nn.relu(rest[..., 0, :]), dtype)
            all_logits.append(logits)
            chosen = choose(field, logits)
            rest = rest[..., 1:, :]
            if field < num_fields - 1:
                rest = rest + lookup(own["embedding"], chosen).reshape(rest.shape)
        return all_logits

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Int[Array, "... F"]
    ) -> Float[Array, "..."]:
        event, valid = accept(event)
        all_logits = run(params, hidden, lambda field, _: event[..., field])
        nats = jnp.zeros(event.shape[:-1], all_logits[0].dtype)
        for field, logits in enumerate(all_logits):
            nats += class_log_prob(logits, event[..., field])
        return jnp.where(valid, nats, jnp.nan)

    def draw(
        params: Params, hidden: Array, choose: Callable[[int, Array], Array]
    ) -> Int[Array, "... F"]:
        """The event whose fields `choose` picks one after another."""
        fields: list[Array] = []

        def keep(field: int, logits: Array) -> Array:
            fields.append(choose(field, logits).astype(jnp.int32))
            return fields[-1]

        run(params, hidden, keep)
        return jnp.stack(fields, -1)

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
    ) -> Int[Array, "B F"]:
        def choose(field: int, logits: Array) -> Array:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, field))(key)
            scores = truncate(logits, temperature, top_k, top_p, min_p, typical_p)
            return jax.vmap(jax.random.categorical)(keys, scores)

        return draw(params, hidden, choose)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Int[Array, "... F"]:
        return draw(params, hidden, lambda _, logits: logits.argmax(-1))

    def encode(params: Params, event: Int[Array, "... F"]) -> Float[Array, "... X"]:
        return jnp.concatenate(
            [
                jax.nn.one_hot(event[..., field], size, dtype=params["bias"].dtype)
                for field, size in enumerate(sizes)
            ],
            -1,
        )

    return Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, sum(sizes) + num_fields * num_units, logits_limit),
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=sum(sizes),
        event=spec,
        name="factored_categorical",
        options=TRUNCATION_OPTIONS,
        accept=accept,
    )
