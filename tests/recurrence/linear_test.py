"""The linear scan and its engine against loops in NumPy float64 and against the scan engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax import cells, unroll
from grnn_jax.recurrence.linear_scan import METHODS, block_linear_scan, linear_scan

NAMES = ["min_gru", "min_lstm"]
jitted = jax.jit(linear_scan, static_argnames=("method", "chunk_size"))


def loop(decay, update, initial):
    states = [initial]
    for a, b in zip(decay, update, strict=True):
        states.append(a * states[-1] + b)
    return np.stack(states[1:])


def recurrence(rng, length, *shape, is_complex=False):
    decay, update = rng.uniform(-1, 1, (2, length, *shape))
    initial = rng.normal(size=shape)
    if is_complex:
        decay = decay * np.exp(1j * rng.uniform(0, 6, decay.shape))
        update, initial = update + 1j * update[::-1], initial * (1 - 2j)
    return decay, update, initial


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("length", "width", "chunk_size", "is_complex"),
    [
        (1, 2, None, False), (1, 1, 2, True), (5, 1, 1, False), (8, 3, 8, True),
        (11, 1, None, True), (12, 2, 4, False), (13, 3, 5, True),
    ],
)  # fmt: skip
@given(seed=st.integers(0, 99), every=st.integers(1, 5))
@settings(deadline=None, max_examples=6)
def test_equals_a_numpy_loop(method, length, width, chunk_size, is_complex, seed, every):
    """Each shape is compiled anew, values are not: few of those and many of these."""
    arguments = recurrence(np.random.default_rng(seed), length, 2, width, is_complex=is_complex)
    arguments[0][::every] = 0
    with jax.enable_x64(True):
        states = jitted(*map(jnp.asarray, arguments), method=method, chunk_size=chunk_size)
        np.testing.assert_allclose(states, loop(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_that_of_the_loop(method, is_complex):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in recurrence(rng, 11, 2, 3, is_complex=is_complex)]
        weights = jnp.asarray(rng.normal(size=(11, 2, 3)))

        def plain(decay, update, initial):
            def step(state, inputs):
                state = inputs[0] * state + inputs[1]
                return state, state

            return jax.lax.scan(step, initial, (decay, update))[1]

        def loss(function, *arguments):
            states = function(*arguments)
            return (weights * jnp.abs(states) ** 2).sum() + (weights * states.real).sum()

        def ours(*arguments):
            return linear_scan(*arguments, method=method, chunk_size=4)

        gradient = jax.jit(jax.grad(loss, argnums=(1, 2, 3)), static_argnums=0)
        for found, expected in zip(
            gradient(ours, *arguments), gradient(plain, *arguments), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
        if not is_complex:

            def twice(function):
                def slope(decay):
                    return (jax.grad(loss, argnums=1)(function, decay, *arguments[1:]) ** 2).sum()

                return jax.jit(jax.grad(slope))(arguments[0])

            np.testing.assert_allclose(twice(ours), twice(plain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_block_scan_and_its_gradient_are_those_of_a_loop(method, reverse):
    """Matrices of two rows, three units: a gradient through one that is not transposed differs."""
    rng = np.random.default_rng(2)

    def plain(matrices, update, initial):
        def step(state, inputs):
            state = jnp.einsum("iju,ju->iu", inputs[0], state) + inputs[1]
            return state, state

        return jax.lax.scan(step, initial, (matrices, update), reverse=reverse)[1]

    def ours(*arguments):
        return block_linear_scan(*arguments, method=method, chunk_size=3, reverse=reverse)

    with jax.enable_x64(True):
        shapes = (7, 2, 2, 3), (7, 2, 3), (2, 3)
        arguments = [jnp.asarray(rng.normal(size=shape)) for shape in shapes]
        weights = jnp.asarray(rng.normal(size=(7, 2, 3)))

        def loss(function, *arguments):
            states = function(*arguments)
            return (weights * jnp.sin(states)).sum(), states

        run = jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3), has_aux=True), static_argnums=0)
        assert_trees_close(run(ours, *arguments), run(plain, *arguments), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.optimized
def test_float32_stays_near_float64_over_10_000_steps(method):
    rng = np.random.default_rng(1)
    decay = 1 - rng.uniform(0, 1e-3, (10_000, 4))
    update, initial = rng.normal(size=(10_000, 4)), rng.normal(size=4)
    expected = loop(decay.astype(np.float32).astype(float), update, initial)
    states = jitted(*(jnp.float32(x) for x in (decay, update, initial)), method=method)
    assert states.dtype == jnp.float32
    np.testing.assert_allclose(states, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.optimized
def test_bfloat16_inputs_have_a_float32_carry(method):
    # In bfloat16 the sum of 1,000 ones would stand still at 256.
    ones = jnp.ones((1000, 1), jnp.bfloat16)
    states = jitted(ones, ones, jnp.zeros(1, jnp.bfloat16), method=method)
    assert states.dtype == jnp.float32 and states[-1, 0] == 1000


def test_wrong_arguments_are_named():
    ones = jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"method must be one of .* got 'fast'"):
        linear_scan(ones, ones, ones[0], method="fast")
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        linear_scan(ones, ones, ones[0], chunk_size=0)
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 2\) and \(3,\)"):
        linear_scan(ones, ones, jnp.ones(3))
    assert linear_scan(ones[:0], ones[:0], ones[0]).shape == (0, 2)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize(("name", "learned"), [("min_gru", False), ("min_lstm", True)])
def test_engine_equals_scan(name, learned, chunk_size, platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    cell = cells.CELLS[name](5, learned_initial_state=learned)
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        params = cell.init(jax.random.key(0), 3)
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
        inputs, weights = jnp.asarray(rng.normal(size=(2, 11, 3))), rng.normal(size=(2, 11, 5))
        state = (jnp.asarray(rng.normal(size=(2, 5))),)
        reset = jnp.asarray(rng.random((2, 11)) < 0.3)

        def loss(params, inputs, state, engine):
            outputs, last = unroll(
                cell, params, inputs, state, reset=reset, engine=engine, chunk_size=chunk_size
            )
            return (outputs * weights).sum() + (last[0] ** 2).sum(), (outputs, last)

        # Compiled anew for each platform: what is called eagerly is kept by cell and shapes.
        run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
        expected, found = (run(params, inputs, state, engine) for engine in ("scan", "linear"))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), found, expected
        )


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_states_alone_are_kept_between_the_passes(name):
    cell = cells.CELLS[name](8)
    params = cell.init(jax.random.key(0), 3)
    reset = jnp.zeros((2, 50), bool)

    def forward(params, inputs):
        state = cell.initial_state(params, 2)
        return unroll(cell, params, inputs, state, reset=reset, engine="linear")[0]

    _, pullback = jax.vjp(forward, params, jnp.ones((2, 50, 3)))
    kept = sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))
    gates = params["bias"].size
    assert kept < 2 * 50 * (gates + 8 + 3 + 1) + 400  # x projected, h, x, resets; parameters


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_min_gru(gates, hidden):
    update, candidate = np.split(gates, 2, -1)
    return (1 - sigmoid(update)) * hidden + sigmoid(update) * candidate


def numpy_min_lstm(gates, hidden):
    enter, forget, candidate = np.split(gates, 3, -1)
    enter, forget = sigmoid(enter), sigmoid(forget)
    return (forget * hidden + enter * candidate) / (forget + enter)


@pytest.mark.parametrize("engine", ["scan", "linear"])
@pytest.mark.parametrize(
    ("name", "step", "gates"), [("min_gru", numpy_min_gru, 2), ("min_lstm", numpy_min_lstm, 3)]
)
def test_cell_equals_a_numpy_loop(name, step, gates, engine):
    cell = cells.CELLS[name](5)
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        params = cell.init(jax.random.key(0), 3)
        assert cells.count_parameters(params) == gates * 5 * (3 + 1)
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        inputs, weights = rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 7, 5))

        def oracle(params):
            hidden, outputs = np.zeros((2, 5)), []
            for x in np.swapaxes(inputs, 0, 1):
                hidden = step(x @ params["input_kernel"] + params["bias"], hidden)
                outputs.append(hidden)
            return np.stack(outputs, 1)

        def loss(params):
            state = cell.initial_state(params, 2)
            outputs, _ = unroll(cell, params, jnp.asarray(inputs), state, engine=engine)
            return (outputs * weights).sum(), outputs

        ours = jax.tree.map(jnp.asarray, params)
        (_, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(ours)
        np.testing.assert_allclose(outputs, oracle(params), rtol=1e-12, atol=1e-12)
        for name in params:
            direction = rng.normal(size=params[name].shape)
            ahead = oracle(params | {name: params[name] + 1e-6 * direction})
            behind = oracle(params | {name: params[name] - 1e-6 * direction})
            expected = ((ahead - behind) * weights).sum() / 2e-6
            np.testing.assert_allclose((gradient[name] * direction).sum(), expected, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.optimized
def test_extreme_gates_are_finite(name):
    cell = cells.CELLS[name](4)
    params = cell.init(jax.random.key(0), 2)
    inputs = jnp.asarray([[[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]]])

    def loss(params):
        outputs, _ = unroll(cell, params, inputs, cell.initial_state(params, 1))
        return outputs.sum()

    value, gradient = jax.value_and_grad(loss)(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_cells_that_are_not_linear_are_refused():
    cell = cells.lstm(4)
    params = cell.init(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="engine=linear needs a cell with linear structure"):
        state = cell.initial_state(params, 1)
        unroll(cell, params, jnp.ones((1, 3, 2)), state, engine="linear")
