"""Axes in front of a vector are written out: callers may forbid JAX to promote ranks itself."""

import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array


def align(array: AnyArray, like: AnyArray) -> Array:
    """The array with as many axes as `like`, those it lacks of length 1 in front."""
    return jnp.expand_dims(array, tuple(range(like.ndim - array.ndim)))
