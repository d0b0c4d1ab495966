"""A file of sequences, scored by a trained run."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.data import Codec, Corpus, TextCodec
from grnn_jax.data.unseen import LeftOut, listing
from grnn_jax.errors import InputError
from grnn_jax.likelihood import bits
from grnn_jax.scoring.events import (
    Report,
    make_score_events,
    read_nats,
    read_nats_and_hidden,
    reserve,
)
from grnn_jax.scoring.reading import ReadFile, read_file
from grnn_jax.scoring.sequences import SequenceScores, sum_sequences
from grnn_jax.sharding import check_batch_size, make_mesh
from grnn_jax.workdir import Run


class ScoredFile(NamedTuple):
    """A file as a run sees it.

    Attributes:
        codec: how it became events.
        corpus: its sequences.
        nats: negative log-probability of each event.
        scores: of each sequence.
        numbers: of each its number in the file, from 0.
        left_out: the sequences with symbols that training never saw, by their number.
    """

    codec: Codec
    corpus: Corpus
    nats: Float[np.ndarray, " N"]
    scores: SequenceScores
    numbers: Integer[np.ndarray, " S"]
    left_out: Mapping[int, LeftOut]

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
    unseen: str = "error",
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
        unseen: see `read_file`.
        eval_batch_size: see `score_sequences`, as hidden and report.
        hidden: a file for the hidden states.
        argument: the flag that named the file, for messages.
        report: is told how many events are done.

    Returns:
        The scores.

    Raises:
        InputError: the file cannot be used.
    """
    read = read_file(run, path, folder, each_line=each_line, unseen=unseen, argument=argument)
    return score_sequences(
        run, read, folder, eval_batch_size=eval_batch_size, hidden=hidden, report=report
    )


def score_sequences(
    run: Run,
    read: ReadFile,
    folder: str | Path,
    *,
    eval_batch_size: int = 0,
    hidden: str | Path | None = None,
    report: Report | None = None,
) -> ScoredFile:
    """Scores every event and every sequence of a file that was read.

    Args:
        run: a trained model.
        read: the sequences.
        folder: where the nats of events lie while they are needed, memory-mapped.
        eval_batch_size: sequences in a batch; 0 for that of the run.
        hidden: a file NAME.npy for the hidden states, float32 [N, H], row i the state that event i
            of the file is predicted from; where each sequence begins, and at last N, goes into
            NAME.offsets.npy, int64 [S + 1]. Neither is ever held in memory.
        report: is told how many events are done.

    Returns:
        The scores.

    Raises:
        InputError: a file cannot be written.
    """
    config, folder, corpus = run.config, Path(folder), read.corpus
    if eval_batch_size:
        config = dataclasses.replace(config, eval_batch_size=eval_batch_size)
    mesh = make_mesh()
    check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    with contextlib.ExitStack() as stack:
        arrays, read_numbers = {}, read_nats(run.model)
        if hidden is not None:
            shape = (corpus.num_events, run.model.cell.hidden_size)
            arrays = {"hidden": stack.enter_context(_npy_file(Path(hidden), shape))}
            read_numbers = read_nats_and_hidden(run.model)
            np.save(offsets_file(hidden), corpus.offsets)
        values = make_score_events(run.model, config, mesh, read_numbers)(
            run.params, corpus, folder=folder, arrays=arrays, report=report
        )
    num_events = np.diff(corpus.offsets)
    scores = SequenceScores(num_events, sum_sequences(values["nats"], corpus.offsets))
    return ScoredFile(run.codec, corpus, values["nats"], scores, read.numbers, read.left_out)


def offsets_file(hidden: str | Path) -> Path:
    """The file beside one of hidden states that says where each sequence begins."""
    return Path(hidden).with_suffix(".offsets.npy")


@contextlib.contextmanager
def _npy_file(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A float32 array that is written through a memory map, and has its name once it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        reserve(temporary)
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
    scored: ScoredFile,
    *,
    rank: str = "",
    other: ScoredFile | None = None,
    per_event: bool = False,
    unseen_first: bool = False,
) -> Iterator[dict[str, Any]]:
    """One record a sequence, or one an event.

    Args:
        scored: the scores.
        rank: the order of the sequences, see `SequenceScores.order`.
        other: the scores of another run.
        per_event: whether there is a record for each event.
        unseen_first: whether a ranking begins with the sequences that have symbols which training
            never saw, without numbers; `unseen` says in each record which these are.

    Yields:
        `sequence` (its number in the file, from 0), with a rank its `rank` (from 1), and
        `SequenceScores.record`, of lines also their `text`; of an event `event` (its number in the
        sequence), of text its `symbol` (empty for the end), its `nats` and `bits`.
    """
    scores = scored.scores if other is None else compare(scored, other, per_event)
    is_text = isinstance(scored.codec, TextCodec)
    with_text = is_text and len(scores.nats) + len(scored.left_out) > 1
    offsets = scored.corpus.offsets
    first, none = (len(scored.left_out), {"unseen": ""}) if unseen_first else (0, {})
    if unseen_first:
        names = list(scores.record(0))
        if per_event:
            names = ["event", *(["symbol"] if is_text else []), "nats", "bits"]
            names += [] if other is None else ["other_nats", "log_ratio"]
        yield from _without_numbers(scored, names, with_text and not per_event)
    for number, index in enumerate(scores.order(rank).tolist(), start=first):
        head: dict[str, Any] = {"sequence": int(scored.numbers[index])}
        head |= {"rank": number + 1} if rank else {}
        if not per_event:
            text = {"text": scored.text(index)} if with_text else {}
            yield head | text | scores.record(index) | none
            continue
        for position in range(int(offsets[index]), int(offsets[index + 1])):
            record: dict[str, Any] = head | {"event": position - int(offsets[index])}
            if is_text:
                record["symbol"] = scored.symbol(position)
            nats = float(scored.nats[position])
            record |= {"nats": nats, "bits": bits(nats)}
            if other is not None:
                other_nats = float(other.nats[position])
                record |= {"other_nats": other_nats, "log_ratio": other_nats - nats}
            yield record | none


def _without_numbers(
    scored: ScoredFile, names: Iterable[str], with_text: bool
) -> Iterator[dict[str, Any]]:
    """Records of the sequences that have no score, with the names of the others."""
    for number, (index, left_out) in enumerate(sorted(scored.left_out.items())):
        head: dict[str, Any] = {"sequence": index, "rank": number + 1}
        text = {"text": left_out.text} if with_text else {}
        yield head | text | dict.fromkeys(names) | {"unseen": listing([left_out.symbols])}
