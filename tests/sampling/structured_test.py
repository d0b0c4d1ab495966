"""Sampling of events that are no plain tokens: fields, ends, options of the family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_like

import grnn_jax
from grnn_jax import cells, distributions

FAMILIES = {
    "bits": lambda: distributions.nade(5),
    "reals": lambda: distributions.gaussian_mixture(
        2, covariance="full", shift=[1.0, 2.0], scale=[3.0, 4.0]
    ),
    "levels": lambda: distributions.logistic_mixture(16),
    "counts": lambda: distributions.negative_binomial(3, mean=2.0),
    "fields": lambda: distributions.factored_categorical((3, 4)),
    "pen": lambda: distributions.pen(),
    "ended": lambda: distributions.with_end(distributions.bernoulli(4)),
    "product": lambda: distributions.product(
        {"wait": distributions.lognormal_mixture(), "mark": distributions.categorical(3)},
        present={"mark": lambda earlier: ~earlier["wait"]["censored"]},
    ),
}  # fmt: skip


def make(name):
    model = grnn_jax.make_model(cells.gru(6), FAMILIES[name]())
    return model, random_like(model.init, jax.random.key(0))


score = jax.jit(grnn_jax.log_prob, static_argnums=0)


def marks(name):
    """Two families run as users get them, where rounding differs more with the batch."""
    return [pytest.mark.optimized] * (name in ("levels", "ended"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in FAMILIES])
def test_samples_rescore_stream_and_do_not_depend_on_the_batch(name):
    model, params = make(name)
    options = {} if name == "counts" else {"temperature": 0.9}  # Counts have no such option.
    samples = grnn_jax.sample(model, params, jax.random.key(1), 4, 6, **options)
    rescored = score(model, params, samples.events, samples.mask)
    np.testing.assert_allclose(samples.log_probs.sum(1), rescored, rtol=1e-4, atol=1e-4)
    pieces = grnn_jax.stream(model, params, jax.random.key(1), 4, 6, chunk_length=3, **options)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *[p.events for p in pieces])
    alone = grnn_jax.sample(model, params, jax.random.key(1), 2, 6, first_index=1, **options).events
    for whole, stream, part in zip(
        *map(jax.tree.leaves, (samples.events, joined, alone)), strict=True
    ):
        np.testing.assert_allclose(stream, whole[:, : stream.shape[1]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(part, whole[1:3], rtol=1e-4, atol=1e-5)


def test_options_of_the_family():
    model, params = make("pen")

    def draw(**options):
        return grnn_jax.sample(model, params, jax.random.key(1), 4, 6, **options)

    plain, biased = draw(), draw(bias=3.0)
    spread = [float(jnp.abs(s.events["offset"]).mean()) for s in (plain, biased)]
    assert spread[1] < spread[0]
    with pytest.raises(
        ValueError, match=r"top_k is not an option of the output distribution \w+.* \(it has"
    ):
        draw(top_k=3)
    model, params = make("bits")
    with pytest.raises(ValueError, match="bias is not an option"):
        grnn_jax.sample(model, params, jax.random.key(1), 4, 6, bias=1.0)
