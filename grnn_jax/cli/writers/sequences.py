"""Sequences of events as the data of a run hold them."""

from pathlib import Path

import numpy as np

from grnn_jax.data.corpus import Events, map_events
from grnn_jax.drawing import without_end
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run, load_run_data


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
    sequences = []
    for start, stop in zip(corpus.offsets[:count], corpus.offsets[1:], strict=False):
        part = slice(int(start), min(int(stop), int(start) + length))
        one = map_events(lambda leaf: np.asarray(leaf[part]), corpus.events)  # noqa: B023
        sequences.append(without_end(run.codec, one))
    return sequences
