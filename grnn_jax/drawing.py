"""Sequences as a trained run draws them: any number of them, of any format, in bounded memory."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from grnn_jax import sampling
from grnn_jax.data import Codec
from grnn_jax.data.corpus import Events, map_events
from grnn_jax.model import Model
from grnn_jax.ops.ahead import one_ahead
from grnn_jax.sampling.sharded import Block, SampleBlock
from grnn_jax.sharding import make_mesh
from grnn_jax.workdir import Run

# Samples are drawn side by side in parts, so that memory does not grow with their number.
BATCH_SIZE = 256
BLOCK_BATCHES = 8
"""Most batches in a block of a request whose sequences end: a finished row takes the next one."""
BLOCK_BYTES = 1 << 26
"""Most bytes of the events of such a block."""
DEFAULT_LENGTH = 600


class Drawn(NamedTuple):
    """One sample.

    Attributes:
        events: its events [T, ...] in NumPy.
        nats: negative log-probability of all events drawn, under the model untempered.
        num_events: number of events drawn, their end included.
        extras: numbers that a method gives beside them.
    """

    events: Events
    nats: float
    num_events: int
    extras: Mapping[str, float] = {}


def default_length(codec: Codec) -> int:
    """Most events of a sample where no length is given: all of them where all have as many."""
    return DEFAULT_LENGTH if codec.num_events is None else codec.num_events + codec.wraps_end


def block_batches(run: Run, length: int) -> int:
    """Batches in a block of sequences that end, the fewer the larger they may become."""
    specs = jax.tree.leaves(run.model.distribution.event)
    event: int = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)
    return min(max(1, BLOCK_BYTES // (BATCH_SIZE * length * event)), BLOCK_BATCHES)


def iterate_samples(
    run: Run,
    *,
    num_samples: int,
    length: int,
    seed: int,
    options: Mapping[str, Any],
    first: int = 0,
    conditions: Float[np.ndarray, "..."] | None = None,
) -> Iterator[Drawn]:
    """Draws sequences block by block, on all devices; the next block while one is looked at.

    Every block has the same shape, whatever is wanted of the last one, so that sample i is the
    same bit by bit wherever drawing begins.

    Args:
        run: a trained model.
        num_samples: number of samples.
        length: most events of a sample, the end included.
        seed: seed; sample i of a seed is the same whatever num_samples is.
        options: of `sampling.sample`.
        first: the sample to begin with.
        conditions: what samples are drawn given, [C] for all or [num_samples, C], of a run with
            conditions.

    Yields:
        The samples `first` … `num_samples - 1`, with the end that a codec adds.
    """
    mesh = make_mesh()
    ends = run.model.distribution.is_end is not None or "stop" in options
    size = min(BATCH_SIZE * (block_batches(run, length) if ends else 1), num_samples)
    refilled = size > BATCH_SIZE
    size = -(-size // mesh.size) * mesh.size
    num_rows = BATCH_SIZE if refilled else None
    draw_block = _sharded_sample(run.model, mesh, size, length, num_rows, options)
    key = jax.random.key(seed)
    starts = range(first // size * size, num_samples, size)

    def given(start: int) -> Float[np.ndarray, "..."] | None:
        # The last block has as many rows as the others.
        rows = np.minimum(np.arange(start, start + size), num_samples - 1)
        return conditions if conditions is None or conditions.ndim == 1 else conditions[rows]

    def draw(start: int) -> Block:
        return draw_block(run.params, key, start, given(start))

    for start, samples in zip(starts, one_ahead(map(draw, starts)), strict=True):
        events, mask, log_probs = jax.device_get(samples[:3])
        lengths = mask.sum(1).tolist()
        nats = -log_probs.astype(np.float64).sum(1)
        for row in range(max(first - start, 0), min(size, num_samples - start)):
            one = jax.tree.map(lambda leaf: leaf[row, : lengths[row]], events)  # noqa: B023
            yield Drawn(one, float(nats[row]), lengths[row])


def _sharded_sample(
    model: Model,
    mesh: Mesh,
    size: int,
    length: int,
    num_rows: int | None,
    options: Mapping[str, Any],
) -> SampleBlock:
    """`make_sharded_sample`, the same function, compiled already, for the same arguments."""
    names = tuple(sorted(options))
    arguments = model, mesh, size, length, num_rows, names, *(options[name] for name in names)
    try:
        return _remembered(*arguments)
    except TypeError:  # Arrays, as of a prefix, cannot be looked up.
        return _remembered.__wrapped__(*arguments)


@functools.lru_cache(maxsize=8)
def _remembered(
    model: Model,
    mesh: Mesh,
    size: int,
    length: int,
    num_rows: int | None,
    names: tuple[str, ...],
    *values: Any,
) -> SampleBlock:
    options = dict(zip(names, values, strict=True))
    return sampling.make_sharded_sample(model, mesh, size, length, num_rows=num_rows, **options)


def without_end(codec: Codec, events: Events) -> Events:
    """The events proper, where the codec put the end of a sequence beside them."""
    if not codec.wraps_end:
        return events
    inside = ~np.asarray(events["end"], bool)
    return map_events(lambda leaf: leaf[inside], events["event"])
