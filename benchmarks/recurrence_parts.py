"""The programs that benchmarks/recurrence.py times: a cell under an engine, and its products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax import cells, unroll
from grnn_jax.array_types import DType
from grnn_jax.ops.products import cast_kernel, dense, heads_einsum, outer_sums

PASSES = ("forward", "forward + backward")


class Case(NamedTuple):
    """A cell with all that enters its recurrence."""

    cell: cells.Cell
    params: Any
    inputs: jax.Array  # [B, T, 1]
    state: Any
    weights: jax.Array  # [B, T, H], of the outputs in the loss


class Program(NamedTuple):
    """A compiled pass: a function that returns when it is done, and XLA's temporary buffers."""

    run: Callable[[], Any]
    temporary_bytes: int


def make_case(name: str, hidden_size: int, batch_size: int, length: int, *, dtype: DType) -> Case:
    """A registered cell at its initialisation with normal inputs of one feature."""
    cell = cells.CELLS[name](hidden_size, dtype=dtype)
    param_key, input_key, weight_key = jax.random.split(jax.random.key(0), 3)
    params = cell.init(param_key, 1)
    inputs = jax.random.normal(input_key, (batch_size, length, 1), jnp.float32)
    weights = jax.random.normal(weight_key, (batch_size, length, hidden_size), jnp.float32)
    return Case(cell, params, inputs, cell.initial_state(params, batch_size), weights)


def compile_engine(case: Case, engine: str, chunk_size: int | None) -> dict[str, Program]:
    """Both passes of a cell under an engine.

    Raises:
        ValueError: if the engine cannot run the cell at these sizes or on these devices.
    """

    def forward(params: Any, state: Any, inputs: jax.Array, weights: jax.Array) -> jax.Array:
        return unroll(case.cell, params, inputs, state, engine=engine, chunk_size=chunk_size)[0]

    def loss(params: Any, state: Any, inputs: jax.Array, weights: jax.Array) -> jax.Array:
        return (forward(params, state, inputs, weights) * weights).sum()

    backward = jax.value_and_grad(loss, argnums=(0, 1))
    arguments = case.params, case.state, case.inputs, case.weights
    return {
        name: compile_program(function, *arguments)
        for name, function in zip(PASSES, (forward, backward), strict=True)
    }


def compile_limit(case: Case) -> dict[str, Program] | None:
    """Both passes of the recurrent products alone; None for a cell without a matrix V."""
    gated = case.cell.gated
    if gated is None or not gated.num_gates:
        return None
    kernel = cast_kernel(gated.recurrent_kernel(case.params), gated.dtype)
    num_heads, width, columns = kernel.shape
    batch_size, length = case.inputs.shape[:2]
    hidden_key, gate_key = jax.random.split(jax.random.key(1))
    shape = length, batch_size, num_heads
    hidden = jax.random.normal(hidden_key, (*shape, width), jnp.float32).astype(kernel.dtype)
    gates = jax.random.normal(gate_key, (*shape, columns), jnp.float32).astype(kernel.dtype)
    transposed = jnp.swapaxes(kernel, 1, 2)

    def one_after_another(kernel: jax.Array, rows: jax.Array) -> jax.Array:
        """Products [B, heads, X] x [heads, X, Y] in a loop, of which the last one is kept."""

        def step(_: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
            if num_heads == 1:
                return dense(row[:, 0], kernel[0], gated.dtype)[:, None], None
            return heads_einsum("bnx,nxy->bny", row, kernel, gated.dtype), None

        first = jnp.zeros((batch_size, num_heads, kernel.shape[2]), jnp.float32)
        return jax.lax.scan(step, first, rows)[0]

    def forward(kernel, transposed, hidden, gates):
        return one_after_another(kernel, hidden)

    def both(kernel, transposed, hidden, gates):
        d_hidden = one_after_another(transposed, gates)
        hidden_rows = hidden.reshape(-1, num_heads, width)
        gate_rows = gates.reshape(-1, num_heads, columns)
        if num_heads == 1:
            d_kernel = outer_sums(hidden_rows[:, 0], [gate_rows[:, 0]], gated.dtype)
        else:
            d_kernel = heads_einsum("and,ank->ndk", hidden_rows, gate_rows, gated.dtype)
        return one_after_another(kernel, hidden), d_hidden, d_kernel

    arguments = kernel, transposed, hidden, gates
    return {
        name: compile_program(function, *arguments)
        for name, function in zip(PASSES, (forward, both), strict=True)
    }


def compile_program(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compiles once, for the timing and for XLA's account of its memory."""
    compiled: Any = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return Program(lambda: jax.block_until_ready(compiled(*arguments)), memory.temp_size_in_bytes)
