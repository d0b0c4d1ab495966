"""Batches on their way to the devices while the steps before them run."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from grnn_jax.array_types import Array, Batch
from grnn_jax.sharding import replicated, shard_batch


@runtime_checkable
class BatchIterator(Protocol):
    """Batches of this process without end, and a position among them, as grain's iterators have."""

    def __next__(self) -> Batch: ...  # noqa: D105

    def get_state(self) -> Any: ...  # noqa: D102


class Call(NamedTuple):
    """What one call of the training step takes beside the state.

    Attributes:
        num_steps: training steps of the call.
        arguments: the batch [B, ...] of the only step, or the batches [N, B, ...] of at most N
            steps and, on the devices too, their number.
    """

    num_steps: int
    arguments: tuple[Batch] | tuple[Batch, Array]


class DevicePrefetch:
    """Hands out the batches of each call, those of the next one put on the devices ahead.

    Args:
        iterator: yields the batches of this process; its state is a position in the data.
        mesh: the devices.
        steps_per_call: N, most steps of a call.
    """

    def __init__(self, iterator: BatchIterator, mesh: Mesh, steps_per_call: int = 1):
        self._iterator, self._mesh, self._size = iterator, mesh, steps_per_call
        self._ready: Call | None = None
        self._before: Any = None

    def prepare(self, num_steps: int) -> None:
        """Puts the batches of the next call on the devices; does not wait until they are there.

        Args:
            num_steps: training steps of that call; 0 where none follows.
        """
        self._before = self._iterator.get_state()
        batches = [next(self._iterator) for _ in range(num_steps)]
        if not batches:
            return
        if self._size == 1:
            self._ready = Call(1, (shard_batch(batches[0], self._mesh),))
            return

        def stack(*leaves: np.ndarray) -> np.ndarray:
            stacked = np.zeros((self._size, *leaves[0].shape), leaves[0].dtype)
            stacked[:num_steps] = leaves
            return stacked

        whole = replicated(self._mesh)
        stacked: PyTree = jax.tree.map(stack, *batches)
        number = jax.make_array_from_process_local_data(whole, np.int32(num_steps))
        self._ready = Call(num_steps, (shard_batch(stacked, self._mesh, axis=1), number))

    def take(self, num_steps: int) -> Call:
        """The batches of a call: those that were prepared, or else the next ones.

        Args:
            num_steps: training steps of the call, as they were prepared.

        Returns:
            The call.
        """
        if self._ready is None:
            self.prepare(num_steps)
        call, self._ready = self._ready, None
        assert call is not None and call.num_steps == num_steps
        return call

    @property
    def position(self) -> Any:
        """The state of the iterator in front of the first batch that no call has taken."""
        return self._iterator.get_state() if self._ready is None else self._before
