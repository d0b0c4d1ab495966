"""Matrix products in a compute type, accumulated in float32 or wider.

`dtype` is here everywhere what `compute_type` takes: a dtype, or "tensorfloat32". Every product is
given its precision, without which a TPU rounds float32 operands to bfloat16, and a GPU to TF32.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float
from grnn_jax.ops.compute_type import ComputeType, compute_type


def cast_kernel(kernel: Float[Array, "..."], dtype: DType) -> Float[Array, "..."]:
    """A kernel in the dtype of the products' operands, see `compute_type`."""
    return kernel.astype(compute_type(dtype, kernel.dtype).dtype)


def dense(
    inputs: Float[Array, "... X"], kernel: Float[Array, "X Y"], dtype: DType = jnp.float32
) -> Float[Array, "... Y"]:
    """Matrix product in the compute type, accumulated and returned in float32 or wider.

    Its gradients are products in the compute type too, accumulated in float32; a narrow dtype
    therefore has a gradient of its own, in reverse mode only.
    """
    kind = compute_type(dtype, kernel.dtype)
    if kind.dtype == kernel.dtype:
        return _product(inputs.astype(kernel.dtype), kernel, kind)
    return dense_gates(inputs, (kernel,), dtype)[0]


def dense_gates(
    inputs: Float[Array, "... X"], kernels: tuple[Float[Array, "X Y"], ...], dtype: DType
) -> tuple[Float[Array, "... Y"], ...]:
    """`dense` of one input with several kernels, with a gradient of its own in every dtype.

    Reverse mode only.
    """
    return _dense_gates(compute_type(dtype, kernels[0].dtype), inputs, kernels)


def _product(left: Array, right: Array, kind: ComputeType) -> Array:
    """The product of operands that are in the compute type's dtype."""
    accumulate = jnp.promote_types(kind.dtype, jnp.float32)
    return jnp.matmul(left, right, precision=kind.precision, preferred_element_type=accumulate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dense_gates(kind: ComputeType, inputs: Array, kernels: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(
        _product(inputs.astype(kind.dtype), kernel.astype(kind.dtype), kind) for kernel in kernels
    )


def _dense_gates_forward(
    kind: ComputeType, inputs: Array, kernels: tuple[Array, ...]
) -> tuple[Any, ...]:
    # The empty array carries the dtype of the inputs' gradient.
    residuals = inputs.astype(kind.dtype), kernels, jnp.zeros((0,), inputs.dtype)
    return _dense_gates(kind, inputs, kernels), residuals


def _dense_gates_backward(
    kind: ComputeType, residuals: tuple[Any, ...], d_outputs: tuple[Array, ...]
) -> tuple[Any, ...]:
    inputs, kernels, like = residuals
    narrow = [d_output.astype(kind.dtype) for d_output in d_outputs]
    # In float32 the copy of the kernel costs as much as it gains.
    is_wide = kind.dtype == jnp.promote_types(kind.dtype, jnp.float32)
    turn = jnp.transpose if is_wide else transposed
    parts = [
        _product(d_output, turn(kernel.astype(kind.dtype)), kind)
        for d_output, kernel in zip(narrow, kernels, strict=True)
    ]
    d_inputs = functools.reduce(jnp.add, parts)
    rows = [d_output.reshape(-1, d_output.shape[-1]) for d_output in narrow]
    d_kernels = _outer_sums(inputs.reshape(-1, inputs.shape[-1]), rows, kind)
    d_kernels = tuple(d.astype(kernel.dtype) for d, kernel in zip(d_kernels, kernels, strict=True))
    return d_inputs.astype(like.dtype), d_kernels


_dense_gates.defvjp(_dense_gates_forward, _dense_gates_backward)


def outer_sums(
    left: Float[Array, "N X"], rights: Sequence[Float[Array, "N Y"]], dtype: DType
) -> tuple[Float[Array, "X Y"], ...]:
    """Σ_n left_n rightᵀ_n for each right, accumulated and returned in float32 or wider.

    Args:
        left: in the dtype of the compute type, see `cast_kernel`.
        rights: likewise.
        dtype: the compute type.

    Returns:
        One sum for each right.
    """
    return _outer_sums(left, rights, compute_type(dtype, left.dtype))


def _outer_sums(left: Array, rights: Sequence[Array], kind: ComputeType) -> tuple[Array, ...]:
    # For one float32 product the copy costs as much as it gains.
    alone = len(rights) == 1 and left.dtype == jnp.promote_types(left.dtype, jnp.float32)
    columns = left.T if alone else transposed(left)
    return tuple(_product(columns, right, kind) for right in rights)


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


def heads_einsum(subscripts: str, left: Array, right: Array, dtype: DType) -> Array:
    """A product over heads, accumulated and returned in float32 or wider.

    Args:
        subscripts: see `jnp.einsum`.
        left: in the dtype of the compute type, see `cast_kernel`.
        right: likewise.
        dtype: the compute type.

    Returns:
        The product.
    """
    kind = compute_type(dtype, left.dtype)
    accumulate = jnp.promote_types(left.dtype, jnp.float32)

    def widened(left: Array, right: Array) -> Array:
        left, right = left.astype(accumulate), right.astype(accumulate)
        product: Array = jnp.einsum(subscripts, left, right, precision=kind.precision)
        return product

    if left.dtype == accumulate:
        return widened(left, right)
    # XLA's CPU backend has no batched product of bfloat16 accumulated in float32 (jax 0.12);
    # the operands are rounded already, so the widened product is the same.
    narrow = functools.partial(_narrow_einsum, subscripts, kind)
    product: Array = jax.lax.platform_dependent(left, right, cpu=widened, default=narrow)
    return product


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _narrow_einsum(subscripts: str, kind: ComputeType, left: Array, right: Array) -> Array:
    """A product of narrow operands whose gradients are products of narrow operands too."""
    accumulate = jnp.promote_types(kind.dtype, jnp.float32)
    product: Array = jnp.einsum(
        subscripts, left, right, precision=kind.precision, preferred_element_type=accumulate
    )
    return product


def _narrow_einsum_forward(
    subscripts: str, kind: ComputeType, left: Array, right: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _narrow_einsum(subscripts, kind, left, right), (left, right)


def _narrow_einsum_backward(
    subscripts: str, kind: ComputeType, residuals: tuple[Array, Array], d_product: Array
) -> tuple[Array, Array]:
    # Plain autodiff would multiply the wide gradient, that is widen the other operand.
    einsum = functools.partial(jnp.einsum, subscripts, precision=kind.precision)
    _, pullback = jax.vjp(einsum, *residuals)
    d_left, d_right = pullback(d_product.astype(kind.dtype))
    return d_left, d_right


_narrow_einsum.defvjp(_narrow_einsum_forward, _narrow_einsum_backward)


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
    product = heads_einsum("...nd,ndk->...nk", heads, kernel, dtype)
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
