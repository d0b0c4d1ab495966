"""`unroll`: one signature for every engine, for single cells and stacks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PRNGKey, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.cells.sitewise import fold_sites, unfold_sites
from grnn_jax.cells.stack import apply_layer_norm, drop_recurrent_kernel
from grnn_jax.ops.checks import check_array, check_key
from grnn_jax.ops.chunks import scan_chunks
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.ops.masks import is_zero
from grnn_jax.recurrence.base import Engine, InputsForm, RunOptions, Window
from grnn_jax.recurrence.checks import check_inputs, check_state
from grnn_jax.recurrence.dropout import dropout, dropout_index
from grnn_jax.recurrence.engines import ENGINES, check_engine, explain_engine
from grnn_jax.recurrence.inputs import Inputs, Tokens, as_inputs

PERTURB_FOLD = 2
"""What a layer's cell draws is folded from its key by this number, its other masks by a split."""


def unroll(
    cell: Cell,
    params: Params,
    inputs: Float[AnyArray, "B T X"] | Tokens | Inputs,
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
    layer, each over the whole window. Compiled once for each cell, engine and shapes.

    Args:
        cell: a cell or a stack of cells.
        params: its parameters.
        inputs: x, or `Tokens(indices [B, T], table [V, X])`, or `Inputs`, which may add to what
            they are projected to.
        state: the state before the first step, every array [B, ...].
        reset: True where a row restarts from `initial_state` before the step.
        initial_state: what a reset restores; the cell's own initial state by default.
        engine: "scan", the reference, any JAX transformation (forward mode in float32 or wider
            only); "fused", gated cells, reverse mode and vmap only (no `jvp`);
            "fused_recompute", the same with V h_{t-1} computed again in the backward pass
            instead of kept; "packed" and "packed_recompute", likewise, in the structure that
            accelerators want; "linear", cells linear in their state, all steps at once, reverse
            mode and vmap only; "newton", gated cells with a Jacobian of small blocks, all steps
            at once by Newton's method, reverse mode and vmap only, see `newton_unroll`; "auto",
            see `explain_engine`.
        key: switches dropout and zoneout on (training) and seeds it; None is deterministic.
        chunk_size: steps between kept states; the rest is recomputed in the backward pass, see
            `scan_chunks`. None keeps everything.

    Returns:
        outputs h [B, T, H] and the state after the last step.

    Raises:
        ValueError: for an unknown engine, one that cannot run this cell, or arrays of inputs,
            params, state or reset that do not fit, by the name of the argument.

    Example:
        >>> import grnn_jax, jax
        >>> cell = grnn_jax.cells.gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 5, 3))  # [B, T, X]
        >>> outputs, state = grnn_jax.unroll(cell, params, inputs, cell.initial_state(params, 2))
        >>> outputs.shape, bool((outputs[:, -1] == state[0]).all())
        ((2, 5, 4), True)
        >>> "fused" in grnn_jax.supported_engines(cell)
        True
    """
    inputs = as_inputs(inputs)
    batch_size, length = check_inputs(cell, params, inputs)
    if reset is not None:
        check_array("reset", reset, (batch_size, length))
    if key is not None:
        check_key("key", key)
    state = check_state("state", cell, params, state, batch_size)
    if initial_state is not None:
        initial_state = check_state("initial_state", cell, params, initial_state, batch_size)
    check_engine(cell, engine)
    outputs: tuple[Array, PyTree] = _unroll(
        cell, engine, chunk_size, params, inputs, reset, state, initial_state, key
    )
    return outputs


@entry(num_static=3, rows=(4, 5, 6), inline=True)
def _unroll(
    cell: Cell,
    engine: str,
    chunk_size: int | None,
    params: Params,
    inputs: Inputs,
    reset: Bool[Array, "B T"] | None,
    state: PyTree,
    initial_state: PyTree | None,
    key: PRNGKey | None,
) -> tuple[Float[Array, "B T H"], PyTree]:
    batch_size, length = inputs.shape
    if initial_state is None:
        initial_state = cell.initial_state(params, batch_size)
    index = None if key is None else dropout_index(batch_size, length, reset)
    options = RunOptions(engine, key)

    def run(state: PyTree, steps: tuple[Any, ...]) -> tuple[PyTree, Array]:
        of_inputs, reset, index = steps
        window = Window(inputs.with_steps(*of_inputs), reset, index)
        outputs, state = run_window(cell, params, window, state, initial_state, options)
        return state, jnp.swapaxes(outputs, 0, 1)

    state, outputs = scan_chunks(run, state, (inputs.steps(), reset, index), chunk_size)
    return outputs, state


def run_window(
    cell: Cell,
    params: Params,
    window: Window,
    state: PyTree,
    initial_state: PyTree,
    options: RunOptions,
) -> tuple[Float[Array, "T B H"], PyTree]:
    """One window, or one chunk of it, through all layers.

    Args:
        cell: a cell or a stack of cells.
        params: its parameters.
        window: what comes at each step, batch-major.
        state: the state before the first step.
        initial_state: what a reset restores.
        options: how it is run; with `axis_name`, outputs and state are those of this device's
            steps.

    Returns:
        outputs, which stay time-major, as the engines made them, for whoever does not mind, and
        the state after the last step.
    """
    state, initial_state = vary_alike((state, initial_state), params, window)
    reset = None if window.reset is None else window.reset.T
    window = window._replace(inputs=window.inputs.time_major(), reset=reset)
    if cell.layered is None:
        return _run_layer(cell, params, window, state, initial_state, options)

    layered = cell.layered
    final_state: list[PyTree] = []
    hidden = passed = jnp.zeros(())
    for number, layer in enumerate(layered.cells):
        layer_params = params[f"layer_{number}"]
        layer_options = options
        if options.key is not None:
            # A key of its own for each layer and purpose: masks stay what they are when another
            # kind of dropout is switched on.
            layer_key = jax.random.fold_in(options.key, number)
            mask_key, kernel_key = jax.random.split(layer_key)
            layer_options = options._replace(key=jax.random.fold_in(layer_key, PERTURB_FOLD))
            if not is_zero(layered.recurrent_dropout):
                rate = layered.recurrent_dropout
                layer_params = drop_recurrent_kernel(kernel_key, layer_params, rate)
        outputs, layer_state = _run_layer(
            layer, layer_params, window, state[number], initial_state[number], layer_options
        )
        final_state.append(layer_state)
        hidden = outputs + hidden if layered.residual and number > 0 else outputs
        passed = apply_layer_norm(params, number, hidden) if layered.layer_norm else hidden
        if window.dropout_index is not None and not is_zero(layered.dropout):
            per_step = layered.dropout_per == "step"
            events = (
                window.dropout_index.of_steps() if per_step else window.dropout_index.of_sequences()
            )
            passed = dropout(mask_key, passed, layered.dropout, events)
        # Upper layers see vectors, whatever entered the first; conditions enter there alone.
        window = window._replace(inputs=Inputs(passed))
    return passed, tuple(final_state)


def _run_layer(
    cell: Cell,
    params: Params,
    window: Window,
    state: PyTree,
    initial_state: PyTree,
    options: RunOptions,
) -> tuple[Float[Array, "T B H"], PyTree]:
    """One layer over a time-major window; of a sitewise cell the inner one, its sites as rows."""
    if cell.sitewise is not None:
        return _run_sites(cell, params, window, state, initial_state, options)
    name = _choose_engine(cell, window, options)
    if name != "auto":
        return _run_engine(cell, ENGINES[name], params, window, state, initial_state, options)
    # Not by the platform of this process: a program may be lowered here for another one, and holds
    # one engine alone. An eager gradient has room between its passes for what either would keep.
    on_cpu, elsewhere = (
        functools.partial(
            _run_engine, cell, ENGINES[explain_engine(cell, platform).engine],
            params, window, state, initial_state, options,
        )
        for platform in ("cpu", "cuda")
    )  # fmt: skip
    results: tuple[Array, PyTree] = jax.lax.platform_dependent(cpu=on_cpu, default=elsewhere)
    return results


def _run_engine(
    cell: Cell,
    engine: Engine,
    params: Params,
    window: Window,
    state: PyTree,
    initial_state: PyTree,
    options: RunOptions,
) -> tuple[Float[Array, "T B H"], PyTree]:
    projected = _project(cell, params, window, options, engine.form)
    arguments = cell, params, projected, state, window.reset, initial_state
    # `_choose_engine` has refused engines that cannot run split steps.
    if options.axis_name is None or engine.run_split is None:
        return engine.run(*arguments)
    return engine.run_split(*arguments, axis_name=options.axis_name)


def _run_sites(
    cell: Cell,
    params: Params,
    window: Window,
    state: PyTree,
    initial_state: PyTree,
    options: RunOptions,
) -> tuple[Float[Array, "T B H"], PyTree]:
    """A sitewise cell: the cell of one site on [T, B·N] rows."""
    assert cell.sitewise is not None
    num_sites = cell.sitewise.num_sites
    reset, index = window.reset, window.dropout_index
    window = Window(
        window.inputs.of_sites(cell, params),
        None if reset is None else jnp.repeat(reset, num_sites, axis=1),
        None if index is None else index.of_sites(num_sites),
    )
    state, initial_state = fold_sites((state, initial_state), num_sites)
    results = _run_layer(cell.sitewise.cell, params, window, state, initial_state, options)
    outputs, state = unfold_sites(results, num_sites)
    return outputs, state


def _choose_engine(cell: Cell, window: Window, options: RunOptions) -> str:
    """The engine that was asked for, if it can run this layer; "auto" if the platform decides.

    Raises:
        ValueError: it cannot.
    """
    name, axis_name = options.engine, options.axis_name
    if name == "auto" and axis_name is None:
        of_platforms = {explain_engine(cell, platform).engine for platform in ("cpu", "cuda")}
        name = "auto" if len(of_platforms) > 1 else of_platforms.pop()
    elif name == "auto":
        name = "newton" if cell.linear is None else "linear"
    if window.inputs.shape[0] == 0:
        name = "scan"  # No step, nothing to save.
    if name == "auto":
        return name
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {['auto', *ENGINES]}, got {name!r}")
    allowed = [other for other in ENGINES if axis_name is None or ENGINES[other].run_split]
    if name not in allowed and window.inputs.shape[0]:
        raise ValueError(f"engine must be one of {allowed} on split steps, got {name!r}")
    check_engine(cell, name, allowed)
    return name


def _project(
    cell: Cell, params: Params, window: Window, options: RunOptions, form: InputsForm | None
) -> Any:
    """The projected inputs as the engine reads them, with what training draws."""
    if options.key is None or window.dropout_index is None or cell.perturb is None:
        # In a form of its own, projected inputs may stay in a table or be made chunk by chunk.
        if form is not None:
            return form.project(cell, params, window.inputs)
        return window.inputs.project(cell, params)
    # What is drawn stands beside each event's projection, so that it is whole here.
    projected = window.inputs.project(cell, params)
    projected = cell.perturb(options.key, projected, window.dropout_index.of_steps())
    return projected if form is None else form.convert(cell, projected)
