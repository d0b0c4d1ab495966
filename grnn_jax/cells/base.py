"""The `Cell` contract, and how to build a gated cell from one pointwise function."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import (
    Array,
    Callable,
    DType,
    Float,
    Params,
    PRNGKey,
    PyTree,
    State,
)

RECURRENT_KERNEL = "recurrent_kernel"
"""Name of V in the parameters of every cell that has one."""


class Gated(NamedTuple):
    """Structure of a cell whose step is one recurrent matmul and one elementwise function.

        r_t = V h_{t-1}                 V block-diagonal over heads
        s_t = pointwise(weights, x_t, r_t, s_{t-1})

    `pointwise(weights, projected, recurrent, state) -> state` receives `projected` and
    `recurrent` as tuples of `num_gates` arrays of one common shape [..., H] and acts on every
    unit by itself, so an engine is free to choose the axes in front of H.

    Attributes:
        num_heads: heads of width D = H / num_heads; 1 is a dense V.
        num_gates: G.
        dtype: compute dtype of the recurrent matmul, see `cast_kernel`.
        recurrent_kernel: params -> V [heads, D, G·D].
        pointwise: the elementwise step.
        pointwise_weights: params -> the parameters `pointwise` reads, arrays [H] (or none).
    """

    num_heads: int
    num_gates: int
    dtype: DType
    recurrent_kernel: Callable[[Params], Float[Array, "heads D GD"]]
    pointwise: Callable[[PyTree, tuple, tuple, State], State]
    pointwise_weights: Callable[[Params], PyTree]


class Layered(NamedTuple):
    """Structure of a cell made of layers, which an engine runs over time one after another.

    Attributes:
        cells: the layers' cells, the first one nearest to the input.
        residual: whether the sum of the layers below is added to each layer's output.
        layer_norm: whether each layer's output is normalised before it is passed on.
        dropout: probability of zeroing an element of each layer's output.
        dropout_per: "step", a new mask for each step, or "sequence", one mask for all steps of
            a sequence in a window.
        recurrent_dropout: probability of zeroing an element of V, drawn once per window.
    """

    cells: tuple["Cell", ...]
    residual: bool
    layer_norm: bool
    dropout: float
    dropout_per: str
    recurrent_dropout: float


class Cell(NamedTuple):
    """A recurrent cell as a tuple of pure functions.

    Attributes:
        init: (key, input_size) -> params.
        initial_state: (params, batch_size) -> state; zeros, or the learned h_0.
        project: (params, inputs [..., X]) -> projected [..., P], the time-parallel part; row
            by row, so that the rows of an embedding table can be projected once and gathered.
        step: (params, state, projected_t [B, P]) -> (state, output [B, H]); the definition.
        hidden_size: H, the width of the output.
        gated: structure declared for the engines that can use it, or None.
        layered: likewise, for a stack of cells.
    """

    init: Callable[[PRNGKey, int], Params]
    initial_state: Callable[[Params, int], State]
    project: Callable[[Params, Array], Array]
    step: Callable[[Params, State, Array], tuple[State, Array]]
    hidden_size: int
    gated: Gated | None = None
    layered: Layered | None = None


def cast_kernel(kernel: Float[Array, "..."], dtype: DType) -> Float[Array, "..."]:
    """A kernel in the compute dtype; float32 never narrows float64 parameters (enable_x64)."""
    if jnp.dtype(dtype) == jnp.float32:
        dtype = jnp.promote_types(dtype, kernel.dtype)
    return kernel.astype(dtype)


def dense(
    inputs: Float[Array, "... X"], kernel: Float[Array, "X Y"], dtype: DType = jnp.float32
) -> Float[Array, "... Y"]:
    """Matrix product in the compute dtype, accumulated and returned in float32 or wider.

    Its gradients are products in the compute dtype too, accumulated in float32; a narrow dtype
    therefore has a gradient of its own, in reverse mode only.
    """
    if cast_kernel(kernel, dtype).dtype == kernel.dtype:
        accumulate = jnp.promote_types(kernel.dtype, jnp.float32)
        return jnp.matmul(inputs.astype(kernel.dtype), kernel, preferred_element_type=accumulate)
    return _narrow_dense(dtype, inputs, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow_dense(dtype: DType, inputs: Array, kernel: Array) -> Array:
    return jnp.matmul(
        inputs.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32
    )


def _narrow_dense_forward(dtype: DType, inputs: Array, kernel: Array) -> tuple:
    residuals = inputs.astype(dtype), kernel
    # The empty array carries the dtype of the inputs' gradient.
    return _narrow_dense(dtype, inputs, kernel), (*residuals, jnp.zeros((0,), inputs.dtype))


def _narrow_dense_backward(dtype: DType, residuals: tuple, d_outputs: Array) -> tuple:
    inputs, kernel, like = residuals
    d_outputs = d_outputs.astype(dtype)
    d_inputs = jnp.matmul(d_outputs, kernel.astype(dtype).T, preferred_element_type=jnp.float32)
    d_kernel = jnp.matmul(
        inputs.reshape(-1, kernel.shape[0]).T,
        d_outputs.reshape(-1, kernel.shape[1]),
        preferred_element_type=jnp.float32,
    )
    return d_inputs.astype(like.dtype), d_kernel.astype(kernel.dtype)


_narrow_dense.defvjp(_narrow_dense_forward, _narrow_dense_backward)


def heads_einsum(subscripts: str, left: Array, right: Array) -> Array:
    """A product over heads, accumulated and returned in float32 or wider."""
    accumulate = jnp.promote_types(left.dtype, jnp.float32)

    def narrow(left: Array, right: Array) -> Array:
        return jnp.einsum(subscripts, left, right, preferred_element_type=accumulate)

    def widened(left: Array, right: Array) -> Array:
        return jnp.einsum(subscripts, left.astype(accumulate), right.astype(accumulate))

    if left.dtype == accumulate:
        return narrow(left, right)
    # XLA's CPU backend has no batched product of bfloat16 accumulated in float32 (jax 0.12);
    # the operands are rounded already, so the widened product is the same.
    return jax.lax.platform_dependent(left, right, cpu=widened, default=narrow)


def recurrent_product(
    kernel: Float[Array, "heads D GD"],
    hidden: Float[Array, "... H"],
    num_gates: int,
    dtype: DType = jnp.float32,
) -> tuple[Float[Array, "... H"], ...]:
    """V h for a block-diagonal V, one array for each gate."""
    num_heads, width, _ = kernel.shape
    if num_heads == 1:
        return split_gates(dense(hidden, kernel[0], dtype), num_gates)
    kernel = cast_kernel(kernel, dtype)
    heads = hidden.reshape(*hidden.shape[:-1], num_heads, width).astype(kernel.dtype)
    product = heads_einsum("...nd,ndk->...nk", heads, kernel)
    gates = jnp.split(product, num_gates, axis=-1)
    return tuple(gate.reshape(hidden.shape) for gate in gates)


def split_gates(
    projected: Float[Array, "... GH"], num_gates: int
) -> tuple[Float[Array, "... H"], ...]:
    """The gates of a projected input as separate arrays.

    Gates are split before anything is added to them: XLA then fuses and vectorises the
    elementwise step, which it does not when the sum is formed first and split after.
    """
    return tuple(jnp.split(projected, num_gates, axis=-1))


def recurrent_initializer(
    key: PRNGKey, num_heads: int, head_width: int, num_gates: int
) -> Float[Array, "heads D GD"]:
    """Orthogonal V, each D x D block of each gate by itself (Saxe et al. 2014)."""
    orthogonal = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, num_heads * num_gates)
    # One after another: a batched decomposition of large blocks can stand still for ever on a CPU,
    # as if its parts waited for threads that the rest of the computation holds.
    blocks = jax.lax.map(lambda key: orthogonal(key, (head_width, head_width), jnp.float32), keys)
    blocks = blocks.reshape(num_heads, num_gates, head_width, head_width)
    return blocks.transpose(0, 2, 1, 3).reshape(num_heads, head_width, num_gates * head_width)


def gated_cell(
    *,
    hidden_size: int,
    num_heads: int,
    num_gates: int,
    num_states: int,
    pointwise: Callable[[PyTree, tuple, tuple, State], State],
    bias: Callable[[], Float[Array, " GH"]],
    pointwise_init: Callable[[], Params] = dict,
    dtype: DType = jnp.float32,
    learned_initial_state: bool = False,
) -> Cell:
    """A `Cell` from its elementwise step.

    The projected input is U x_t + b and the recurrent input is V h_{t-1}; gates are stored
    side by side in U [X, G·H], V [heads, D, G·D] and b [G·H].

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        num_gates: G.
        num_states: arrays in the recurrent state, the output first.
        pointwise: see `Gated`.
        bias: makes the initial b.
        pointwise_init: makes the parameters that `pointwise` reads besides its inputs.
        dtype: compute dtype of the matmuls.
        learned_initial_state: whether the initial state is a parameter (else zeros).

    Returns:
        The cell, with its `gated` structure declared.

    Raises:
        ValueError: if a size is not positive or num_heads does not divide hidden_size.
    """
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, got {hidden_size}")
    if num_heads < 1 or hidden_size % num_heads:
        raise ValueError(f"num_heads must divide hidden_size={hidden_size}, got {num_heads}")

    def init(key: PRNGKey, input_size: int) -> Params:
        input_key, recurrent_key = jax.random.split(key)
        params = {
            "input_kernel": jax.nn.initializers.lecun_normal()(
                input_key, (input_size, num_gates * hidden_size), jnp.float32
            ),
            RECURRENT_KERNEL: recurrent_initializer(
                recurrent_key, num_heads, hidden_size // num_heads, num_gates
            ),
            "bias": bias(),
        }
        if learned_initial_state:
            params["initial_state"] = jnp.zeros((num_states, hidden_size), jnp.float32)
        return params | pointwise_init()

    def initial_state(params: Params, batch_size: int) -> State:
        if learned_initial_state:
            rows = params["initial_state"]
        else:
            rows = jnp.zeros((num_states, hidden_size), params["bias"].dtype)
        return tuple(jnp.broadcast_to(row, (batch_size, hidden_size)) for row in rows)

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... GH"]:
        return dense(inputs, params["input_kernel"], dtype) + params["bias"]

    def recurrent_kernel(params: Params) -> Float[Array, "heads D GD"]:
        return params[RECURRENT_KERNEL]

    pointwise_names = tuple(pointwise_init())

    def pointwise_weights(params: Params) -> Params:
        return {name: params[name] for name in pointwise_names}

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        recurrent = recurrent_product(recurrent_kernel(params), state[0], num_gates, dtype)
        projected = split_gates(projected_t, num_gates)
        state = pointwise(pointwise_weights(params), projected, recurrent, state)
        return state, state[0]

    gated = Gated(num_heads, num_gates, dtype, recurrent_kernel, pointwise, pointwise_weights)
    return Cell(init, initial_state, project, step, hidden_size, gated=gated)


def concatenate_biases(hidden_size: int, *values: float) -> Float[Array, " GH"]:
    """The initial bias: one value for each gate."""
    return jnp.concatenate([jnp.full((hidden_size,), value, jnp.float32) for value in values])


def count_parameters(params: PyTree) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
