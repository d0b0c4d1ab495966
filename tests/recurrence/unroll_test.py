"""Every engine against the scan, and the scan against a NumPy loop; chunks; transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import CELLS, assert_trees_close, random_like, to_numpy

from grnn_jax import Tokens, cells, explain_engine, unroll
from grnn_jax.ops import lookup as lookup_lib
from grnn_jax.recurrence import fused_backward as fused_lib
from grnn_jax.recurrence import gates as gates_lib
from grnn_jax.recurrence import supported_engines


@functools.partial(jax.jit, static_argnames=("cell", "engine", "chunk_size"))
def run(cell, params, inputs, state, reset, engine, weights, key=None, chunk_size=None):
    """Loss with gradients: outputs and final state both enter it."""

    def loss(params, inputs, state):
        outputs, final = unroll(
            cell, params, inputs, state, reset=reset, engine=engine, key=key, chunk_size=chunk_size
        )
        final_sum = sum(jnp.cos(leaf).sum() for leaf in jax.tree.leaves(final))
        return (outputs * weights).sum() + final_sum, (outputs, final)

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, inputs, state)


def random_case(cell, batch_size, length, input_size, seed, resets):
    rng = np.random.default_rng(seed)
    params = random_like(lambda: cell.init(jax.random.key(0), input_size), seed=seed)
    inputs = jnp.asarray(np.float32(rng.normal(size=(batch_size, length, input_size))))
    initial = functools.partial(cell.initial_state, params, batch_size)
    state = random_like(initial, seed=seed + 1, scale=1.0)
    weights = np.float32(rng.normal(size=(batch_size, length, cell.hidden_size)))
    reset = jnp.asarray(rng.random((batch_size, length)) < 0.3) if resets else None
    return params, inputs, state, reset, weights


@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
@pytest.mark.parametrize(
    ("width", "num_heads", "batch_size", "length", "input_size", "learned", "resets"),
    [
        (1, 1, 3, 2, 5, True, True),
        (4, 1, 1, 9, 1, False, True),
        (2, 3, 4, 1, 3, True, False),
        (3, 2, 2, 7, 2, False, True),
    ],
)
def test_fused_equals_scan_for_any_shape(
    name, width, num_heads, batch_size, length, input_size, learned, resets
):
    """Each shape is compiled anew, values are not: few of those and many of these."""
    cell = cells.CELLS[name](width * num_heads, num_heads=num_heads, learned_initial_state=learned)
    for seed in range(5):
        case = random_case(cell, batch_size, length, input_size, seed, resets)
        params, inputs, state, reset, weights = case
        expected = run(cell, params, inputs, state, reset, "scan", weights)
        actual = run(cell, params, inputs, state, reset, "fused", weights)
        assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", ["elman_relu", "stack", "stack_residual_norm"])
def test_auto_and_fused_equal_scan_for_what_no_name_gives(name, resets):
    """Activations and stacks; agreement_test.py takes the cells that have a name."""
    cell = CELLS[name]()
    case = random_case(cell, 3, 11, 5, 0, resets)
    params, inputs, state, reset, weights = case
    expected = run(cell, params, inputs, state, reset, "scan", weights)
    for engine in ("fused", "fused_recompute", "auto"):
        actual = run(cell, params, inputs, state, reset, engine, weights)
        assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "num_heads"), [("elman", 2), ("lstm", 1), ("gru", 2)])
@pytest.mark.optimized
def test_fused_equals_scan_in_bfloat16(name, num_heads):
    cell = cells.CELLS[name](8, num_heads=num_heads, dtype=jnp.bfloat16)
    params, inputs, state, reset, weights = random_case(cell, 3, 12, 5, 0, True)
    expected = run(cell, params, inputs, state, reset, "scan", weights)
    actual = run(cell, params, inputs, state, reset, "fused", weights)
    assert_trees_close(actual[0], expected[0], rtol=1e-5, atol=1e-5)
    # Both round V, h and dr to bfloat16, 8 bits; relative to the largest entry of each array.
    for fused, scan in zip(*map(jax.tree.leaves, (actual[1], expected[1])), strict=True):
        np.testing.assert_allclose(fused, scan, rtol=0, atol=0.02 * np.abs(scan).max())
    single = cells.CELLS[name](8, num_heads=num_heads)
    exact = run(single, params, inputs, state, reset, "scan", weights)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), actual[0][1], exact[0][1])
    assert 0 < max(jax.tree.leaves(difference)) < 0.1  # it computes in bfloat16, and nearly right
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(actual))


@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_reset_equals_a_numpy_loop(name):
    cell = cells.CELLS[name](6, learned_initial_state=True)
    params, inputs, state, reset, _ = random_case(cell, 4, 9, 5, 3, True)
    numpy_params = to_numpy(params)
    initial = oracles.initial_state(numpy_params, len(state), 4, 6)
    expected, expected_final = oracles.unroll(
        oracles.STEPS[name],
        numpy_params,
        to_numpy(inputs),
        to_numpy(state),
        np.asarray(reset),
        initial,
    )
    for engine in ("scan", "fused"):
        outputs, final = unroll(cell, params, inputs, state, reset=reset, engine=engine)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
        assert_trees_close(final, expected_final, rtol=1e-4, atol=1e-5)


@functools.cache
def run_with_dropout(engine, chunk_size=None):
    cell = cells.stack(
        [cells.lstm(6), cells.gru(6)], dropout=0.3, dropout_per="sequence", recurrent_dropout=0.2
    )
    params, inputs, state, reset, weights = random_case(cell, 3, 13, 5, 0, True)
    key = jax.random.key(7)
    return run(cell, params, inputs, state, reset, engine, weights, key, chunk_size)


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("chunk_size", [1, 5, 13, 20])
def test_chunks_change_nothing(chunk_size, engine):
    expected, actual = run_with_dropout(engine), run_with_dropout(engine, chunk_size)
    assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_tokens", [4, 200, 2000])
def test_tokens_equal_rows_of_the_table(num_tokens):
    """More and fewer tokens than events, below and above the one-hot limit."""
    cell = cells.lstm(6)
    rng = np.random.default_rng(0)
    params = random_like(lambda: cell.init(jax.random.key(0), 5))
    table = jnp.float32(rng.normal(size=(num_tokens, 5)))
    indices = jnp.asarray(rng.integers(0, num_tokens, (3, 7)))
    weights = jnp.float32(rng.normal(size=(3, 7, 6)))
    state = cell.initial_state(params, 3)

    def loss(params, table, as_tokens):
        inputs = Tokens(indices, table) if as_tokens else table[indices]
        return (unroll(cell, params, inputs, state)[0] * weights).sum()

    expected = jax.value_and_grad(loss, argnums=(0, 1))(params, table, False)
    actual = jax.value_and_grad(loss, argnums=(0, 1))(params, table, True)
    assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_scan_has_forward_mode_and_fused_has_vmap_and_second_order():
    cell = cells.gru(4)
    params, inputs, state, reset, weights = random_case(cell, 2, 5, 3, 0, True)

    def loss(inputs, engine):
        outputs, _ = unroll(cell, params, inputs, state, reset=reset, engine=engine)
        return (outputs**2 * weights).sum()

    gradient_of = jax.jit(jax.grad(loss), static_argnums=1)
    gradient = gradient_of(inputs, "fused")

    @jax.jit
    def slope_along(direction):
        return jax.jvp(lambda x: loss(x, "scan"), (inputs,), (direction,))[1]

    slope = slope_along(weights[..., :3])
    np.testing.assert_allclose(slope, (gradient * weights[..., :3]).sum(), rtol=1e-4)

    many = jnp.stack([inputs, 2 * inputs])
    stacked = jax.jit(jax.vmap(jax.grad(lambda x: loss(x, "fused"))))(many)
    for one, expected in zip(stacked, many, strict=True):
        assert_trees_close(one, gradient_of(expected, "scan"), rtol=1e-4, atol=1e-5)

    @functools.partial(jax.jit, static_argnums=0)
    def curvature(engine):
        return jax.grad(lambda x: (jax.grad(loss)(x, engine) * weights[..., :3]).sum())(inputs)

    assert_trees_close(curvature("fused"), curvature("scan"), rtol=1e-3, atol=1e-4)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: loss(x, "fused"), (inputs,), (inputs,))


def test_fused_forms_no_kernel_gradient_in_the_loop():
    """The scan's backward loop multiplies out a gradient of V's size in each step."""
    cell = cells.lstm(6)
    params, inputs, state, _, weights = random_case(cell, 3, 50, 5, 0, False)

    def products_of_kernel_size(engine):
        def loss(params):
            return (unroll(cell, params, inputs, state, engine=engine)[0] * weights).sum()

        bodies = [
            equation.params["jaxpr"].jaxpr
            for equation in jax.make_jaxpr(jax.grad(loss))(params).eqns
            if equation.primitive.name == "scan" and equation.params["reverse"]
        ]
        assert bodies
        return sum(
            equation.primitive.name == "dot_general" and equation.outvars[0].aval.size == 6 * 24
            for body in bodies
            for equation in body.eqns
        )

    assert products_of_kernel_size("scan") == 1
    assert products_of_kernel_size("fused") == 0
    assert products_of_kernel_size("packed") == 0


@pytest.mark.parametrize("engine", ["fused", "packed"])
def test_recomputing_keeps_less_between_the_passes(engine):
    cell = cells.lstm(32)
    params, inputs, state, _, _ = random_case(cell, 4, 50, 5, 0, False)

    def kept(engine):
        def forward(params, inputs):
            return unroll(cell, params, inputs, state, engine=engine)[0]

        _, pullback = jax.vjp(forward, params, inputs)
        return sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))

    assert kept(engine) - kept(f"{engine}_recompute") >= 4 * 50 * 4 * 32


@pytest.mark.optimized
def test_memory_grows_like_the_square_root_with_chunks():
    from grnn_jax import distributions, event_log_probs, make_model

    def temporary_bytes(length, chunk_size):
        model = make_model(
            cells.lstm(32), distributions.categorical(8), chunk_size=chunk_size, engine="fused"
        )
        params = model.init(jax.random.key(0))
        events = jnp.zeros((16, length), jnp.int32)
        mask, reset = jnp.ones(events.shape, bool), jnp.zeros(events.shape, bool)

        def loss(params):
            carry = model.initial_state(params, 16)
            return event_log_probs(model, params, carry, (events, mask, reset))[0].sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = temporary_bytes(4096, None) / temporary_bytes(256, None)
    chunked = temporary_bytes(4096, 64) / temporary_bytes(256, 16)
    assert plain > 12  # sixteen times the steps
    assert chunked < 6  # about four times the memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"engine": "warp"},
            r"engine must be one of \['auto', 'scan', 'fused', .*\], got 'warp'",
        ),
        ({"reset": jnp.zeros((2, 4), bool)}, r"reset must have shape \(2, 5\), got \(2, 4\)"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    cell = cells.lstm(4)
    params = cell.init(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=message):
        unroll(cell, params, jnp.zeros((2, 5, 3)), cell.initial_state(params, 2), **arguments)


def test_auto_chooses_by_structure():
    for cell, engine in (
        (cells.lstm(128), "fused"),
        (cells.diagonal_gru(128), "fused"),
        (cells.min_gru(128), "linear"),
        (cells.gru(128)._replace(gated=None), "scan"),
    ):
        for platform in (None, "cpu", "cuda", "tpu"):
            choice = explain_engine(cell, platform)
            expected = "packed" if engine == "fused" and platform in ("cuda", "tpu") else engine
            assert choice.engine == expected and choice.reason
            assert choice.engine in supported_engines(cell)
    assert "linear" not in supported_engines(cells.lstm(4))
    with pytest.raises(ValueError, match="cell must be a single layer, got a stack"):
        explain_engine(cells.stack([cells.lstm(4)]))


@pytest.mark.optimized
def test_fused_refuses_a_cell_without_gated_structure():
    plain = cells.lstm(4)._replace(gated=None)
    params = plain.init(jax.random.key(0), 3)
    inputs, state = jnp.ones((2, 5, 3)), plain.initial_state(params, 2)
    with pytest.raises(ValueError, match="needs a cell with gated structure; .* run by scan$"):
        unroll(plain, params, inputs, state, engine="fused")
    expected, _ = unroll(cells.lstm(4), params, inputs, state, engine="scan")
    outputs, _ = unroll(plain, params, inputs, state)
    np.testing.assert_array_equal(outputs, expected)


@pytest.mark.parametrize("engine", ["fused", "fused_recompute", "packed"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_windows_longer_than_a_chunk_and_no_multiple_of_it(name, engine, monkeypatch):
    """37 steps: chunks of 16 and a rest of 5; dense inputs and tokens, with resets."""
    monkeypatch.setattr(fused_lib, "CHUNK_ROWS", 32)
    cell = cells.CELLS[name](4, learned_initial_state=True)
    params, inputs, state, reset, weights = random_case(cell, 2, 37, 3, 0, True)
    table = jnp.float32(np.random.default_rng(1).normal(size=(5, 3)))
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, 5, (2, 37)))

    def loss(params, inputs, state, table, engine):
        total = 0.0
        for entering in (inputs, Tokens(tokens, table)):
            outputs, final = unroll(cell, params, entering, state, reset=reset, engine=engine)
            total += (outputs * weights).sum() + sum(jnp.cos(leaf).sum() for leaf in final)
        return total

    both = [
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), static_argnums=4)(
            params, inputs, state, table, name
        )
        for name in (engine, "scan")
    ]
    assert_trees_close(*both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["fused", "linear"])
def test_no_step_leaves_the_state(engine):
    cell = cells.lstm(4) if engine == "fused" else cells.min_gru(4)
    params, inputs, state, _, _ = random_case(cell, 2, 1, 3, 0, False)
    outputs, final = unroll(cell, params, inputs[:, :0], state, engine=engine)
    assert outputs.shape == (2, 0, 4)
    assert_trees_close(final, state, rtol=0, atol=0)


def test_large_and_small_tables_have_one_gradient(monkeypatch):
    """Its gradient is that of a small one, which is a product for each chunk."""
    cell = cells.lstm(4)
    params, _, state, _, weights = random_case(cell, 8, 64, 3, 0, False)
    table = jnp.ones((512, 3))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 512, (8, 64)))

    def gradient(limit):
        for module in (lookup_lib, gates_lib):
            monkeypatch.setattr(module, "ONE_HOT_LIMIT", limit)

        def loss(table):
            outputs, _ = unroll(cell, params, Tokens(tokens, table), state, engine="fused")
            return (outputs * weights).sum()

        return jax.jit(jax.grad(loss))(table)

    monkeypatch.setattr(fused_lib, "CHUNK_ROWS", 128)
    np.testing.assert_allclose(gradient(2**30), gradient(2**10), rtol=1e-4, atol=1e-5)
