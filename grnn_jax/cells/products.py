"""Matrix products in a compute dtype, accumulated in float32 or wider."""

import functools

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
    return _narrow_dense(dtype, inputs, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow_dense(dtype: DType, inputs: Array, kernel: Array) -> Array:
    return jnp.matmul(
        inputs.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32
    )


def _narrow_dense_forward(dtype: DType, inputs: Array, kernel: Array) -> tuple:
    residuals = inputs.astype(dtype), kernel
    # The empty array carries the dtype of the inputs' gradient.
    return _narrow_dense(dtype, inputs, kernel), (*residuals, jnp.zeros((0,), inputs.dtype))


def _narrow_dense_backward(dtype: DType, residuals: tuple, d_outputs: Array) -> tuple:
    inputs, kernel, like = residuals
    d_outputs = d_outputs.astype(dtype)
    d_inputs = jnp.matmul(d_outputs, kernel.astype(dtype).T, preferred_element_type=jnp.float32)
    d_kernel = outer_sum(
        inputs.reshape(-1, kernel.shape[0]), d_outputs.reshape(-1, kernel.shape[1])
    )
    return d_inputs.astype(like.dtype), d_kernel.astype(kernel.dtype)


_narrow_dense.defvjp(_narrow_dense_forward, _narrow_dense_backward)


def outer_sum(left: Float[Array, "N X"], right: Float[Array, "N Y"]) -> Float[Array, "X Y"]:
    """Σ_n left_n right_nᵀ, accumulated and returned in float32 or wider."""
    accumulate = jnp.promote_types(left.dtype, jnp.float32)
    if left.dtype == accumulate:
        return jnp.matmul(left.T, right, preferred_element_type=accumulate)

    def copied(rows: Array) -> Array:
        # XLA folds a plain transpose into the product, and its CPU backend has a fast bfloat16
        # product for plain operands alone; a concatenation stays an array of its own.
        middle = rows.shape[0] // 2
        return jnp.concatenate([rows[:middle].T, rows[middle:].T], axis=1)

    transposed = jax.lax.platform_dependent(left, cpu=copied, default=jnp.transpose)
    return jnp.matmul(transposed, right, preferred_element_type=accumulate)


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
    return jax.lax.platform_dependent(left, right, cpu=widened, default=narrow)


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
