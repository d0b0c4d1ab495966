"""Every cell that a flag can name: equations, gradient, engines, size, extremes, training."""

import dataclasses
import functools

import cell_oracles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import perturb

from grnn_jax import cells, unroll, workdir
from grnn_jax.config import Config
from grnn_jax.data import Batch, build_codec
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.optimizer import make_optimizer
from grnn_jax.recurrence import supported_engines
from grnn_jax.training import init_train_state, make_train_step

B, T, X, H = 2, 7, 3, 4
NAMES = sorted(cells.CELLS)


def to_double(tree):
    """The same tree in float64 and complex128, in NumPy."""
    wide = {"f": np.float64, "c": np.complex128}
    return jax.tree.map(lambda leaf: np.asarray(leaf, wide[leaf.dtype.kind]), tree)


def real_parts(tree):
    return [part for leaf in jax.tree.leaves(tree) for part in (leaf.real, leaf.imag)]


@functools.partial(jax.jit, static_argnames=("cell", "engine"))
def run(cell, engine, params, inputs, state, reset, weights):
    """Σ weights · h + Σ cos(last state), with its gradients."""

    def loss(params, inputs, state):
        outputs, last = unroll(cell, params, inputs, state, reset=reset, engine=engine)
        total = (outputs * weights).sum() + sum(jnp.cos(part).sum() for part in real_parts(last))
        return total, (outputs, last)

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, inputs, state)


@pytest.mark.parametrize("name", NAMES)
def test_equations_gradient_engines_and_size(name):
    cell = cells.CELLS[name](H)
    drawn = cell.init(jax.random.key(0), X)
    assert cells.count_parameters(drawn) == cell_oracles.PARAMETERS[name](H, X)
    rng = np.random.default_rng(1)
    inputs, weights = rng.normal(size=(B, T, X)), rng.normal(size=(B, T, H))
    reset = rng.random((B, T)) < 0.3
    reset[0, 3], reset[:, 0] = True, False
    with jax.enable_x64(True):
        params = to_double(perturb(drawn))
        initial = to_double(cell.initial_state(jax.tree.map(jnp.asarray, params), B))
        # A state that a window before has left.
        _, state = cell_oracles.run(name, params, inputs, initial, np.zeros((B, T), bool), initial)

        def oracle(params):
            outputs, last = cell_oracles.run(name, params, inputs, state, reset, initial)
            total = (outputs * weights).sum() + sum(np.cos(part).sum() for part in real_parts(last))
            return total, (outputs, last)

        arguments = jax.tree.map(jnp.asarray, (params, inputs, state, reset, weights))
        slopes, directions = [], []
        rng = np.random.default_rng(0)
        for _ in range(3):  # Central differences of the NumPy loop along random directions.
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            ahead = oracle(jax.tree.map(lambda a, d: a + 1e-6 * d, params, direction))[0]
            behind = oracle(jax.tree.map(lambda a, d: a - 1e-6 * d, params, direction))[0]
            slopes.append((ahead - behind) / 2e-6)
            directions.append(direction)
        # What reads the structure that the cell declares; agreement_test.py has all engines.
        for engine in supported_engines(cell)[:2]:
            (_, found), (gradient, _, _) = run(cell, engine, *arguments)
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12),
                found,
                oracle(params)[1],
            )
            for expected, direction in zip(slopes, directions, strict=True):
                slope = sum((np.asarray(gradient[leaf]) * direction[leaf]).sum() for leaf in params)
                np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_are_finite_in_value_and_gradient(name):
    cell = cells.CELLS[name](H)
    params = cell.init(jax.random.key(0), 2)
    inputs = jnp.float32([[[1e4, -1e4], [-1e4, 1e4], [0, 0], [1e4, 1e4], [-1e4, -1e4], [1e-30, 0]]])
    reset, weights = jnp.zeros((1, 6), bool), jnp.ones((1, 6, H))
    for scale in (-1, 1):
        state = cell.initial_state(params, 1)
        result = run(cell, "auto", params, scale * inputs, state, reset, weights)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result)), name


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "t.txt"
    path.write_text("an old cat\n" * 20)
    return Config(
        data=str(path), hidden_size=4, batch_size=2, sequence_length=5, optimizer="sgd",
        momentum=0.0, clip_norm=0.0, schedule="constant",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_flag_builds_and_trains(config, name):
    config = dataclasses.replace(config, cell=name)
    codec, events = build_codec("chars", ["an old cat"]), np.arange(10).reshape(2, 5) % 7
    if name.startswith("sitewise"):
        config = dataclasses.replace(config, format="pianoroll", hidden_size=88)
        codec, events = PianorollCodec(), np.eye(88, dtype=np.uint8)[20 + 3 * events]
    model = workdir.build_model(config, codec)
    optimizer = make_optimizer(config)
    state = init_train_state(model, optimizer, config)
    batch = Batch(events, np.ones((2, 5), bool), np.eye(2, 5, dtype=bool))
    step = jax.jit(make_train_step(model, optimizer, config))
    new, metrics = step(state, batch)
    assert metrics["finite"] and metrics["num_events"] == 10
    new, later = step(new, batch)
    assert later["finite"] and later["loss"] != metrics["loss"]
    moved = jax.tree.map(lambda a, b: (a != b).any(), new.params["cell"], state.params["cell"])
    assert all(jax.tree.leaves(moved))
