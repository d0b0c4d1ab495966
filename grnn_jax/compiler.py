"""What the compiler is told about a whole program, where that is compiled for a GPU."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_COMMAND_BUFFERS = "xla_gpu_enable_command_buffer"
_KINDS = (
    "FUSION", "CUBLAS", "CUBLASLT", "CUSTOM_CALL", "CUDNN", "DYNAMIC_SLICE_FUSION", "CONDITIONAL",
    "WHILE",
)  # fmt: skip
"""What may stand in a command buffer: XLA's own list, which this replaces, and the last one."""


def compiler_options(platform: str | None = None) -> dict[str, str]:
    """Compiler options with which loops over time run on a GPU without the host.

    XLA records kernels into command buffers (CUDA graphs), but leaves loops and conditions to the
    host, which launches every step and may wait for each. With these options they are recorded
    too: all of `sample`, or of a training step, becomes one launch. The functions of this package
    take them where they are called by themselves. Inside of a `jax.jit` they cannot, as the options
    of a program are those of its outermost jit: give them to that.

    Args:
        platform: "cuda", "rocm" or "gpu"; None for JAX's default one.

    Returns:
        For the argument `compiler_options` of `jax.jit`, or of the method `compile` of what was
        lowered. Empty for other platforms, and where `XLA_FLAGS` says what is to be recorded.

    Example:
        >>> import grnn_jax, jax
        >>> twice = jax.jit(lambda x: 2 * x, compiler_options=grnn_jax.compiler_options())
        >>> float(twice(3.0))
        6.0
        >>> grnn_jax.compiler_options("cpu")
        {}
        >>> grnn_jax.compiler_options("cuda")["xla_gpu_enable_command_buffer"].split(",")[-2:]
        ['CONDITIONAL', 'WHILE']
    """
    platform = jax.default_backend() if platform is None else platform
    if platform not in ("cuda", "gpu", "rocm") or _COMMAND_BUFFERS in _flags():
        return {}
    return {_COMMAND_BUFFERS: ",".join(_KINDS)}


def _flags() -> str:
    return os.environ.get("XLA_FLAGS", "")


def outermost_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit`, with `compiler_options` where it is not inside of another.

    Args:
        function: what to compile.
        **options: of `jax.jit`.

    Returns:
        The compiled function.
    """
    plain = jax.jit(function, **options)

    @functools.cache
    def compiled(given: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=dict(given), **options)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        given = compiler_options()
        if not given or _is_traced((arguments, named)) or is_compiling():
            return plain(*arguments, **named)
        return compiled(tuple(given.items()))(*arguments, **named)

    return call


def is_compiling() -> bool:
    """Whether operations are traced for a jit, a loop or a `shard_map`, whatever they are of."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def _is_traced(tree: Any) -> bool:
    """Whether there is a traced array, as of an eager gradient, which takes no options either."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
