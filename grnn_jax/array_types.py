"""Axis legend, array aliases and the batch: the types that every signature uses.

    B  batch          T  time            X  input features     H  hidden units
    n  heads          D  head width      G  gates              K  classes
    V  vocabulary     P  projected width (G·H for gated cells)

Public arrays are batch-major, [B, T, ...]. Log-probabilities are in nats.
"""

from typing import Any, NamedTuple

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


class Batch(NamedTuple):
    """A window of `T` steps from each of `B` streams, as NumPy or JAX arrays.

    What the data pipeline yields and the likelihood consumes. Row `b` of the next batch goes on
    where row `b` of this batch stopped, so that the recurrent state of every row can be carried
    from window to window.

    Attributes:
        events: tokens [B, T], or an array [B, T, ...], or a dict of them.
        mask: True where the event is scored; False for padding and for context, which is fed to
            the network but not scored.
        reset: True where a sequence starts: before this step the network returns to its initial
            state and gets the start input instead of the previous event.
        conditions: of a model with conditions, for each row those of the sequence that goes on
            from the window before, then those of each sequence that starts in this one; NaN
            where a value is missing. None where each row has its own in the carry.
    """

    events: PyTree[AnyArray]
    mask: Bool[AnyArray, "B T"]
    reset: Bool[AnyArray, "B T"]
    conditions: Float[AnyArray, "B S C"] | None = None


__all__ = [
    "AnyArray",
    "Array",
    "Batch",
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
