"""`unroll`: one signature for every engine, for single cells and stacks."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PRNGKey, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.cells.sitewise import fold_sites, unfold_sites
from grnn_jax.cells.stack import apply_layer_norm, drop_recurrent_kernel
from grnn_jax.ops.chunks import scan_chunks
from grnn_jax.recurrence.dropout import DropoutIndex, dropout, dropout_index
from grnn_jax.recurrence.engines import ENGINES, explain_engine, supported_engines
from grnn_jax.recurrence.tokens import (
    Projected,
    Tokens,
    lookup_inputs,
    project_gates,
    project_inputs,
    split_projected,
)

PERTURB_FOLD = 2
"""What a layer's cell draws is folded from its key by this number, its other masks by a split."""


def unroll(
    cell: Cell,
    params: Params,
    inputs: Float[AnyArray, "B T X"] | Tokens,
    state: PyTree,
    *,
    reset: Bool[AnyArray, "..."] | None = None,
    initial_state: PyTree | None = None,
    engine: str = "auto",
    key: PRNGKey | None = None,
    chunk_size: int | None = None,
) -> tuple[Float[Array, "B T H"], PyTree]:
    r"""Runs a cell over time.

        s_t, h_t = step(s_{t-1}, project(x_t)),   s_{t-1} = initial_state where reset_t

    The projection of all inputs is one matmul in front of the loop. A stack is run layer by
    layer, each over the whole window.

    Args:
        cell: a cell or a stack of cells.
        params: its parameters.
        inputs: x, or `Tokens(indices [B, T], table [V, X])`.
        state: the state before the first step, every array [B, ...].
        reset: True where a row restarts from `initial_state` before the step.
        initial_state: what a reset restores; the cell's own initial state by default.
        engine: "scan", the reference, any JAX transformation (forward mode in float32 or wider
            only); "fused", gated cells, reverse mode and vmap only (no `jvp`);
            "fused_recompute", the same with V h_{t-1} computed again in the backward pass
            instead of kept; "linear", cells linear in their state, all steps at once, reverse mode
            and vmap only; "newton", gated cells with a Jacobian of small blocks, all steps at
            once by Newton's method, reverse mode and vmap only, see `newton_unroll`; "auto", see
            `explain_engine`.
        key: switches dropout and zoneout on (training) and seeds it; None is deterministic.
        chunk_size: steps between kept states; the rest is recomputed in the backward pass, see
            `scan_chunks`. None keeps everything.

    Returns:
        outputs h [B, T, H] and the state after the last step.

    Raises:
        ValueError: for an unknown engine, one that cannot run this cell, or shapes that do
            not fit.
    """
    batch_size, length = (inputs.indices if isinstance(inputs, Tokens) else inputs).shape[:2]
    if reset is not None and reset.shape != (batch_size, length):
        raise ValueError(f"reset must have shape {(batch_size, length)}, got {reset.shape}")
    if initial_state is None:
        initial_state = cell.initial_state(params, batch_size)
    reset = None if reset is None else jnp.asarray(reset)
    table = inputs.table if isinstance(inputs, Tokens) else None
    values = jnp.asarray(inputs.indices if isinstance(inputs, Tokens) else inputs)
    index = None if key is None else dropout_index(batch_size, length, reset)

    def run(state: PyTree, window: tuple) -> tuple[PyTree, Array]:
        values, reset, index = window
        inputs = values if table is None else Tokens(values, table)
        outputs, state = run_window(
            cell, params, inputs, state, reset, initial_state, engine, key, index
        )
        return state, jnp.swapaxes(outputs, 0, 1)

    state, outputs = scan_chunks(run, state, (values, reset, index), chunk_size)
    return outputs, state


def run_window(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "B T X"] | Tokens,
    state: PyTree,
    reset: Bool[Array, "B T"] | None,
    initial_state: PyTree,
    engine: str,
    key: PRNGKey | None,
    index: DropoutIndex | None,
    axis_name: str | None = None,
) -> tuple[Float[Array, "T B H"], PyTree]:
    """One window, or one chunk of it, through all layers; arguments as `unroll`.

    The outputs stay time-major, as the engines made them, for whoever does not mind. `axis_name`
    is the axis of a mesh over whose devices the steps are split; outputs and state are then those
    of this device's steps.
    """
    entering: Array | Tokens
    if isinstance(inputs, Tokens):
        entering = Tokens(inputs.indices.T, inputs.table)
    else:
        entering = jnp.swapaxes(inputs, 0, 1)
    reset = None if reset is None else reset.T
    if cell.layered is None:
        return _run_layer(
            cell,
            params,
            entering,
            state,
            reset,
            initial_state,
            engine,
            axis_name,
            key,
            index,
        )

    layered = cell.layered
    final_state: list[PyTree] = []
    hidden = passed = jnp.zeros(())
    layer_key = None
    for number, layer in enumerate(layered.cells):
        layer_params = params[f"layer_{number}"]
        if key is not None:
            layer_key = jax.random.fold_in(key, number)
            mask_key, kernel_key = jax.random.split(layer_key)
            if layered.recurrent_dropout:
                rate = layered.recurrent_dropout
                layer_params = drop_recurrent_kernel(kernel_key, layer_params, rate)
        outputs, layer_state = _run_layer(
            layer,
            layer_params,
            entering,
            state[number],
            reset,
            initial_state[number],
            engine,
            axis_name,
            None if layer_key is None else jax.random.fold_in(layer_key, PERTURB_FOLD),
            index,
        )
        final_state.append(layer_state)
        hidden = outputs + hidden if layered.residual and number > 0 else outputs
        passed = apply_layer_norm(params, number, hidden) if layered.layer_norm else hidden
        if index is not None and layered.dropout:
            per_step = layered.dropout_per == "step"
            events = index.of_steps() if per_step else index.of_sequences()
            passed = dropout(mask_key, passed, layered.dropout, events)
        entering = passed
    return passed, tuple(final_state)


def _run_layer(
    cell: Cell,
    params: Params,
    inputs: Float[Array, "T B X"] | Tokens,
    state: PyTree,
    reset: Bool[Array, "T B"] | None,
    initial_state: PyTree,
    engine: str,
    axis_name: str | None,
    key: PRNGKey | None,
    index: DropoutIndex | None,
) -> tuple[Float[Array, "T B H"], PyTree]:
    """One layer over a time-major window; of a sitewise cell the inner one, its sites as rows."""
    if cell.sitewise is not None:
        inner, num_sites, features = cell.sitewise
        rows = features(params, lookup_inputs(inputs))
        rows = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        state, initial_state = fold_sites((state, initial_state), num_sites)
        reset = None if reset is None else jnp.repeat(reset, num_sites, axis=1)
        if index is not None:
            index = index.of_sites(num_sites)
        results = _run_layer(
            inner, params, rows, state, reset, initial_state, engine, axis_name, key, index
        )
        return unfold_sites(results, num_sites)
    if engine == "auto":
        if axis_name is None:
            engine = explain_engine(cell).engine
        else:
            engine = "newton" if cell.linear is None else "linear"
    if (inputs.indices if isinstance(inputs, Tokens) else inputs).shape[0] == 0:
        engine = "scan"  # No step, nothing to save.
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {['auto', *ENGINES]}, got {engine!r}")
    if axis_name is not None and not ENGINES[engine].splits_time:
        splitting = [name for name, engine in ENGINES.items() if engine.splits_time]
        raise ValueError(f"engine must be one of {splitting} on split steps, got {engine!r}")
    if not ENGINES[engine].supports(cell):
        able = [n for n in supported_engines(cell) if axis_name is None or ENGINES[n].splits_time]
        raise ValueError(
            f"engine {engine!r} needs a cell {ENGINES[engine].needs}; this one can be run by "
            f"{', '.join(able) or 'none'}"
        )
    by_gates = ENGINES[engine].by_gates
    projected: Array | Projected
    if key is not None and index is not None and cell.perturb is not None:
        projected = cell.perturb(key, project_inputs(cell, params, inputs), index.of_steps())
        projected = split_projected(cell, projected) if by_gates else projected
    else:
        project = project_gates if by_gates else project_inputs
        projected = project(cell, params, inputs)
    split = {} if axis_name is None else {"axis_name": axis_name}
    return ENGINES[engine].run(cell, params, projected, state, reset, initial_state, **split)
