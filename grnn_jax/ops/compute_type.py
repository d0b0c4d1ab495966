"""What a product is computed in: the dtype of its operands, and how exactly they are multiplied."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import DType

TENSORFLOAT32 = "tensorfloat32"
"""The `dtype=` of float32 operands of which an accelerator multiplies fewer bits.

A GPU rounds them to TF32 (10 bits of mantissa), a TPU takes three products of bfloat16 (about 16
bits), a CPU all bits. There is no such dtype of arrays.
"""

EXACT = jax.lax.Precision.HIGHEST
"""Products of all bits: without it a GPU may round float32 to TF32, and a TPU does to bfloat16."""


class ComputeType(NamedTuple):
    """What a product is computed in; its sums are in float32 or wider.

    Attributes:
        dtype: of the operands.
        precision: how exactly a GPU or TPU multiplies them. A CPU multiplies all bits always.
    """

    dtype: np.dtype
    precision: jax.lax.Precision


def compute_type(dtype: DType, parameter_dtype: DType = jnp.float32) -> ComputeType:
    """What the `dtype=` of a cell or a distribution means for its products.

    float32 is float32 on every platform, and never narrows float64 parameters (enable_x64), whose
    products are exact. Of a narrower dtype every platform multiplies all bits as it is.

    Args:
        dtype: a floating-point dtype, its name, or "tensorfloat32", see `TENSORFLOAT32`.
        parameter_dtype: of the parameter that is multiplied.

    Returns:
        The dtype of the operands and the precision of their product.

    Raises:
        ValueError: it is no such dtype.

    Example:
        >>> from grnn_jax.ops.compute_type import compute_type
        >>> for dtype in "float32", "tensorfloat32", "bfloat16":
        ...     operands, precision = compute_type(dtype)
        ...     print(operands, precision.name)
        float32 HIGHEST
        float32 HIGH
        bfloat16 DEFAULT
    """
    fewer_bits = isinstance(dtype, str) and dtype == TENSORFLOAT32
    try:
        operands = jnp.dtype(jnp.float32 if fewer_bits else dtype)
    except TypeError:
        operands = None
    # NumPy takes None for float64.
    if dtype is None or operands is None or not jnp.issubdtype(operands, jnp.floating):
        raise ValueError(
            "dtype must be float32, tensorfloat32, bfloat16 or another floating-point dtype, "
            f"got {dtype!r}"
        )
    if operands == jnp.float32:
        operands = jnp.promote_types(operands, parameter_dtype)
    if jnp.finfo(operands).bits < 32:
        return ComputeType(operands, jax.lax.Precision.DEFAULT)
    if fewer_bits and operands == jnp.float32:
        return ComputeType(operands, jax.lax.Precision.HIGH)
    return ComputeType(operands, EXACT)
