"""sample.py given conditions, as a user runs it: every sample its own, by every method."""

import json
import re

import numpy as np
import pytest
from fork_server import ForkServer

import grnn_jax
from grnn_jax.workdir import load_run

SMALL = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--num_steps=40", "--learning_rate=0.03", "--eval_every=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Irish names are of a and b, Greek ones of b and c."""
    folder = tmp_path_factory.mktemp("conditions")
    rng = np.random.default_rng(0)
    rows = ["name,nation,age"]
    for i in range(160):
        name = "".join(rng.choice(list(["ab", "bc"][i % 2]), rng.integers(1, 5)))
        rows.append(f"{name},{['Irish', 'Greek'][i % 2]},{'' if i % 9 == 0 else i / 7}")
    (folder / "names.csv").write_text("\n".join(rows))
    many = ["nation,age"] + [f"{['Irish', 'Greek'][i % 3 % 2]},{i}" for i in range(300)]
    (folder / "rows.csv").write_text("\n".join(many))
    (folder / "rows.jsonl").write_text(
        '{"nation": "Greek", "age": 3.5}\n\n{"nation": "Irish"}\n{"age": null, "nation": "Greek"}\n'
    )
    return folder


@pytest.fixture(scope="module")
def run(folder):
    server = ForkServer(folder)
    ended = server.run(
        "train", "--workdir=w", "--data=names.csv", "--format=lines", "--column=name",
        "--condition_on=nation,age", *SMALL,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert len(ended.out.splitlines()) == 5  # The samples that training ends with.
    # As the file has it, and not what standardised float32 numbers leave of it.
    given = re.findall(r"sample \d is given nation=\w+, age=(\S+)", ended.err)
    assert len(given) == 5 and all(len(number) <= 7 for number in given)
    return server.run


def records(run, *flags):
    ended = run("sample", "--workdir=w", "--log_probs", *flags)
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def nats_of(folder, texts, conditions, prefix=""):
    """-log p(text | conditions), its prefix not counted, by `log_prob`."""
    found = load_run(folder / "w")
    encoded = [np.append(found.codec.encode(text), found.codec.end) for text in texts]
    length = max(map(len, encoded))
    mask = np.arange(length) < np.array([[len(row)] for row in encoded])
    events = np.zeros(mask.shape, np.int32)
    events[mask] = np.concatenate(encoded)
    given = [found.codec.conditions.of_names(c, "given") for c in conditions]
    given = np.stack(given)
    nats = grnn_jax.log_prob(found.model, found.params, events, mask, conditions=given)
    if prefix:
        start = np.tile(found.codec.encode(prefix), (len(texts), 1))
        nats -= grnn_jax.log_prob(found.model, found.params, start, conditions=given)
    return -np.asarray(nats)


def test_samples_are_of_what_they_are_given(run, folder):
    for nation, letters in (("Irish", "ab"), ("Greek", "bc")):
        found = records(run, f"--condition=nation={nation},age=", "--num_samples=40", "--prefix=b")
        text = "".join(each["text"] for each in found)
        assert sum(letter in letters for letter in text) > 0.8 * len(text)
        found = [each for each in found if each["num_events"] == len(each["text"])]
        given = [{"nation": nation, "age": ""}] * len(found)
        expected = nats_of(folder, [each["text"] for each in found], given, "b")
        np.testing.assert_allclose([each["nats"] for each in found], expected, rtol=1e-4)


def test_each_sample_has_a_row_of_the_file(run, folder):
    found = records(run, "--condition_from=rows.jsonl")
    given = [{"nation": "Greek", "age": 3.5}, {"nation": "Irish", "age": None}]
    given.append({"nation": "Greek", "age": None})
    expected = nats_of(folder, [each["text"] for each in found], given)
    np.testing.assert_allclose([each["nats"] for each in found], expected, rtol=1e-4)
    # More of them than are drawn side by side: rows take up the next one with its own conditions.
    for flags in ([], ["--method=masked", "--regex=[abc]{1,3}"]):
        found = records(run, "--condition_from=rows.csv", *flags)
        assert len(found) == 300
        given = [{"nation": ["Irish", "Greek"][i % 3 % 2], "age": i} for i in range(300)]
        expected = nats_of(folder, [each["text"] for each in found], given)
        np.testing.assert_allclose([each["nats"] for each in found], expected, rtol=1e-4)
    # One after the other, and goes on after a stop with no other file.
    whole = run("sample", "--workdir=w", "--condition_from=rows.csv", "--output=whole.txt")
    assert whole.status == 0, whole.err
    assert len((folder / "whole.txt").read_text().split("\n")) == 301


def test_searches_are_given_one_condition(run, folder):
    for flags in (["--method=beam"], ["--method=stochastic_beam"], ["--template=a_", "--length=3"]):
        found = records(run, "--condition=age=2.5,nation=Greek", "--num_samples=3", *flags)
        assert len(found) == 3
        given = [{"nation": "Greek", "age": 2.5}] * 3
        expected = nats_of(folder, [each["text"] for each in found], given)
        np.testing.assert_allclose([each["nats"] for each in found], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a run on the conditions nation, age needs --condition=NAME=VALUE,... or"),
        (["--condition=nation=Irish"], "--condition must name all conditions .*'age' lacks"),
        (["--condition=nation=Norse,age=1"], "expected one of the classes of train, 'Greek', 'Iri"),
        (["--condition=nation=Irish,age=old"], "--condition, 'age': expected a finite number, got"),
        (["--condition=nation=Irish,age=1,sex=f"], "'sex' is no condition of this run; they are n"),
        (["--condition=Irish"], "--condition must be NAME=VALUE parted by commas, got 'Irish'"),
        (
            ["--condition_from=rows.csv", "--num_samples=3"],
            "--num_samples must be 300, the row",
        ),
        (
            ["--condition_from=rows.csv", "--method=beam"],
            "--method=beam finds all samples",
        ),
        (["--condition_from=none.csv"], "--condition_from: there is no file none.csv"),
        (["--condition_from=w"], "--condition_from must be a "),
    ],
)
def test_what_does_not_fit_is_named(run, flags, message):
    ended = run("sample", "--workdir=w", *flags)
    assert ended.status == 1
    assert re.search(message, ended.err), ended.err
    assert "Traceback" not in ended.err


def test_runs_without_conditions_take_none(run):
    ended = run(
        "train", "--workdir=plain", "--data=names.csv", "--format=lines", "--column=name",
        "--num_steps=1", "--noshow_sample", "--hidden_size=4",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    ended = run("sample", "--workdir=plain", "--condition=nation=Irish")
    assert ended.status == 1
    assert "--condition is for runs with --condition_on or --label_from" in ended.err


def test_every_model_is_a_classifier(run, folder):
    flags = ["--workdir=w", "--posterior=nation"]
    ended = run("score", *flags, "--data=names.csv", "--output=p.jsonl")
    assert ended.status == 0, ended.err
    whole = json.loads(ended.out.splitlines()[-1])
    assert whole["num_labelled"] == whole["num_sequences"] == 160
    # Names without a or c tell nothing.
    assert 0.75 < whole["accuracy"] <= 1 and whole["log_loss"] < whole["prior_log_loss"]
    found = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    assert all(abs(each["p_Irish"] + each["p_Greek"] - 1) < 1e-6 for each in found)
    correct = [each["label"] == each["predicted"] for each in found]
    assert np.mean(correct) == pytest.approx(whole["accuracy"])
    # Sequences whose class is not known have a posterior too.
    (folder / "unknown.csv").write_text("name,nation,age\naaba,,3\ncbcc,,\n")
    ended = run("score", *flags, "--prior=uniform", "--data=unknown.csv")
    assert ended.status == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["label"] for each in found] == [None, None]
    assert [each["predicted"] for each in found] == ["Irish", "Greek"]


def test_a_split_is_scored_as_evaluate_does(run):
    flags = ["--workdir=w", "--split=test"]
    ended = run("score", *flags, "--output=s.jsonl")
    evaluated = run("evaluate", *flags)
    scores = [json.loads(each.out.splitlines()[-1]) for each in (ended, evaluated)]
    assert scores[0]["nats_per_event"] == pytest.approx(scores[1]["nats_per_event"], rel=1e-6)
    assert scores[0]["split"] == "test" and scores[0]["num_sequences"] == 8
    ended = run("score", *flags, "--posterior=nation", "--output=p.csv")
    assert json.loads(ended.out.splitlines()[-1])["num_labelled"] == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split=test", "--data=names.csv"], "--split has no effect on --data=names.csv"),
        (["--split=test", "--other_workdir=w"], "--other_workdir needs --data"),
        (["--split=test", "--posterior=age"], "--posterior=age needs a condition of classes"),
        (
            ["--split=test", "--posterior=nation", "--per_event"],
            "--posterior and --per_event",
        ),
        (["--split=test", "--prior=uniform"], "--prior needs --posterior=CONDITION"),
        (["--split=test", "--unseen=skip"], "--unseen is for the symbols of --data"),
    ],
)
def test_scores_that_do_not_fit_are_named(run, flags, message):
    ended = run("score", "--workdir=w", *flags)
    assert ended.status == 1 and message in ended.err and "Traceback" not in ended.err
