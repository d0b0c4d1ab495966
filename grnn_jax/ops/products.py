"""Matrix products in a compute dtype, accumulated in float32 or wider."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float


def cast_kernel(kernel: Float[Array, "..."], dtype: DType) -> Float[Array, "..."]:
    """A kernel in the compute dtype; float32 never narrows float64 parameters (enable_x64)."""
    if jnp.dtype(dtype) == jnp.float32:
        dtype = jnp.promote_types(dtype, kernel.dtype)
    return kernel.astype(dtype)


def dense(
    inputs: Float[Array, "... X"], kernel: Float[Array, "X Y"], dtype: DType = jnp.float32
) -> Float[Array, "... Y"]:
    """Matrix product in the compute dtype, accumulated and returned in float32 or wider.

    Its gradients are products in the compute dtype too, accumulated in float32; a narrow dtype
    therefore has a gradient of its own, in reverse mode only.
    """
    if cast_kernel(kernel, dtype).dtype == kernel.dtype:
        accumulate = jnp.promote_types(kernel.dtype, jnp.float32)
        return jnp.matmul(inputs.astype(kernel.dtype), kernel, preferred_element_type=accumulate)
    return dense_gates(inputs, (kernel,), dtype)[0]


def dense_gates(
    inputs: Float[Array, "... X"], kernels: tuple[Float[Array, "X Y"], ...], dtype: DType
) -> tuple[Float[Array, "... Y"], ...]:
    """`dense` of one input with several kernels, with a gradient of its own in every dtype.

    Reverse mode only.
    """
    return _dense_gates(cast_kernel(kernels[0], dtype).dtype, inputs, kernels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dense_gates(dtype: DType, inputs: Array, kernels: tuple[Array, ...]) -> tuple[Array, ...]:
    accumulate = jnp.promote_types(dtype, jnp.float32)
    return tuple(
        jnp.matmul(inputs.astype(dtype), kernel.astype(dtype), preferred_element_type=accumulate)
        for kernel in kernels
    )


def _dense_gates_forward(
    dtype: DType, inputs: Array, kernels: tuple[Array, ...]
) -> tuple[Any, ...]:
    # The empty array carries the dtype of the inputs' gradient.
    residuals = inputs.astype(dtype), kernels, jnp.zeros((0,), inputs.dtype)
    return _dense_gates(dtype, inputs, kernels), residuals


def _dense_gates_backward(
    dtype: DType, residuals: tuple[Any, ...], d_outputs: tuple[Array, ...]
) -> tuple[Any, ...]:
    inputs, kernels, like = residuals
    accumulate = jnp.promote_types(dtype, jnp.float32)
    narrow = [d_output.astype(dtype) for d_output in d_outputs]
    # In float32 the copy of the kernel costs as much as it gains.
    turn = jnp.transpose if dtype == accumulate else transposed
    parts = [
        jnp.matmul(d_output, turn(kernel.astype(dtype)), preferred_element_type=accumulate)
        for d_output, kernel in zip(narrow, kernels, strict=True)
    ]
    d_inputs = functools.reduce(jnp.add, parts)
    rows = [d_output.reshape(-1, d_output.shape[-1]) for d_output in narrow]
    d_kernels = outer_sums(inputs.reshape(-1, inputs.shape[-1]), rows)
    d_kernels = tuple(d.astype(kernel.dtype) for d, kernel in zip(d_kernels, kernels, strict=True))
    return d_inputs.astype(like.dtype), d_kernels


_dense_gates.defvjp(_dense_gates_forward, _dense_gates_backward)


def outer_sums(
    left: Float[Array, "N X"], rights: Sequence[Float[Array, "N Y"]]
) -> tuple[Float[Array, "X Y"], ...]:
    """Σ_n left_n rightᵀ_n for each right, accumulated and returned in float32 or wider."""
    accumulate = jnp.promote_types(left.dtype, jnp.float32)
    # For one float32 product the copy costs as much as it gains.
    alone = len(rights) == 1 and left.dtype == accumulate
    columns = left.T if alone else transposed(left)
    return tuple(jnp.matmul(columns, right, preferred_element_type=accumulate) for right in rights)


def transposed(matrix: Float[Array, "X Y"]) -> Float[Array, "Y X"]:
    """The transpose, on a CPU as an array of its own.

    XLA folds a plain transpose into a product, and its CPU backend multiplies plain operands
    faster: float32 by a tenth, bfloat16 by two. A concatenation stays an array of its own.
    """

    def copied(matrix: Array) -> Array:
        middle = matrix.shape[0] // 2
        return jnp.concatenate([matrix[:middle].T, matrix[middle:].T], axis=1)

    transpose: Array = jax.lax.platform_dependent(matrix, cpu=copied, default=jnp.transpose)
    return transpose


def heads_einsum(subscripts: str, left: Array, right: Array) -> Array:
    """A product over heads, accumulated and returned in float32 or wider."""
    accumulate = jnp.promote_types(left.dtype, jnp.float32)

    def narrow(left: Array, right: Array) -> Array:
        return jnp.einsum(subscripts, left, right, preferred_element_type=accumulate)

    def widened(left: Array, right: Array) -> Array:
        return jnp.einsum(subscripts, left.astype(accumulate), right.astype(accumulate))

    if left.dtype == accumulate:
        return narrow(left, right)
    # XLA's CPU backend has no batched product of bfloat16 accumulated in float32 (jax 0.12);
    # the operands are rounded already, so the widened product is the same.
    product: Array = jax.lax.platform_dependent(left, right, cpu=widened, default=narrow)
    return product


def recurrent_product(
    kernel: Float[Array, "heads D GD"],
    hidden: Float[Array, "... H"],
    num_gates: int,
    dtype: DType = jnp.float32,
) -> tuple[Float[Array, "... H"], ...]:
    """V h for a block-diagonal V, one array for each gate."""
    num_heads, width, _ = kernel.shape
    if num_heads == 1:
        return split_gates(dense(hidden, kernel[0], dtype), num_gates)
    kernel = cast_kernel(kernel, dtype)
    heads = hidden.reshape(*hidden.shape[:-1], num_heads, width).astype(kernel.dtype)
    product = heads_einsum("...nd,ndk->...nk", heads, kernel)
    gates = jnp.split(product, num_gates, axis=-1)
    return tuple(gate.reshape(hidden.shape) for gate in gates)


def split_gates(
    projected: Float[Array, "... GH"], num_gates: int
) -> tuple[Float[Array, "... H"], ...]:
    """The gates of a projected input as separate arrays.

    Gates are split before anything is added to them: XLA then fuses and vectorises the
    elementwise step, which it does not when the sum is formed first and split after.
    """
    return tuple(jnp.split(projected, num_gates, axis=-1))
