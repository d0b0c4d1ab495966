"""Stacks: the equations, dropout's masks, weight dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import perturb, to_numpy

from grnn_jax import cells, unroll

B, T, X, H = 2, 6, 3, 4


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_equals_a_numpy_loop_over_layers(residual, layer_norm, engine):
    stack = cells.stack(
        [cells.lstm(H), cells.gru(H), cells.elman(H)], residual=residual, layer_norm=layer_norm
    )
    params = perturb(stack.init(jax.random.key(0), X))
    inputs = np.random.default_rng(0).normal(size=(B, T, X))
    outputs, _ = unroll(
        stack, params, jnp.float32(inputs), stack.initial_state(params, B), engine=engine
    )
    numpy_params, passed, below = to_numpy(params), inputs, None
    for index, name in enumerate(["lstm", "gru", "elman"]):
        state = oracles.initial_state({}, 2 if name == "lstm" else 1, B, H)
        layer = numpy_params[f"layer_{index}"]
        hidden, _ = oracles.unroll(oracles.STEPS[name], layer, passed, state)
        if residual and index > 0:
            hidden = hidden + below
        below = passed = hidden
        if layer_norm:
            norm = numpy_params[f"norm_{index}"]
            deviation = np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
            passed = (hidden - hidden.mean(-1, keepdims=True)) / deviation
            passed = passed * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(outputs, passed, rtol=1e-4, atol=1e-5)


def test_step_by_step_equals_layer_by_layer():
    stack = cells.stack([cells.lstm(H), cells.gru(H)], residual=True, layer_norm=True)
    params = perturb(stack.init(jax.random.key(0), X))
    inputs = jnp.float32(np.random.default_rng(0).normal(size=(B, T, X)))
    expected, expected_state = unroll(stack, params, inputs, stack.initial_state(params, B))
    state, outputs = stack.initial_state(params, B), []
    for t in range(T):
        state, output = stack.step(params, state, stack.project(params, inputs[:, t]))
        outputs.append(output)
    np.testing.assert_allclose(jnp.stack(outputs, 1), expected, rtol=1e-5, atol=1e-6)
    for actual, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def dropped(dropout_per, reset=None, length=40, hidden=64):
    """Where the output of a one-layer stack is zeroed, and by what the rest is multiplied."""
    stack = cells.stack([cells.lstm(hidden)], dropout=0.25, dropout_per=dropout_per)
    params = stack.init(jax.random.key(0), X)
    inputs = jnp.float32(np.random.default_rng(0).normal(size=(B, length, X)))
    state = stack.initial_state(params, B)
    plain, _ = unroll(stack, params, inputs, state, reset=reset)
    masked, _ = unroll(stack, params, inputs, state, reset=reset, key=jax.random.key(1))
    ratio = np.asarray(masked / plain)
    np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.75, rtol=1e-4)
    return ratio == 0


def test_dropout_per_step_draws_a_new_mask_each_step():
    zero = dropped("step")
    assert abs(zero.mean() - 0.25) < 0.02
    assert not (zero[:, 0] == zero[:, 1]).all()
    assert not (zero[0] == zero[1]).all()


def test_dropout_per_sequence_keeps_one_mask_until_a_reset():
    reset = np.zeros((B, 40), bool)
    reset[0, 15] = True
    zero = dropped("sequence", reset=jnp.asarray(reset))
    assert (zero[0, :15] == zero[0, :1]).all()
    assert (zero[0, 15:] == zero[0, 15:16]).all()
    assert (zero[1] == zero[1, :1]).all()
    assert not (zero[0, 0] == zero[0, 15]).all()
    assert not (zero[0, 0] == zero[1, 0]).all()


def test_recurrent_dropout_drops_elements_of_v_once_per_window():
    rate = 0.3
    stack = cells.stack([cells.elman(H)], recurrent_dropout=rate)
    params = perturb(stack.init(jax.random.key(0), X))
    inputs = np.random.default_rng(0).normal(size=(B, T, X))
    state = stack.initial_state(params, B)
    outputs, _ = unroll(stack, params, jnp.float32(inputs), state, key=jax.random.key(1))
    layer = to_numpy(params)["layer_0"]
    # Recover V from the outputs: atanh(h_t) - U x_t - b = V h_{t-1}, exactly determined.
    before = np.asarray(outputs, np.float64)[:, :-1].reshape(-1, H)
    after = np.arctanh(np.asarray(outputs, np.float64)[:, 1:])
    target = after - inputs[:, 1:] @ layer["input_kernel"] - layer["bias"]
    recovered, *_ = np.linalg.lstsq(before, target.reshape(-1, H), rcond=None)
    original = layer["recurrent_kernel"][0]
    kept = np.abs(recovered) > 1e-2
    np.testing.assert_allclose(recovered[kept], original[kept] / (1 - rate), rtol=2e-2, atol=2e-3)
    assert 0 < (~kept).sum() < original.size
