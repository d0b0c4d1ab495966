"""What a family takes for an event: values as they are given, checked, in the family's dtypes.

The functions here work on NumPy arrays, JAX arrays and tracers alike: 64-bit values on the host are
judged before a cast could wrap them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Bool, PyTree
from grnn_jax.distributions.base import AcceptFn, Distribution


def accept(distribution: Distribution, event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
    """`Distribution.accept`, or what stands for it where a family has none.

    Args:
        distribution: the family.
        event: [..., ...], of any dtype.

    Returns:
        The event in the dtypes of `Distribution.event`, and bool [...], True where it is one.
    """
    if distribution.accept is not None:
        return distribution.accept(event)
    num_tokens = distribution.num_tokens
    inside = None if num_tokens is None else within(0, num_tokens)
    return accept_numbers(distribution.event, inside)(event)


def filler(distribution: Distribution) -> PyTree:
    """`Distribution.filler`, or zeros."""
    if distribution.filler is not None:
        return distribution.filler
    return jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), distribution.event)


def fill(distribution: Distribution, event: PyTree, keep: Bool[AnyArray, "..."]) -> PyTree:
    """The event [..., ...] where `keep` [...] is True, the family's filler elsewhere.

    What is not to count is replaced in front of the maths: a NaN behind a `where` has gradient NaN.
    """

    def choose(leaf: AnyArray, stand_in: Any) -> Any:
        leaf = jnp.asarray(leaf)
        wide = keep.reshape(keep.shape + (1,) * (leaf.ndim - keep.ndim))
        return jnp.where(wide, leaf, jnp.asarray(stand_in, leaf.dtype))

    return jax.tree.map(choose, event, filler(distribution))


def accept_numbers(
    specs: PyTree, inside: Callable[[PyTree], Bool[AnyArray, "..."]] | None = None
) -> AcceptFn:
    """Takes events whose numbers are finite and kept by the cast, and which are `inside`.

    Args:
        specs: see `Distribution.event`.
        inside: event [..., ...] in the dtypes of `specs` -> bool [...]; None where any will do.

    Returns:
        See `Distribution.accept`.
    """
    treedef: Any
    shapes, treedef = jax.tree.flatten(specs)

    def accept(event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        valid: Any = True
        leaves = []
        for spec, given in zip(shapes, treedef.flatten_up_to(event), strict=True):
            leaf, kept = cast(given, spec.dtype)
            leaves.append(leaf)
            valid = valid & over_event(kept, len(spec.shape))
        event = jax.tree.unflatten(treedef, leaves)
        return event, valid if inside is None else valid & inside(event)

    return accept


def within(low: int, high: int | np.ndarray) -> Callable[[Any], Any]:
    """True for numbers in [low, high)."""
    if isinstance(high, int):
        return lambda event: (event >= low) & (event < high)
    # NumPy's own arrays stay NumPy's: see `Distribution.accept`.
    return lambda event: (event >= low) & (event < high.reshape((1,) * (event.ndim - 1) + (-1,)))


def over_event(valid: Any, num_axes: int) -> Any:
    """True where all numbers of an event are, which the last `num_axes` axes hold."""
    return valid.all(tuple(range(-num_axes, 0))) if num_axes else valid


def cast(given: Any, dtype: Any) -> tuple[AnyArray, Bool[AnyArray, "..."]]:
    """Values in a dtype, and where they are finite and, in an integer dtype, what they were."""
    values: Any = as_array(given)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(dtype)
        if jnp.issubdtype(dtype, jnp.inexact):
            return converted, abs(converted) < np.inf
        kept = converted.astype(values.dtype) == values
        # What saturates or wraps on its way can come back as it was.
        if jnp.issubdtype(values.dtype, jnp.floating) and jnp.issubdtype(dtype, jnp.integer):
            kept = kept & (values < 2.0 * (int(jnp.iinfo(dtype).max) // 2 + 1))
        kept = kept & ((converted >= 0) == (values >= 0))
    return converted, kept


def as_array(given: Any) -> AnyArray:
    """JAX arrays and tracers as they are, anything else as NumPy's array."""
    return given if isinstance(given, jax.Array) else np.asarray(given)
