"""Every registered cell under every engine: those that claim it equal scan, the others refuse.

Cells and engines come from their tables, so that a new one is tested by its line there. Shapes are
few, because each is compiled anew; what is drawn are weights, inputs, states and resets.
"""

import functools
import inspect
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import perturb
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax import cells, unroll
from grnn_jax.recurrence import ENGINES, supported_engines

H = 4


class Case(NamedTuple):
    """What is compiled anew."""

    batch_size: int
    length: int
    input_size: int
    resets: bool
    num_heads: int = 1
    learned: bool = False
    dtype: str = "float32"


CASES = [
    Case(3, 9, 2, resets=True, learned=True),
    Case(1, 1, 1, resets=True, num_heads=4),
    Case(2, 6, 3, resets=False, num_heads=2, dtype="bfloat16"),
]
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Relative to the largest entry of an array; bfloat16 keeps 8 bits."""


@functools.cache
def make(name, num_heads=1, learned=False, dtype="float32"):
    """A cell with those of the settings that it has."""
    wished = {"num_heads": num_heads, "learned_initial_state": learned, "dtype": jnp.dtype(dtype)}
    known = inspect.signature(cells.CELLS[name]).parameters
    return cells.CELLS[name](H, **{key: value for key, value in wished.items() if key in known})


PAIRS = [(name, engine) for name in cells.CELLS for engine in ENGINES]
SUPPORTED = [pair for pair in PAIRS if pair[1] in supported_engines(make(pair[0]))]


@functools.partial(jax.jit, static_argnames=("cell", "engine"))
def run(cell, engine, params, inputs, state, reset, weights):
    """Value and gradient of a loss that outputs and last state enter, and both of these."""

    def loss(params, inputs, state):
        outputs, last = unroll(cell, params, inputs, state, reset=reset, engine=engine)
        total = (outputs * weights).sum()
        for leaf in jax.tree.leaves(last):
            total += jnp.cos(leaf.real).sum() + jnp.sin(leaf.imag).sum()
        return total, (outputs, last)

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, inputs, state)


@functools.partial(jax.jit, static_argnames="cell")
def one_step(cell, params, inputs):
    state = cell.initial_state(params, len(inputs))
    return cell.step(params, state, cell.project(params, inputs))[0]


@functools.cache
def zeros(cell, input_size):
    """Parameters that are zero: to draw them by `init` compiles more programs than the engines."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), input_size))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def draw(cell, case, seed, reset_rate):
    rng = np.random.default_rng(seed)
    params = perturb(zeros(cell, case.input_size), seed, scale=0.5)
    shape = case.batch_size, case.length
    inputs = jnp.float32(rng.normal(size=(*shape, case.input_size)))
    weights = jnp.float32(rng.normal(size=(*shape, H)))
    # A state that a step has left: a cell may not be defined for any other.
    state = one_step(cell, params, jnp.float32(rng.normal(size=(shape[0], case.input_size))))
    reset = jnp.asarray(rng.random(shape) < reset_rate) if case.resets else None
    return params, inputs, state, reset, weights


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "engine"), [pair for pair in SUPPORTED if pair[1] != "scan"])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), reset_rate=st.sampled_from([0.0, 0.3, 1.0]))
def test_equals_scan_in_value_and_gradient(name, engine, case, seed, reset_rate):
    cell = make(name, case.num_heads, case.learned, case.dtype)
    arguments = draw(cell, case, seed, reset_rate)
    expected, actual = (run(cell, each, *arguments) for each in ("scan", engine))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for found, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert found.dtype == wanted.dtype and found.dtype in (jnp.float32, jnp.complex64)
        largest = max(np.abs(wanted).max(initial=0), 1e-2)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[case.dtype] * largest)


@pytest.mark.parametrize(("name", "engine"), sorted(set(PAIRS) - set(SUPPORTED)))
def test_a_pair_that_is_not_supported_is_refused(name, engine):
    cell = make(name)

    def refused():
        params = cell.init(jax.random.key(0), 2)
        return unroll(
            cell, params, jnp.ones((1, 3, 2)), cell.initial_state(params, 1), engine=engine
        )

    able = ", ".join(supported_engines(cell))
    message = f"engine={engine} needs a cell {ENGINES[engine].needs}; this one can be run by {able}"
    with pytest.raises(ValueError, match=f"(?m)^{re.escape(message)}$"):
        jax.eval_shape(refused)


def test_every_cell_has_scan_and_every_engine_has_a_cell():
    assert {name for name, engine in SUPPORTED if engine == "scan"} == set(cells.CELLS)
    assert {engine for _, engine in SUPPORTED} == set(ENGINES)
