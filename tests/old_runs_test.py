"""Runs made by earlier versions: scored, sampled and trained on by this one."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import grnn_jax
from grnn_jax.config import FORMAT_VERSION
from grnn_jax.evaluation import evaluate
from grnn_jax.monitor import read_metrics
from grnn_jax.runner import train
from grnn_jax.workdir import load_run, read_config

FOLDER = Path(__file__).parent / "old_runs"


@pytest.fixture(scope="module", params=["text", "pianoroll"])
def old(request, tmp_path_factory):
    """A copy of the folder of a run, and what the code that trained it found."""
    folder = tmp_path_factory.mktemp("old") / request.param
    shutil.copytree(FOLDER / request.param, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # The run's data are beside it.
        yield folder / "run", json.loads((folder / "expected.json").read_text())


def assert_same(actual, expected):
    """The same names, words and counts; numbers that differ by rounding alone."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float):
            np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)
        else:
            assert actual[name] == value, name


def test_the_run_scores_as_it_did(old):
    workdir, expected = old
    for split, values in expected["evaluate"].items():
        today = {"workdir": str(workdir), "dtype": "float32"}
        assert_same(evaluate(workdir, split=split), values | today)


def test_the_run_draws_the_samples_that_it_drew(old):
    workdir, expected = old
    run, events = load_run(workdir), np.array(expected["samples"]["events"])
    samples = grnn_jax.sample(run.model, run.params, jax.random.key(5), *events.shape[:2])
    np.testing.assert_array_equal(samples.events, events)
    np.testing.assert_allclose(samples.log_probs, expected["samples"]["log_probs"], rtol=1e-5)


def test_the_run_goes_on_as_it_did(old):
    workdir, expected = old
    copy = workdir.with_name("copy")
    shutil.copytree(workdir, copy)
    config = read_config(copy)
    last = expected["resumed_metrics"][-1]["step"]
    train(dataclasses.replace(config, num_steps=last), copy)
    metrics, before = read_metrics(copy), expected["resumed_metrics"]
    assert len(metrics) == len(before)
    for line, old_line in zip(metrics, before, strict=True):
        clocks = {name: line[name] for name in line if name.endswith(("per_second", "per_step"))}
        assert_same(line, old_line | clocks)
    score = evaluate(copy, split="test", checkpoint="latest")
    today = {"workdir": str(copy), "dtype": "float32"}
    assert_same(score, expected["resumed_evaluate"] | today)
    # From now on it is a run of today.
    assert json.loads((copy / "config.json").read_text())["format_version"] == FORMAT_VERSION
    assert "format_version" not in json.loads((workdir / "config.json").read_text())
