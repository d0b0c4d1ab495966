"""A run that was loaded: its scores, samples and states against the commands and plain loops."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fork_server import ForkServer

import grnn_jax
from grnn_jax import sampling
from grnn_jax.errors import InputError

OLD_RUNS = Path(__file__).parent / "old_runs"
LINES = (
    "--data=lines.txt", "--format=lines", "--hidden_size=8", "--batch_size=4", "--num_layers=2",
    "--eval_batch_size=4", "--sequence_length=16", "--schedule=constant", "--num_steps=4",
    "--noshow_sample",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on text, lines and piano rolls, and a file of each kind."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("text", "pianoroll"):
        shutil.copytree(OLD_RUNS / name, folder / name)
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat", "there"])
    lines = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(60)]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    (folder / "few.txt").write_text("\n".join(lines[:7]) + "\n")
    text = (folder / "text" / "corpus.txt").read_text()
    (folder / "few_text.txt").write_text(text[:700])
    return folder


@pytest.fixture(scope="module")
def command(folder):
    server = ForkServer(folder)
    ended = server.run("train", "--workdir=lines/run", *LINES)
    assert ended.status == 0, ended.err

    def run(*argv):
        ended = server.run(*argv)
        assert ended.status == 0, ended.err
        return ended.out

    return run


@pytest.fixture(scope="module")
def lines(folder, command):
    return grnn_jax.load(folder / "lines" / "run")


@pytest.fixture(scope="module")
def text(folder):
    return grnn_jax.load(folder / "text" / "run")


@pytest.fixture(scope="module")
def pianoroll(folder):
    return grnn_jax.load(str(folder / "pianoroll" / "run"), "latest")


def step_by_step(run, events):
    """Log-probability and hidden state of each event, and the state after the last, by `step`."""
    carry = run.model.initial_state(run.params, 1)
    step = jax.jit(run.model.step)
    log_probs, states = [], []
    for event in [*events, events[-1]]:
        hidden, carry = step(run.params, carry)
        specs = run.model.distribution.event
        event = jax.tree.map(lambda spec, x: jnp.asarray(x, spec.dtype)[None], specs, event)
        nats = run.model.distribution.log_prob(run.params["distribution"], hidden, event)
        log_probs.append(float(nats[0]))
        states.append(np.asarray(hidden[0, : run.model.cell.hidden_size]))
        carry = run.model.feed(carry, event)
    return np.array(log_probs[:-1]), np.array(states)


def tokens_of(run, line):
    return np.append(run.codec.encode(line), run.codec.end)


def test_strings_arrays_and_batches_have_the_log_probability_of_the_model(lines):
    strings = ["an old cat", "sat", "there there"]
    rows = [tokens_of(lines, line) for line in strings]
    expected = [step_by_step(lines, row)[0].sum() for row in rows]
    one = lines.log_prob(strings[0])
    assert isinstance(one, float)
    np.testing.assert_allclose(one, expected[0], rtol=1e-5)
    np.testing.assert_allclose(lines.log_prob(strings), expected, rtol=1e-5)
    np.testing.assert_allclose(lines.log_prob(rows), expected, rtol=1e-5)
    np.testing.assert_allclose(lines.log_prob(rows[1].tolist()), expected[1], rtol=1e-5)
    mask = np.arange(12) < np.array([[len(row)] for row in rows])
    batch = np.zeros((3, 12), np.int64)
    batch[mask] = np.concatenate(rows)
    np.testing.assert_allclose(lines.log_prob(batch, mask), expected, rtol=1e-5)
    # Without a mask all of a batch counts.
    whole = grnn_jax.log_prob(lines.model, lines.params, batch)
    np.testing.assert_allclose(lines.log_prob(batch), whole, rtol=1e-5)
    np.testing.assert_array_equal(lines.log_prob([np.zeros(0, int), rows[1]])[0], 0)


def test_a_text_is_one_sequence_whatever_its_length(text, folder):
    content = (folder / "few_text.txt").read_text()
    tokens = text.codec.encode(content)
    expected = grnn_jax.log_prob(text.model, text.params, tokens[None])[0]
    np.testing.assert_allclose(text.log_prob(content), expected, rtol=1e-5)


def test_events_that_are_vectors(pianoroll):
    drawn = pianoroll.draw(3, length=9, seed=4)
    assert drawn[0].events.shape == (9, 88)
    log_probs = pianoroll.log_prob([one.events for one in drawn])
    np.testing.assert_allclose(log_probs, [-one.nats for one in drawn], rtol=1e-5)
    np.testing.assert_allclose(pianoroll.log_prob(drawn[1].events), -drawn[1].nats, rtol=1e-5)
    batch = np.stack([one.events for one in drawn])
    np.testing.assert_allclose(pianoroll.log_prob(batch), log_probs, rtol=1e-6)


@pytest.mark.parametrize("name, data", [("lines", "few.txt"), ("text", "few_text.txt")])
def test_a_file_has_the_records_of_the_command(request, folder, command, name, data):
    run = request.getfixturevalue(name)
    for flags, options in (([], {}), (["--per_event"], {"per_event": True})):
        out = command("score", f"--workdir={name}/run", f"--data={data}", *flags)
        assert run.score_file(folder / data, **options) == [
            json.loads(line) for line in out.splitlines()
        ]


def test_samples_are_those_of_the_command(lines, text, pianoroll, command):
    flags = ["--num_samples=3", "--length=20", "--temperature=0.7", "--seed=5"]
    settings = {"length": 20, "temperature": 0.7, "seed": 5}
    out = command("sample", "--workdir=lines/run", "--prefix=an ", *flags)
    samples = lines.sample(3, prefix="an ", **settings)
    assert samples == out.splitlines()
    assert all(sample.startswith("an ") for sample in samples)
    out = command("sample", "--workdir=text/run", "--length=40", "--seed=5")
    assert text.sample(length=40, seed=5) == [out.removesuffix("\n")]
    assert len(text.sample(length=40)[0]) == 40 and text.sample() != text.sample(seed=1)
    out = command(
        "sample", "--workdir=pianoroll/run", "--checkpoint=latest", "--num_samples=3",
        "--length=20", "--seed=5", "--log_probs",
    )  # fmt: skip
    records = [json.loads(line) for line in out.splitlines()]
    drawn = pianoroll.sample(3, length=20, seed=5)
    assert [one.nats for one in drawn] == pytest.approx([r["nats"] for r in records], rel=1e-6)
    # A prefix of events goes before what is drawn, and is not part of it.
    after = pianoroll.draw(length=5, prefix=drawn[0].events)[0]
    whole = np.concatenate([drawn[0].events, after.events])
    expected = pianoroll.log_prob(whole) - pianoroll.log_prob(drawn[0].events)
    assert -after.nats == pytest.approx(expected, rel=1e-4)


def test_the_same_request_is_compiled_once(lines, monkeypatch):
    first = lines.sample(3, length=6, temperature=0.5)
    monkeypatch.setattr(sampling, "make_sharded_sample", None)
    assert lines.sample(3, length=6, temperature=0.5) == first
    assert lines.sample(3, length=6, temperature=0.5, seed=9) != first


def test_hidden_states_are_what_events_are_predicted_from(lines, pianoroll):
    strings = ["an old cat sat there", "sat"]
    for string, states in zip(strings, lines.hidden(strings), strict=True):
        expected = step_by_step(lines, tokens_of(lines, string))[1]
        np.testing.assert_allclose(states, expected[:-1], rtol=1e-4, atol=1e-6)
        assert states.dtype == np.float32
    np.testing.assert_allclose(
        lines.hidden(strings[0], after=True),
        step_by_step(lines, tokens_of(lines, strings[0]))[1][1:],
        rtol=1e-4,
        atol=1e-6,
    )
    roll = np.random.default_rng(0).integers(2, size=(5, 88))
    expected = step_by_step(pianoroll, roll)[1]
    np.testing.assert_allclose(pianoroll.hidden(roll), expected[:-1], rtol=1e-4, atol=1e-6)


def test_the_command_writes_the_hidden_states_of_a_file(lines, text, folder, command):
    command("score", "--workdir=lines/run", "--data=few.txt", "--hidden=states.npy")
    states = np.load(folder / "states.npy", mmap_mode="r")
    offsets = np.load(folder / "states.offsets.npy")
    expected = lines.hidden((folder / "few.txt").read_text().splitlines())
    assert states.dtype == np.float32 and len(states) == offsets[-1]
    for start, stop, one in zip(offsets, offsets[1:], expected, strict=False):
        np.testing.assert_allclose(states[start:stop], one, rtol=1e-4, atol=1e-6)
    # A text is scored in streams, with --eval_batch_size=1 as one.
    flags = ["--data=few_text.txt", "--hidden=text.npy", "--eval_batch_size=1"]
    command("score", "--workdir=text/run", *flags)
    expected = text.hidden((folder / "few_text.txt").read_text())
    np.testing.assert_allclose(np.load(folder / "text.npy"), expected, rtol=1e-4, atol=1e-5)
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "data, message",
    [
        ("an old Ж", "data, line 1, column 8: character 'Ж'"),
        ([], "data must be a list of sequences, got no sequence"),
        (
            np.zeros((2, 3, 4), int),
            r"data must be events \[T\] or a batch.*, got \[2, 3, 4\]",
        ),
        ({"event": [1]}, r"data must be events \[T\]"),
        (np.array([0, 99]), r"data must be classes in \[0, .*, got 99"),
    ],
)
def test_what_is_no_sequence_is_named(lines, data, message):
    with pytest.raises(ValueError, match=message):
        lines.log_prob(data)


def test_masks_and_strings_that_do_not_fit_are_named(lines, pianoroll, tmp_path):
    batch = np.zeros((2, 3), int)
    for mask in (np.ones((2, 2), bool), np.array([[0, 1, 1]] * 2, bool)):
        with pytest.raises(InputError, match=r"mask must be \[2, 3\] as data"):
            lines.log_prob(batch, mask)
    with pytest.raises(InputError, match="mask must be"):
        lines.log_prob(batch[0], np.ones(3, bool)[None])
    with pytest.raises(InputError, match="data must be events, as .* pianoroll, got a string"):
        pianoroll.log_prob("an old cat")
    with pytest.raises(InputError, match="there is no run in"):
        grnn_jax.load(tmp_path)
