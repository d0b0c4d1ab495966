"""p(x | c): against a loop in NumPy, packed and cut, in every engine; samples by enumeration."""

import enumerable
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import assert_trees_close, random_like, to_numpy

import grnn_jax
from grnn_jax import Batch, cells, distributions, event_log_probs, sampling

score = jax.jit(grnn_jax.log_prob, static_argnums=0)
nan = np.nan
KINDS = {"class and number": (3, 0), "classes": (3, 2), "few classes": (2, 1), "number": (0,)}
"""Of few classes each combination has a row of a table, see `of_segments`."""
GIVEN = {
    "class and number": np.array([[0, 0.5], [2, -1.5], [nan, 2], [1, nan], [0, 0]]),
    "classes": np.array([[0, 1], [2, 0], [nan, 1], [1, nan], [0, 0]]),
    "few classes": np.array([[0, 0], [1, nan], [nan, 0], [1, 0], [0, nan]]),
    "number": np.array([[0.5], [-1.5], [nan], [0], [3]]),
}
LENGTHS = [3, 1, 4, 2, 5]


def make(cell, kinds=(3, 0), enters="both", end=None, **settings):
    family = distributions.categorical(4, embedding_size=3, end=end)
    model = grnn_jax.make_model(cell, family, conditions=kinds, condition_enters=enters, **settings)
    return model, random_like(model.init, jax.random.key(0), scale=0.6)


def sequences(seed=0):
    """Events padded to the longest sequence, and their mask."""
    events = np.random.default_rng(seed).integers(0, 4, (len(LENGTHS), max(LENGTHS)))
    return events, np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]


def packed(given):
    """The same sequences, the first three in one row and the others in another."""
    events, mask = sequences()
    parts = [events[row][mask[row]] for row in range(len(LENGTHS))]
    rows = [np.concatenate(parts[:3]), np.append(np.concatenate(parts[3:]), 0)]
    reset = np.zeros((2, 8), bool)
    reset[0, [0, 3, 4]] = reset[1, [0, 2]] = True
    scored = np.ones((2, 8), bool)
    scored[1, 7] = False
    nothing = np.full_like(given[0], 0)  # No sequence goes on from before.
    conditions = np.stack([[nothing, *given[:3]], [nothing, *given[3:], nothing]])
    return Batch(np.stack(rows), scored, reset, np.float32(conditions))


def of_sequences(nats):
    """The sum of each packed sequence."""
    nats = np.asarray(nats)
    sums = [np.add.reduceat(nats[0], [0, 3, 4]), np.add.reduceat(nats[1], [0, 2])]
    return np.concatenate(sums)


def numpy_log_prob(params, kinds, enters, given, events):
    """One sequence of a GRU step by step; what is given is added to the bias of its gates."""
    p, total = to_numpy(params), 0.0

    def added(part):
        tables = p["conditions"][part]
        return sum(
            tables[f"table_{i}"][-1 if np.isnan(c) else int(c)]
            if size
            else (tables[f"table_{i}"][1] if np.isnan(c) else c * tables[f"table_{i}"][0])
            for i, (size, c) in enumerate(zip(kinds, given, strict=True))
        )

    state, x = oracles.initial_state({}, 1, 1, 5), p["start"][None]
    for t, event in enumerate(events):
        bias = p["cell"]["bias"].copy()
        if enters != "start":
            bias += added("steps")
        if enters != "steps" and t == 0:
            bias += added("start")
        state = oracles.gru_step(p["cell"] | {"bias": bias}, state, x)
        family = p["distribution"]
        total += oracles.log_softmax(state[0] @ family["kernel"] + family["bias"])[0, event]
        x = family["embedding"][event][None]
    return total


@pytest.mark.parametrize(
    ("name", "enters"), [*((name, "both") for name in KINDS), ("few classes", "steps"),
                         ("class and number", "start")],
)  # fmt: skip
def test_log_prob_equals_a_loop_in_numpy_padded_and_packed(name, enters):
    kinds, given = KINDS[name], GIVEN[name]
    model, params = make(cells.gru(5), kinds, enters)
    events, mask = sequences()
    expected = [
        numpy_log_prob(params, kinds, enters, c, row[real])
        for c, row, real in zip(given, events, mask, strict=True)
    ]
    np.testing.assert_allclose(
        score(model, params, events, mask, conditions=np.float32(given)), expected, rtol=1e-5
    )
    carry = model.initial_state(params, 2)
    nats, _ = jax.jit(event_log_probs, static_argnums=0)(model, params, carry, packed(given))
    np.testing.assert_allclose(of_sequences(nats), expected, rtol=1e-5)


CASES = [
    ("lstm", "fused", None), ("gru", "fused_recompute", 3), ("min_gru", "linear", None),
    ("lstm", "packed", 3),
    ("ind_rnn", "newton", None), ("mogrifier_lstm", "scan", None), ("stack", "auto", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "engine", "chunk_size"), CASES)
def test_every_engine_agrees_with_single_sequences_in_value_and_gradient(name, engine, chunk_size):
    """Packed and cut in two windows, the second of which goes on with a sequence of the first."""
    cell = cells.stack([cells.gru(4), cells.lstm(4)]) if name == "stack" else cells.CELLS[name](4)
    given = np.float32(GIVEN["class and number"])
    model, params = make(cell, engine=engine, chunk_size=chunk_size)
    single, _ = make(cell, engine="scan")
    events, mask = sequences()
    weights = np.random.default_rng(1).normal(size=len(LENGTHS))
    batch = packed(given)
    of_step = np.cumsum(batch.reset, 1)
    weight_of_step = np.stack([weights[of_step[0] - 1], weights[2 + of_step[1]]])

    def loss(params, given):
        nats = grnn_jax.log_prob(single, params, events, mask, conditions=given)
        return (nats * weights).sum()

    def windows(params, given):
        rows = given[np.array([[0, 0, 1, 2], [3, 3, 4, 4]])]
        # The second window begins inside of sequences 2 and 4 (from 0), which its rows begin with.
        second = jnp.stack([given[2:3], given[4:5]])
        carry, total = model.initial_state(params, 2), 0.0
        for part, conditions in ((slice(0, 5), rows), (slice(5, 8), second)):
            window = Batch(*(leaf[:, part] for leaf in batch[:3]), conditions)
            nats, carry = event_log_probs(model, params, carry, window)
            total += (nats * weight_of_step[:, part]).sum()
        return total

    both = [
        jax.jit(jax.value_and_grad(function, argnums=(0, 1), allow_int=True))(
            params, jnp.where(jnp.isnan(given), 1, given)
        )
        for function in (windows, loss)
    ]
    assert_trees_close(*both, rtol=2e-4, atol=2e-5)
    assert np.abs(both[0][1][1][:, 1]).min() > 0  # The gradient of every number that is given.


def test_every_site_is_given_the_same():
    """The conditions of a sitewise cell, added to the bias of the cell that all sites share."""
    cell = cells.sitewise_gru(8, num_sites=4, input_window=1)
    family = distributions.sitewise_bernoulli(4)
    model = grnn_jax.make_model(cell, family, conditions=(2,))
    params = random_like(model.init, jax.random.key(0))
    events = np.random.default_rng(0).integers(0, 2, (3, 5, 4)).astype(np.uint8)
    reset = np.zeros((3, 5), bool)
    plain = grnn_jax.make_model(cell, family)
    table = params["conditions"]["steps"]["table_0"]
    assert table.shape == (3, 6)
    (name,) = [n for n in params["cell"] if n.endswith("bias") and params["cell"][n].shape == (6,)]
    for row, c in enumerate([1, 0, nan]):
        cell_params = params["cell"] | {name: params["cell"][name] + table[[1, 0, 2][row]]}
        without = {k: v for k, v in params.items() if k != "conditions"} | {"cell": cell_params}
        expected = score(plain, without, events[row : row + 1])
        one = score(model, params, events[row : row + 1], conditions=np.float32([c]))
        np.testing.assert_allclose(one, expected, rtol=1e-5)
    batch = Batch(events, ~reset, reset, np.float32([[[1]], [[0]], [[nan]]]))
    nats, _ = event_log_probs(model, params, model.initial_state(params, 3), batch)
    again = score(model, params, events, conditions=np.float32([[1], [0], [nan]]))
    np.testing.assert_allclose(nats.sum(1), again, rtol=1e-5)


def test_gradients_are_those_of_differences():
    with jax.enable_x64(True):
        model, params = make(cells.gru(5))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        events, mask = sequences()
        given = np.float32(GIVEN["class and number"])

        def nats(tables):
            return score(model, params | {"conditions": tables}, events, mask, conditions=given)

        tables = params["conditions"]
        direction = random_like(lambda: tables, seed=3)
        found = jax.grad(lambda t: nats(t).sum())(tables)
        along = sum(
            float((a * b).sum())
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(direction), strict=True)
        )
        ends = [
            nats(jax.tree.map(lambda t, d: t + s * d, tables, direction)).sum()  # noqa: B023
            for s in (1e-4, -1e-4)
        ]
        np.testing.assert_allclose(along, (ends[0] - ends[1]) / 2e-4, rtol=1e-6)


def test_samples_of_each_row_have_the_frequencies_of_its_condition():
    model, params = make(cells.gru(5), end=3)
    words = enumerable.sequences(4, 3, end=3)
    events, mask = enumerable.padded(words, 3)
    given, count = np.float32([[0, 1.5], [2, nan]]), 1500
    rows = np.repeat(given, count, 0)
    key, prefix = jax.random.key(1), np.array([1, 0])
    drawn = sampling.sample(model, params, key, 2 * count, 3, conditions=rows, prefix=prefix)
    many = sampling.sample_many(
        model, params, key, 2 * count, 3, conditions=rows, prefix=prefix, num_rows=700
    )
    np.testing.assert_array_equal(drawn.events, many.events)
    np.testing.assert_allclose(drawn.log_probs, many.log_probs, rtol=1e-5, atol=1e-6)
    head = np.tile(prefix, (len(words), 1))
    whole = np.concatenate([head, events], 1)
    real = np.concatenate([np.ones_like(head, bool), mask], 1)
    for row, c in enumerate(given):
        nats = score(model, params, whole, real, conditions=c)
        # Words that reach the length without an end stand for all that begin so.
        own = enumerable.words_of(drawn)[row * count : (row + 1) * count]
        enumerable.assert_frequencies(own, words, np.exp(np.float64(nats)))


def test_searches_and_constraints_are_given_conditions():
    model, params = make(cells.gru(5), end=3)
    words = enumerable.sequences(4, 3, end=3)
    events, mask = enumerable.padded(words, 3)
    given = np.float32([[0, 2.5], [2, nan]])
    beams = sampling.beam_search(
        model, params, beam_width=64, length=3, conditions=given, batch_size=2
    )
    for row, c in enumerate(given):
        nats = np.asarray(score(model, params, events, mask, conditions=c))
        best = words[int(nats.argmax())]
        found = tuple(np.asarray(beams.events[row, 0])[: len(best)].tolist())
        assert found == best
        constraint = sampling.make_constraint(model, sampling.template([1, sampling.FREE], 4), 3)
        # The words [1, k, end] with k of three.
        scored = sampling.score_prefixes(model, params, constraint, conditions=c)
        np.testing.assert_allclose(
            scored.log_probs,
            score(model, params, np.asarray(scored.words), conditions=c),
            rtol=1e-5,
        )
        drawn = scored.sample(jax.random.key(0), 4)
        again = score(model, params, drawn.events, drawn.mask, conditions=c)
        np.testing.assert_allclose(drawn.log_probs.sum(1), again, rtol=1e-5)


def test_a_continued_sample_keeps_its_condition():
    model, params = make(cells.gru(5))
    given = np.float32([[0, 2.5], [2, nan]])
    key = jax.random.key(2)
    whole = sampling.sample(model, params, key, 2, 6, conditions=given)
    first = sampling.sample(model, params, key, 2, 2, conditions=given)
    kept = sampling.from_arrays(sampling.to_arrays(first.state))
    rest = sampling.extend(model, params, kept, 4)
    np.testing.assert_array_equal(whole.events[:, 2:], rest.events)


def test_other_parameters_are_drawn_as_without_conditions():
    model, _ = make(cells.gru(5))
    plain = grnn_jax.make_model(cells.gru(5), model.distribution)
    params, without = model.init(jax.random.key(3)), plain.init(jax.random.key(3))
    del params["conditions"]
    jax.tree.map(np.testing.assert_array_equal, params, without)


def test_what_is_not_given_or_is_no_condition_is_named():
    model, params = make(cells.gru(5))
    events = np.zeros((2, 3), np.int32)
    with pytest.raises(ValueError, match="conditions must be given to a model with conditions"):
        grnn_jax.log_prob(model, params, events)
    with pytest.raises(ValueError, match=r"conditions must have shape \(2, 2\), got \(2, 3\)"):
        grnn_jax.log_prob(model, params, events, conditions=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"conditions\[..., 0\] must be classes in \[0, 3\)"):
        grnn_jax.log_prob(model, params, events, conditions=np.array([[3.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match=r"conditions\[..., 1\] must be finite numbers"):
        grnn_jax.sample(model, params, jax.random.key(0), 2, 3, conditions=np.array([0, np.inf]))
    with pytest.raises(ValueError, match="conditions must be given to a model with conditions"):
        grnn_jax.sample(model, params, jax.random.key(0), 2, 3)
    plain = grnn_jax.make_model(cells.gru(5), model.distribution)
    without = {name: leaf for name, leaf in params.items() if name != "conditions"}
    with pytest.raises(ValueError, match="conditions must be None for a model without"):
        grnn_jax.log_prob(plain, without, events, conditions=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="condition_enters must be one of"):
        make(cells.gru(5), enters="never")
    with pytest.raises(ValueError, match="conditions must be numbers of classes"):
        make(cells.gru(5), kinds=(-1,))
    # Under jit values are unknown: what is no class, or was not given, is NaN.
    wrong = score(model, params, events, conditions=np.array([[3.0, 0], [0, 0]]))
    assert np.isnan(wrong[0]) and np.isfinite(wrong[1])
    batch = packed(np.float32(GIVEN["class and number"]))
    few = batch._replace(conditions=batch.conditions[:, :2])
    nats, _ = event_log_probs(model, params, model.initial_state(params, 2), few)
    assert np.isfinite(nats[:, :2]).all()
    np.testing.assert_array_equal(np.isnan(nats[0]), np.arange(8) >= 3)
