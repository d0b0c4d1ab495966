"""`unroll_sharded`: the time axis split over the devices of a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.ops.checks import check_array
from grnn_jax.ops.entry import is_hashable
from grnn_jax.recurrence.base import RunOptions, Window
from grnn_jax.recurrence.checks import check_inputs, check_state
from grnn_jax.recurrence.inputs import Inputs, Tokens, as_inputs
from grnn_jax.recurrence.unroll import run_window


def unroll_sharded(
    cell: Cell,
    params: Params,
    inputs: Float[AnyArray, "B T X"] | Tokens | Inputs,
    state: PyTree,
    *,
    mesh: Mesh,
    axis: str,
    reset: Bool[AnyArray, "B T"] | None = None,
    initial_state: PyTree | None = None,
    engine: str = "auto",
) -> tuple[Float[Array, "B T H"], PyTree]:
    r"""Runs a cell over time steps that are split over devices, in equal pieces.

    Each device projects and scans its own T / devices steps. What passes between devices is the
    product of each piece's linear maps, gathered once for each linear scan, and the step at
    either edge; the memory of a device is that of its own steps. Parameters and states are whole
    on every device. Outputs stay split, so that what follows can stay on its device too. Values
    and gradients are those of `unroll`, in reverse mode.

    Args:
        cell: a cell or a stack of cells, linear or fit for Newton's method; no dropout.
        params: its parameters.
        inputs: x, or `Tokens(indices [B, T], table [V, X])`, or `Inputs`; best split over
            `axis` already, but any way will do.
        state: the state before the first step, every array [B, ...].
        mesh: the mesh, of automatic or explicit axes; axes besides `axis` compute the same.
        axis: the mesh axis over whose devices time is split.
        reset: True where a row restarts from `initial_state` before the step.
        initial_state: what a reset restores; the cell's own initial state by default.
        engine: "linear" or "newton"; "auto" takes the one that fits each layer.

    Returns:
        outputs h [B, T, H], split over `axis`, and the state after the last step.

    Raises:
        ValueError: if the mesh has no such axis, its size does not divide T, shapes do not fit, or
            the engine cannot run this cell on split steps.

    Reference: E. Martin, C. Cundy, "Parallelizing linear recurrent neural nets over sequence
    length", ICLR 2018, for the scan of scans.

    Example:
        >>> import grnn_jax
        >>> from grnn_jax import cells
        >>> mesh = Mesh(jax.devices(), ("time",))
        >>> cell = cells.min_gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> inputs = jnp.ones((2, 4 * jax.device_count(), 3))  # [B, T, X]
        >>> state = cell.initial_state(params, 2)
        >>> outputs, state = grnn_jax.unroll_sharded(
        ...     cell, params, inputs, state, mesh=mesh, axis="time"
        ... )
        >>> outputs.shape == (2, 4 * jax.device_count(), 4)
        True
    """
    if axis not in mesh.shape:
        raise ValueError(f"axis must be one of the mesh's {list(mesh.shape)}, got {axis!r}")
    inputs = as_inputs(inputs)
    batch_size, length = check_inputs(cell, params, inputs)
    if length % mesh.shape[axis]:
        raise ValueError(
            f"inputs must have a number of steps that the {mesh.shape[axis]} devices of axis "
            f"{axis!r} divide, got {length}"
        )
    if reset is not None:
        check_array("reset", reset, (batch_size, length))
    if initial_state is None:
        initial_state = cell.initial_state(params, batch_size)
    state, initial_state = (
        check_state(name, cell, params, value, batch_size)
        for name, value in (("state", state), ("initial_state", initial_state))
    )
    window = Window(inputs, None if reset is None else jnp.asarray(reset))
    run = _compiled if is_hashable(cell) else _over_devices
    if AxisType.Explicit not in mesh.axis_types:
        outputs, states = run(cell, mesh, axis, engine, params, window, state, initial_state)
    else:
        # Explicit axes split nothing of themselves: the arrays must lie as they are to be cut.
        window = jax.tree.map(_lay_out(mesh), window, _split(window, axis))
        rest = jax.tree.map(lambda leaf: _lay_out(mesh)(leaf, P()), (params, state, initial_state))
        outputs, states = run(cell, mesh, axis, engine, rest[0], window, *rest[1:])
        states = jax.tree.map(lambda leaf: _lay_out(mesh)(leaf, P()), states)
    return outputs, jax.tree.map(lambda array: array[-1], states)


def _over_devices(
    cell: Cell,
    mesh: Mesh,
    axis: str,
    engine: str,
    params: Params,
    window: Window,
    state: PyTree,
    initial_state: PyTree,
) -> tuple[Array, PyTree]:
    """The outputs, and the state after each device's steps, the devices first."""
    options = RunOptions(engine, axis_name=axis)

    def piece(
        params: Params, window: Window, state: PyTree, initial_state: PyTree
    ) -> tuple[Array, PyTree]:
        outputs, state = run_window(cell, params, window, state, initial_state, options)
        return jnp.swapaxes(outputs, 0, 1), jax.tree.map(lambda array: array[None], state)

    run = jax.shard_map(
        piece,
        mesh=mesh,
        in_specs=(P(), _split(window, axis), P(), P()),
        out_specs=(P(None, axis), P(axis)),
        check_vma=False,
    )
    outputs: Array
    outputs, states = run(params, window, state, initial_state)
    return outputs, states


# Once for each cell and shapes: outside of a jit, `shard_map` compiles every operation by itself.
_compiled = jax.jit(_over_devices, static_argnums=(0, 1, 2, 3))


def _split(window: Window, axis: str) -> Window:
    """How a window is split: its steps over an axis, what belongs to no step not at all."""
    steps = P(None, axis)
    whole = jax.tree.map(lambda _: P(), window.inputs)
    inputs = whole.with_steps(*jax.tree.map(lambda _: steps, window.inputs.steps()))
    return Window(inputs, jax.tree.map(lambda _: steps, window.reset))


def _lay_out(mesh: Mesh) -> Callable[[AnyArray, P], Array]:
    """A function that splits an array over the mesh as a specification says."""
    return lambda leaf, spec: jax.reshard(jnp.asarray(leaf), NamedSharding(mesh, spec))
