"""Factories whose results are equal where their arguments are.

Cells, distributions and models are tuples of functions, and static arguments of `jax.jit`: it
compiles anew for functions that were made anew, even if they do the same.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from grnn_jax.ops.compute_type import compute_type

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")

MOST_KEPT = 256
"""Results of a factory that are kept, those used last."""


class _Call:
    """Arguments that are equal where their values are, of which arrays and lists have no hash."""

    def __init__(self, bound: inspect.BoundArguments):
        self.bound = bound
        self._key = _key_of(bound.arguments)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self._key == other._key


def cached_factory(factory: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """Makes a pure factory return one object for equal arguments.

    Numbers that are traced, and what has no hash, are made anew at every call. An argument of the
    name `dtype` must be one that `compute_type` takes; else the call raises a ValueError.

    Example:
        >>> from grnn_jax import cells
        >>> cells.gru(8) is cells.gru(hidden_size=8)
        True
    """
    signature = inspect.signature(factory)

    @functools.lru_cache(maxsize=MOST_KEPT)
    def make(call: _Call) -> Made:
        return factory(*call.bound.args, **call.bound.kwargs)

    @functools.wraps(factory)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
        try:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if "dtype" in bound.arguments:
                compute_type(bound.arguments["dtype"])
            call = _Call(bound)
        except TypeError:
            return factory(*args, **kwargs)
        return make(call)

    return wrapped


def _key_of(value: Any) -> Any:
    """What stands for an argument: equal, and of one hash, where the values are.

    Raises:
        TypeError: where there is nothing of that kind.
    """
    if isinstance(value, jax.core.Tracer):
        raise TypeError("a traced value has no hash")
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    if isinstance(value, Mapping):
        return tuple((name, _key_of(item)) for name, item in value.items())
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(_key_of(item) for item in value)
    # 1, 1.0 and True are equal, and not the same argument.
    return type(value), value
