"""What a model says of every event of a corpus, each at its place, in bounded memory."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from grnn_jax.array_types import Batch
from grnn_jax.compiler import outermost_jit
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.data.pipeline import Windows
from grnn_jax.host_memory import check_batch_memory
from grnn_jax.likelihood import event_statistics
from grnn_jax.model import Model
from grnn_jax.ops.ahead import one_ahead
from grnn_jax.sharding import batch_sharding, shard_batch

Read = Callable[[PyTree, Any, PyTree], dict[str, Any]]
"""(params of the distribution, hidden [T, B, H], events) -> numbers [T, B, ...] by name."""

Report = Callable[[int], None]
"""Is told how many events are done."""

Result = TypeVar("Result")


def read_nats(model: Model) -> Read:
    """Reads the negative log-probability of each event, as "nats"."""

    def read(params: PyTree, hidden: Any, events: PyTree) -> dict[str, Any]:
        return {"nats": -model.distribution.log_prob(params, hidden, events)}

    return read


def read_hidden(model: Model) -> Read:
    """Reads the hidden state that each event is predicted from, as "hidden" [T, B, H]."""

    def read(params: PyTree, hidden: Any, events: PyTree) -> dict[str, Any]:
        # With skip_input the encoded last event stands behind it.
        return {"hidden": hidden[..., : model.cell.hidden_size]}

    return read


def read_nats_and_hidden(model: Model) -> Read:
    """Reads both, see `read_nats` and `read_hidden`."""
    reads = read_nats(model), read_hidden(model)

    def read(params: PyTree, hidden: Any, events: PyTree) -> dict[str, Any]:
        return {k: v for each in reads for k, v in each(params, hidden, events).items()}

    return read


def make_score_events(
    model: Model, config: Config, mesh: Mesh, read: Read | None = None
) -> Callable[..., dict[str, np.ndarray]]:
    """Makes the function that scores every event of a corpus.

    It goes through the very batches of an evaluation, so that the nats are those of evaluate.py:
    sequences whole and each from its own start; text cut into streams, each of them after 256
    events of context (one stream, and no cut, where `eval_batch_size` is 1).

    Args:
        model: the model.
        config: `eval_batch_size` and `sequence_length` are read.
        mesh: mesh with the axis "data", of one process.
        read: what to compute; the nats alone by default.

    Returns:
        Function (params, corpus, *, folder=None, arrays=None, report=None) -> float32 arrays
        [num_events, ...] by name, event i of the corpus at i. They are those of `arrays`; what is
        not among them lies in a file of `folder`, or in memory without one.
    """
    read = read or read_nats(model)
    rows, size = batch_sharding(mesh), config.eval_batch_size
    sizes = size, config.sequence_length, model.cell.hidden_size
    check_batch_memory(mesh, *sizes, "eval_batch_size")
    initial_state = jax.jit(lambda params: model.initial_state(params, size), out_shardings=rows)

    def step(params: PyTree, carry: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
        numbers, carry = event_statistics(model, params, carry, batch, read)
        return carry, numbers

    jitted = outermost_jit(step, donate_argnums=1, out_shardings=(rows, rows))

    def score(
        params: PyTree,
        corpus: Corpus,
        *,
        folder: str | os.PathLike[str] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        report: Report | None = None,
    ) -> dict[str, np.ndarray]:
        windows = eval_windows(corpus, size, config.sequence_length)
        values = dict(arrays or {})
        done = 0

        def run(carry: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
            return jitted(params, carry, shard_batch(batch, mesh))

        for index, numbers in enumerate(map_windows(run, initial_state(params), windows)):
            positions = windows.positions(index)
            scored = positions >= 0
            for name, each in numbers.items():
                if name not in values:
                    shape = (corpus.num_events, *each.shape[2:])
                    values[name] = _new_array(shape, folder, name)
                values[name][positions[scored]] = np.asarray(each)[scored]
            done += int(scored.sum())
            if report is not None:
                report(done)
        if done != corpus.num_events:
            raise RuntimeError(f"{done} of {corpus.num_events} events were scored")
        return values

    return score


def _new_array(
    shape: tuple[int, ...], folder: str | os.PathLike[str] | None, name: str
) -> np.ndarray:
    """Float32 zeros, in a file that is no larger than they are or in memory."""
    if folder is None:
        return np.zeros(shape, np.float32)
    path = Path(folder) / f"{name}.float32"
    array = np.memmap(path, np.float32, "w+", shape=shape)
    reserve(path)
    return array


def reserve(path: Path) -> None:
    """Takes the room on the disk that a new file is to fill.

    Else a process that writes to it through a memory map is killed where there is no more room.

    Raises:
        OSError: there is not as much room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def map_windows(
    step: Callable[[PyTree, Batch], tuple[PyTree, Result]], carry: PyTree, windows: Windows
) -> Iterator[Result]:
    """Carries a state through all windows.

    Every result is yielded one window late: while the caller waits for its numbers, the device is
    already at work on the next window.

    Args:
        step: (carry, batch) -> (carry, result).
        carry: in front of the first window.
        windows: each event once.

    Returns:
        Yields the result of each window, in their order.
    """

    def results(carry: PyTree) -> Iterator[Result]:
        for index in range(windows.windows_per_epoch):
            carry, result = step(carry, windows[index])
            yield result

    return one_ahead(results(carry))


def sum_windows(
    step: Callable[[PyTree, Batch], tuple[PyTree, dict[str, Any]]],
    carry: PyTree,
    windows: Windows,
    report: Report | None = None,
) -> dict[str, float]:
    """Adds up, in float64, what a step finds in each window.

    Args:
        step: (carry, batch) -> (carry, scalars by name, "num_events" among them).
        carry: in front of the first window.
        windows: each event once.
        report: is told how many events are done.

    Returns:
        The sums.
    """
    sums: dict[str, float] = {}
    for values in map_windows(step, carry, windows):
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        if report is not None:
            report(int(sums["num_events"]))
    return sums
