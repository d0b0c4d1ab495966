"""What enters a cell: tokens, vectors, the start input and addends, against a loop over steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, random_like

from grnn_jax import cells
from grnn_jax.recurrence import Addend, Inputs, Tokens, gates, unroll
from grnn_jax.recurrence.inputs import as_inputs, projecting_a_table_pays

B, T, X, V, S = 2, 5, 4, 3, 4

CASES = [
    ("lstm", "scan"), ("lstm", "fused"), ("lstm", "fused_recompute"), ("gru", "fused"),
    ("slstm", "fused"), ("layer_norm_gru", "fused"), ("min_gru", "linear"), ("rg_lru", "linear"),
    ("ind_rnn", "newton"), ("lstm", "packed"), ("gru", "packed_recompute"),
    ("layer_norm_gru", "packed"),
]  # fmt: skip
"""Cells with and without additive gates and gate-wise projection, for every engine."""

PARTS = [("row",), ("step",), ("segment",), ("row", "step", "segment")]


def random(shape, seed):
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def parameters(cell):
    """Parameters of a cell, and a state."""
    params = random_like(lambda: cell.init(jax.random.key(0), X), scale=0.5)
    return params, random_like(lambda: cell.initial_state(params, B), scale=0.5)


def projected_size(cell, params):
    return jax.eval_shape(cell.project, params, jnp.zeros((1, X))).shape[-1]


def make_addend(parts, width):
    return Addend(
        row=random((B, width), 1) if "row" in parts else None,
        step=random((B, T, width), 2) if "step" in parts else None,
        table=random((S, width), 3) if "segment" in parts else None,
        segment=jnp.asarray([[0, 0, 1, 1, 1], [2, 3, 3, 3, 3]]) if "segment" in parts else None,
    )


def make_inputs(kind):
    """Tokens of a small and of a large table, vectors; with and without a start input."""
    started = jnp.asarray(np.random.default_rng(4).random((B, T)) < 0.6)
    start = {"start": random((X,), 5), "started": started} if "start" in kind else {}
    if "vectors" in kind:
        return Inputs(random((B, T, X), 6), **start)
    rows = 30 if "large" in kind else V
    indices = jnp.asarray(np.random.default_rng(7).integers(0, V, (B, T)))
    return Inputs(indices, random((rows, X), 8), **start)


def step_by_step(cell, params, inputs, state):
    """The definition: every event's vector, its projection, the addends, the step."""
    outputs = []
    for t in range(T):
        value = inputs.values[:, t]
        vectors = value if inputs.table is None else inputs.table[value]
        if inputs.started is not None:
            vectors = jnp.where(inputs.started[:, t, None], vectors, inputs.start)
        projected, addend = cell.project(params, vectors), inputs.addend
        if addend.row is not None:
            projected += addend.row
        if addend.step is not None:
            projected += addend.step[:, t]
        if addend.table is not None:
            projected += addend.table[addend.segment[:, t]]
        state, output = cell.step(params, state, projected)
        outputs.append(output)
    return jnp.stack(outputs, 1), state


def split(inputs):
    """The arrays that have a gradient, and a function that puts them back."""
    real = inputs._replace(
        values=inputs.values if inputs.table is None else None,
        started=None,
        addend=inputs.addend._replace(segment=None),
    )

    def join(real):
        return real._replace(
            values=inputs.values if inputs.table is not None else real.values,
            started=inputs.started,
            addend=real.addend._replace(segment=inputs.addend.segment),
        )

    return real, join


def compare(cell, params, inputs, state, engine, **options):
    real, join = split(inputs)
    weights = random((B, T, cell.hidden_size), 9)

    def loss(run, params, real, state):
        outputs, final = run(cell, params, join(real), state)
        return (outputs * weights).sum() + sum(
            jnp.abs(leaf).sum() for leaf in jax.tree.leaves(final)
        )

    both = [
        jax.jit(jax.value_and_grad(functools.partial(loss, run), argnums=(0, 1, 2)))(
            params, real, state
        )
        for run in (functools.partial(unroll, engine=engine, **options), step_by_step)
    ]
    assert_trees_close(*both, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["vectors", "start tokens"])
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_addends_reach_every_engine(name, engine, kind):
    check_addends(name, engine, kind, PARTS[-1])


@pytest.mark.parametrize("engine", ["fused", "packed"])
@pytest.mark.parametrize("parts", PARTS[:-1], ids="+".join)
@pytest.mark.parametrize("kind", ["vectors", "tokens", "start large tokens"])
def test_every_part_of_an_addend_by_itself(kind, parts, engine):
    check_addends("lstm", engine, kind, parts)


def check_addends(name, engine, kind, parts):
    cell = cells.CELLS[name](3)
    params, state = parameters(cell)
    inputs = make_inputs(kind)._replace(addend=make_addend(parts, projected_size(cell, params)))
    compare(cell, params, inputs, state, engine)


@pytest.mark.parametrize("kind", ["start vectors", "start tokens", "start large tokens"])
def test_the_start_input_enters_where_nothing_has_started(kind):
    cell = cells.lstm(3)
    params, state = parameters(cell)
    compare(cell, params, make_inputs(kind), state, "fused")


def test_addends_reach_the_first_layer_in_chunks_of_a_window():
    cell = cells.stack([cells.gru(3), cells.gru(2)])
    params, state = parameters(cell)
    addend = make_addend(PARTS[-1], projected_size(cell, params))
    inputs = make_inputs("start tokens")._replace(addend=addend)
    compare(cell, params, inputs, state, "auto", chunk_size=2)


def test_addends_reach_every_site():
    cell = cells.sitewise(cells.gru(2), X, input_window=1, period=0)
    params, state = parameters(cell)
    addend = make_addend(PARTS[-1], projected_size(cell, params))
    compare(cell, params, make_inputs("vectors")._replace(addend=addend), state, "fused")


@pytest.mark.parametrize("kind", ["start large tokens", "large tokens"])
def test_a_table_projected_beforehand_gives_the_same_projection(kind):
    cell = cells.lstm(3)
    params, _ = parameters(cell)
    inputs = make_inputs(kind).time_major()
    table = jnp.concatenate([inputs.table, random((1, X), 5)])
    beforehand = inputs._replace(projected_table=cell.project(params, table))
    np.testing.assert_allclose(
        beforehand.project(cell, params), inputs.project(cell, params), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(("spare", "is_gather"), [(0, True), (-1, False)])
def test_the_loop_gathers_from_small_tables_alone(spare, is_gather, monkeypatch):
    """A large table's gradient is one scatter for the window: its rows are gathered in front."""
    monkeypatch.setattr(gates, "ONE_HOT_LIMIT", B * T * V + spare)
    cell = cells.lstm(3)
    projected = gates.project_gates(cell, parameters(cell)[0], make_inputs("tokens").time_major())
    assert projected.is_gather == is_gather == (projected.read is not None)


def test_a_table_pays_with_as_many_rows_as_there_are_events():
    for rows, with_start, pays in ((10, False, True), (9, True, True), (10, True, False)):
        assert projecting_a_table_pays(rows, with_start, 10) == pays


def test_the_part_of_the_inputs_that_does_not_fit_is_named():
    cell = cells.lstm(3)
    params, state = parameters(cell)
    inputs = make_inputs("start tokens")
    wrong = inputs._replace(started=inputs.started[:, :-1])
    with pytest.raises(
        ValueError, match=r"^inputs\.started must have shape \(2, 5\), got \(2, 4\)"
    ):
        unroll(cell, params, wrong, state)


def test_public_inputs_become_one_type():
    vectors, tokens = np.ones((B, T, X), np.float32), np.zeros((B, T), np.uint8)
    assert as_inputs(vectors).shape == as_inputs(Tokens(tokens, vectors[0])).shape == (B, T)
    inputs = as_inputs(Tokens(tokens, vectors[0]))
    assert as_inputs(inputs) is inputs
    assert inputs.time_major().shape == (T, B)
    np.testing.assert_array_equal(inputs.lookup(), np.ones((B, T, X)))
