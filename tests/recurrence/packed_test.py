"""The packed engine, and which structure a program has on the platform that it is lowered for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_like

from grnn_jax import Tokens, cells, unroll
from grnn_jax.recurrence.packed import UNROLL

B, T, X, H, V = 3, 24, 5, 6, 7


def lowered(cell, engine, platform, *, tokens=False, gradient=True):
    """The program of a window, as a CPU lowers it for a platform."""
    params = random_like(lambda: cell.init(jax.random.key(0), X), scale=0.5)
    table = jnp.ones((V, X))
    inputs = Tokens(jnp.zeros((B, T), jnp.int32), table) if tokens else jnp.ones((B, T, X))

    def loss(params):
        state = cell.initial_state(params, B)
        return unroll(cell, params, inputs, state, engine=engine)[0].sum()

    run = jax.jit(jax.grad(loss) if gradient else loss)
    return run.trace(params).lower(lowering_platforms=(platform,)).as_text()


def skeleton(text):
    """The loops, products and gathers of a program, in their order."""
    return re.findall(r"stablehlo\.(while|dot_general|gather)", text), loop_lengths(text)


def loop_lengths(text):
    """How often the body of each loop runs."""
    bound = r"stablehlo\.constant dense<(\d+)> : tensor<i32>\n\s+%\w+ = stablehlo\.compare\s+LT"
    bounds = re.findall(bound, text)
    assert len(bounds) == text.count("stablehlo.while")
    return [int(bound) for bound in bounds]


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("name", ["lstm", "layer_norm_gru"])
def test_auto_is_the_platforms_structure_wherever_it_is_lowered(name, tokens):
    cell = cells.CELLS[name](H)
    for platform, engine in (("cpu", "fused"), ("cuda", "packed"), ("tpu", "packed")):
        expected = skeleton(lowered(cell, engine, platform, tokens=tokens))
        assert skeleton(lowered(cell, "auto", platform, tokens=tokens)) == expected
    assert skeleton(lowered(cell, "fused", "cuda", tokens=tokens)) != expected


def test_a_turn_of_a_loop_has_many_steps():
    for engine, turns in (("packed", T // UNROLL), ("scan", T)):
        text = lowered(cells.lstm(H), engine, "cuda")
        assert loop_lengths(text) == [turns, turns]


def test_a_tpu_gathers_tokens_in_front_of_the_loop_and_a_gpu_inside():
    for platform, shape in (("cuda", f"{B}x{4 * H}"), ("tpu", f"{T}x{B}x{4 * H}")):
        text = lowered(cells.lstm(H), "packed", platform, tokens=True, gradient=False)
        assert re.findall(r"stablehlo.gather.* -> tensor<([0-9x]+)xf32>", text) == [shape]


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_linear_cells_have_no_loop_over_single_steps_on_a_gpu(platform):
    # On a TPU about the root of T chunks stand side by side, of so many steps.
    lengths = {"cpu": [T, T], "cuda": [], "tpu": [5, 5]}[platform]
    assert loop_lengths(lowered(cells.min_gru(H), "auto", platform)) == lengths


def test_what_is_exported_for_many_platforms_chooses_there():
    cell = cells.gru(H)
    params = random_like(lambda: cell.init(jax.random.key(0), X), scale=0.5)
    inputs = jnp.float32(np.random.default_rng(0).normal(size=(B, T, X)))

    def run(params, inputs):
        return unroll(cell, params, inputs, cell.initial_state(params, B))[0]

    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(params, inputs)
    found = exported.call(params, inputs)
    np.testing.assert_allclose(found, run(params, inputs), rtol=0, atol=1e-6)
