"""The mixture of softmaxes: a plain loop, its rank, chunked loss, truncation, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats
from helpers import assert_trees_close, perturb, to_numpy

from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.softmax_mixture import mixture_of_softmaxes

B, T, H, V, K = 3, 8, 4, 7, 3


def make(**settings):
    distribution = mixture_of_softmaxes(V, num_components=K, **settings)
    params = perturb(distribution.init(jax.random.key(0), H), scale=1.0)
    rng = np.random.default_rng(0)
    hidden = jnp.float32(rng.normal(size=(B, T, H)))
    return distribution, params, hidden, jnp.int32(rng.integers(0, V, (B, T)))


def probabilities(params, hidden):
    """p(x | h) [V] of one hidden state, component by component."""
    params = to_numpy(params)
    weights = np.exp(oracles.log_softmax(hidden @ params["kernel_weights"]))
    total = np.zeros(V)
    for k in range(K):
        projected = np.tanh(hidden @ params["kernel_components"][:, k * H : (k + 1) * H])
        logits = projected @ params["kernel"] + params["bias"]
        total += weights[k] * np.exp(oracles.log_softmax(logits))
    return total


def test_log_prob_and_mode_equal_a_plain_loop():
    distribution, params, hidden, events = make()
    nats = jax.jit(distribution.log_prob)(params, hidden, events)
    mode = distribution.mode(params, hidden)
    for row in range(B):
        for t in range(T):
            p = probabilities(params, np.float64(hidden[row, t]))
            np.testing.assert_allclose(nats[row, t], np.log(p[events[row, t]]), rtol=1e-5)
            assert mode[row, t] == p.argmax()


def test_the_rank_of_the_log_probabilities_is_not_bounded_by_the_hidden_size():
    contexts = jnp.float32(np.random.default_rng(0).normal(size=(60, 2)))

    def singular_values(distribution):
        params = perturb(distribution.init(jax.random.key(0), 2), scale=1.0)
        score = jax.jit(jax.vmap(lambda token: distribution.log_prob(params, contexts, token)))
        nats = score(jnp.tile(jnp.arange(12)[:, None], 60))
        values = np.linalg.svd(np.float64(nats), compute_uv=False)
        return values / values[0]

    # W h, one column of ones for the bias, one for the normaliser.
    assert singular_values(categorical(12))[4] < 1e-5
    assert singular_values(mixture_of_softmaxes(12))[4] > 1e-3


def test_a_token_outside_the_classes_is_nan():
    distribution, params, hidden, _ = make()
    nats = distribution.log_prob(params, hidden[0, :3], jnp.int32([-1, V, 0]))
    np.testing.assert_array_equal(np.isnan(nats), [True, True, False])


def test_chunked_loss_has_the_exact_value_and_gradient():
    _, params, hidden, events = make()
    weights = jnp.float32(np.random.default_rng(1).normal(size=(B, T)))

    def value_and_gradient(**settings):
        distribution = mixture_of_softmaxes(V, num_components=K, **settings)

        def loss(params, hidden):
            return (distribution.log_prob(params, hidden, events) * weights).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, hidden)

    assert_trees_close(
        value_and_gradient(logits_limit=3 * B * V * K), value_and_gradient(), 1e-5, 1e-6
    )


@pytest.mark.optimized
def test_chunked_loss_never_holds_all_logits():
    classes, length = 20_000, 64
    hidden, events = jnp.zeros((2, length, H)), jnp.zeros((2, length), jnp.int32)

    def temporary_bytes(limit):
        distribution = mixture_of_softmaxes(classes, embedding_size=4, logits_limit=limit)
        params = jax.eval_shape(lambda key: distribution.init(key, H), jax.random.key(0))

        def loss(params):
            return distribution.log_prob(params, hidden, events).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    all_logits = 2 * length * 4 * classes * 4
    assert temporary_bytes(2**60) > all_logits
    assert temporary_bytes(4 * 2 * 4 * classes) < all_logits / 4


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.7}])
def test_samples_follow_the_truncated_mixture(options):
    distribution, params, hidden, _ = make()
    count = 5_000
    rows = jnp.tile(hidden[0, :1], (count, 1))
    keys = jax.random.split(jax.random.key(1), count)
    drawn = jax.jit(lambda keys: distribution.sample(keys, params, rows, **options))(keys)
    p = probabilities(params, np.float64(hidden[0, 0])) ** (1 / options.get("temperature", 1))
    p /= p.sum()
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    kept = order[(np.arange(V) < options.get("top_k", V)) & (before < options.get("top_p", 1))]
    observed = np.bincount(drawn, minlength=V)
    assert observed.sum() == observed[kept].sum()
    expected = count * p[kept] / p[kept].sum()
    assert scipy.stats.chisquare(observed[kept], expected).pvalue > 1e-3


def test_embedding_one_hot_and_end():
    distribution, params, _, events = make(embedding_size=2, end=3)
    np.testing.assert_array_equal(distribution.token_table(params), params["embedding"])
    np.testing.assert_array_equal(
        distribution.encode(params, events), np.asarray(params["embedding"])[events]
    )
    assert distribution.encoding_size == 2
    np.testing.assert_array_equal(distribution.is_end(events), np.asarray(events) == 3)
    one_hot, params, _, events = make()
    np.testing.assert_array_equal(one_hot.encode(params, events), np.eye(V)[events])
    assert one_hot.is_end is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_components": 0}, "num_components must be at least 1, got 0"),
        ({"end": V}, r"end must be a class in \[0, 7\), got 7"),
        ({"embedding_size": -1}, "embedding_size must not be negative, got -1"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        mixture_of_softmaxes(V, **settings)
