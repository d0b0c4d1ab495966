"""The output layer that most families read their parameters from."""

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align


def init_layer(
    key: PRNGKey, hidden_size: int, bias: Array, gain: float | np.ndarray = 1.0
) -> Params:
    """A linear layer with LeCun-normal weights; `gain` multiplies the weights of each output."""
    kernel = jax.nn.initializers.lecun_normal()(key, (hidden_size, bias.size), jnp.float32)
    return {"kernel": kernel * align(jnp.asarray(gain, jnp.float32), kernel), "bias": bias}


def apply_layer(
    params: Params, hidden: Float[Array, "... H"], dtype: DType
) -> Float[Array, "... O"]:
    """W h + b of a layer's "kernel" and "bias", the product in the compute dtype."""
    outputs = dense(hidden, params["kernel"], dtype)
    return outputs + align(params["bias"], outputs)
