"""A file of sequences, scored by a trained run."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from grnn_jax.data import Codec, Corpus, TextCodec, load_file
from grnn_jax.errors import InputError
from grnn_jax.likelihood import bits
from grnn_jax.scoring.events import (
    Report,
    make_score_events,
    read_nats,
    read_nats_and_hidden,
)
from grnn_jax.scoring.sequences import SequenceScores, sum_sequences
from grnn_jax.sharding import check_batch_size, make_mesh
from grnn_jax.workdir import Run, file_settings

BLOCK = 1 << 20
"""Events that are looked at at once."""


class ScoredFile(NamedTuple):
    """A file as a run sees it.

    Attributes:
        codec: how it became events.
        corpus: its sequences.
        nats: negative log-probability of each event.
        scores: of each sequence.
    """

    codec: Codec
    corpus: Corpus
    nats: Float[np.ndarray, " N"]
    scores: SequenceScores

    def text(self, index: int) -> str:
        """The text of a sequence, where the file is text."""
        assert isinstance(self.codec, TextCodec)
        start, stop = self.corpus.offsets[index], self.corpus.offsets[index + 1]
        return self.codec.decode(self.corpus.events[start:stop])

    def symbol(self, position: int) -> str:
        """The text of one event, where the file is text; of a single byte its number."""
        assert isinstance(self.codec, TextCodec)
        event = self.corpus.events[position : position + 1]
        text = self.codec.decode(event)
        return f"\\x{int(event[0]):02x}" if text == "\ufffd" else text


def score_file(
    run: Run,
    path: str,
    folder: str | Path,
    *,
    each_line: bool = False,
    eval_batch_size: int = 0,
    hidden: str | Path | None = None,
    argument: str = "data",
    report: Report | None = None,
) -> ScoredFile:
    """Scores every event and every sequence of a file.

    Args:
        run: a trained model.
        path: the file, in the format of the run.
        folder: where events and their nats lie while they are needed, memory-mapped.
        each_line: of a run on text, every line with its line end is a sequence of its own, scored
            from the initial state on; else the whole file is one sequence.
        eval_batch_size: sequences in a batch; 0 for that of the run.
        hidden: a file NAME.npy for the hidden states, float32 [N, H], row i the state that event i
            of the file is predicted from; where each sequence begins, and at last N, goes into
            NAME.offsets.npy, int64 [S + 1]. Neither is ever held in memory.
        argument: the flag that named the file, for messages.
        report: is told how many events are done.

    Returns:
        The scores.

    Raises:
        InputError: the file cannot be used.
    """
    config, folder = run.config, Path(folder)
    if eval_batch_size:
        config = dataclasses.replace(config, eval_batch_size=eval_batch_size)
    mesh = make_mesh()
    check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    corpus = load_file(
        path,
        config.format,
        run.codec,
        folder,
        argument=argument,
        **file_settings(config),
    )
    if corpus.num_events == 0:
        raise InputError(f"{argument}: {path} has nothing to score")
    if each_line:
        if not (corpus.is_stream and isinstance(run.codec, TextCodec)):
            raise InputError(f"each_line is for runs on format=text, got format={config.format}")
        corpus = _lines_of_text(run.codec, corpus)
    with contextlib.ExitStack() as stack:
        arrays, read = {}, read_nats(run.model)
        if hidden is not None:
            shape = (corpus.num_events, run.model.cell.hidden_size)
            arrays = {"hidden": stack.enter_context(_npy_file(Path(hidden), shape))}
            read = read_nats_and_hidden(run.model)
            np.save(offsets_file(hidden), corpus.offsets)
        values = make_score_events(run.model, config, mesh, read)(
            run.params, corpus, folder=folder, arrays=arrays, report=report
        )
    num_events = np.diff(corpus.offsets)
    scores = SequenceScores(num_events, sum_sequences(values["nats"], corpus.offsets))
    return ScoredFile(run.codec, corpus, values["nats"], scores)


def offsets_file(hidden: str | Path) -> Path:
    """The file beside one of hidden states that says where each sequence begins."""
    return Path(hidden).with_suffix(".offsets.npy")


@contextlib.contextmanager
def _npy_file(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A float32 array that is written through a memory map, and has its name once it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        yield array
        array.flush()
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"hidden: cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def compare(first: ScoredFile, second: ScoredFile, per_event: bool = False) -> SequenceScores:
    """The scores of a file by two runs.

    Args:
        first: by one run.
        second: by the other.
        per_event: whether their events are to be compared one by one.

    Returns:
        The scores of the first with those of the second beside them.

    Raises:
        InputError: they do not see the same sequences (or events).
    """
    counts = [len(each.scores.nats) for each in (first, second)]
    if counts[0] != counts[1]:
        raise InputError(
            f"other_workdir: the two runs see {counts[0]:,} and {counts[1]:,} sequences in the "
            "file, expected as many"
        )
    if per_event and not np.array_equal(first.scores.num_events, second.scores.num_events):
        raise InputError(
            "per_event: the two runs cut the sequences into other events, so that only whole "
            "sequences can be compared"
        )
    return first.scores._replace(other_nats=second.scores.nats)


def records(
    scored: ScoredFile, *, rank: str = "", other: ScoredFile | None = None, per_event: bool = False
) -> Iterator[dict[str, Any]]:
    """One record a sequence, or one an event.

    Args:
        scored: the scores.
        rank: the order of the sequences, see `SequenceScores.order`.
        other: the scores of another run.
        per_event: whether there is a record for each event.

    Yields:
        `sequence` (its number in the file, from 0), with a rank its `rank` (from 1), and
        `SequenceScores.record`, of lines also their `text`; of an event `event` (its number in the
        sequence), of text its `symbol` (empty for the end), its `nats` and `bits`.
    """
    scores = scored.scores if other is None else compare(scored, other, per_event)
    is_text = isinstance(scored.codec, TextCodec)
    with_text = is_text and len(scores.nats) > 1
    offsets = scored.corpus.offsets
    for number, index in enumerate(scores.order(rank).tolist()):
        head: dict[str, Any] = {"sequence": index} | ({"rank": number + 1} if rank else {})
        if not per_event:
            text = {"text": scored.text(index)} if with_text else {}
            yield head | text | scores.record(index)
            continue
        for position in range(int(offsets[index]), int(offsets[index + 1])):
            record = head | {"event": position - int(offsets[index])}
            if is_text:
                record["symbol"] = scored.symbol(position)
            nats = float(scored.nats[position])
            record |= {"nats": nats, "bits": bits(nats)}
            if other is not None:
                other_nats = float(other.nats[position])
                record |= {"other_nats": other_nats, "log_ratio": other_nats - nats}
            yield record


def _lines_of_text(codec: TextCodec, corpus: Corpus) -> Corpus:
    """The same events with every line a sequence, which stays whole."""
    newline = int(codec.encode("\n", "each_line")[0])
    starts = [
        start + 1 + np.flatnonzero(np.asarray(corpus.events[start : start + BLOCK]) == newline)
        for start in range(0, corpus.num_events, BLOCK)
    ]
    offsets = np.union1d(corpus.offsets, np.concatenate(starts)).astype(np.int64)
    return Corpus(corpus.events, offsets)
