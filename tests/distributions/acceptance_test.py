"""Casts that keep a number, against Python's own numbers."""

import math

import jax
import ml_dtypes
import numpy as np
import pytest

from grnn_jax.distributions.acceptance import cast

VALUES = [
    0,
    1,
    -1,
    2,
    255,
    256,
    2**31 - 128,
    2**31,
    2**32,
    2**32 + 4096,
    0.5,
    2.9,
    math.inf,
    math.nan,
]
TARGETS = {"bool": (0, 1), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "source",
    [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64]
    + [np.float16, ml_dtypes.bfloat16, np.float32, np.float64],
)
def test_a_cast_to_integers_keeps_what_it_can_hold(source, target):
    with np.errstate(all="ignore"):
        given = np.array(VALUES).astype(source)
    low, high = TARGETS[target]
    numbers = [float(value) for value in given]
    expected = [value == math.floor(value) if math.isfinite(value) else False for value in numbers]
    expected &= (np.array(numbers) >= low) & (np.array(numbers) <= high)
    converted, kept = cast(given, np.dtype(target))
    assert converted.dtype == target
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(converted[kept].astype(float), np.array(numbers)[kept])
    if given.dtype.itemsize <= 4:
        on_device = jax.jit(lambda values: cast(values, np.dtype(target)))(given)
        np.testing.assert_array_equal(on_device[1], expected)
        np.testing.assert_array_equal(on_device[0][kept], converted[kept])


def test_a_cast_to_reals_keeps_what_is_finite():
    converted, kept = cast(np.array([0.1, 1e300, -np.inf, np.nan, 3e38]), np.dtype("float32"))
    np.testing.assert_array_equal(kept, [True, False, False, False, True])
    np.testing.assert_array_equal(converted[kept], np.float32([0.1, 3e38]))
