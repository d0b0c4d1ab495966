"""Bits shared across sites: loops in NumPy float64, enumeration, samples, transposition, errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import perturb, to_numpy

import grnn_jax
from grnn_jax import cells, distributions

N, D, U, WINDOW, COUNT = 5, 2, 3, 2, 20_000
CASES = {
    "bernoulli": (distributions.sitewise_bernoulli, {}),
    "bernoulli_with_input": (
        distributions.sitewise_bernoulli,
        {"site_bias": True, "with_input": True},
    ),
    "nade": (distributions.sitewise_nade, {"nade_hidden_size": U, "site_bias": True}),
    "nade_with_input": (distributions.sitewise_nade, {"nade_hidden_size": U, "with_input": True}),
}
cases = pytest.mark.parametrize("name", CASES)


@functools.cache
def build(name):
    """The distribution compiled, perturbed parameters, and the hidden size."""
    make, settings = CASES[name]
    distribution = make(N, window=WINDOW, **settings)
    hidden_size = N * (D + settings.get("with_input", False))
    params = perturb(distribution.init(jax.random.key(0), hidden_size))
    compiled = distribution._replace(
        log_prob=jax.jit(distribution.log_prob), sample=jax.jit(distribution.sample)
    )
    return compiled, params, hidden_size


def random_hidden(name, *axes, seed=0):
    """Hidden states; the last event among them is a row of bits."""
    hidden_size = build(name)[2]
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (*axes, N)) if hidden_size > N * D else np.zeros((*axes, 0))
    return np.concatenate([rng.normal(size=(*axes, N * D)), bits], -1).astype(np.float32)


def all_events():
    return np.asarray(list(itertools.product([0, 1], repeat=N)), np.uint8)


def neighbours(bits, n, offsets, below):
    """What site n sees of a row of bits."""
    inside = [j for j in range(N) if not below or j < n]
    seen = [bits[n + k] if n + k in inside else 0 for k in offsets]
    return seen + [sum(bits[j] for j in inside if (j - n) % 12 == r) for r in range(12)]


def oracle_logits(name, params, hidden, event):
    """The logit of every bit, given those of `event` below it."""
    p, logits = to_numpy(params), []
    before = hidden[N * D :]
    for n in range(N):
        site = hidden[n * D : (n + 1) * D]
        logit = site @ p["kernel"][:, 0] + p["bias"][0]
        if "site_bias" in p:
            logit += p["site_bias"][n]
        units = 0
        if before.size:
            seen = neighbours(before, n, range(-WINDOW, WINDOW + 1), below=False)
            units = np.array(seen) @ p["input_kernel"]
        if name.startswith("nade"):
            seen = neighbours(event, n, range(-WINDOW, 0), below=True)
            if before.size:
                seen += neighbours(event * before, n, range(-WINDOW, 0), below=True)
            units = units + site @ p["unit_kernel"] + p["unit_bias"] + seen @ p["bit_kernel"]
            logit += np.tanh(units) @ p["output_kernel"][:, 0]
        else:
            logit += np.sum(units)
        logits.append(logit)
    return np.array(logits)


def oracle(name, params, hidden, event):
    logits = oracle_logits(name, params, np.float64(hidden), np.float64(event))
    return -np.log1p(np.exp(np.where(event, -logits, logits))).sum()


@cases
def test_log_prob_equals_the_loop_and_sums_to_one(name):
    distribution, params, _ = build(name)
    hidden = np.repeat(random_hidden(name, 3)[:, None], 2**N, axis=1)
    events = np.repeat(all_events()[None], 3, axis=0)
    found = distribution.log_prob(params, jnp.asarray(hidden), jnp.asarray(events))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    expected = [
        [oracle(name, params, h, e) for h, e in zip(*row, strict=True)]
        for row in zip(hidden, events, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@cases
def test_gradient_equals_finite_differences(name):
    distribution, params, _ = build(name)
    hidden = random_hidden(name, 2, 3)
    events = np.random.default_rng(1).integers(0, 2, (2, 3, N)).astype(np.uint8)
    gradient = jax.jit(jax.grad(lambda *a: distribution.log_prob(*a, events).sum(), (0, 1)))(
        params, jnp.asarray(hidden)
    )
    point = to_numpy((params, hidden))
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point)

    def nats(s):
        p, h = jax.tree.map(lambda a, d: a + s * d, point, direction)
        return sum(oracle(name, p, h[i], events[i]) for i in np.ndindex(2, 3))

    slopes = jax.tree.map(lambda g, d: (np.float64(g) * d).sum(), gradient, direction)
    slope = sum(jax.tree.leaves(slopes))
    np.testing.assert_allclose(slope, (nats(1e-5) - nats(-1e-5)) / 2e-5, rtol=1e-4)


@cases
def test_samples_have_the_enumerated_frequencies(name):
    distribution, params, _ = build(name)
    row = random_hidden(name, seed=3)
    hidden = jnp.broadcast_to(jnp.asarray(row), (COUNT, row.size))
    keys = jax.random.split(jax.random.key(2), COUNT)
    for temperature in (1.0, 0.6):
        warm = jnp.full((COUNT,), temperature)
        events = np.asarray(distribution.sample(keys, params, hidden, temperature=warm))
        found = np.bincount(events @ (2 ** np.arange(N)[::-1]), minlength=2**N)
        expected = []
        for event in all_events():
            logits = oracle_logits(name, params, np.float64(row), np.float64(event)) / temperature
            expected.append(COUNT / np.prod(1 + np.exp(np.where(event, -logits, logits))))
        assert scipy.stats.chisquare(found, expected).pvalue > 1e-3
    greedy = distribution.sample(keys[:1], params, hidden[:1], temperature=jnp.zeros(1))[0]
    np.testing.assert_array_equal(greedy, distribution.mode(params, jnp.asarray(row)))
    logits = oracle_logits(name, params, np.float64(row), np.float64(greedy))
    np.testing.assert_array_equal(greedy, logits > 0)


@cases
def test_extremes_are_finite(name):
    distribution, params, hidden_size = build(name)
    params = jax.tree.map(lambda leaf: 1e3 * leaf, params)
    hidden = jnp.full((2, 3, hidden_size), 1e3).at[0].set(-1e3)
    events = jnp.ones((2, 3, N), jnp.uint8)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda *a: distribution.log_prob(*a, events).sum(), (0, 1))
    )(params, hidden)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize("family", ["sitewise_bernoulli", "sitewise_nade"])
def test_the_model_scores_its_samples_and_every_key_alike(family):
    """Without positions and biases a tune moved by semitones meets the same probabilities."""
    size = 30
    make = distributions.DISTRIBUTIONS[family].make
    model = grnn_jax.make_model(
        cells.stack([cells.sitewise_lstm(size * D, num_sites=size, input_window=3)]),
        make(size, mean=0.1, window=3, site_bias=True, with_input=True),
        skip_input=True,
    )
    params = perturb(model.init(jax.random.key(0)), scale=0.1)
    samples = grnn_jax.sample(model, params, jax.random.key(1), 2, 6)
    assert 10 < np.asarray(samples.events).sum() < 6 * size
    rescored = jax.jit(grnn_jax.log_prob, static_argnums=0)(model, params, samples.events)
    np.testing.assert_allclose(samples.log_probs.sum(1), rescored, rtol=1e-4)

    params["start"] = jnp.zeros_like(params["start"])
    low = np.zeros((1, 6, size), np.uint8)
    low[:, :, 13:17] = np.asarray(samples.events)[:1, :, :4]

    @jax.jit
    def surprises(events):
        """Σ_t x_n - p(x_n = 1 | ·) for every site: the gradient with respect to its bias."""

        def nats(site_bias):
            output = params["distribution"] | {"site_bias": site_bias}
            return grnn_jax.log_prob(model, params | {"distribution": output}, events)[0]

        return jax.grad(nats)(jnp.zeros(size))

    found, moved = surprises(low), surprises(np.roll(low, 2, axis=-1))
    np.testing.assert_allclose(moved[2:], found[:-2], rtol=1e-4, atol=1e-5)
    assert np.ptp(found) > 0.1


def test_only_a_cell_sitewise_over_the_same_sites_will_do():
    bits = distributions.sitewise_bernoulli(4)
    for cell, found in (
        (cells.lstm(8), "none"),
        (cells.stack([cells.sitewise_gru(6, num_sites=3)]), "3 sites"),
    ):
        with pytest.raises(ValueError, match=rf"shared over 4 sites needs a cell .* got {found}"):
            grnn_jax.make_model(cell, bits)
    message = "that of 4 sites and an input of 4, a multiple of 4, got"
    for size in (10, 4):
        with pytest.raises(ValueError, match=f"{message} {size}"):
            distributions.sitewise_nade(4, with_input=True).init(jax.random.key(0), size)
    with pytest.raises(ValueError, match="window must be at least 0, got -1"):
        distributions.sitewise_nade(4, window=-1)
    with pytest.raises(ValueError, match="nade_hidden_size must be at least 1, got 0"):
        distributions.sitewise_nade(4, nade_hidden_size=0)
