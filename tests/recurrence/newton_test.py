"""The newton engine against the scan, in value and gradient, where it converges and where not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import assert_trees_close, random_like, to_numpy

from grnn_jax import cells, newton_unroll, unroll
from grnn_jax.recurrence import supported_engines
from grnn_jax.recurrence.jacobian import block_size


def diagonal(hidden_size, **arguments):
    """A cell without V: a unit sees itself alone, through one weight in `pointwise`."""

    def pointwise(weights, projected, recurrent, state):
        hidden, memory = state
        gate = jax.nn.sigmoid(projected[0] + weights["gate"] * hidden)
        memory = gate * memory + jnp.sin(projected[1] + weights["own"] * hidden)
        return jnp.tanh(memory), memory

    return cells.gated_cell(
        hidden_size=hidden_size,
        num_heads=1,
        num_gates=2,
        num_recurrent_gates=0,
        num_states=2,
        pointwise=pointwise,
        bias=lambda: jnp.zeros((2 * hidden_size,)),
        pointwise_init=lambda: {"gate": jnp.ones(hidden_size), "own": jnp.ones(hidden_size)},
        **arguments,
    )


def case(cell, batch_size, length, seed=0, resets=True):
    rng = np.random.default_rng(seed)
    params = random_like(lambda: cell.init(jax.random.key(0), 3), seed=seed, scale=0.5)
    inputs = jnp.float32(rng.normal(size=(batch_size, length, 3)))
    initial = functools.partial(cell.initial_state, params, batch_size)
    state = random_like(initial, seed=seed + 1, scale=1.0)
    reset = jnp.asarray(rng.random((batch_size, length)) < 0.15) if resets else None
    weights = jnp.float32(rng.normal(size=(batch_size, length, cell.hidden_size)))
    return params, inputs, state, reset, weights


def scan(cell, *arguments, **options):
    return *unroll(cell, *arguments, engine="scan", **options), None


def value_and_gradient(run, cell):
    """The compiled loss of one cell; outputs and final state both enter it."""

    def loss(params, inputs, state, reset, weights):
        outputs, final, report = run(cell, params, inputs, state, reset=reset)
        final_sum = sum(jnp.cos(array).sum() for array in final)
        return (outputs * weights).sum() + final_sum, ((outputs, final), report)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def assert_same_gradient(found, expected, tolerance):
    """Every array near its counterpart, relative to its largest element."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize(
    ("cell", "block", "batch_size", "length", "resets", "tolerance"),
    [
        (cells.elman(3, num_heads=3), 1, 2, 1, False, 1e-6),
        (cells.lstm(5, num_heads=5, learned_initial_state=True), 2, 3, 17, True, 1e-5),
        (cells.gru(6, num_heads=2, learned_initial_state=True), 3, 3, 13, True, 1e-5),
        (cells.lstm(8, num_heads=2), 8, 1, 9, False, 1e-5),
        (diagonal(4, learned_initial_state=True), 2, 2, 11, True, 1e-5),
        (cells.gru(4, num_heads=2, dtype=jnp.bfloat16), 2, 2, 12, True, 2e-2),
    ],
    ids=["elman_1_step", "lstm_units", "gru_heads", "lstm_heads", "without_kernel", "bfloat16"],
)
def test_equals_scan(cell, block, batch_size, length, resets, tolerance):
    assert block_size(cell) == block and "newton" in supported_engines(cell)
    both = value_and_gradient(scan, cell), value_and_gradient(newton_unroll, cell)
    for seed, scale in ((0, 1.0), (1, 1.0), (2, 4.0)):  # the last with four times the weights
        params, *rest = case(cell, batch_size, length, seed, resets)
        params = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
        expected, found = (run(params, *rest) for run in both)
        ((_, ((outputs, final), _)), gradient) = expected
        ((_, (values, report)), found_gradient) = found
        # Values agree to float32 in bfloat16 too: both round the same products.
        assert_trees_close(values, (outputs, final), rtol=1e-5, atol=1e-5)
        assert_same_gradient(found_gradient, gradient, tolerance)
        assert report.iterations.shape == report.residual.shape == (batch_size,)
        if scale == 1 and cell.gated.dtype == jnp.float32:
            assert report.converged.all() and (report.residual <= 1e-6).all()
            assert (report.iterations <= 8).all()


def test_what_does_not_converge_is_computed_step_by_step():
    cell = cells.elman(4, num_heads=4)
    both = value_and_gradient(scan, cell), value_and_gradient(newton_unroll, cell)
    params, inputs, state, reset, weights = case(cell, 3, 120, 0)
    params["recurrent_kernel"] = jnp.float32([4, -4, 3, -3]).reshape(4, 1, 1)
    reset = (reset & False).at[0].set(True)  # the first row has no past

    def compare(*arguments, rows=slice(None)):
        expected, found = (run(*arguments) for run in both)
        values, report = found[0][1]
        np.testing.assert_allclose(
            values[0][rows], expected[0][1][0][0][rows], rtol=1e-5, atol=1e-5
        )
        return expected[1], found[1], values[0], report

    gradient, found, _, report = compare(params, inputs, state, reset, weights)
    assert report.converged.tolist() == [True, False, False]
    assert (report.residual[1:] > 1e-3).all() and (report.iterations[1:] == 50).all()
    assert_same_gradient(found, gradient, 1e-5)

    # No number from some step on in one row: the others do not notice.
    broken = inputs.at[1, 7].set(jnp.nan)
    _, _, outputs, report = compare(params, broken, state, reset.at[2].set(True), weights)
    assert report.converged.tolist() == [True, False, True]
    assert np.isfinite(outputs[1, :7]).all() and np.isnan(outputs[1, 7:]).all()

    # Products of Jacobians overflow behind the last step that has a loss; the gradient does not.
    still = jax.tree.map(jnp.zeros_like, params)
    still["recurrent_kernel"] = jnp.full((4, 1, 1), 8.0)
    early = weights.at[:, 4:].set(0)
    arguments = still, 0 * inputs, (0 * state[0],), reset & False, early
    gradient, found, _, report = compare(*arguments)
    assert report.converged.all() and np.isfinite(found[0]["bias"]).all()
    assert_same_gradient(found, gradient, 1e-5)


def test_equals_a_numpy_loop_and_finite_differences_in_float64():
    cell = cells.lstm(4, num_heads=4, learned_initial_state=True)
    params, inputs, state, reset, weights = to_numpy(case(cell, 2, 10))
    initial = oracles.initial_state(params, 2, 2, 4)

    def oracle(params):
        initial = oracles.initial_state(params, 2, 2, 4)
        return oracles.unroll(oracles.lstm_step, params, inputs, state, reset > 0, initial)

    with jax.enable_x64(True):

        def loss(params):
            run = newton_unroll(
                cell, params, jnp.asarray(inputs), tuple(map(jnp.asarray, state)),
                reset=jnp.asarray(reset > 0), max_iterations=30,
            )  # fmt: skip
            return (run[0] * weights).sum(), run

        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, (outputs, final, report)), gradient = run(jax.tree.map(jnp.asarray, params))
        expected, expected_final = oracle(params)
        np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-13)
        assert_trees_close(final, expected_final, rtol=1e-12, atol=1e-13)
        assert report.converged.all() and (report.residual < 1e-14).all()
    rng = np.random.default_rng(0)
    for name, value in params.items():
        direction = rng.normal(size=value.shape)
        ahead, behind = (
            (oracle(params | {name: value + step * direction})[0] * weights).sum()
            for step in (1e-6, -1e-6)
        )
        slope = (np.asarray(gradient[name]) * direction).sum()
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-7)
    assert initial[0].any()


def test_second_derivatives_are_those_of_the_scan():
    cell = cells.elman(2, num_heads=2)
    params, inputs, state, _, weights = case(cell, 1, 5, resets=False)

    def twice(engine):
        def loss(params):
            return (unroll(cell, params, inputs, state, engine=engine)[0] * weights).sum()

        def slope(params):
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.grad(loss)(params)))

        return jax.jit(jax.grad(slope))(params)

    assert_same_gradient(twice("newton"), twice("scan"), 1e-5)


def test_a_population_of_parameters():
    cell = cells.elman(2, num_heads=2)
    params, inputs, state, reset, weights = case(cell, 2, 6)
    population = jax.tree.map(lambda leaf: jnp.stack([leaf, -3 * leaf]), params)

    def gradients(engine):
        def loss(params):
            outputs, _ = unroll(cell, params, inputs, state, reset=reset, engine=engine)
            return (outputs * weights).sum()

        return jax.jit(jax.vmap(jax.grad(loss)))(population)

    assert_same_gradient(gradients("newton"), gradients("scan"), 1e-5)


def test_without_iterations_all_is_computed_step_by_step():
    cell = cells.elman(4, num_heads=4)
    params, inputs, state, reset, _ = case(cell, 2, 40)
    outputs, final, report = newton_unroll(
        cell, params, inputs, state, reset=reset, max_iterations=0
    )
    expected = unroll(cell, params, inputs, state, reset=reset, engine="scan")
    assert_trees_close((outputs, final), expected, rtol=1e-6, atol=1e-6)
    assert not report.converged.any() and not report.iterations.any()


def test_unfit_cells_and_settings_are_named():
    dense = cells.lstm(5)
    params, inputs, state, _, _ = case(dense, 1, 3)
    assert "newton" not in supported_engines(dense)
    for wide in (dense, cells.lstm(6)._replace(gated=None), cells.min_gru(4)):
        assert "newton" not in supported_engines(wide)
    with pytest.raises(ValueError, match="engine=newton needs a cell with gated, elementwise"):
        unroll(dense, params, inputs, state, engine="newton")
    with pytest.raises(ValueError, match="blocks of at most 8, got 10; use 'scan'"):
        newton_unroll(dense, params, inputs, state)
    run = functools.partial(newton_unroll, cells.elman(5, num_heads=5))
    with pytest.raises(ValueError, match="max_iterations must be at least 0, got -1"):
        run(params, inputs, state, max_iterations=-1)
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        run(params, inputs, state, tolerance=0.0)
