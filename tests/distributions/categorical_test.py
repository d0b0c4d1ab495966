"""The categorical distribution: numpyro, chunked loss, tied weights, truncation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import oracles
import pytest
from helpers import assert_trees_close, perturb

from grnn_jax import distributions

B, T, H, K = 3, 8, 6, 5


def make(**settings):
    distribution = distributions.categorical(K, **settings)
    params = perturb(distribution.init(jax.random.key(0), H))
    rng = np.random.default_rng(0)
    hidden = jnp.float32(rng.normal(size=(B, T, H)))
    return distribution, params, hidden, jnp.asarray(rng.integers(0, K, (B, T)))


def logits(params, hidden):
    kernel = params["kernel"] if "kernel" in params else params["embedding"].T
    return hidden @ kernel + params["bias"]


@pytest.mark.parametrize("settings", [{}, {"embedding_size": H, "tied": True}])
def test_log_prob_and_mode_equal_numpyro(settings):
    distribution, params, hidden, events = make(**settings)
    oracle = numpyro.distributions.CategoricalLogits(logits(params, hidden))
    expected = oracle.log_prob(events)
    np.testing.assert_allclose(
        distribution.log_prob(params, hidden, events), expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(
        distribution.mode(params, hidden), np.asarray(oracle.probs).argmax(-1)
    )


@pytest.mark.parametrize("limit", [B * K, 3 * B * K, B * T * K - 1])
def test_chunked_loss_has_the_exact_value_and_gradient(limit):
    whole, params, hidden, events = make(embedding_size=4)
    chunked = distributions.categorical(K, embedding_size=4, logits_limit=limit)
    weights = jnp.float32(np.random.default_rng(1).normal(size=(B, T)))

    def value_and_gradient(distribution):
        def loss(params, hidden):
            return (distribution.log_prob(params, hidden, events) * weights).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, hidden)

    assert_trees_close(value_and_gradient(chunked), value_and_gradient(whole), 1e-5, 1e-6)


@pytest.mark.optimized
def test_chunked_loss_never_holds_all_logits():
    classes, length = 20_000, 64
    hidden, events = jnp.zeros((4, length, H)), jnp.zeros((4, length), jnp.int32)

    def temporary_bytes(limit):
        distribution = distributions.categorical(classes, embedding_size=4, logits_limit=limit)
        params = distribution.init(jax.random.key(0), H)

        def loss(params):
            return distribution.log_prob(params, hidden, events).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    all_logits = 4 * length * classes * 4
    assert temporary_bytes(2**60) > all_logits
    assert temporary_bytes(4 * 4 * classes) < all_logits / 4


def test_extreme_logits_stay_finite():
    distribution, params, hidden, events = make()

    def loss(params, hidden):
        return distribution.log_prob(params, hidden, events).sum()

    for scale in (1e4, 1e30):
        value, gradient = jax.value_and_grad(loss)(params, hidden * scale)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_one_hot_encoding():
    distribution, params, _, events = make()
    np.testing.assert_array_equal(distribution.encode(params, events), np.eye(K)[events])
    assert distribution.encoding_size == K


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 3, 9])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.8, 1.0])
def test_truncation_equals_a_plain_loop(temperature, top_k, top_p):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 6)) * 2
    scores[0] = 0.0  # ties
    actual = jax.nn.softmax(
        distributions.truncate(jnp.float32(scores), temperature, top_k, top_p), -1
    )
    p = np.exp(oracles.log_softmax(scores))
    expected = [oracles.truncated(row, temperature, top_k, top_p) for row in p]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_truncations_act_one_after_another_and_rows_may_differ():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(60, 6)) * 2
    scores[0] = 0.0  # ties
    settings = {
        "temperature": rng.uniform(0.5, 1.5, 60), "top_k": rng.integers(2, 7, 60),
        "top_p": rng.uniform(0.5, 1, 60), "min_p": rng.uniform(0, 0.3, 60),
        "typical_p": rng.uniform(0.3, 1, 60),
    }  # fmt: skip
    for name, off in (("top_k", 6), ("top_p", 1), ("min_p", 0), ("typical_p", 1)):
        settings[name] = np.where(rng.random(60) < 0.4, off, settings[name])
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in settings.items()}
    arrays["top_k"] = jnp.asarray(settings["top_k"], jnp.int32)
    actual = jax.nn.softmax(jax.jit(distributions.truncate)(jnp.float32(scores), **arrays), -1)
    p = np.exp(oracles.log_softmax(scores))
    for row in range(60):
        own = {name: value[row] for name, value in settings.items()}
        np.testing.assert_allclose(
            actual[row], oracles.truncated(p[row], **own), rtol=1e-4, atol=1e-6
        )


def test_temperature_zero_is_the_mode_and_rows_may_differ():
    distribution, params, hidden, _ = make()
    rows = jnp.tile(hidden[:1, 0], (2000, 1))
    keys = jax.random.split(jax.random.key(0), 2000)
    greedy = distribution.sample(keys, params, rows, temperature=0.0)
    assert (greedy == distribution.mode(params, rows)).all()
    temperature = jnp.where(jnp.arange(2000) < 1000, 0.0, 1.0)
    mixed = distribution.sample(keys, params, rows, temperature=temperature)
    assert (mixed[:1000] == greedy[:1000]).all()
    assert len(np.unique(mixed[1000:])) > 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distributions.categorical(0), "num_classes must be at least 1, got 0"),
        (lambda: distributions.categorical(3, embedding_size=-1), "embedding_size must not be neg"),
        (lambda: distributions.categorical(3, tied=True), "tied needs an embedding"),
        (lambda: distributions.categorical(5000), "5000 classes are too many for one-hot inputs"),
        (lambda: distributions.categorical(3, end=3), r"end must be a class in \[0, 3\), got 3"),
        (
            lambda: distributions.categorical(3, embedding_size=4, tied=True).init(
                jax.random.key(0), 6
            ),
            "tied embeddings need embedding_size equal to the cell's output size 6, got 4",
        ),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["categorical", "mixture_of_softmaxes", "factored_categorical"])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e3])
@pytest.mark.optimized
def test_an_offset_of_all_logits_takes_no_digits(name, offset):
    """Against float64, from logits that float32 holds exactly."""
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=K) * 2**12) / 2**12 + offset
    expected = scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()
    distribution = getattr(distributions, name)((K,) if name == "factored_categorical" else K)
    params = jax.tree.map(jnp.zeros_like, distribution.init(jax.random.key(0), H))
    output = params["field_0"] if name == "factored_categorical" else params
    output["bias"] = jnp.float32(scores)
    event = np.arange(K)[:, None] if name == "factored_categorical" else np.arange(K)
    actual = distribution.log_prob(params, jnp.zeros((K, H)), jnp.asarray(event))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["top_p", "typical_p"])
def test_a_probability_of_one_keeps_every_class(name):
    """Also where the rounded sum of the first of them is 1."""
    scores = jnp.float32(np.random.default_rng(0).normal(size=(8, 50_000)) * 3)
    mass = jnp.ones(8).at[7].set(0.5)
    kept = jax.jit(distributions.truncate)(scores, **{name: mass})
    np.testing.assert_array_equal(kept[:7], scores[:7])
    assert 0 < (kept[7] > -jnp.inf).sum() < 25_000
