"""Constraints: satisfied by every sample, with the distributions that the methods claim."""

import re

import enumerable
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grnn_jax
from grnn_jax import cells, distributions, sampling
from grnn_jax.sampling import enumerated

PATTERN = "a(b|c)*a?|[bc]{3}"
LENGTH = 5


@pytest.fixture(scope="module")
def setting():
    """A model whose sequences end; the constraint, its sequences, their probabilities."""
    model, params = enumerable.make(4, end=3, seed=3, scale=0.5)
    automaton = sampling.automaton_over_tokens(
        sampling.compile_regex(PATTERN, "abc"), [[0], [1], [2], None]
    )
    constraint = sampling.make_constraint(model, automaton, LENGTH)
    words = [
        word
        for word in enumerable.sequences(4, LENGTH, end=3)
        if word[-1] == 3 and re.fullmatch(PATTERN, "".join("abc"[k] for k in word[:-1]))
    ]
    p = np.exp(enumerable.nats(model, params, words, LENGTH))
    return model, params, constraint, words, p


def test_the_sequences_of_a_constraint(setting):
    _, _, constraint, words, _ = setting
    listed = [tuple(word) for word in sampling.enumerate_sequences(constraint)]
    assert sorted(listed) == sorted(words) and len(listed) > 20
    assert sampling.count_sequences(constraint) == len(words)


def test_masked_samples_are_weighted_to_the_constrained_model(setting):
    model, params, constraint, words, p = setting
    count = 6000
    samples = sampling.sample_masked(model, params, jax.random.key(0), count, constraint)
    drawn = enumerable.words_of(samples)
    weights = dict(zip(drawn, np.exp(np.asarray(samples.log_weights, np.float64)), strict=True))
    assert set(drawn) <= set(words)
    # What was drawn is nearly all of C, which makes the expectations exact.
    q = np.array([p[i] / weights.get(word, np.inf) for i, word in enumerate(words)])
    assert 0.99 < q.sum() < 1 + 1e-5
    assert sum(weights.get(word, 0) * q[i] for i, word in enumerate(words)) <= p.sum() * 1.00001
    enumerable.assert_frequencies(drawn, words, q)
    assert np.abs(q - p / p.sum()).sum() > 0.1  # Not the conditioned distribution.
    hot = sampling.sample_masked(
        model, params, jax.random.key(0), count, constraint, temperature=1.7
    )
    for each in (samples, hot):
        estimate = np.exp(np.asarray(each.log_weights, np.float64))
        assert abs(estimate.mean() - p.sum()) < 4 * estimate.std() / np.sqrt(count)
    assert (np.asarray(hot.events) != np.asarray(samples.events)).any()
    rescored = enumerable.nats(model, params, drawn[:40], LENGTH)
    np.testing.assert_allclose(samples.log_probs.sum(1)[:40], rescored, rtol=1e-4, atol=1e-5)
    part = sampling.sample_masked(
        model, params, jax.random.key(0), 5, constraint, first_index=7, temperature=1.0
    )
    np.testing.assert_array_equal(part.events, samples.events[7:12])


def test_enumerated_samples_have_exactly_the_constrained_distribution(setting):
    model, params, constraint, words, p = setting
    samples = sampling.sample_enumerated(model, params, jax.random.key(0), 4000, constraint)
    enumerable.assert_frequencies(enumerable.words_of(samples), words, p)
    np.testing.assert_allclose(samples.log_evidence, np.log(p.sum()), rtol=1e-4)
    rescored = enumerable.nats(model, params, enumerable.words_of(samples)[:40], LENGTH)
    np.testing.assert_allclose(samples.log_probs.sum(1)[:40], rescored, rtol=1e-4, atol=1e-5)
    # Scored once, they are drawn part by part.
    scored = sampling.score_prefixes(model, params, constraint)
    part = scored.sample(jax.random.key(0), 5, first_index=7)
    for name in ("events", "mask"):
        np.testing.assert_array_equal(getattr(part, name), getattr(samples, name)[7:12])
    np.testing.assert_allclose(part.log_probs, samples.log_probs[7:12], rtol=1e-5)
    with pytest.raises(ValueError, match="constraint must have at most 5 beginnings"):
        sampling.sample_enumerated(model, params, jax.random.key(0), 1, constraint, limit=5)


def test_particles_estimate_without_bias_and_come_near_the_constrained_distribution(setting):
    model, params, constraint, words, p = setting
    runs = 1500
    particles = sampling.sample_particles(
        model, params, jax.random.key(2), runs, constraint, num_particles=16, resample_below=0.9
    )
    index = {word: i for i, word in enumerate(words)}
    events, mask = (np.asarray(leaf) for leaf in (particles.events, particles.mask))
    flat = [
        index[tuple(e[m].tolist())]
        for e, m in zip(events.reshape(-1, LENGTH), mask.reshape(-1, LENGTH), strict=True)
    ]
    indicator = np.eye(len(words))[np.array(flat).reshape(runs, -1)]
    weights = np.exp(np.asarray(particles.log_weights, np.float64))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-4)
    evidence = np.exp(np.asarray(particles.log_evidence, np.float64))
    assert abs(evidence.mean() - p.sum()) < 4 * evidence.std() / np.sqrt(runs)
    # Evidence times the weighted average of f is unbiased for Σ_C p f, for every f.
    f = np.random.default_rng(0).normal(size=(len(words), 5))
    estimates = evidence[:, None] * np.einsum("rn,rnw,wf->rf", weights, indicator, f)
    z = (estimates.mean(0) - p @ f) / (estimates.std(0) / np.sqrt(runs))
    assert np.abs(z).max() < 4
    average = np.einsum("rn,rnw->w", weights, indicator) / runs
    masked = sampling.sample_masked(model, params, jax.random.key(0), 6000, constraint)
    observed = np.bincount([index[w] for w in enumerable.words_of(masked)], minlength=len(words))
    distance = [np.abs(q - p / p.sum()).sum() for q in (average, observed / 6000)]
    assert distance[0] < 0.3 * distance[1]
    chosen = particles.choice()
    rescored = enumerable.nats(model, params, enumerable.words_of(chosen)[:40], LENGTH)
    np.testing.assert_allclose(chosen.log_probs.sum(1)[:40], rescored, rtol=1e-4, atol=1e-5)
    part = sampling.sample_particles(
        model, params, jax.random.key(2), 2, constraint, num_particles=16, resample_below=0.9,
        first_index=3,
    )  # fmt: skip
    np.testing.assert_array_equal(part.events, events[3:5])


def test_infilling_without_an_end():
    model, params = enumerable.make(3, scale=0.5)
    words = enumerable.sequences(3, 4)
    p = np.exp(enumerable.nats(model, params, words, 4))
    for tokens in ([2, sampling.FREE, 1, sampling.FREE], [2, 0, -1, -1]):
        suits = np.array(
            [all(t in (-1, k) for t, k in zip(tokens, word, strict=True)) for word in words]
        )
        constraint = sampling.make_constraint(model, sampling.template(tokens, 3), 4)
        exact = sampling.sample_enumerated(model, params, jax.random.key(0), 2000, constraint)
        enumerable.assert_frequencies(enumerable.words_of(exact), words, p * suits)
        np.testing.assert_allclose(exact.log_evidence, np.log((p * suits).sum()), rtol=1e-4)
        masked = sampling.sample_masked(model, params, jax.random.key(0), 2000, constraint)
        drawn = enumerable.words_of(masked)
        assert all(suits[words.index(word)] for word in drawn)
    # Where only the beginning is fixed, the mask is exact.
    np.testing.assert_allclose(masked.log_weights, np.log((p * suits).sum()), rtol=1e-4)
    enumerable.assert_frequencies(drawn, words, p * suits)


def good_prefixes(automaton, words, end):
    """The shortest beginnings all continuations of which are accepted, by trying all words."""
    table, accepting = automaton

    def accepts(word):
        state = 0
        for token in word if end is None else word[:-1]:
            state = table[state, token]
        return bool(accepting[state]) and (end is None or word[-1] == end)

    accepted = {word for word in words if accepts(word)}
    found = set()
    for size in range(5):
        for begin in {word[:size] for word in words if len(word) >= size}:
            if any(begin[:t] in found for t in range(size)):
                continue
            if all(word in accepted for word in words if word[:size] == begin):
                found.add(begin)
    return found, accepted


@pytest.mark.parametrize("end", [None, 2])
def test_good_prefixes_of_random_automata(end):
    model, params = enumerable.make(3, end=end, seed=4)
    words = enumerable.sequences(3, 4, end=end)
    nats = dict(zip(words, enumerable.nats(model, params, words, 4), strict=True))
    counts = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # A state that accepts whatever comes, and one that accepts nothing.
        table = np.vstack([rng.integers(0, 5, (3, 3)), np.full(3, 3), np.full(3, 4)])
        accepting = np.array([*(rng.random(3) < 0.5), True, False])
        automaton = sampling.Automaton(table, accepting)
        found, accepted = good_prefixes(automaton, words, end)
        if not accepted:
            continue
        constraint = sampling.make_constraint(model, automaton, 4)
        assert sampling.count_good_prefixes(constraint) == len(found)
        assert sampling.count_sequences(constraint) == len(accepted)
        few = (len(found), len(accepted))
        if len(found) < 2 or few in counts or len(counts) == 3:
            continue
        counts.add(few)
        samples = sampling.sample_enumerated(
            model, params, jax.random.key(0), 8, constraint, limit=len(found)
        )
        assert set(enumerable.words_of(samples)) <= accepted
        expected = np.logaddexp.reduce([nats[word] for word in accepted])
        np.testing.assert_allclose(samples.log_evidence, expected, rtol=1e-4, atol=1e-5)
    assert len(counts) == 3 and any(few < many for few, many in counts) == (end is None)


def test_what_follows_the_last_given_token_is_not_enumerated():
    model, params = enumerable.make(3, scale=0.5)
    tokens = [2, sampling.FREE, 1, *[sampling.FREE] * 37]
    constraint = sampling.make_constraint(model, sampling.template(tokens, 3), 40)
    samples = sampling.sample_enumerated(
        model, params, jax.random.key(0), 2000, constraint, limit=3
    )
    assert samples.mask.all()
    words = [word for word in enumerable.sequences(3, 5) if (word[0], word[2]) == (2, 1)]
    p = np.exp(enumerable.nats(model, params, words, 5))
    enumerable.assert_frequencies([w[:5] for w in enumerable.words_of(samples)], words, p)
    np.testing.assert_allclose(samples.log_evidence, np.log(p.sum()), rtol=1e-4)
    rescored = enumerable.nats(model, params, enumerable.words_of(samples)[:40], 40)
    np.testing.assert_allclose(samples.log_probs.sum(1)[:40], rescored, rtol=1e-4)
    part = sampling.sample_enumerated(
        model, params, jax.random.key(0), 3, constraint, first_index=70
    )
    np.testing.assert_array_equal(part.events, samples.events[70:73])
    # Nothing asked for: the model itself.
    anything = sampling.Automaton(np.zeros((1, 3), int), np.ones(1, bool))
    constraint = sampling.make_constraint(model, anything, 5)
    assert sampling.count_good_prefixes(constraint) == 1
    free = sampling.sample_enumerated(model, params, jax.random.key(0), 6, constraint)
    plain = grnn_jax.sample(model, params, jax.random.key(0), 6, 5)
    np.testing.assert_array_equal(free.events, plain.events)
    np.testing.assert_array_equal(free.log_evidence, 0)


def test_many_prefixes_are_extended_in_parts(monkeypatch):
    monkeypatch.setattr(enumerated, "FEW_ROWS", 2)
    monkeypatch.setattr(enumerated, "MANY_ROWS", 5)
    monkeypatch.setattr(enumerated, "CHOICES", 3)
    model, params = enumerable.make(4, scale=0.5)
    tokens = [sampling.FREE, sampling.FREE, 3, sampling.FREE, 1, sampling.FREE]
    constraint = sampling.make_constraint(model, sampling.template(tokens, 4), 6)
    words = [word for word in enumerable.sequences(4, 5) if (word[2], word[4]) == (3, 1)]
    p = np.exp(enumerable.nats(model, params, words, 5, (2,)))
    samples = sampling.sample_enumerated(
        model, params, jax.random.key(1), 2000, constraint, prefix=np.array([2]), limit=64
    )
    enumerable.assert_frequencies([w[:5] for w in enumerable.words_of(samples)], words, p)
    np.testing.assert_allclose(samples.log_evidence, np.log(p.sum()), rtol=1e-4)


def test_a_prefix_comes_before_the_constraint():
    model, params = enumerable.make(3, scale=0.5)
    constraint = sampling.make_constraint(model, sampling.step_masks(np.eye(3, dtype=bool)), 3)
    prefix = np.array([1, 1])
    exact = enumerable.nats(model, params, [(0, 1, 2)], 3, (1, 1))
    for method in (sampling.sample_masked, sampling.sample_enumerated):
        samples = method(model, params, jax.random.key(0), 2, constraint, prefix=prefix)
        assert enumerable.words_of(samples) == [(0, 1, 2)] * 2
        np.testing.assert_allclose(samples.log_evidence, exact[0], rtol=1e-4)


def test_tokens_of_several_symbols_and_impossible_constraints():
    spellings = ["ab", "a", "", "cc", None]
    symbols = sampling.compile_regex("(ab|c)+", "abc")
    spelled = [[0, 1], [0], [], [2, 2], None]
    lifted = sampling.automaton_over_tokens(symbols, spelled)
    for word in ([0], [3, 0], [1], [0, 2], [4], [0, 4], [2]):
        state = 0
        for token in word:
            state = int(lifted.table[state, token])
        text = None if 4 in word else "".join(spellings[t] for t in word)
        assert bool(lifted.accepting[state]) == bool(text and re.fullmatch("(ab|c)+", text))
    model, _ = enumerable.make(4, end=3)
    with pytest.raises(ValueError, match="no sequence of at most 2 events satisfies"):
        sampling.make_constraint(model, sampling.template([0, 1], 4), 2)
    model, _ = enumerable.make(4)
    with pytest.raises(ValueError, match="no sequence of exactly 3 events satisfies"):
        sampling.make_constraint(model, sampling.template([0, 1], 4), 3)
    constraint = sampling.make_constraint(model, sampling.template([0, 1, 2], 4), 3)
    other, params = enumerable.make(3)
    bits = grnn_jax.make_model(cells.gru(5), distributions.nade(3))
    for method in (sampling.sample_masked, sampling.sample_particles, sampling.sample_enumerated):
        with pytest.raises(ValueError, match="constraint must be over the 3 tokens of the model"):
            method(other, params, jax.random.key(0), 1, constraint)
        with pytest.raises(ValueError, match="a constraint needs .* of tokens .*, got nade"):
            method(bits, params, jax.random.key(0), 1, constraint)
    with pytest.raises(ValueError, match=r"tokens must lie in \[0, 4\) or be -1, got 4"):
        sampling.template([4], 4)
    assert jnp.array_equal(sampling.template([0, -1], 2).accepting, jnp.arange(4) == 2)
