"""The score of a model on a whole corpus: exact counts, each event once."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from grnn_jax.array_types import Batch
from grnn_jax.compiler import outermost_jit
from grnn_jax.config import SPLITS, Config
from grnn_jax.data import Corpus, eval_windows, load_file
from grnn_jax.errors import InputError
from grnn_jax.host_memory import check_batch_memory
from grnn_jax.likelihood import per_event
from grnn_jax.model import Model
from grnn_jax.scoring.events import Report, map_windows
from grnn_jax.scoring.methods import STATIC, MethodSettings, score_by_method
from grnn_jax.sharding import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    replicated,
    shard_batch,
)
from grnn_jax.training import make_eval_step
from grnn_jax.workdir import Run, file_settings, load_run, load_run_data, read_otherwise

Evaluate = Callable[..., dict[str, Any] | None]


def make_evaluate(model: Model, config: Config, mesh: Mesh) -> Evaluate:
    """Makes the function that scores a corpus.

    Args:
        model: the model.
        config: `eval_batch_size` and `sequence_length` are read.
        mesh: mesh with the axis "data".

    Returns:
        Function (params, corpus, stop=None) -> dict with num_sequences, num_events,
        nats_per_event, bits_per_event, perplexity (of an event) and nats_per_sequence. Sums over
        batches are float64. Where `stop()` becomes true the score is given up: None.
    """
    rows, whole = batch_sharding(mesh), replicated(mesh)
    size = config.eval_batch_size
    sizes = size // jax.process_count(), config.sequence_length, model.cell.hidden_size
    check_batch_memory(mesh, *sizes, "eval_batch_size")
    initial_state = jax.jit(lambda params: model.initial_state(params, size), out_shardings=rows)
    eval_step = outermost_jit(make_eval_step(model), donate_argnums=1, out_shardings=(rows, whole))

    def evaluate(
        params: PyTree, corpus: Corpus, stop: Callable[[], bool] | None = None
    ) -> dict[str, Any] | None:
        windows = eval_windows(
            corpus,
            size,
            config.sequence_length,
            jax.process_index(),
            jax.process_count(),
        )

        def step(carry: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
            return eval_step(params, carry, shard_batch(batch, mesh))

        nats, num_events = 0.0, 0
        for metrics in map_windows(step, initial_state(params), windows):
            if stop is not None and stop():
                return None
            nats += float(metrics["nats"])
            num_events += int(metrics["num_events"])
        if num_events != corpus.num_events:
            raise RuntimeError(f"{num_events} of {corpus.num_events} events were scored")
        return {
            "num_sequences": corpus.num_sequences,
            "num_events": num_events,
            **per_event(nats, num_events),
            "nats_per_sequence": nats / corpus.num_sequences,
        }

    return evaluate


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    data: str = "",
    column: str = "",
    as_is: bool = False,
    skip_bad: bool = False,
    max_file_gib: float = 0.0,
    sequence_column: str = "",
    split: str = "valid",
    checkpoint: str = "best",
    eval_batch_size: int = 0,
    dtype: str = "float32",
    method: MethodSettings = STATIC,
    report: Report | None = None,
) -> dict[str, Any]:
    """Scores a trained model.

    Args:
        workdir: directory of the run; nothing else is needed.
        data: a file to score whole, in the format of the run; empty to score a split of its data.
        column: the column of that file with the sequences; empty: as the run.
        as_is: whether that file is read as the format says, whatever it looks like.
        skip_bad: whether what cannot be used of that file is left out, with a warning.
        max_file_gib: the GiB that that file may expand to, if it is compressed; 0: as the run.
        sequence_column: the column of that file that tells sequences apart; empty: as the run.
        split: "train", "valid" or "test".
        checkpoint: "best" or "latest".
        eval_batch_size: sequences in a batch; 0 for that of the run.
        dtype: what products are computed in, see `load_run`.
        method: another way to score, beside the static likelihood.
        report: is told how many events that other way has scored.

    Returns:
        method "static", split, step, num_sequences, num_events, nats_per_event, bits_per_event,
        perplexity, nats_per_sequence, checkpoint, dtype, data, workdir; is_density, True where the
        nats are those of densities, and then `unit`, the unit of the data that they are per. All
        these numbers are those of the static likelihood; what another method finds stands under
        its name in a dict of its own, see `score_by_method`.

    Raises:
        InputError: there is no such run, file or split, or the method does not fit the run.

    Example:
        >>> import grnn_jax
        >>> score = grnn_jax.evaluate("runs/mine", split="test")
        >>> score["split"], score["bits_per_event"] > 0
        ('test', True)
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if eval_batch_size < 0:
        raise InputError(f"eval_batch_size must be at least 0, got {eval_batch_size}")
    run = read_otherwise(
        load_run(workdir, checkpoint, dtype=dtype),
        data,
        column=column,
        as_is=as_is,
        skip_bad=skip_bad,
        max_file_gib=max_file_gib,
        sequence_column=sequence_column,
    )
    config = run.config
    if eval_batch_size:
        config = dataclasses.replace(config, eval_batch_size=eval_batch_size)
    mesh = make_mesh()
    check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    with tempfile.TemporaryDirectory(prefix="grnn_jax-") as cache:
        corpus = load_corpus(run, Path(workdir), data, split, cache)
        scored = run._replace(config=config)
        other = score_by_method(scored, workdir, corpus, mesh, method, report)
        values = make_evaluate(run.model, config, mesh)(run.params, corpus)
    assert values is not None
    return {
        "method": STATIC.method,
        "split": "data" if data else split,
        "step": run.step,
        **values,
        "is_density": run.model.distribution.is_density,
        **({"unit": run.codec.unit} if run.model.distribution.is_density else {}),
        "checkpoint": checkpoint,
        "dtype": run.dtype,
        "data": data or config.data,
        "workdir": str(workdir),
        **({method.method: other} if other else {}),
    }


def load_corpus(run: Run, workdir: Path, data: str, split: str, cache: str) -> Corpus:
    """What `evaluate` scores; a file's tokens are memory-mapped in the folder `cache`."""
    if data:
        return load_file(
            data,
            run.config.format,
            run.codec,
            cache,
            **file_settings(run.config),
        )
    corpus = getattr(load_run_data(run.config, workdir, run.codec), split)
    if corpus is None:
        raise InputError(f"split={split}: the run in {workdir} holds out nothing for it")
    return corpus
