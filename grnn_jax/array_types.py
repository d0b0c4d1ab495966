"""Axis legend and array aliases used in every signature.

    B  batch          T  time            X  input features     H  hidden units
    n  heads          D  head width      G  gates              K  classes
    V  vocabulary     P  projected width (G·H for gated cells)

Public arrays are batch-major, [B, T, ...]. Log-probabilities are in nats.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Key, PyTree, UInt8

Params = dict[str, Any]
"""Nested dictionary of parameter arrays."""

State = tuple[Array, ...]
"""Recurrent state: arrays [B, H], the hidden state (the cell's output) first."""

AnyArray = jax.Array | np.ndarray
"""What public functions accept where data comes from outside."""

PRNGKey = Key[Array, ""]
"""A single typed key, `jax.random.key(seed)`."""

DType = Any

__all__ = [
    "AnyArray",
    "Array",
    "Bool",
    "DType",
    "Float",
    "Inexact",
    "Int",
    "Key",
    "PRNGKey",
    "Params",
    "PyTree",
    "State",
    "UInt8",
]
