"""Truncation of classes against a NumPy oracle, and at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from grnn_jax.distributions import truncate

OFF = {"top_k": 5, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}


def kept(logits, **settings):
    """Which classes are left, and their probabilities."""
    logits = jax.jit(truncate)(jnp.asarray(logits, jnp.float32), **settings)
    return np.asarray(logits > -jnp.inf), np.asarray(jax.nn.softmax(logits))


@pytest.mark.parametrize("given", [OFF, {}, {"temperature": np.full(40, 1.0)}])
def test_rows_with_settings_of_their_own_equal_the_oracle(given):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(40, 5))
    rows = {
        "temperature": rng.uniform(0.3, 2, 40),
        "top_k": rng.integers(1, 6, 40),
        "top_p": rng.uniform(0.1, 1, 40),
        "min_p": rng.uniform(0, 0.9, 40),
        "typical_p": rng.uniform(0.1, 1, 40),
    } | {name: np.full(40, value) for name, value in given.items() if np.ndim(value) == 0}
    rows |= {name: value for name, value in given.items() if np.ndim(value)}
    _, actual = kept(logits, **rows)
    for row in range(40):
        p = np.exp(logits[row]) / np.exp(logits[row]).sum()
        settings = {name: value[row] for name, value in rows.items()}
        expected = oracles.truncated(p, settings.pop("temperature"), **settings)
        np.testing.assert_allclose(actual[row], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_p": 0.4999}, [1, 0, 0, 0]),
        ({"top_p": 0.5001}, [1, 1, 0, 0]),
        ({"typical_p": 0.2499}, [0, 1, 0, 0]),  # Nearest to the entropy, 1.75 bits.
        ({"typical_p": 0.2501}, [1, 1, 0, 0]),
        ({"min_p": 0.4999}, [1, 1, 0, 0]),
        ({"min_p": 0.5001}, [1, 0, 0, 0]),
        ({"min_p": 0.0, "top_k": 4, "top_p": 1.0, "typical_p": 1.0}, [1, 1, 1, 1]),
        ({"top_k": 3}, [1, 1, 1, 0]),  # Of equal ones the lower index.
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),  # 0.5 of 0.75 left reaches 0.6.
    ],
)
def test_limits_by_hand(settings, expected):
    logits = np.log2([[0.5, 0.25, 0.125, 0.125]]) * np.log(2)
    keep, probabilities = kept(logits, **settings)
    np.testing.assert_array_equal(keep, np.array([expected], bool))
    weights = np.array([[4, 2, 1, 1]]) * keep
    np.testing.assert_allclose(probabilities, weights / weights.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"top_p": 0.5}, 2),  # What reaches the limit ends the set.
        ({"typical_p": 0.75}, 3),
        ({"min_p": 1.0}, 4),  # What is as large as the largest stays.
        ({"top_k": 1}, 1),
    ],
)
def test_a_limit_that_is_met_exactly(settings, count):
    keep, _ = kept(np.zeros((1, 4)), **settings)  # A quarter each, without rounding.
    np.testing.assert_array_equal(keep, [np.arange(4) < count])


def test_impossible_classes_stay_impossible():
    keep, _ = kept([[0.0, -np.inf, 0.0]], top_p=1.0, min_p=0.0, typical_p=1.0, top_k=3)
    np.testing.assert_array_equal(keep, [[True, False, True]])
