"""What docs/ says about extending the package, done: the page's own code, trained with."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from helpers import perturb

from grnn_jax import distributions, runner
from grnn_jax.config import Config
from grnn_jax.evaluation import evaluate
from grnn_jax.sampling import sample
from grnn_jax.workdir import load_run

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture
def laplace(monkeypatch):
    page = (DOCS / "adding_a_distribution.md").read_text()
    monkeypatch.setattr(distributions, "DISTRIBUTIONS", dict(distributions.DISTRIBUTIONS))
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(code, "laplace.py", "exec"), names)
    assert page.count("\n") < 70
    return names["laplace"]


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
