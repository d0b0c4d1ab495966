"""One batch of windows: what the data pipeline yields and the likelihood consumes."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """A window of `T` steps from each of `B` streams, as NumPy or JAX arrays.

    Row `b` of the next batch goes on where row `b` of this batch stopped, so that the recurrent
    state of every row can be carried from window to window.

    Attributes:
        events: `[B, T]` tokens, or an array `[B, T, ...]`, or a dict of them.
        mask: `Bool[B, T]`, True where the event is scored; False for padding and for context, which
          is fed to the network but not scored.
        reset: `Bool[B, T]`, True where a sequence starts: before this step the network returns to
          its initial state and gets the start input instead of the previous event.
    """

    events: Any
    mask: Any
    reset: Any
