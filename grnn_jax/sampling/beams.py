"""What the searches over beams share: sequences that grow side by side, and their tables."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Int, Params, PyTree
from grnn_jax.model import Carry, Model


class History(NamedTuple):
    """The events of beams [..., T] and their log-probabilities, 0 where there are none yet.

    Attributes:
        events: tokens.
        log_probs: nats under the model.
        lengths: [...], events so far.
    """

    events: Int[Array, "... T"]
    log_probs: Float[Array, "... T"]
    lengths: Int[Array, "..."]

    def append(self, tokens: Int[Array, "..."], nats: Float[Array, "..."]) -> "History":
        """Every beam with one more event."""
        here = jnp.arange(self.events.shape[-1]) == self.lengths[..., None]
        return History(
            jnp.where(here, tokens[..., None], self.events),
            jnp.where(here, nats[..., None], self.log_probs),
            self.lengths + 1,
        )

    @property
    def mask(self) -> Bool[Array, "... T"]:
        """True for the events of a beam."""
        return jnp.arange(self.events.shape[-1]) < self.lengths[..., None]


def no_history(shape: tuple[int, ...], length: int) -> History:
    """Beams of that shape without events."""
    events = jnp.zeros((*shape, length), jnp.int32)
    return History(events, jnp.zeros((*shape, length), jnp.float32), jnp.zeros(shape, jnp.int32))


def pick(tree: PyTree, index: Int[Array, "B W"]) -> PyTree:
    """For each b the entries `index[b]` along the second axis of arrays [B, N, ...]."""
    return jax.tree.map(lambda leaf: jax.vmap(lambda row, at: row[at])(leaf, index), tree)


def flat(tree: PyTree) -> PyTree:
    """Arrays [B, W, ...] as [B·W, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def unflat(tree: PyTree, batch_size: int) -> PyTree:
    """Arrays [B·W, ...] as [B, W, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(batch_size, -1, *leaf.shape[1:]), tree)


def repeat(tree: PyTree, num_beams: int) -> PyTree:
    """Arrays [B, ...] as [B, W, ...], the same for all beams."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], num_beams, *leaf.shape[1:])),
        tree,
    )


def class_log_probs(
    model: Model, params: Params, hidden: Float[Array, "N H"]
) -> Float[Array, "N V"]:
    """Log-probabilities of every token, normalised."""
    assert model.distribution.logits is not None
    return jax.nn.log_softmax(model.distribution.logits(params["distribution"], hidden), -1)


def step_beams(
    model: Model, params: Params, step: Callable[[Carry], tuple[Array, Carry]], carry: Carry
) -> tuple[Float[Array, "B W V"], Carry]:
    """Log-probabilities of every token after every beam, and the carries, both [B, W, ...]."""
    batch_size = carry.started.shape[0]
    hidden, carry = step(flat(carry))
    logs = class_log_probs(model, params, hidden)
    return unflat(logs, batch_size), unflat(carry, batch_size)


def end_classes(model: Model, num_classes: int) -> Bool[Array, " V"]:
    """True for the tokens that end a sequence."""
    if model.distribution.is_end is None:
        return jnp.zeros((num_classes,), bool)
    return model.distribution.is_end(jnp.arange(num_classes))
