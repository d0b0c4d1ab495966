"""Sequences of events as a run draws them, and as its data hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from grnn_jax import sampling
from grnn_jax.data import Codec
from grnn_jax.data.corpus import Events, map_events
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run, load_run_data

# Samples are drawn side by side in parts, so that memory does not grow with their number.
BATCH_SIZE = 256
DEFAULT_LENGTH = 600


class Drawn(NamedTuple):
    """One sample.

    Attributes:
        events: its events [T, ...] in NumPy, without the end that a codec adds.
        nats: negative log-probability of all events drawn, under the model untempered.
        num_events: number of events drawn, their end included.
    """

    events: Events
    nats: float
    num_events: int


def default_length(codec: Codec) -> int:
    """Most events of a sample where no length is given: all pixels of an image."""
    if codec.name == "images":
        return codec.height * codec.width + int(codec.wraps_end)
    return DEFAULT_LENGTH


def draw(
    run: Run, *, num_samples: int, length: int, seed: int, options: Mapping[str, Any]
) -> list[Drawn]:
    """Draws sequences.

    Args:
        run: a trained model.
        num_samples: number of samples.
        length: most events of a sample, the end included.
        seed: seed; sample i of a seed is the same whatever num_samples is.
        options: of `sampling.sample`.

    Returns:
        The samples.
    """
    drawn = []
    for first in range(0, num_samples, BATCH_SIZE):
        samples = sampling.sample(
            run.model,
            run.params,
            jax.random.key(seed),
            min(BATCH_SIZE, num_samples - first),
            length,
            first_index=first,
            **options,
        )
        events = jax.tree.map(np.asarray, samples.events)
        lengths = np.asarray(samples.mask).sum(1).tolist()
        nats = -np.asarray(samples.log_probs, np.float64).sum(1)
        for row, count in enumerate(lengths):
            one = jax.tree.map(lambda leaf: leaf[row, :count], events)  # noqa: B023
            drawn.append(Drawn(without_end(run.codec, one), float(nats[row]), count))
    return drawn


def without_end(codec: Codec, events: Events) -> Events:
    """The events proper, where the codec put the end of a sequence beside them."""
    if not codec.wraps_end:
        return events
    inside = ~np.asarray(events["end"], bool)
    return map_events(lambda leaf: leaf[inside], events["event"])


def held_out(run: Run, workdir: str | Path, count: int, length: int) -> list[Events]:
    """The first sequences that the run held out, for validation or else for the test.

    Args:
        run: a trained model.
        workdir: its directory.
        count: most sequences.
        length: most events of a sequence.

    Returns:
        Their events; empty where nothing is held out, or the data are gone.
    """
    try:
        splits = load_run_data(run.config, Path(workdir), run.codec)
    except InputError:
        return []
    corpus = splits.valid or splits.test
    if corpus is None:
        return []
    found = []
    for start, stop in zip(corpus.offsets[:count], corpus.offsets[1:], strict=False):
        part = slice(int(start), min(int(stop), int(start) + length))
        one = map_events(lambda leaf: np.asarray(leaf[part]), corpus.events)  # noqa: B023
        found.append(without_end(run.codec, one))
    return found
