"""Every event of a corpus at its place, its nats those of `log_prob`; files of every kind."""

import errno
import json
import os

import jax
import numpy as np
import pytest
from helpers import perturb

import grnn_jax
from grnn_jax import cells, distributions, make_model
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows, load_splits
from grnn_jax.data.corpus import map_events
from grnn_jax.errors import InputError
from grnn_jax.scoring import compare, make_score_events, records, score_file
from grnn_jax.sharding import make_mesh
from grnn_jax.workdir import Run, build_model, data_settings


def ragged_corpus(lengths, num_classes=5, seed=0):
    events = np.random.default_rng(seed).integers(0, num_classes, sum(lengths)).astype(np.uint8)
    return Corpus(events, np.cumsum([0, *lengths]))


@pytest.mark.parametrize("is_stream", [False, True])
def test_positions_are_where_the_events_came_from(is_stream):
    # Each event is its own position, so the batches themselves say what is expected.
    corpus = ragged_corpus([3, 1, 7, 2, 2, 9, 30, 1], 2)
    corpus = corpus._replace(events=np.arange(corpus.num_events), is_stream=is_stream)
    windows = eval_windows(corpus, 3, 4, context=6)
    seen = []
    for index in range(windows.windows_per_epoch):
        batch, positions = windows[index], windows.positions(index)
        np.testing.assert_array_equal(positions, np.where(batch.mask, batch.events, -1))
        seen.extend(positions[batch.mask].tolist())
    assert sorted(seen) == list(range(corpus.num_events))


def test_every_event_has_the_nats_of_its_sequence(tmp_path):
    lengths = [5, 1, 12, 3, 8, 8, 2]
    model = make_model(cells.gru(6), distributions.categorical(5, embedding_size=4))
    params = perturb(model.init(jax.random.key(0)))
    corpus = ragged_corpus(lengths)
    config = Config(eval_batch_size=3, sequence_length=4)
    score, reports = make_score_events(model, config, make_mesh()), []
    nats = score(params, corpus, folder=tmp_path, report=reports.append)["nats"]
    assert isinstance(nats, np.memmap) and nats.shape == (sum(lengths),)
    assert reports == sorted(reports) and reports[-1] == sum(lengths)
    np.testing.assert_array_equal(nats, score(params, corpus)["nats"])
    log_prob = jax.jit(lambda rows, mask: grnn_jax.log_prob(model, params, rows, mask))
    # log p(x_1..x_t) for every t at once: padded prefixes of one sequence.
    for index, length in enumerate(lengths):
        start = corpus.offsets[index]
        rows = np.zeros((length, 12), int)
        rows[:, :length] = corpus.events[start : start + length]
        mask = np.arange(12) < np.arange(1, length + 1)[:, None]
        rows, mask = np.resize(rows, (12, 12)), np.resize(mask, (12, 12))
        whole = np.asarray(log_prob(rows, mask))[:length]
        expected = -np.diff(whole, prepend=0)
        np.testing.assert_allclose(nats[start : start + length], expected, rtol=1e-4, atol=1e-5)


def write_pianoroll(folder):
    rng = np.random.default_rng(0)
    rolls = {f"tune{i}": (rng.random((4 + 3 * i, 88)) < 0.1).astype(np.uint8) for i in range(6)}
    np.savez(folder / "data.npz", **rolls)
    return "data.npz"


def write_events(folder):
    rng = np.random.default_rng(0)
    rows = [
        f"{s},{t:.3f},{rng.choice(['a', 'b'])}"
        for s in range(6)
        for t in np.cumsum(rng.exponential(size=3 + s))
    ]
    (folder / "data.csv").write_text("\n".join(["sequence,time,mark", *rows]) + "\n")
    return "data.csv"


def write_lines(folder):
    (folder / "data.txt").write_text("an old cat\nsat\n\nthere\nold\nthere\nan an\n")
    return "data.txt"


def write_text(folder):
    (folder / "data.txt").write_text("an old cat\nsat\n\nthere\nold\nthere\nan an", newline="")
    return "data.txt"


FILES = {
    "pianoroll": (write_pianoroll, {"model_end": True}),
    "events": (write_events, {"sequence_column": "sequence", "mark_columns": "mark"}),
    "lines": (write_lines, {}),
    "text": (write_text, {}),
}


def make_run(folder, format, seed=0):
    write, settings = FILES[format]
    path = folder / write(folder)
    config = Config(
        data=str(path), format=format, hidden_size=4, eval_batch_size=2, sequence_length=8,
        valid_fraction=0.0, test_fraction=0.0, **settings,
    )  # fmt: skip
    splits = load_splits(**data_settings(config))
    model = build_model(config, splits.codec)
    params = perturb(model.init(jax.random.key(seed)), seed)
    return Run(model, params, splits.codec, config, 1), str(path)


def nats_of_rows(run, events, offsets):
    """By `log_prob` of one padded row a sequence."""
    length = int(np.diff(offsets).max())

    def pad(leaf):
        rows = np.zeros((len(offsets) - 1, length, *leaf.shape[1:]), leaf.dtype)
        for row, start, stop in zip(rows, offsets, offsets[1:], strict=False):
            row[: stop - start] = leaf[start:stop]
        return rows

    mask = np.arange(length) < np.diff(offsets)[:, None]
    score = jax.jit(lambda events: -grnn_jax.log_prob(run.model, run.params, events, mask))
    return np.asarray(score(map_events(pad, events)))


@pytest.mark.parametrize("format", ["pianoroll", "events"])
def test_files_of_sequences_score_as_log_prob(format, tmp_path):
    run, path = make_run(tmp_path, format)
    scored = score_file(run, path, tmp_path)
    expected = nats_of_rows(run, scored.corpus.events, scored.corpus.offsets)
    np.testing.assert_allclose(scored.scores.nats, expected, rtol=1e-5)
    found = list(records(scored, rank="nats"))
    assert [r["rank"] for r in found] == list(range(1, len(expected) + 1))
    assert [r["sequence"] for r in found] == np.argsort(expected, kind="stable").tolist()
    assert json.loads(json.dumps(found)) == found


def test_a_text_is_one_sequence_or_one_a_line(tmp_path):
    run, path = make_run(tmp_path, "text")
    whole = score_file(run, path, tmp_path)
    text = (tmp_path / "data.txt").read_text()
    (record,) = records(whole)
    assert record["num_events"] == len(text) and "text" not in record
    ids = run.codec.encode(text)
    np.testing.assert_allclose(
        record["nats"], nats_of_rows(run, ids, np.array([0, len(ids)])), rtol=1e-5
    )
    lines = text.splitlines(keepends=True)
    each = score_file(run, path, tmp_path, each_line=True)
    # Or else a line longer than the context of a stream would be cut.
    assert whole.corpus.is_stream and not each.corpus.is_stream
    found = list(records(each))
    assert [r["text"] for r in found] == lines
    expected = nats_of_rows(run, ids, np.cumsum([0, *map(len, lines)]))
    np.testing.assert_allclose(each.scores.nats, expected, rtol=1e-5)
    symbols = [r["symbol"] for r in records(each, per_event=True)]
    assert "".join(symbols) == text
    worse = each.scores.nats + np.arange(7.0)
    second = each._replace(scores=each.scores._replace(nats=worse))
    for record, p, q in zip(
        records(each, other=second), each.scores.nats, second.scores.nats, strict=True
    ):
        assert record["other_nats"] == q and record["log_ratio"] == q - p
    with pytest.raises(InputError, match="see 7 and 1 sequences"):
        compare(each, whole)


def test_a_disk_without_room_is_told_of_before_it_is_written_to(tmp_path, monkeypatch):
    run, path = make_run(tmp_path, "lines")

    def full(file, start, size):
        assert start == 0 and size >= 4
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left.*nats.float32"):
        score_file(run, path, tmp_path)
    with pytest.raises(InputError, match="hidden: cannot write .*h.npy: No space left"):
        score_file(run, path, tmp_path, hidden=tmp_path / "h.npy")
    assert not list(tmp_path.glob("h.npy*"))


def test_each_line_is_for_text(tmp_path):
    run, path = make_run(tmp_path, "lines")
    with pytest.raises(InputError, match="each_line is for runs on format=text, got .*lines"):
        score_file(run, path, tmp_path, each_line=True)
