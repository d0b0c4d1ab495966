"""How a public function is entered: eagerly, under any mesh, and inside of `jax.shard_map`.

Four things are settled here once, so that the maths below need not know of them: it is compiled
once for each model and shapes, not at every call; it runs on automatic axes where the arrays of the
caller have explicit ones; inside of a `shard_map` that checks what varies over its devices, all
that enters varies over the same ones; and narrow parameters are kept, but not computed with.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from grnn_jax.array_types import PyTree
from grnn_jax.compiler import is_compiling, outermost_jit


def entry(
    num_static: int, rows: Sequence[int] = (), *, inline: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a pure function one that any JAX code can call.

    The first of its arguments that are arrays, as a rule parameters, reach it in float32 or wider:
    bfloat16 is only how they are kept. Products are in the compute dtype of their layer.

    Args:
        num_static: so many of its first arguments are no arrays: models, sizes, functions. It is
            compiled once for equal ones, and not at all where one of them holds a traced number.
        rows: numbers of those arguments whose arrays have the batch as their leading axis. Where
            axes of a mesh are explicit, the result is split over the batch as these are.
        inline: while something is compiled it is a plain function, which leaves no trace of itself.

    Returns:
        The decorator; the function takes positional arguments alone.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wide(*arguments: Any) -> PyTree:
            static, (params, *arrays) = arguments[:num_static], arguments[num_static:]
            return function(*static, widen(params), *arrays)

        # Not `inline=True`: of that, an eager gradient would compile its loops at every call.
        jitted = outermost_jit(wide, static_argnums=tuple(range(num_static)))

        @functools.wraps(function)
        def call(*arguments: Any) -> PyTree:
            static, arrays = arguments[:num_static], arguments[num_static:]
            run = functools.partial(jitted, *static)
            if (inline and is_compiling()) or not is_hashable(static):
                run = functools.partial(wide, *static)
                arrays = jax.tree.map(_on_device, arrays)
            arrays = vary_alike(arrays)
            mesh = _mesh_of(arrays)
            explicit = [] if mesh is None else _explicit_axes(mesh)
            if not explicit:
                return run(*arrays)
            # Loops over time, gathers and reshapes would each have to be told how their results
            # are split; on automatic axes the compiler sees to that.
            arrays = jax.tree.map(jnp.asarray, arrays)
            split = _batch_axes([arguments[number] for number in rows])
            outside = NamedSharding(mesh, P(split))
            return jax.sharding.auto_axes(run, axes=tuple(explicit), out_sharding=outside)(*arrays)

        return call

    return decorate


def widen(params: PyTree) -> PyTree:
    """Floating-point parameters in float32 or wider; their gradients have the dtypes given."""

    def cast(leaf: Any) -> Any:
        narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32
        return leaf.astype(jnp.float32) if narrow else leaf

    return jax.tree.map(cast, params)


def vary_alike(tree: PyTree, *others: PyTree) -> PyTree:
    """All arrays cast to vary over the devices that any of them, or of others, varies over.

    Inside of `jax.shard_map` with its checks a loop's carry must be of one type at every step, and
    a gradient of the type of its value; elsewhere nothing happens. The gradient of the cast is the
    sum over devices.

    Args:
        tree: arrays.
        *others: arrays that are to be used together with them.

    Returns:
        The tree.
    """
    axes: set[str] = set()
    for leaf in jax.tree.leaves((tree, others)):
        axes |= _varying(leaf)
    if not axes:
        return tree

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(jnp.asarray(leaf), missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def _varying(leaf: Any) -> frozenset[str]:
    """The axes of a mesh over which a value differs from device to device."""
    if not isinstance(leaf, jax.core.Tracer):
        return frozenset()
    varying: frozenset[str] = jax.typeof(leaf).mat.varying
    return varying


def _on_device(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def is_hashable(static: Any) -> bool:
    """Whether a program can be kept for it: not one that holds a traced number."""
    try:
        hash(static)
    except TypeError:
        return False
    return True


def _mesh_of(tree: PyTree) -> Any:
    """The mesh of the context, or of the arrays; None where there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return mesh
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            mesh = jax.typeof(leaf).sharding.mesh
            if not mesh.empty:
                return mesh
    return None


def _explicit_axes(mesh: Any) -> list[str]:
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return [name for name, kind in types if kind == AxisType.Explicit]


def _batch_axes(tree: PyTree) -> Any:
    """What the leading axis of the first array that is split along it is split over, or None."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and leaf.ndim:
            axes = jax.typeof(leaf).sharding.spec
            if axes and axes[0] is not None:
                return axes[0]
    return None
