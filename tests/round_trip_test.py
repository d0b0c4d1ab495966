"""Samples of every format and codec, written and read back: the same events, with the same nats."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import perturb

from grnn_jax.cli import text_samples
from grnn_jax.cli.large_request import write_request
from grnn_jax.cli.sample import output
from grnn_jax.cli.sequence_samples import write_sequences
from grnn_jax.cli.writers import WRITERS
from grnn_jax.cli.writers.tables import csv_row
from grnn_jax.cli.writers.texts import text_form
from grnn_jax.config import Config
from grnn_jax.data import FORMATS, load_file, load_splits
from grnn_jax.data.corpus import map_events
from grnn_jax.data.text_codec import CODECS
from grnn_jax.drawing import iterate_samples
from grnn_jax.scoring import score_file
from grnn_jax.workdir import Run, read_otherwise
from grnn_jax.workdir.build import build_model

LENGTH, SEED = 40, 3
MODEL = {"cell": "elman", "hidden_size": 4, "eval_batch_size": 1, "sequence_length": 64}


class Case(NamedTuple):
    """A kind of run.

    Attributes:
        settings: those of its configuration that are no defaults.
        data: makes its file, from the folder.
        names: of the files and folders that its samples are written to. What is read of a folder
            where not all of it is stands after a bar.
        allowed: of text, (symbol, position) -> whether a sample may have it there.
        count: number of samples.
    """

    settings: Mapping[str, Any]
    data: Callable[[Any], str]
    names: tuple[str, ...]
    allowed: Callable[[str, int], bool] | None = None
    count: int = 6


def text_file(text):
    def write(folder):
        (folder / "data.txt").write_bytes(text.encode())
        return str(folder / "data.txt")

    return write


def arrays(**named):
    def write(folder):
        np.savez(folder / "data.npz", **named)
        return str(folder / "data.npz")

    return write


def table(*rows):
    return text_file("".join(map(csv_row, rows)))


RNG = np.random.default_rng(0)
PROSE = 'Ein "Satz", <unk> zwei;\r\n\ufeffthe cat\tsat on the mat\n' * 2
MOLECULES = "CCl\nc1cc[nH]c1\nBrCBr\nC%10CC%10\nN[C@@H](C)O\n"
DRAWINGS = [[[RNG.normal(), RNG.normal(), i % 4 == 3] for i in range(8)] for _ in range(3)]
MARKS = ("x", "y, \r", 'a "b"')
EVENTS = [("sequence", "time", "mark", "end")]
EVENTS += [(s, 0.3 * i + 0.1 * s, mark, 9 + s) for s in range(4) for i, mark in enumerate(MARKS)]
STEPS = [("sequence", "x", "y, z")]
STEPS += [(s, RNG.normal(), 1e4 * RNG.normal()) for s in range(4) for _ in range(5)]


def letters_apart(symbol, position):
    """Words only in every other place: two that meet would be one."""
    return not symbol[:1].isalnum() or position % 2 == 0


CASES = {
    "text chars": Case({}, text_file(PROSE), ("a.txt", "b"), count=1),
    "text bytes": Case({"codec": "bytes"}, text_file(PROSE), ("a.txt",), count=1),
    "text words": Case(
        {"codec": "words", "max_vocabulary": 12}, text_file(PROSE), ("a.txt",), letters_apart, 1
    ),
    "text smiles": Case({"codec": "smiles"}, text_file(MOLECULES), ("a.txt",), count=1),
    "lines chars": Case(
        {"format": "lines"}, text_file(PROSE + "a\rb\n"), ("a.txt", "a.csv", "a.tsv", "log.jsonl")
    ),
    "lines bytes": Case(
        {"format": "lines", "codec": "bytes"}, text_file(PROSE), ("a",), lambda s, _: s != "\n"
    ),
    "lines words": Case(
        {"format": "lines", "codec": "words", "max_vocabulary": 12},
        text_file(PROSE),
        ("a.txt", "a.parquet"),
        letters_apart,
    ),
    "lines smiles": Case(
        {"format": "lines", "codec": "smiles"}, text_file(MOLECULES), ("a.smi", "a.jsonl", "a.fa")
    ),
    "pianoroll": Case(
        {"format": "pianoroll", "frames_per_beat": 9, "model_end": True},
        arrays(**{f"r{i}": np.eye(20, 88, 30, dtype=np.uint8) for i in range(3)}),
        ("folder|", "a.npz"),
    ),
    "pianoroll without end": Case(
        {"format": "pianoroll", "frames_per_beat": 481},
        arrays(r=np.eye(9, 88, dtype=np.uint8)),
        ("folder|", "a.npz"),
    ),
    "voices": Case(
        {"format": "voices", "model_end": True},
        text_file(json.dumps([[[60, -1], [62, 50]], [[21, 108]]])),
        ("folder|samples.json", "folder|", "a.json"),
    ),
    "strokes": Case(
        {"format": "strokes"},
        text_file(json.dumps(DRAWINGS)),
        ("folder|samples.npz", "a.npz", "a.json", "a.ndjson"),
    ),
    "events": Case(
        {"format": "events"}, table(*EVENTS), ("a.csv", "a.parquet")
    ),
    "events that end": Case(
        {"format": "events", "model_end": True, "sequence_column": "sequence", "origin": "first"},
        table(*EVENTS),
        ("a.csv", "a.parquet"),
    ),
    "events that were observed": Case(
        {"format": "events", "end_column": "end", "mark_columns": "", "sequence_column": ""},
        table(*EVENTS[:4]),
        ("folder|samples.csv", "a.csv", "a.parquet"),
    ),
    "series": Case(
        {"format": "series"},
        table(*STEPS),
        ("folder|samples.csv", "a.csv", "a.parquet", "a.npz"),
    ),
    "series of arrays": Case(
        {"format": "series", "model_end": True},
        arrays(r=RNG.normal(size=(3, 8, 2))),
        ("a.npz",),
    ),
    "images": Case(
        {"format": "images", "levels": 4},
        arrays(i=RNG.integers(0, 4, (3, 5, 8))),
        ("folder|samples.npz", "a.npz"),
    ),
}  # fmt: skip


def test_every_format_and_codec_has_a_case():
    configs = [Config(**case.settings) for case in CASES.values()]
    texts = {(c.format, c.codec) for c in configs if c.format in ("text", "lines")}
    assert texts == {(name, codec) for name in ("text", "lines") for codec in CODECS}
    assert {config.format for config in configs} == set(FORMATS)
    # Every kind of file that is written is read back.
    for name, writer in WRITERS.items():
        cases = [case for case in CASES.values() if case.settings.get("format") == name]
        found = {written for case in cases for written in case.names}
        assert {f"a{suffix}" for suffix in writer.to_file} <= found
        assert any("|" in written for written in found) or writer.to_file


def make_run(case, folder):
    """A run that was not trained, whose events are of different probabilities."""
    config = Config(**MODEL, **case.settings, data=case.data(folder))
    splits = load_splits(
        data=config.data, format=config.format, codec=config.codec, valid_fraction=0,
        test_fraction=0, max_vocabulary=config.max_vocabulary, model_end=config.model_end,
        options={n: getattr(config, n) for n in FORMATS[config.format].options if n != "column"},
    )  # fmt: skip
    model = build_model(config, splits.codec)
    params = perturb(jax.jit(model.init)(jax.random.key(0)), scale=0.2)
    return Run(model, params, splits.codec, config, 0)


def forbidding(codec, allowed):
    """The option of sampling that leaves out what is not allowed, and at last all but the end."""
    symbols = [codec.decode([token]) for token in range(codec.num_symbols)]
    table = [[allowed(s, i) for s in symbols] + [True] * codec.with_end for i in range(LENGTH)]
    if codec.with_end:
        table[-1] = [False] * len(symbols) + [True]

    def callback(allowed, logits, state):
        return jnp.where(allowed[state.position], logits, -jnp.inf)

    return {"logits_callback": jax.tree_util.Partial(callback, jnp.array(table))}


def write(run, path, case, options):
    """Writes samples as sample.py does."""
    values = {"num_samples": case.count, "length": LENGTH, "seed": SEED}
    if not run.codec.is_text:
        write_sequences(run, str(path), path.parent, **values, **options)
        return
    form = text_form(run.codec, str(path), log_probs=path.stem == "log")
    if case.count == 1 and run.codec.name in ("chars", "bytes"):  # While it is drawn.
        with output(str(path)) as file:
            text_samples.write_samples(run, file, form=form, **values, **options)
        return
    start = text_samples.encode_prefix(run, "")
    draw = text_samples.ancestral(run, start, options=options, **values)
    records = text_samples.text_records(run, start, draw, form)
    write_request(form.target(str(path)), case.count, {}, records)


@pytest.mark.parametrize("name", CASES)
def test_samples_read_back_are_the_same(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # Pictures take as long as all the rest.
    case = CASES[name]
    run = make_run(case, tmp_path)
    options = {}
    if run.codec.is_text:
        options = forbidding(run.codec, case.allowed or (lambda symbol, position: True))
    drawn = list(
        iterate_samples(run, num_samples=case.count, length=LENGTH, seed=SEED, options=options)
    )
    ended = run.codec.wraps_end or run.config.format == "strokes"
    assert not ended or all(sample.num_events < LENGTH for sample in drawn)
    # Empty lines are none where they are read.
    kept = [s for s in drawn if run.config.format != "lines" or s.num_events > 1]
    expected = None
    for number, written in enumerate(case.names):
        first, _, inner = written.partition("|")
        path = tmp_path / str(number) / first
        path.parent.mkdir()
        write(run, path, case, options)
        path = path / inner if inner else path
        column = "text" if path.suffix in (".csv", ".tsv", ".jsonl", ".parquet") else ""
        # What is one sequence in the data is several, parted by a column.
        parted = "sequence" if getattr(run.codec, "sequence_column", None) == "" else ""
        other = read_otherwise(
            run,
            str(path),
            column=column if run.codec.is_text else "",
            sequence_column=parted,
        )
        if expected is not None:
            config = other.config
            found = load_file(str(path), config.format, other.codec, column=config.column)
            jax.tree.map(np.testing.assert_array_equal, found, expected)
            continue
        scored = score_file(other, str(path), path.parent)
        assert scored.scores.num_events.tolist() == [sample.num_events for sample in kept]
        expected = scored.corpus
        for index, sample in enumerate(kept):
            part = slice(*expected.offsets[index : index + 2])
            read = map_events(lambda leaf, part=part: leaf[part], expected.events)
            jax.tree.map(np.testing.assert_array_equal, read, sample.events)
        nats = [sample.nats for sample in kept]
        np.testing.assert_allclose(scored.scores.nats, nats, rtol=2e-5)
