"""A hundred thousand steps train in little memory, on the engines that take all steps at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax import cells, unroll

LENGTH, CHUNK = 100_000, 400


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("engine", "cell"),
    [("linear", cells.min_gru(4)), ("newton", cells.gru(4, num_heads=4))],
    ids=["linear", "newton"],
)
def test_100_000_steps(engine, cell):
    """The gradient is that of the scan, in 4 megabytes besides parameters and inputs.

    The outputs [1, T, 4] alone are 1.6 megabytes; without chunks Newton's method takes 23.
    """
    rng = np.random.default_rng(0)
    params = cell.init(jax.random.key(0), 1)
    inputs = jnp.float32(rng.normal(size=(1, LENGTH, 1)))
    reset = jnp.asarray(rng.random((1, LENGTH)) < 1e-3)

    def compiled(engine):
        def loss(params):
            outputs, _ = unroll(
                cell, params, inputs, cell.initial_state(params, 1), reset=reset, engine=engine,
                chunk_size=CHUNK,
            )  # fmt: skip
            return (outputs[:, :-1, 0] - inputs[:, 1:, 0]).var() + (outputs**2).mean()

        return jax.jit(jax.value_and_grad(loss)).lower(params).compile()

    run = compiled(engine)
    assert run.memory_analysis().temp_size_in_bytes < 4 * 2**20
    for found, expected in zip(
        *map(jax.tree.leaves, (run(params), compiled("scan")(params))), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
