"""Every cell against a NumPy float64 loop, flax's cell and PyTorch's layer."""

import functools
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import assert_trees_close, perturb, to_numpy

from grnn_jax import cells, unroll

B, T, X, H = 3, 7, 5, 6
NAMES = ["elman", "elman_relu", "gru", "lstm"]


def make(name, **settings):
    if name == "elman_relu":
        name, settings = "elman", settings | {"activation": "relu"}
    cell = cells.CELLS[name](H, **settings)
    return cell, perturb(cell.init(jax.random.key(0), X))


def inputs_and_weights(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, T, X)), rng.normal(size=(B, T, H))


def loss_and_gradients(cell, params, inputs, weights, engine):
    """Σ weights · h, and its gradients with respect to the parameters and the inputs."""

    def loss(params, inputs):
        outputs, _ = unroll(cell, params, inputs, cell.initial_state(params, B), engine=engine)
        return (outputs * weights).sum(), outputs

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, inputs)


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("settings", [{}, {"num_heads": 3, "learned_initial_state": True}])
@pytest.mark.parametrize("name", NAMES)
def test_equals_a_numpy_float64_loop(name, settings, engine):
    with jax.enable_x64(True):
        cell, params = make(name, **settings)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        inputs, weights = inputs_and_weights()
        (_, outputs), (gradient, _) = loss_and_gradients(
            cell, params, jnp.asarray(inputs), jnp.asarray(weights), engine
        )

        def oracle(params):
            state = oracles.initial_state(params, 2 if name == "lstm" else 1, B, H)
            return oracles.unroll(oracles.STEPS[name], params, inputs, state)

        numpy_params = to_numpy(params)
        expected, _ = oracle(numpy_params)
        np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)

        # Gradients by central differences of the NumPy loop, along random directions.
        rng = np.random.default_rng(0)
        for _ in range(3):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), numpy_params)
            ahead = oracle(jax.tree.map(lambda a, d: a + 1e-6 * d, numpy_params, direction))[0]
            behind = oracle(jax.tree.map(lambda a, d: a - 1e-6 * d, numpy_params, direction))[0]
            expected_slope = ((ahead - behind) * weights).sum() / 2e-6
            slope = sum(
                (np.asarray(g) * d).sum()
                for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
            )
            np.testing.assert_allclose(slope, expected_slope, rtol=1e-7)


def flax_cell(name, params):
    """flax's cell with our weights."""
    u = np.split(params["input_kernel"], params["input_kernel"].shape[1] // H, 1)
    v = np.split(params["recurrent_kernel"][0], len(u), 1)
    b = np.split(params["bias"], len(u))
    if name in ("elman", "elman_relu"):
        module = nn.SimpleCell(H, activation_fn=nn.relu if name == "elman_relu" else nn.tanh)
        return module, {"i": {"kernel": u[0], "bias": b[0]}, "h": {"kernel": v[0]}}
    if name == "lstm":
        gates = "ifgo"
        weights = {f"i{gate}": {"kernel": u[k]} for k, gate in enumerate(gates)}
        weights |= {f"h{gate}": {"kernel": v[k], "bias": b[k]} for k, gate in enumerate(gates)}
        return nn.LSTMCell(H), weights
    weights = {f"i{g}": {"kernel": u[k], "bias": b[k]} for k, g in enumerate("rzn")}
    weights |= {f"h{g}": {"kernel": v[k]} for k, g in enumerate("rzn")}
    weights["hn"]["bias"] = params["candidate_bias"]
    return nn.GRUCell(H), weights


def from_flax(name, weights):
    """A tree of flax's weights (or gradients) in our layout."""
    gates = {"lstm": "ifgo", "gru": "rzn"}.get(name, "")
    if not gates:
        return {
            "input_kernel": weights["i"]["kernel"],
            "recurrent_kernel": weights["h"]["kernel"][None],
            "bias": weights["i"]["bias"],
        }
    side = "h" if name == "lstm" else "i"
    ours = {
        "input_kernel": jnp.concatenate([weights[f"i{g}"]["kernel"] for g in gates], 1),
        "recurrent_kernel": jnp.concatenate([weights[f"h{g}"]["kernel"] for g in gates], 1)[None],
        "bias": jnp.concatenate([weights[f"{side}{g}"]["bias"] for g in gates]),
    }
    if name == "gru":
        ours["candidate_bias"] = weights["hn"]["bias"]
    return ours


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_flax(name, engine):
    cell, params = make(name)
    inputs, weights = inputs_and_weights()
    inputs, weights = jnp.float32(inputs), jnp.float32(weights)
    module, flax_params = flax_cell(name, params)
    start = module.initialize_carry(jax.random.key(0), (B, X))

    def loss(flax_params, inputs):
        carry, outputs = start, []
        for t in range(T):
            carry, output = module.apply({"params": flax_params}, carry, inputs[:, t])
            outputs.append(output)
        outputs = jnp.stack(outputs, 1)
        return (outputs * weights).sum(), outputs

    (_, expected), (flax_gradient, expected_dx) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(jax.tree.map(jnp.asarray, flax_params), inputs)
    (_, outputs), (gradient, dx) = loss_and_gradients(cell, params, inputs, weights, engine)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert_trees_close(gradient, from_flax(name, flax_gradient), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_equals_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    cell, params = make(name)
    inputs, weights = inputs_and_weights()
    layers = {
        "elman": torch.nn.RNN,
        "elman_relu": functools.partial(torch.nn.RNN, nonlinearity="relu"),
        "lstm": torch.nn.LSTM,
        "gru": torch.nn.GRU,
    }
    layer = layers[name](X, H, batch_first=True).double()
    numpy_params = to_numpy(params)
    hidden_bias = np.zeros_like(numpy_params["bias"])
    if name == "gru":
        hidden_bias[2 * H :] = numpy_params["candidate_bias"]
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor(numpy_params["input_kernel"].T))
        layer.weight_hh_l0.copy_(torch.tensor(numpy_params["recurrent_kernel"][0].T))
        layer.bias_ih_l0.copy_(torch.tensor(numpy_params["bias"]))
        layer.bias_hh_l0.copy_(torch.tensor(hidden_bias))
    torch_inputs = torch.tensor(inputs, requires_grad=True)
    expected, _ = layer(torch_inputs)
    (expected * torch.tensor(weights)).sum().backward()
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        (_, outputs), (gradient, dx) = loss_and_gradients(
            cell, double, jnp.asarray(inputs), jnp.asarray(weights), "fused"
        )
        tolerance = {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(outputs, expected.detach().numpy(), **tolerance)
        np.testing.assert_allclose(dx, torch_inputs.grad.numpy(), **tolerance)
        for ours, theirs in (
            (gradient["input_kernel"].T, layer.weight_ih_l0),
            (gradient["recurrent_kernel"][0].T, layer.weight_hh_l0),
            (gradient["bias"], layer.bias_ih_l0),
        ):
            np.testing.assert_allclose(ours, theirs.grad.numpy(), **tolerance)
        if name == "gru":
            expected_bias = layer.bias_hh_l0.grad.numpy()[2 * H :]
            np.testing.assert_allclose(gradient["candidate_bias"], expected_bias, **tolerance)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize(("name", "gates"), [("elman", 1), ("gru", 3), ("lstm", 4)])
def test_parameter_count_is_the_documented_one(name, gates, num_heads):
    cell = cells.CELLS[name](H, num_heads=num_heads)
    expected = gates * H * (X + H // num_heads + 1) + (H if name == "gru" else 0)
    assert cells.count_parameters(cell.init(jax.random.key(0), X)) == expected


@pytest.mark.parametrize("num_heads", [1, 2])
def test_recurrent_blocks_are_orthogonal_and_differ(num_heads):
    cell = cells.lstm(8, num_heads=num_heads)
    kernel = np.asarray(cell.init(jax.random.key(0), X)["recurrent_kernel"])
    width = 8 // num_heads
    blocks = (
        kernel.reshape(num_heads, width, 4, width).transpose(0, 2, 1, 3).reshape(-1, width, width)
    )
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(width), atol=1e-5)
    assert len({block.tobytes() for block in blocks}) == len(blocks)


def test_forget_bias():
    bias = cells.lstm(2, forget_bias=3.0).init(jax.random.key(0), X)["bias"]
    np.testing.assert_array_equal(bias, [0, 0, 3, 3, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cells.lstm(0), "hidden_size must be at least 1, got 0"),
        (lambda: cells.gru(6, num_heads=4), "num_heads must divide hidden_size=6, got 4"),
        (lambda: cells.elman(4, activation="sine"), r"activation must be one of .* got 'sine'"),
        (lambda: cells.stack([]), "at least one cell"),
        (lambda: cells.stack([cells.lstm(2)], dropout=1.0), r"dropout must lie in \[0, 1\), got 1"),
        (lambda: cells.stack([cells.lstm(2)], dropout_per="day"), "dropout_per must be one of"),
        (
            lambda: cells.stack([cells.lstm(2), cells.lstm(3)], residual=True),
            r"residual layers must have one hidden_size, got \[2, 3\]",
        ),
        (lambda: cells.stack([cells.stack([cells.lstm(2)])]), "a stack inside a stack"),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_initialisation_of_many_large_matrices_comes_to_an_end():
    # In a process of its own: as one batch of decompositions it stood still for ever, from 384
    # units on.
    code = (
        "import jax; from grnn_jax import cells; "
        "cell = cells.stack([cells.lstm(384) for _ in range(3)]); "
        "jax.block_until_ready(jax.jit(lambda key: cell.init(key, 64))(jax.random.key(0)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
