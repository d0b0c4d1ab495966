"""Rows of a table of segments: value and gradient, whatever the gradient is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax.ops.lookup import FEW_ROWS, lookup_segments


@pytest.mark.parametrize("rows", [3, FEW_ROWS + 1])
def test_rows_and_the_sum_of_what_came_back_for_each(rows):
    rng = np.random.default_rng(0)
    table = jnp.float32(rng.normal(size=(rows, 2)))
    segments, weights = rng.integers(0, rows, (4, 5)), rng.normal(size=(4, 5, 2))
    expected = np.zeros((rows, 2))
    np.add.at(expected, segments, weights)

    def loss(table):
        return (lookup_segments(table, jnp.asarray(segments)) * weights).sum()

    value, gradient = jax.value_and_grad(loss)(table)
    np.testing.assert_allclose(value, (table[segments] * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
