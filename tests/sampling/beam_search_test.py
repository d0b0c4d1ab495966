"""Beam search against exhaustive search and a plain loop; stochastic beams against enumeration."""

import itertools

import enumerable
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grnn_jax
from grnn_jax import cells, distributions, sampling


@pytest.fixture(scope="module")
def ending():
    """A model whose sequences end, and a table of log p(next | prefix) for every short prefix."""
    model, params = enumerable.make(3, end=2, seed=1, scale=0.3)
    prefixes = [p for t in range(5) for p in itertools.product(range(2), repeat=t)]
    whole = [(*prefix, token) for prefix in prefixes for token in range(3)]
    scored = dict(zip(whole, enumerable.nats(model, params, whole, 5), strict=True))
    table = {}
    for prefix in prefixes:
        row = np.array([scored[(*prefix, token)] for token in range(3)])
        table[prefix] = row - np.logaddexp.reduce(row)
    return model, params, table


def found(result, row=0):
    """Sequences with a score, in order."""
    pairs = zip(result.events[row], result.mask[row], strict=True)
    words = [tuple(np.asarray(events)[np.asarray(mask)].tolist()) for events, mask in pairs]
    return [w for w, s in zip(words, result.scores[row], strict=True) if s > -np.inf]


def score(nats, word, penalty):
    return nats / ((5 + len(word)) / 6) ** penalty


def test_a_full_beam_is_an_exhaustive_search(ending):
    model, params, _ = ending
    words = enumerable.sequences(3, 4, end=2)
    prefixes = np.array([[0, 1], [1, 1]])
    for penalty in (0.0, 1.5):
        result = sampling.beam_search(
            model, params, 32, 4, length_penalty=penalty, prefix=prefixes, batch_size=2
        )
        for row, prefix in enumerate(prefixes.tolist()):
            nats = enumerable.nats(model, params, words, 4, prefix)
            scores = [score(n, w, penalty) for n, w in zip(nats, words, strict=True)]
            order = np.argsort(-np.array(scores))
            assert found(result, row) == [words[i] for i in order]
            np.testing.assert_allclose(
                result.scores[row, :31], np.array(scores)[order], rtol=1e-4, atol=1e-5
            )
            assert result.scores[row, 31] == -np.inf and not result.mask[row, 31].any()
            rescored = result.log_probs[row].sum(-1)[:31]
            np.testing.assert_allclose(rescored, nats[order], rtol=1e-4, atol=1e-5)
            ended = [words[i][-1] == 2 for i in order]
            np.testing.assert_array_equal(result.done[row, :31], ended)


def plain_beam_search(table, num_groups, width, length, diversity, penalty):
    """Diverse beam search in plain Python; each group's best, ended or cut."""
    groups = [{(): 0.0} for _ in range(num_groups)]
    pools = [{} for _ in range(num_groups)]
    for _ in range(length):
        chosen = np.zeros(3)
        for g in range(num_groups):
            grown = {
                (*word, token): nats + table[word][token]
                for word, nats in groups[g].items()
                for token in range(3)
            }
            pools[g] |= {word: nats for word, nats in grown.items() if word[-1] == 2}
            alive = [word for word in grown if word[-1] != 2]
            alive.sort(key=lambda word: -(grown[word] - diversity * chosen[word[-1]]))
            groups[g] = {word: grown[word] for word in alive[:width]}
            for word in groups[g]:
                chosen[word[-1]] += 1
    best = []
    for pool, alive in zip(pools, groups, strict=True):
        scored = {w: score(n, w, penalty) for w, n in (pool | alive).items()}
        best += sorted(scored, key=lambda word: -scored[word])[:width]
    return best


@pytest.mark.parametrize(("diversity", "penalty"), [(0.0, 0.0), (0.8, 6.0), (3.0, 4.0)])
def test_diverse_groups_equal_a_plain_loop(ending, diversity, penalty):
    model, params, table = ending
    result = sampling.beam_search(
        model, params, 6, 5, num_groups=3, diversity=diversity, length_penalty=penalty
    )
    expected = plain_beam_search(table, 3, 2, 5, diversity, penalty)
    assert found(result) == expected
    assert (len(set(expected)) > 2) == (diversity > 0)


def test_one_beam_without_an_end_is_the_mode_step_by_step():
    model, params = enumerable.make(4)
    beam = sampling.beam_search(model, params, 1, 6)
    greedy = grnn_jax.sample(model, params, jax.random.key(0), 1, 6, temperature=0.0)
    np.testing.assert_array_equal(beam.events[0], greedy.events)
    np.testing.assert_allclose(beam.log_probs[0], greedy.log_probs, rtol=1e-5)


def test_wrong_searches_are_named(ending):
    model, params, _ = ending
    for arguments, message in (
        ({"num_groups": 4}, "num_groups must divide beam_width 6, got 4"),
        ({"diversity": -1.0}, "diversity must not be negative, got -1.0"),
        ({"length_penalty": -1.0}, "length_penalty must not be negative, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            sampling.beam_search(model, params, 6, 5, **arguments)
    bits = grnn_jax.make_model(cells.gru(5), distributions.nade(3))
    with pytest.raises(ValueError, match="beam search needs .* tokens .*, got nade"):
        sampling.beam_search(bits, bits.init(jax.random.key(0)), 2, 4)


def test_stochastic_beams_sample_without_replacement(ending):
    model, params, _ = ending
    words = enumerable.sequences(3, 2, end=2)
    p = np.exp(enumerable.nats(model, params, words, 2))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    count = 4000
    result = sampling.stochastic_beam_search(
        model, params, jax.random.key(0), 3, 2, num_samples=count
    )
    index = {word: i for i, word in enumerate(words)}
    events, mask = np.asarray(result.events), np.asarray(result.mask)
    drawn = np.array(
        [
            [index[tuple(e[m].tolist())] for e, m in zip(*pair, strict=True)]
            for pair in zip(events, mask, strict=True)
        ]
    )
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    pairs = list(itertools.permutations(range(7), 2))
    exact = [p[i] * p[j] / (1 - p[i]) for i, j in pairs]
    enumerable.assert_frequencies([tuple(row) for row in drawn[:, :2].tolist()], pairs, exact)
    np.testing.assert_allclose(result.log_probs.sum(-1), np.log(p)[drawn], rtol=1e-4, atol=1e-5)
    # The estimate of every probability, and of E f for some f, is unbiased.
    f = np.concatenate([np.eye(7), np.random.default_rng(0).normal(size=(1, 7))])
    estimates = (np.asarray(result.weights, np.float64)[..., None] * f.T[drawn]).sum(1)
    z = (estimates.mean(0) - f @ p) / (estimates.std(0) / np.sqrt(count))
    assert np.abs(z).max() < 4
    assert (np.diff(np.asarray(result.perturbed), axis=1) <= 0).all()
    assert (np.asarray(result.threshold) <= np.asarray(result.perturbed)[:, -1]).all()


def test_the_weights_of_long_sequences_do_not_vanish():
    log_p = np.array([[-900.0, -90.0, -20.0, -10.5, -9.5, -1.0]])
    threshold = np.float32([-0.5])
    found = sampling.DistinctSamples(
        events=np.zeros((1, 6, 1), np.int32),
        mask=np.ones((1, 6, 1), bool),
        log_probs=jnp.asarray(log_p[..., None], jnp.float32),
        perturbed=jnp.zeros((1, 6)),
        threshold=jnp.asarray(threshold),
        done=np.ones((1, 6), bool),
    )
    # In float64 even the smallest of these rates is no zero, but for the first.
    with np.errstate(divide="ignore"):
        expected = np.log(-np.expm1(-np.exp(log_p + 0.5)))
    expected[0, 0] = -899.5
    np.testing.assert_allclose(found.log_inclusion, expected, rtol=1e-5)
    np.testing.assert_allclose(found.log_weights, log_p - expected, atol=1e-4)


def test_more_stochastic_beams_begin_with_the_fewer_and_all_are_exact(ending):
    model, params, _ = ending
    words = enumerable.sequences(3, 2, end=2)
    p = np.exp(enumerable.nats(model, params, words, 2))
    key = jax.random.key(0)
    few = sampling.stochastic_beam_search(model, params, key, 3, 2, num_samples=20)
    every = sampling.stochastic_beam_search(model, params, key, 8, 2, num_samples=4, first_index=11)
    np.testing.assert_array_equal(every.events[:, :3], few.events[11:15])
    np.testing.assert_allclose(every.perturbed[:, 2], few.perturbed[11:15, 2], rtol=1e-4)
    np.testing.assert_allclose(every.perturbed[:, 3], few.threshold[11:15], rtol=1e-4)
    assert (np.asarray(every.perturbed)[:, 7] == -np.inf).all()
    for row in range(4):
        pairs = zip(every.events[row, :7], every.mask[row, :7], strict=True)
        drawn = [tuple(np.asarray(e)[np.asarray(m)].tolist()) for e, m in pairs]
        assert sorted(drawn) == sorted(words)
        expected = [p[words.index(word)] for word in drawn]
        np.testing.assert_allclose(every.weights[row, :7], expected, rtol=1e-4)
        assert every.weights[row, 7] == 0 and every.log_weights[row, 7] == -np.inf
