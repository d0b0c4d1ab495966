"""The Jacobian of a gated cell's step, for cells where it falls into small blocks.

Where `pointwise` acts on every unit by itself and V on heads of width D, the K arrays of the state
of one head only depend on those of the same head before: blocks of N = K·D rows and columns. U
below counts the blocks, B·heads.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, PyTree, State
from grnn_jax.cells.base import Cell, Gated
from grnn_jax.ops.compute_type import EXACT
from grnn_jax.ops.products import cast_kernel, recurrent_product, split_gates


@functools.lru_cache(maxsize=256)
def block_size(cell: Cell) -> int | None:
    """N, or None for a cell whose Jacobian has no blocks."""
    gated = cell.gated
    if gated is None or not gated.elementwise:
        return None

    def state(key: Array) -> State:
        return cell.initial_state(cell.init(key, 1), 1)

    num_states = len(jax.eval_shape(state, jax.eval_shape(lambda: jax.random.key(0))))
    return num_states * (cell.hidden_size // number_of_blocks(gated, cell.hidden_size))


def number_of_blocks(gated: Gated, hidden_size: int) -> int:
    """Blocks of one sequence: heads, or single units where V mixes none."""
    return gated.num_heads if gated.num_gates else hidden_size


def to_blocks(state: State, num_blocks: int) -> Float[Array, "T N U"]:
    """K arrays [T, B, H] as [T, K·D, B·heads]."""
    stacked = jnp.stack(state, 1)
    length, num_states, batch_size, _ = stacked.shape
    heads = stacked.reshape(length, num_states, batch_size, num_blocks, -1)
    return jnp.moveaxis(heads, 4, 2).reshape(length, -1, batch_size * num_blocks)


def from_blocks(blocks: Float[Array, "T N U"], num_states: int, num_blocks: int) -> State:
    """The inverse of `to_blocks`."""
    length, _, columns = blocks.shape
    heads = blocks.reshape(length, num_states, -1, columns // num_blocks, num_blocks)
    stacked = jnp.moveaxis(heads, 2, 4).reshape(length, num_states, columns // num_blocks, -1)
    return tuple(stacked[:, index] for index in range(num_states))


def gated_step(
    gated: Gated, kernel: Array | None, weights: PyTree, projected: Array, before: State
) -> State:
    """The step of a gated cell; any axes in front of the units."""
    recurrent: tuple[Array, ...] = ()
    if kernel is not None:
        recurrent = recurrent_product(kernel, before[0], gated.num_gates, gated.dtype)
    return gated.pointwise(weights, split_gates(projected, gated.num_inputs), recurrent, before)


def step_jacobian(
    gated: Gated,
    kernel: Array | None,
    weights: PyTree,
    projected: Float[Array, "T B P"],
    before: State,
) -> Float[Array, "T N N U"]:
    r"""The blocks of ∂s_t / ∂s_{t-1} at all steps, in float32 or wider.

        ∂s_t / ∂s_{t-1} = ∂pointwise / ∂s + ∂pointwise / ∂r · V

    Both parts of pointwise's derivative are one number for each unit and pair of arrays: one
    tangent of ones in each argument finds them, for all units at once.
    """
    hidden_size, num_states = before[0].shape[-1], len(before)
    num_blocks = number_of_blocks(gated, hidden_size)
    width = hidden_size // num_blocks
    gates = split_gates(projected, gated.num_inputs)
    recurrent: tuple[Array, ...] = ()
    narrow = None
    if kernel is not None:
        recurrent = recurrent_product(kernel, before[0], gated.num_gates, gated.dtype)
        narrow = cast_kernel(kernel, gated.dtype).astype(before[0].dtype)
        narrow = narrow.reshape(num_blocks, width, gated.num_gates, width)
    arguments = recurrent, before
    still = jax.tree.map(jnp.zeros_like, arguments)

    def along(tangents: tuple[Any, ...]) -> Float[Array, "T K B H"]:
        def function(recurrent: tuple[Any, ...], state: State) -> State:
            return gated.pointwise(weights, gates, recurrent, state)

        return jnp.stack(jax.jvp(function, arguments, tangents)[1], 1)

    def along_state(index: int) -> Array:
        moved = tuple(
            jnp.ones_like(array) if number == index else array
            for number, array in enumerate(still[1])
        )
        moved_recurrent = still[0]
        if index == 0 and narrow is not None and width == 1:
            # The unit's own way through V, in the same tangent.
            moved_recurrent = tuple(
                jnp.broadcast_to(narrow[:, 0, gate, 0], array.shape)
                for gate, array in enumerate(still[0])
            )
        return along((moved_recurrent, moved))

    direct = jnp.stack([along_state(index) for index in range(num_states)], 2)
    length, _, _, batch_size, _ = direct.shape
    if width == 1:
        return direct.reshape(length, num_states, num_states, -1)

    assert narrow is not None
    direct = direct.reshape(length, num_states, num_states, batch_size, num_blocks, width)
    eye = jnp.eye(width, dtype=direct.dtype)
    blocks = jnp.einsum("tijbnd,de->tidjebn", direct, eye, precision=EXACT)
    for gate in range(gated.num_gates):
        moved = tuple(
            jnp.ones_like(array) if number == gate else array
            for number, array in enumerate(still[0])
        )
        through = along((moved, still[1]))
        through = through.reshape(length, num_states, batch_size, num_blocks, width)
        # [T, K, D, D', B, heads]: row d of V's gate, column e of the state before.
        product = (
            jnp.moveaxis(through, 4, 2)[:, :, :, None]
            * jnp.transpose(narrow[:, :, gate], (2, 1, 0))[None, None, :, :, None, :]
        )
        blocks = blocks.at[:, :, :, 0].add(product)
    size = num_states * width
    return blocks.reshape(length, size, size, batch_size * num_blocks)
