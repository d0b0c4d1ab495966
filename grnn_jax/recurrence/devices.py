"""A time axis that is split over the devices of a mesh axis, inside of `jax.shard_map`.

Device d holds the d-th piece of consecutive steps. Without an axis name, all steps are here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Inexact, PyTree


def is_first_device(axis_name: str, reverse: bool = False) -> Array:
    """Whether the scan begins on this device."""
    first = jax.lax.axis_size(axis_name) - 1 if reverse else 0
    return jax.lax.axis_index(axis_name) == first


def shift(
    values: Inexact[Array, "T ..."],
    first: Inexact[Array, "..."],
    *,
    reverse: bool = False,
    axis_name: str | None = None,
) -> Inexact[Array, "T ..."]:
    """The value in front of each step: `first`, v_1 … v_{T-1}, or in reverse v_2 … v_T, `first`."""
    if axis_name is not None:
        pairs = [(i, i + 1) for i in range(jax.lax.axis_size(axis_name) - 1)]
        if reverse:
            pairs = [(after, before) for before, after in pairs]
        received = jax.lax.ppermute(values[0 if reverse else -1], axis_name, pairs)
        first = jnp.where(is_first_device(axis_name, reverse), first, received)
    if reverse:
        return jnp.concatenate([values[1:], first[None].astype(values.dtype)])
    return jnp.concatenate([first[None].astype(values.dtype), values[:-1]])


def scan_over_devices(
    run: Callable[[PyTree], tuple[PyTree, PyTree]],
    entering: PyTree,
    *,
    reverse: bool = False,
    axis_name: str | None = None,
) -> PyTree:
    """Runs a sequential function over all steps, one device after another.

    Args:
        run: from what enters this device's steps to (what leaves them, their outputs); both
            keep shape and dtype from device to device. No collectives inside.
        entering: what enters the first step of all.
        reverse: from the last device to the first.
        axis_name: the mesh axis.

    Returns:
        The outputs of this device's steps.
    """
    if axis_name is None:
        return run(entering)[1]
    index = jax.lax.axis_index(axis_name)
    order = jnp.arange(jax.lax.axis_size(axis_name))
    blank = jax.tree.map(
        lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(run, entering)
    )

    # Every device takes part in every turn, as collectives need; only one of them computes.
    def turn(carry: tuple[Any, ...], device: Array) -> tuple[tuple[Any, ...], None]:
        entering, outputs = carry
        mine = device == index
        left, ours = jax.lax.cond(mine, run, lambda entering: blank, entering)
        outputs = jax.tree.map(lambda new, old: jnp.where(mine, new, old), ours, outputs)
        # All others give zeros: the sum hands the state on to the next device.
        return (jax.lax.psum(left, axis_name), outputs), None

    start = (entering, blank[1])
    return jax.lax.scan(turn, start, order[::-1] if reverse else order)[0][1]
