"""What several test files need."""

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax import cells

CELLS = {
    "elman": lambda: cells.elman(6),
    "elman_relu": lambda: cells.elman(6, activation="relu"),
    "elman_heads": lambda: cells.elman(6, num_heads=2, learned_initial_state=True),
    "lstm": lambda: cells.lstm(6),
    "lstm_heads": lambda: cells.lstm(6, num_heads=3, learned_initial_state=True),
    "gru": lambda: cells.gru(6),
    "gru_heads": lambda: cells.gru(6, num_heads=2, learned_initial_state=True),
    "stack": lambda: cells.stack([cells.lstm(6), cells.gru(6)]),
    "stack_residual_norm": lambda: cells.stack(
        [cells.gru(6, num_heads=2), cells.elman(6)], residual=True, layer_norm=True
    ),
}
"""Every kind of cell, small; a new cell adds a line and is tested everywhere."""


def perturb(tree, seed=0, scale=0.3, dtype=None):
    """Random values in place of zeros and ones, so that no term is invisible to a test."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            # Rounded by NumPy: JAX would compile a conversion for each shape.
            np.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape), dtype or leaf.dtype)
        ),
        tree,
    )


def random_like(make, *arguments, seed=0, scale=0.3):
    """Random values of the shapes that `make(*arguments)` would return, which is not run.

    For what holds whatever the parameters are: to draw them by `init` compiles many programs.
    """
    shapes = jax.eval_shape(make, *arguments)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return perturb(zeros, seed, scale)


def to_numpy(tree):
    """The same tree in NumPy float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def assert_trees_close(actual, expected, rtol=1e-5, atol=1e-6):
    """Every leaf of one tree near its counterpart."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
        ),
        actual,
        expected,
    )
