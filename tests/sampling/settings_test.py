"""Settings of a request: for each row, without recompilation, from the enumerated distribution."""

import enumerable
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import grnn_jax
from grnn_jax import cells, distributions, sampling

OFF = {"top_k": 4, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0}
ON = {"top_k": 2, "top_p": 0.7, "min_p": 0.5, "typical_p": 0.6, "repetition_penalty": 2.5}


def exact(model, params, temperature, penalty, **truncation):
    """Probabilities of the 16 sequences of two events after the prefix (2,)."""
    words = enumerable.sequences(4, 2)
    joint = np.exp(enumerable.nats(model, params, words, 2, (2,))).reshape(4, 4)
    first = joint.sum(1)

    def altered(p, seen):
        p = np.where([k in seen for k in range(4)], p**penalty, p)
        return oracles.truncated(p / p.sum(), temperature, **truncation)

    start = altered(first, {2})
    return np.array([start[k] * altered(joint[k] / first[k], {2, k}) for k in range(4)]).ravel()


def test_each_row_samples_its_own_truncated_distribution():
    model, params = enumerable.make(4, scale=0.4)
    names, count = list(OFF), 3000
    rows = {
        name: np.repeat([ON[name] if name == on else OFF[name] for on in names], count)
        for name in names
    }
    rows["temperature"] = np.repeat([1.0, 0.8, 1.3, 1.0, 1.0], count)
    samples = grnn_jax.sample(
        model, params, jax.random.key(5), 5 * count, 2, prefix=np.array([2]), **rows
    )
    drawn = enumerable.words_of(samples)
    words = enumerable.sequences(4, 2)
    for group, on in enumerate(names):
        settings = OFF | {on: ON[on]}
        penalty = settings.pop("repetition_penalty")
        temperature = rows["temperature"][group * count]
        expected = exact(model, params, temperature, penalty, **settings)
        assert (expected > 0).sum() > 3 or on == "top_k"
        enumerable.assert_frequencies(drawn[group * count :][:count], words, expected)
    scored = enumerable.nats(model, params, drawn[:50], 2, (2,))
    np.testing.assert_allclose(samples.log_probs.sum(1)[:50], scored, rtol=1e-5, atol=1e-5)


def test_a_callback_sees_the_state_and_new_values_compile_nothing():
    model, params = enumerable.make()
    traced = []

    def callback(allowed, logits, state):
        traced.append(logits.shape)
        assert state.seen is None
        return jnp.where(allowed[state.position], logits, -jnp.inf)

    for seed in range(3):
        allowed = np.random.default_rng(seed).random((6, 3)) < 0.4
        allowed[np.arange(6), np.arange(6) % 3] = True
        bound = jax.tree_util.Partial(callback, jnp.asarray(allowed))
        samples = grnn_jax.sample(
            model, params, jax.random.key(0), 40, 6, logits_callback=bound, min_p=0.01 * seed
        )
        events = np.asarray(samples.events)
        assert allowed[np.arange(6), events].all()
        assert len({tuple(row) for row in events}) > 1 or allowed.sum() == 6
    assert len(traced) == 1
    plain = grnn_jax.sample(model, params, jax.random.key(0), 40, 6, min_p=0.0)
    same = grnn_jax.sample(
        model, params, jax.random.key(0), 40, 6, logits_callback=lambda logits, state: logits
    )
    np.testing.assert_array_equal(plain.events, same.events)


def test_a_sequence_stops_after_a_stop_sequence_or_its_own_length():
    model, params = enumerable.make(4)
    stops = [[1, 1, 2], [1, 2], [3]]
    lengths = np.arange(60) % 12 + 1
    automaton = sampling.stop_sequences(stops, 4)
    arguments = (model, params, jax.random.key(0), 60, 12)
    plain = grnn_jax.sample(*arguments)
    stopped = grnn_jax.sample(*arguments, stop=automaton, lengths=lengths)
    expected = []
    for events, length in zip(np.asarray(plain.events).tolist(), lengths, strict=True):
        ends = (t for t in range(1, 13) if any(events[:t][-len(s) :] == s for s in stops))
        expected.append(tuple(events[: min(next(ends, 12), length)]))
    assert enumerable.words_of(stopped) == expected
    assert len({len(word) for word in expected}) > 5
    pieces = list(grnn_jax.stream(*arguments, chunk_length=5, stop=automaton, lengths=lengths))
    joined = np.concatenate([piece.events for piece in pieces], 1)
    np.testing.assert_array_equal(joined, stopped.events[:, : joined.shape[1]])
    # The stream ends with its last sequence: a stop sequence of a single event is soon there.
    soon = sampling.stop_sequences([[0], [1], [2], [3]], 4)
    for ends in ({"stop": soon}, {"lengths": np.minimum(lengths, 5)}):
        (piece,) = grnn_jax.stream(*arguments, chunk_length=5, **ends)
        assert piece.state.done.all()
    statistics = sampling.length_statistics(stopped.mask, stopped.state.done)
    sizes = [len(word) for word in expected]
    assert statistics.num_sequences == 60 and statistics.num_ended == stopped.state.done.sum()
    assert (statistics.shortest, statistics.longest) == (min(sizes), max(sizes))
    np.testing.assert_allclose(statistics.mean, np.mean(sizes))
    np.testing.assert_allclose(statistics.standard_deviation, np.std(sizes))
    assert statistics.median == np.median(sizes)
    assert sampling.statistics_of_counts({3: 1, 7: 2, 9: 1, 2: 2}).median == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_p": -0.1}, r"min_p must lie in \[0, 1\], got -0.1"),
        ({"typical_p": 0}, r"typical_p must lie in \(0, 1\], got 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive, got 0.0"),
        ({"lengths": np.array([1, 0])}, "lengths must be at least 1, got 0"),
        ({"top_k": np.array([1, 2, 3])}, r"top_k must be one number or \[2\], got shape \(3,\)"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    model, params = enumerable.make()
    with pytest.raises(ValueError, match=message):
        grnn_jax.sample(model, params, jax.random.key(0), 2, 4, **arguments)


def test_settings_of_tokens_need_tokens():
    model = grnn_jax.make_model(cells.gru(5), distributions.nade(3))
    params = model.init(jax.random.key(0))
    for name, value in (("repetition_penalty", 2.0), ("logits_callback", lambda x, state: x)):
        with pytest.raises(ValueError, match=f"{name} needs an output distribution of tokens"):
            grnn_jax.sample(model, params, jax.random.key(0), 2, 4, **{name: value})
    model, params = enumerable.make(3)
    stop = sampling.stop_sequences([[1]], 5)
    with pytest.raises(ValueError, match="stop must be over the 3 tokens of the model, got 5"):
        grnn_jax.sample(model, params, jax.random.key(0), 2, 4, stop=stop)
    with pytest.raises(ValueError, match=r"sequences must hold tokens in \[0, 3\), got 5"):
        sampling.stop_sequences([[5]], 3)


def test_a_callback_that_forbids_every_class_is_named_and_under_jit_nan():
    model, params = enumerable.make()

    def callback(logits, state):
        """Nothing may follow the second event of the second sequence."""
        forbidden = (state.position == 2) & (jnp.arange(2) == 1)
        return jnp.where(forbidden[:, None], -jnp.inf, logits)

    def draw(key, sampler=grnn_jax.sample, **settings):
        return sampler(model, params, key, 2, 4, logits_callback=callback, **settings)

    key, message = jax.random.key(0), "logits_callback must leave .* for sequence 1, event 2"
    with pytest.raises(ValueError, match=message):
        draw(key)
    with pytest.raises(ValueError, match=message):
        draw(key, sampling.sample_many, num_rows=2)
    with pytest.raises(ValueError, match=message):
        list(sampling.stream(model, params, key, 2, 4, logits_callback=callback))
    samples = jax.jit(draw)(key)
    plain = grnn_jax.sample(model, params, key, 2, 4)
    np.testing.assert_array_equal(samples.events[0], plain.events[0])
    np.testing.assert_array_equal(samples.events[1], [*plain.events[1, :2], -1, 0])
    np.testing.assert_array_equal(np.isnan(samples.log_probs), samples.events == -1)
    assert samples.mask[1].tolist() == [True, True, True, False]
