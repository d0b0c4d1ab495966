"""10,000 steps in float32 beside float64, for every registered cell under every engine.

What is compared are all outputs and the gradient of a loss that weighs all of them, each relative
to the largest entry of its array. Weights are those of the initialisation, or wide ones: whatever
acts on the input times four, so that gates saturate.

Two things stay as small as they have to be for a bound to exist at all. The recurrent weights keep
their size in both: larger ones than an orthogonal V make a tanh network chaotic. And the gains of
layer norms on V h are halved: the norm divides by the spread of the units, which now and then in
10,000 steps makes a state of the roundings of one step.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax import cells, unroll
from grnn_jax.recurrence import supported_engines

B, T, X, H = 2, 10_000, 2, 4
SCALES = {"ordinary": 1.0, "wide": 4.0}


def bounds(cell):
    """Largest relative errors of outputs and of gradients, by what a rounding goes through.

    Each operation loses 2^-24 = 6e-8, which is forgotten as the state is. A linear cell carries it
    on with its decays, which never make more of it; where they are near 1 it adds up over as many
    steps as the cell remembers. An elementwise cell with gates contracts, by more than the products
    with V stretch. Cells whose step is not elementwise (layer norms) or not declared may stretch it
    further first. Gradients sum over all steps, with cancellation: ten times as much.
    """
    if cell.linear is not None or (cell.gated is not None and cell.gated.elementwise):
        return 1e-5, 1e-4
    return 1e-4, 1e-3


@functools.partial(jax.jit, static_argnames=("cell", "engine"))
def run(cell, engine, params, inputs, weights):
    def loss(params):
        state = cell.initial_state(params, B)
        outputs, _ = unroll(cell, params, inputs, state, engine=engine)
        return (outputs * weights).sum(), outputs

    (_, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return outputs, gradient


@functools.cache
def make(name):
    return cells.CELLS[name](H)


@functools.cache
def draw(cell, scale):
    params = cell.init(jax.random.key(0), X)
    for name in params:
        if name in ("input_kernel", "bias"):
            params[name] *= scale
        elif name.startswith("recurrent_scale"):
            params[name] *= 0.5
    rng = np.random.default_rng(0)
    return params, jnp.float32(rng.normal(size=(B, T, X))), jnp.float32(rng.normal(size=(B, T, H)))


@functools.cache
def double_run(name, scale):
    """The scan engine in float64, from the same float32 numbers."""
    arguments = draw(make(name), scale)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), arguments)
        return jax.tree.map(np.asarray, run(make(name), "scan", *wide))


# One of each kind, on all its engines, runs with the code that users get: gated, with layer norms,
# elementwise, linear, complex, without a structure, sitewise. The others run as tests compile.
KINDS = (
    "lstm", "layer_norm_gru", "ind_rnn", "min_lstm", "lru", "multiplicative_rnn", "sitewise_gru"
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        pytest.param(name, engine, marks=[pytest.mark.optimized] * (name in KINDS))
        for name in cells.CELLS
        for engine in supported_engines(make(name))
    ],
)
def test_float32_stays_near_float64(name, engine):
    cell = make(name)
    value_bound, gradient_bound = bounds(cell)
    for label, scale in SCALES.items():
        outputs, gradient = run(cell, engine, *draw(cell, scale))
        expected, expected_gradient = double_run(name, scale)
        assert outputs.dtype == jnp.float32 and expected.dtype == np.float64
        assert relative_error(outputs, expected) < value_bound, label
        errors = jax.tree.map(relative_error, gradient, expected_gradient)
        assert max(jax.tree.leaves(errors)) < gradient_bound, (label, errors)


def relative_error(found, expected):
    """The largest error, in units of the largest entry."""
    return np.abs(found - expected).max() / np.abs(expected).max()
