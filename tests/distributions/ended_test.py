"""The end beside an event: enumeration of sequences, ignored events, samples, options."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import perturb

import grnn_jax
from grnn_jax import cells, make_model
from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.counts import poisson
from grnn_jax.distributions.ended import with_end
from grnn_jax.distributions.factored_categorical import factored_categorical
from grnn_jax.distributions.gaussian_mixture import gaussian_mixture
from grnn_jax.distributions.product import product
from grnn_jax.distributions.softmax_mixture import mixture_of_softmaxes
from grnn_jax.distributions.waits import weibull

H = 4
PAIRS = np.int32(list(itertools.product(range(2), range(3))))


def stacked(events):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *events)


def beside(inner_events, garbage):
    """Events of `with_end`, the last one the end."""
    inner = jax.tree.map(lambda leaf, last: np.concatenate([leaf, last]), inner_events, garbage)
    return {"event": inner, "end": np.arange(jax.tree.leaves(inner)[0].shape[0]) == len(
        jax.tree.leaves(inner_events)[0]
    )}  # fmt: skip


def optional():
    return product(
        {"kind": categorical(2), "value": categorical(2)},
        present={"value": lambda earlier: earlier["kind"] == 1},
    )


CASES = {
    "categorical": (with_end(categorical(2)), beside(np.int32([0, 1]), np.int32([7])), 4),
    "factored": (
        with_end(factored_categorical((2, 3), num_units=5)),
        beside(PAIRS, np.int32([[-1, 9]])),
        3,
    ),
    "product": (
        with_end(optional()),
        beside(
            {"kind": np.int32([0, 1, 1]), "value": np.int32([0, 0, 1])},
            {"kind": np.int32([5]), "value": np.int32([-2])},
        ),
        3,
    ),
    "end_as_a_field": (
        product(
            {"pitch": with_end(categorical(2)), "length": categorical(2)},
            present={"length": lambda earlier: ~earlier["pitch"]["end"]},
        ),
        {
            "pitch": {
                "event": np.int32([0, 0, 1, 1, 7]),
                "end": np.array([False, False, False, False, True]),
            },
            "length": np.int32([0, 1, 0, 1, -3]),
        },
        3,
    ),
    "mixture_of_softmaxes": (mixture_of_softmaxes(3, end=2), np.int32([0, 1, 2]), 4),
}
"""Distribution, all of its events (the last one the end), longest sequence to enumerate."""


@pytest.mark.parametrize("name", CASES)
def test_probabilities_of_all_sequences_sum_to_one(name):
    """Σ over sequences that end within L + P(longer than L) = 1, in float64."""
    distribution, events, longest = CASES[name]
    end = jax.tree.leaves(events)[0].shape[0] - 1
    with jax.enable_x64(True):
        model = make_model(cells.gru(H), distribution)
        params = perturb(model.init(jax.random.key(0)), scale=0.7, dtype=jnp.float64)
        sequences = [
            [*word, end]
            for length in range(longest)
            for word in itertools.product(range(end), repeat=length)
        ]
        finished = len(sequences)
        sequences += [list(word) for word in itertools.product(range(end), repeat=longest)]
        lengths = np.array([len(word) for word in sequences])
        index = np.array([word + [0] * (longest - len(word)) for word in sequences])
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), events)
        mask = np.arange(longest) < lengths[:, None]
        score = jax.jit(lambda params: grnn_jax.log_prob(model, params, batch, mask))
        probability = np.exp(score(params))
        assert probability.dtype == np.float64
    assert probability[finished:].sum() > 1e-3
    assert probability[:finished].sum() > 1e-3
    np.testing.assert_allclose(probability.sum(), 1.0, rtol=0, atol=1e-9)


def start(distribution, rows):
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.7)
    return params, jnp.tile(jnp.float32(np.random.default_rng(0).normal(size=H)), (rows, 1))


def test_log_prob_is_that_of_the_end_plus_that_of_the_event():
    inner = poisson(2)
    distribution = with_end(inner)
    params, hidden = start(distribution, 3)
    event = {"event": jnp.int32([[0, 2], [1, 1], [3, 0]]), "end": jnp.array([False, False, True])}
    e = np.float64(hidden @ params["kernel"] + params["bias"])[:, 0]
    expected = -np.log1p(np.exp(e)) + inner.log_prob(params["event"], hidden, event["event"])
    expected = np.where(event["end"], -np.log1p(np.exp(-e)), expected)
    np.testing.assert_allclose(distribution.log_prob(params, hidden, event), expected, rtol=1e-5)
    encoding = np.asarray(distribution.encode(params, event))
    np.testing.assert_array_equal(encoding[:, -1], [0, 0, 1])
    np.testing.assert_array_equal(
        encoding[:2, :-1], inner.encode(params["event"], event["event"][:2])
    )
    np.testing.assert_array_equal(distribution.is_end(event), event["end"])
    assert distribution.encoding_size == 3


def test_the_event_of_the_end_is_ignored_exactly():
    distribution = with_end(weibull()._replace(is_end=None))
    params, hidden = start(distribution, 4)
    waits = {"wait": jnp.float32([0, 2.0, np.nan, 2.0]), "censored": jnp.zeros(4, bool)}
    event = {"event": waits, "end": jnp.array([True, True, True, False])}

    def nats(params):
        return distribution.log_prob(params, hidden, event)

    values, gradient = np.asarray(nats(params)), jax.jit(jax.jacrev(nats))(params)
    assert np.isfinite(values).all()
    assert (values[:3] == values[0]).all()
    for leaf in jax.tree.leaves(gradient["event"]):
        assert (leaf[:3] == 0).all()
        assert (leaf[3] != 0).any()
    encoding = np.asarray(distribution.encode(params, event))
    assert (encoding[:3] == encoding[0]).all()
    assert distribution.is_density


def test_samples_end_with_the_given_probability_and_then_hold_zeros():
    distribution = with_end(categorical(4))
    count = 5_000
    params, hidden = start(distribution, count)
    keys = jax.random.split(jax.random.key(0), count)
    p_end = np.exp(
        distribution.log_prob(params, hidden[0], {"event": jnp.int32(0), "end": jnp.bool_(True)})
    )
    sample = jax.jit(distribution.sample)
    drawn = jax.tree.map(np.asarray, sample(keys, params, hidden))
    assert scipy.stats.binomtest(int(drawn["end"].sum()), count, float(p_end)).pvalue > 1e-3
    assert (drawn["event"][drawn["end"]] == 0).all()
    nats = categorical(4).log_prob(params["event"], hidden[:4], jnp.arange(4))
    inner = np.exp(np.float64(nats))
    observed = np.bincount(drawn["event"][~drawn["end"]], minlength=4)
    assert scipy.stats.chisquare(observed, observed.sum() * inner / inner.sum()).pvalue > 1e-3
    odds = np.log(p_end) - np.log1p(-p_end)
    cold = sample(keys, params, hidden, temperature=0.5)
    p_cold = 1 / (1 + np.exp(-2 * odds))
    assert scipy.stats.binomtest(int(cold["end"].sum()), count, float(p_cold)).pvalue > 1e-3
    mode = distribution.mode(params, hidden[0])
    assert mode["end"] == (p_end > 0.5)


def test_options_are_those_of_the_inner_distribution_and_temperature():
    with_options = with_end(categorical(40))
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    assert with_options.options == names
    assert with_end(gaussian_mixture(1)).options == ("temperature", "bias")
    without = with_end(poisson(1))
    assert without.options == names[:1]
    params, hidden = start(with_options, 100)
    keys = jax.random.split(jax.random.key(0), 100)
    drawn = jax.jit(functools.partial(with_options.sample, top_k=2))(keys, params, hidden)
    assert len(np.unique(drawn["event"][~drawn["end"]])) == 2
    assert drawn["end"].any()
    message = r"options of with_end\(categorical\) must be among: temperature, .*; got bias"
    with pytest.raises(TypeError, match=message):
        with_options.sample(keys, params, hidden, bias=1.0)
    message = r"options of with_end\(poisson\) must be among: temperature; got top_k"
    with pytest.raises(TypeError, match=message):
        without.sample(keys, params, hidden, top_k=2)


def test_a_distribution_with_an_end_is_refused():
    for distribution in (categorical(3, end=2), weibull(), with_end(categorical(2))):
        with pytest.raises(ValueError, match="distribution must not have an end of its own"):
            with_end(distribution)
