"""What docs/ says about extending the package, done: the page's own code, trained with."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from helpers import perturb

from grnn_jax import cells, distributions, runner, supported_engines, workdir
from grnn_jax.config import Config
from grnn_jax.data import Batch, build_codec
from grnn_jax.evaluation import evaluate
from grnn_jax.optimizer import make_optimizer
from grnn_jax.sampling import sample
from grnn_jax.training import init_train_state, make_train_step
from grnn_jax.workdir import load_run

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def page_code(name):
    """The code of a page of one screen."""
    page = (DOCS / name).read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert page.count("\n") < 70
    return code


def code_of(name):
    """What the code of a page defines."""
    names = {}
    exec(compile(page_code(name), name, "exec"), names)
    return names


@pytest.fixture
def laplace(monkeypatch):
    monkeypatch.setattr(distributions, "DISTRIBUTIONS", dict(distributions.DISTRIBUTIONS))
    return code_of("adding_a_distribution.md")["laplace"]


@pytest.mark.parametrize(
    ("name", "engines"),
    [("ugrnn", {"scan", "fused", "fused_recompute"}), ("qrnn", {"scan", "linear"})],
)
def test_a_cell_from_outside_trains_on_every_engine_it_qualifies_for(
    name, engines, monkeypatch, tmp_path
):
    monkeypatch.setattr(cells, "CELLS", dict(cells.CELLS))
    code_of("adding_a_cell.md")
    assert engines <= set(supported_engines(cells.CELLS[name](8)))
    (tmp_path / "t.txt").write_text("an old cat\n" * 20)
    config = Config(
        data=str(tmp_path / "t.txt"), cell=name, hidden_size=8, batch_size=2, sequence_length=11,
        num_steps=30, schedule="constant", learning_rate=0.03,
    )  # fmt: skip
    codec = build_codec("chars", ["an old cat\n"])
    events = np.array([codec.encode("an old cat\n")] * 2)
    batch = Batch(events, np.ones(events.shape, bool), np.eye(*events.shape, dtype=bool))
    losses = {}
    for engine in supported_engines(cells.CELLS[name](8)):
        model = workdir.build_model(dataclasses.replace(config, engine=engine), codec)
        optimizer = make_optimizer(config)
        state = init_train_state(model, optimizer, config)
        step = jax.jit(make_train_step(model, optimizer, config))
        losses[engine] = []
        for _ in range(config.num_steps):
            state, metrics = step(state, batch)
            losses[engine].append(metrics["loss"])
        np.testing.assert_allclose(losses[engine], losses["scan"], rtol=1e-3)
    assert losses["scan"][-1] < 0.5 * losses["scan"][0]


def test_the_page_is_right(laplace):
    shift, scale = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    family = laplace(2, shift=shift, scale=scale)
    params = perturb(family.init(jax.random.key(0), 3))
    rng = np.random.default_rng(0)
    hidden, events = (
        jnp.float32(rng.normal(size=(4, 5, 3))),
        jnp.float32(rng.normal(size=(4, 5, 2))),
    )
    m, s = np.split(hidden @ params["kernel"] + params["bias"], 2, axis=-1)
    oracle = numpyro.distributions.Laplace(
        shift + scale * m, scale * (np.log1p(np.exp(s)) + 1e-3)
    ).to_event(1)
    np.testing.assert_allclose(
        family.log_prob(params, hidden, events), oracle.log_prob(events), rtol=1e-4, atol=1e-5
    )


def test_a_distribution_from_outside_trains_scores_and_samples(laplace, tmp_path):
    del laplace
    rng = np.random.default_rng(0)
    walks = 3 + np.cumsum(rng.laplace(size=(40, 20, 2)) * [1.0, 50.0], axis=1)
    np.save(tmp_path / "walks.npy", walks.astype(np.float32))
    config = Config(
        data=str(tmp_path / "walks.npy"), format="series", distribution="laplace", hidden_size=16,
        batch_size=4, eval_batch_size=4, sequence_length=20, num_steps=150, eval_every=50,
        checkpoint_every=50, learning_rate=0.01, valid_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip
    result = runner.train(config, tmp_path / "run")
    assert result.step == 150
    values = evaluate(tmp_path / "run", split="test")
    assert values["is_density"] and values["num_events"] == 8 * 20
    spread = walks.reshape(-1, 2).std(0)
    unconditional = np.log(2 * spread / np.sqrt(2)).sum() + 2  # Laplace of the same variance.
    assert values["nats_per_event"] < unconditional
    run = load_run(tmp_path / "run")
    samples = sample(run.model, run.params, jax.random.key(0), 3, 7)
    assert samples.events.shape == (3, 7, 2) and np.isfinite(samples.log_probs).all()
