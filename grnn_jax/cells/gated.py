"""How to build a gated cell from one pointwise function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, State
from grnn_jax.cells.base import RECURRENT_KERNEL, Blocks, Cell, Gated, PointwiseFn
from grnn_jax.ops.products import dense, dense_gates, recurrent_product, split_gates
from grnn_jax.ops.ranks import align


def recurrent_initializer(
    key: PRNGKey, num_heads: int, head_width: int, num_gates: int
) -> Float[Array, "heads D GD"]:
    """Orthogonal V, each D x D block of each gate by itself (Saxe et al. 2014)."""
    orthogonal = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, num_heads * num_gates)
    # One after another: a batched decomposition of large blocks can stand still for ever on a CPU,
    # as if its parts waited for threads that the rest of the computation holds.
    blocks: Array = jax.lax.map(
        lambda key: orthogonal(key, (head_width, head_width), jnp.float32), keys
    )
    blocks = blocks.reshape(num_heads, num_gates, head_width, head_width)
    return blocks.transpose(0, 2, 1, 3).reshape(num_heads, head_width, num_gates * head_width)


def gated_cell(
    *,
    hidden_size: int,
    num_heads: int,
    num_gates: int,
    num_states: int,
    pointwise: PointwiseFn,
    bias: Callable[[], Float[Array, " GH"]],
    pointwise_init: Callable[[], Params] = dict,
    num_recurrent_gates: int | None = None,
    dtype: DType = jnp.float32,
    learned_initial_state: bool = False,
    elementwise: bool = True,
    num_additive: int = 0,
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
        num_recurrent_gates: gates of V where they are not as many as those of U; 0 for a cell
            without V, whose `pointwise` does all.
        dtype: compute dtype of the matmuls.
        learned_initial_state: whether the initial state is a parameter (else zeros).
        elementwise: see `Gated`.
        num_additive: see `Gated`.

    Returns:
        The cell, with its `gated` structure declared.

    Raises:
        ValueError: if a size is not positive, num_heads does not divide hidden_size, or
            num_additive is more than the number of recurrent gates.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import cells
        >>> def update_gate(weights, projected, recurrent, state):
        ...     z, n = (x + v for x, v in zip(projected, recurrent))
        ...     z = jax.nn.sigmoid(z)
        ...     return (z * state[0] + (1 - z) * jnp.tanh(n),)
        >>> cell = cells.gated_cell(
        ...     hidden_size=4, num_heads=1, num_gates=2, num_states=1,
        ...     pointwise=update_gate, bias=lambda: jnp.zeros(8),
        ... )
        >>> params = cell.init(jax.random.key(0), 3)
        >>> {name: params[name].shape for name in sorted(params)}
        {'bias': (8,), 'input_kernel': (3, 8), 'recurrent_kernel': (1, 4, 8)}
    """
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, got {hidden_size}")
    if num_heads < 1 or hidden_size % num_heads:
        raise ValueError(f"num_heads must divide hidden_size={hidden_size}, got {num_heads}")

    recurrent_gates = num_gates if num_recurrent_gates is None else num_recurrent_gates
    if not 0 <= num_additive <= min(num_gates, recurrent_gates):
        most = min(num_gates, recurrent_gates)
        raise ValueError(f"num_additive must be from 0 to {most}, got {num_additive}")

    def init(key: PRNGKey, input_size: int) -> Params:
        input_key, recurrent_key = jax.random.split(key)
        params = {
            "input_kernel": jax.nn.initializers.lecun_normal()(
                input_key, (input_size, num_gates * hidden_size), jnp.float32
            ),
            "bias": bias(),
        }
        if recurrent_gates:
            params[RECURRENT_KERNEL] = recurrent_initializer(
                recurrent_key, num_heads, hidden_size // num_heads, recurrent_gates
            )
        if learned_initial_state:
            params["initial_state"] = jnp.zeros((num_states, hidden_size), jnp.float32)
        return params | pointwise_init()

    def initial_state(params: Params, batch_size: int) -> State:
        if learned_initial_state:
            rows = params["initial_state"]
        else:
            rows = jnp.zeros((num_states, hidden_size), params["bias"].dtype)
        # Wide whatever the parameters: a state is the sum of many steps.
        rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
        return tuple(jnp.broadcast_to(row, (batch_size, hidden_size)) for row in rows)

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... GH"]:
        projected = dense(inputs, params["input_kernel"], dtype)
        return projected + align(params["bias"], projected)

    def project_gates(source: Blocks, inputs: Float[Array, "... X"]) -> tuple[Array, ...]:
        kernels, biases = source
        gates = dense_gates(inputs.reshape(-1, inputs.shape[-1]), kernels, dtype)
        # Barriers keep the products apart, and apart from the bias: XLA's CPU backend would join
        # them into one, whose parts it then copies out element by element.
        gates = jax.lax.optimization_barrier(gates)
        shape = (*inputs.shape[:-1], hidden_size)
        return tuple(
            (gate + align(bias, gate)).reshape(shape)
            for gate, bias in zip(gates, biases, strict=True)
        )

    def recurrent_kernel(params: Params) -> Float[Array, "heads D GD"]:
        kernel: Array = params[RECURRENT_KERNEL]
        return kernel

    pointwise_names = tuple(pointwise_init())

    def pointwise_weights(params: Params) -> Params:
        return {name: params[name] for name in pointwise_names}

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        recurrent: tuple[Array, ...] = ()
        if recurrent_gates:
            kernel = recurrent_kernel(params)
            recurrent = recurrent_product(kernel, state[0], recurrent_gates, dtype)
        projected = split_gates(projected_t, num_gates)
        state = pointwise(pointwise_weights(params), projected, recurrent, state)
        return state, state[0]

    gated = Gated(
        num_heads=num_heads,
        num_gates=recurrent_gates,
        num_inputs=num_gates,
        dtype=dtype,
        recurrent_kernel=recurrent_kernel,
        pointwise=pointwise,
        pointwise_weights=pointwise_weights,
        elementwise=elementwise,
        num_additive=num_additive,
        project_gates=project_gates,
    )
    return Cell(init, initial_state, project, step, hidden_size, gated=gated)


def concatenate_biases(hidden_size: int, *values: float) -> Float[Array, " GH"]:
    """The initial bias: one value for each gate."""
    return jnp.concatenate([jnp.full((hidden_size,), value, jnp.float32) for value in values])
