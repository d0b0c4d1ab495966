"""Arguments are looked at where they enter; shapes are known under jit too, so it costs nothing."""

from collections.abc import Callable
from typing import Any

import jax

from grnn_jax.array_types import PyTree


def check_array(name: str, value: Any, shape: tuple[int, ...] | None = None) -> None:
    """Names an argument that is no array, or has not the expected shape.

    Args:
        name: of the argument.
        value: what came.
        shape: what its shape must be; None for any.

    Raises:
        ValueError: for a list or another object without a shape, or another shape.
    """
    if not hasattr(value, "shape"):
        raise ValueError(f"{name} must be an array, got a {type(value).__name__}")
    if shape is not None and tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")


def check_key(name: str, key: Any) -> None:
    """Names what is no random key of JAX, as a number is not.

    Raises:
        ValueError: for a number, a list, or an array of keys.
    """
    dtype = getattr(key, "dtype", None)
    is_typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    # Keys of `jax.random.PRNGKey`, uint32 [2], do the same.
    if not (is_typed and key.shape == ()) and not (dtype == "uint32" and len(key.shape) == 1):
        got = type(key).__name__ if dtype is None else f"shape {key.shape} of {dtype}"
        raise ValueError(f"{name} must be one random key, jax.random.key(seed), got {got}")


def check_tree(name: str, tree: PyTree, expected: PyTree, why: str = "") -> None:
    """Names the first array of a tree whose shape is not the expected one, or which lacks.

    Args:
        name: of the argument.
        tree: what came; its dtypes are not looked at.
        expected: the same structure of `jax.ShapeDtypeStruct` or arrays.
        why: what the argument must be, "those of …"; part of the message.

    Raises:
        ValueError: with the path of the array.
    """
    for path, found, wanted in mismatches(tree, expected):
        label, why = f"{name}{jax.tree_util.keystr(path)}", why and f"{name} must be {why}: "
        if wanted is None:
            raise ValueError(f"{why}{label} is not expected")
        if found is None:
            raise ValueError(f"{why}{label} of shape {wanted.shape} is missing")
        got = f"shape {tuple(found.shape)}" if hasattr(found, "shape") else type(found).__name__
        raise ValueError(f"{why}{label} must have shape {wanted.shape}, got {got}")
    found_structure: Any = jax.tree.structure(tree)
    structure: Any = jax.tree.structure(expected)
    if found_structure != structure:
        why = why and f"{name} must be {why}: "
        raise ValueError(f"{why}{name} must have structure {structure}, got {found_structure}")


def mismatches(tree: PyTree, expected: PyTree) -> list[tuple[Any, Any, Any]]:
    """(path, found, expected) of every array that differs in shape or that only one tree has."""
    found = dict(jax.tree_util.tree_leaves_with_path(tree))
    wanted = dict(jax.tree_util.tree_leaves_with_path(expected))
    both = dict.fromkeys([*wanted, *found])
    return [
        (path, found.get(path), wanted.get(path))
        for path in both
        if path not in found
        or path not in wanted
        or getattr(found[path], "shape", None) != wanted[path].shape
    ]


def shapes_of_init(init: Callable[..., PyTree], *arguments: Any) -> PyTree:
    """What `init(key, *arguments)` would return, as shapes and dtypes; computes nothing."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lambda key: init(key, *arguments), key)
