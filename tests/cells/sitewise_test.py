"""Sitewise cells: a NumPy loop over sites, engines, transposition, what cannot be sitewise."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import assert_trees_close, perturb, to_numpy

from grnn_jax import cells, unroll

B, T, N, D = 2, 5, 9, 2


def oracle_features(row, channels, window, period, num_positions, kernel=None):
    """What each site of one row sees, one number after another."""
    features = []
    for n in range(N):
        if channels == 1:
            seen = [row[j] if 0 <= j < N else 0 for j in range(n - window, n + window + 1)]
            seen += [sum(row[j] for j in range(N) if (j - n) % period == r) for r in range(period)]
        else:
            sites = row.reshape(N, channels)
            mixed = sum(kernel[j - n + N - 1] * sites[j] for j in range(N))
            seen = [*sites[n], *mixed]
        seen += [np.cos(np.pi * k * (n + 0.5) / N) for k in range(1, num_positions + 1)]
        features.append(seen)
    return np.array(features)


@pytest.mark.parametrize(
    ("name", "channels", "num_positions"), [("lstm", 1, 2), ("gru", 1, 0), ("elman", 3, 1)]
)
def test_equals_a_numpy_loop_and_finite_differences(name, channels, num_positions):
    window, period = 2, 4
    with jax.enable_x64(True):
        inner = cells.CELLS[name](D, learned_initial_state=True)
        cell = cells.sitewise(
            inner, N, input_window=window, period=period, num_positions=num_positions
        )
        assert cell.hidden_size == N * D
        params = perturb(cell.init(jax.random.key(0), N * channels), dtype=jnp.float64)
        rng = np.random.default_rng(1)
        inputs = rng.normal(size=(B, T, N * channels))
        weights = rng.normal(size=(B, T, N * D))

        def oracle(params):
            outputs = np.zeros((B, T, N, D))
            for b in range(B):
                rows = [
                    oracle_features(
                        row, channels, window, period, num_positions, params.get("site_kernel")
                    )
                    for row in inputs[b]
                ]
                states = 2 if name == "lstm" else 1
                state = oracles.initial_state(params, states, N, D)
                steps = np.stack(rows, 1)  # [N, T, F]
                outputs[b] = oracles.unroll(oracles.STEPS[name], params, steps, state)[0].swapaxes(
                    0, 1
                )
            return outputs.reshape(B, T, N * D)

        @jax.jit
        def value_and_gradient(params):
            def loss(params):
                state = cell.initial_state(params, B)
                outputs, _ = unroll(cell, params, jnp.asarray(inputs), state, engine="fused")
                return (outputs * weights).sum(), outputs

            return jax.value_and_grad(loss, has_aux=True)(params)

        (_, outputs), gradient = value_and_gradient(params)
        numpy_params = to_numpy(params)
        np.testing.assert_allclose(outputs, oracle(numpy_params), rtol=1e-12, atol=1e-12)
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), numpy_params)
        ahead, behind = (
            oracle(jax.tree.map(lambda a, d, s=s: a + s * d, numpy_params, direction))
            for s in (1e-6, -1e-6)
        )
        slope = sum(
            (np.asarray(g) * d).sum()
            for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        )
        np.testing.assert_allclose(slope, ((ahead - behind) * weights).sum() / 2e-6, rtol=1e-7)


def make_stack(recurrent_dropout=0.0):
    layers = [cells.sitewise_lstm(N * D, num_sites=N, input_window=3, num_positions=1)] * 2
    return cells.stack(layers, residual=True, recurrent_dropout=recurrent_dropout)


@pytest.mark.parametrize("make", [make_stack, lambda: cells.sitewise(cells.min_gru(D), N)])
def test_every_engine_equals_the_steps(make):
    """With resets and a state of before, in value and gradient, in chunks too."""
    cell = make()
    params = perturb(cell.init(jax.random.key(0), N))
    rng = np.random.default_rng(0)
    inputs = jnp.float32(rng.normal(size=(B, T, N)))
    state = perturb(cell.initial_state(params, B))
    reset = jnp.asarray(rng.random((B, T)) < 0.4)
    weights = jnp.float32(rng.normal(size=(B, T, N * D)))

    def steps(params, inputs, state):
        initial, outputs = cell.initial_state(params, B), []
        for t in range(T):
            state = jax.tree.map(
                lambda fresh, old, t=t: jnp.where(reset[:, t, None], fresh, old), initial, state
            )
            state, output = cell.step(params, state, cell.project(params, inputs[:, t]))
            outputs.append(output)
        return jnp.stack(outputs, 1), state

    def results(run):
        def loss(params, inputs, state):
            outputs, final = run(params, inputs, state)
            total = (outputs * weights).sum() + sum(map(jnp.sum, jax.tree.leaves(final)))
            return total, (outputs, final)

        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
        return gradient(params, inputs, state)

    expected = results(steps)
    special = "linear" if cell.layered is None else "fused_recompute"
    for engine, chunk_size in (("scan", 2), (special, None)):
        actual = results(
            lambda params, inputs, state, e=engine, c=chunk_size: unroll(
                cell, params, inputs, state, reset=reset, engine=e, chunk_size=c
            )
        )
        assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_commutes_with_transposition_away_from_the_edges():
    """Exactly so without positions, and not with them."""
    size, notes = 30, [12, 15, 19]
    rng = np.random.default_rng(0)
    low = np.zeros((1, T, size), np.float32)
    low[:, :, notes] = rng.integers(0, 2, (1, T, len(notes)))
    high = np.roll(low, 5, axis=-1)
    for num_positions in (0, 3):
        cell = cells.sitewise(cells.gru(D), size, input_window=4, num_positions=num_positions)
        params = perturb(cell.init(jax.random.key(0), size))
        state = cell.initial_state(params, 1)
        outputs = [
            np.asarray(unroll(cell, params, rolls, state)[0]).reshape(T, size, D)
            for rolls in (low, high)
        ]
        moved = np.array_equal(outputs[0][:, : size - 5], outputs[1][:, 5:])
        assert moved == (num_positions == 0)
    assert np.ptp(outputs[0], axis=1).max() > 0.1  # The sites differ.


def test_upper_layers_see_the_sites_around_by_distance():
    """A note reaches as far as the window and the kernel do, and as if all were transposed."""
    size, window, reach = 40, 2, 3
    layer = cells.sitewise(cells.gru(D), size, input_window=window, period=0)
    stack = cells.stack([layer, layer])
    params = stack.init(jax.random.key(0), size)
    kernel = params["layer_1"]["site_kernel"]
    assert kernel.shape == (2 * size - 1, D) and np.allclose(kernel, 1 / size)  # The mean.
    assert "site_kernel" not in params["layer_0"]
    params = perturb(params)
    near = np.abs(np.arange(1 - size, size)) <= reach
    params["layer_1"]["site_kernel"] *= near[:, None]
    state = stack.initial_state(params, 1)

    def run(notes):
        roll = np.zeros((1, T, size), np.float32)
        roll[:, :, notes] = 1
        return np.asarray(unroll(stack, params, roll, state)[0]).reshape(T, size, D)

    low, more, high = run([14, 18]), run([14, 18, 20]), run([19, 23])
    changed = np.abs(low - more).max((0, 2)) > 1e-5
    np.testing.assert_array_equal(changed, np.abs(np.arange(size) - 20) <= window + reach)
    inner = slice(reach, size - 5 - reach)
    np.testing.assert_allclose(low[:, inner], high[:, 5:][:, inner], rtol=1e-5, atol=1e-6)


def test_dropout_of_recurrent_weights_reaches_the_inner_cell():
    plain, dropped = make_stack(), make_stack(recurrent_dropout=0.5)
    params = plain.init(jax.random.key(0), N)
    inputs = jnp.ones((B, T, N))
    state = plain.initial_state(params, B)
    key = jax.random.key(1)
    outputs = [unroll(c, params, inputs, state, key=key)[0] for c in (plain, dropped)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cells.sitewise(cells.gru(2), 0), "num_sites must be at least 1, got 0"),
        (
            lambda: cells.sitewise(cells.gru(2), 3, input_window=-1),
            "input_window must be at least 0",
        ),
        (
            lambda: cells.sitewise(make_stack(), 3),
            "a single cell of one site, got a sitewise cell or a st",
        ),
        (lambda: cells.sitewise_lstm(256, num_sites=88), "a multiple of its 88 sites, got 256"),
        (
            lambda: cells.sitewise_gru(6, num_sites=3).init(jax.random.key(0), 4),
            "input size of a sitewise cell must be a multiple of num_sites=3, got 4",
        ),
    ],
)
def test_wrong_sizes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
