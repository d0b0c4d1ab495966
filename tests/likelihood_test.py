"""Exactness: enumeration, causality, resets, padding, conditioning, units."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import CELLS, perturb, random_like, to_numpy

import grnn_jax
from grnn_jax import cells, distributions, event_log_probs, likelihood, make_model


def small_model(name="lstm", num_classes=3, end=None, **settings):
    cell = CELLS[name]()
    distribution = distributions.categorical(num_classes, embedding_size=4, end=end)
    model = make_model(cell, distribution, **settings)
    return model, random_like(model.init, jax.random.key(0))


score = jax.jit(grnn_jax.log_prob, static_argnums=0)


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("name", sorted(CELLS))
def test_probabilities_of_all_sequences_sum_to_one(name, engine):
    """Σ over sequences that end within L + P(longer than L) = 1, in float64."""
    end, longest = 2, 5
    with jax.enable_x64(True):
        model, params = small_model(name, num_classes=3, end=end, engine=engine)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        unfinished = list(itertools.product([0, 1], repeat=longest))
        finished = [
            [*word, end]
            for length in range(longest)
            for word in itertools.product([0, 1], repeat=length)
        ]
        padded = np.array([word + [0] * (longest - len(word)) for word in finished])
        mask = np.arange(longest) < np.array([[len(word)] for word in finished])
        events = np.concatenate([padded, unfinished])
        mask = np.concatenate([mask, np.ones((len(unfinished), longest), bool)])
        probability = np.exp(score(model, params, events, mask))
        assert probability.dtype == np.float64
        longer = probability[len(finished) :].sum()
        assert longer > 1e-4
        np.testing.assert_allclose(probability.sum(), 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_log_prob_equals_a_numpy_loop(name):
    """The whole way: start input, shift, cell, softmax, sum; tied embeddings too."""
    for tied in (False, True):
        model = make_model(
            cells.CELLS[name](6), distributions.categorical(5, embedding_size=6, tied=tied)
        )
        params = random_like(model.init, jax.random.key(0))
        events = np.random.default_rng(0).integers(0, 5, (4, 8))
        mask = np.arange(8) < np.array([8, 5, 1, 3])[:, None]
        weights = to_numpy(params)
        output = weights["distribution"]
        kernel = output["embedding"].T if tied else output["kernel"]
        expected = np.zeros(4)
        for row in range(4):
            state = oracles.initial_state({}, 2 if name == "lstm" else 1, 1, 6)
            entering = weights["start"][None]
            for t in range(mask[row].sum()):
                state = oracles.STEPS[name](weights["cell"], state, entering)
                log_p = oracles.log_softmax(state[0] @ kernel + output["bias"])
                expected[row] += log_p[0, events[row, t]]
                entering = output["embedding"][events[row, t]][None]
        actual = score(model, params, events, mask)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("name", sorted(CELLS))
def test_causality_through_gradients(name, engine):
    """log p(x_{t+1} | x_≤t) depends on the inputs up to t and not on later ones."""
    model, params = small_model(name, engine=engine)
    length = 6
    reset = np.zeros((1, length), bool)
    reset[0, 4] = True
    events = jnp.asarray([[0, 2, 1, 1, 0, 2]])

    def event_nats(encodings):
        """Row t of `encodings` is added to what enters the network at step t."""
        hidden, _ = grnn_jax.unroll(
            model.cell,
            params["cell"],
            encodings,
            model.initial_state(params, 1).cell_state,
            reset=jnp.asarray(reset),
            engine=engine,
        )
        return model.distribution.log_prob(params["distribution"], hidden, events)[0]

    encodings = jnp.float32(np.random.default_rng(0).normal(size=(1, length, 4)))
    jacobian = np.abs(jax.jit(jax.jacrev(event_nats))(encodings)[:, 0]).sum(-1)  # [event, input]
    for event, entering in itertools.product(range(length), range(length)):
        same_sequence = (event >= 4) == (entering >= 4)
        if entering <= event and same_sequence:
            assert jacobian[event, entering] > 0
        else:
            assert jacobian[event, entering] == 0


@pytest.mark.optimized
def test_an_event_is_not_predicted_from_itself_or_later_ones():
    model, params = small_model("gru", num_classes=5)
    rng = np.random.default_rng(0)
    events = rng.integers(0, 5, (2, 7))
    carry = model.initial_state(params, 2)
    mask, reset = np.ones((2, 7), bool), np.zeros((2, 7), bool)
    nats = jax.jit(lambda events: event_log_probs(model, params, carry, (events, mask, reset))[0])
    base = nats(events)
    for t in range(7):
        changed = events.copy()
        changed[:, t] = (changed[:, t] + 1) % 5
        other = nats(changed)
        np.testing.assert_array_equal(base[:, :t], other[:, :t])
        assert (np.asarray(base[:, t:]) != np.asarray(other[:, t:])).all()


@pytest.mark.parametrize("name", sorted(CELLS))
def test_packed_sequences_equal_separate_ones(name):
    """Nothing crosses a reset, whatever the carry was."""
    model, params = small_model(name, num_classes=5)
    rng = np.random.default_rng(0)
    lengths = [3, 1, 3]
    parts = [rng.integers(0, 5, (1, length)) for length in lengths]
    packed = np.concatenate(parts, 1)
    reset = np.zeros(packed.shape, bool)
    reset[0, [0, 3, 4]] = True
    dirty = perturb(model.initial_state(params, 1).cell_state, scale=2.0)
    carry = grnn_jax.Carry(dirty, jnp.asarray([4]), jnp.asarray([True]))
    batch = (jnp.asarray(packed), jnp.ones(packed.shape, bool), jnp.asarray(reset))
    nats, _ = jax.jit(event_log_probs, static_argnums=0)(model, params, carry, batch)
    pieces = np.split(np.asarray(nats[0]), np.cumsum(lengths)[:-1])
    for part, piece in zip(parts, pieces, strict=True):
        expected = score(model, params, jnp.asarray(part))[0]
        np.testing.assert_allclose(piece.sum(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_windows_with_the_carry_equal_one_long_window(name):
    model, params = small_model(name, num_classes=5)
    events = np.random.default_rng(0).integers(0, 5, (3, 9))
    mask, reset = np.ones((3, 9), bool), np.zeros((3, 9), bool)
    reset[1, 5] = True
    carry = model.initial_state(params, 3)
    run = jax.jit(event_log_probs, static_argnums=0)
    whole, last = run(model, params, carry, (events, mask, reset))
    pieces = []
    for window in (slice(0, 4), slice(4, 5), slice(5, 9)):
        batch = (events[:, window], mask[:, window], reset[:, window])
        nats, carry = run(model, params, carry, batch)
        pieces.append(nats)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, rtol=1e-5, atol=1e-6)
    for actual, expected in zip(jax.tree.leaves(carry), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("name", ["lstm", "gru_heads", "stack_residual_norm"])
@pytest.mark.optimized
def test_padding_has_exactly_zero_effect(name, engine):
    """Bit for bit the same numbers and gradients, whatever stands in the padding."""
    model, params = small_model(name, num_classes=5, engine=engine)
    rng = np.random.default_rng(0)
    mask = np.arange(9) < np.array([9, 4, 1, 4])[:, None]
    events = rng.integers(0, 5, (4, 9))

    @jax.jit
    def value_and_gradient(params, events):
        def loss(params):
            nats = grnn_jax.log_prob(model, params, events, mask)
            return nats.sum(), nats

        return jax.value_and_grad(loss, has_aux=True)(params)

    expected = value_and_gradient(params, events)
    other = np.where(mask, events, rng.integers(0, 5, events.shape))
    actual = value_and_gradient(params, other)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)

    (_, together), _ = expected
    alone = [score(model, params, events[r : r + 1, : mask[r].sum()])[0] for r in (1, 2, 3)]
    np.testing.assert_allclose(together[1:], alone, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 5, 8])
def test_chunks_change_nothing(chunk_size):
    model, params = small_model("stack", num_classes=5)
    events = jnp.asarray(np.random.default_rng(0).integers(0, 5, (3, 8)))
    batch = (events, jnp.ones((3, 8), bool), jnp.zeros((3, 8), bool).at[0, 3].set(True))
    expected = value_and_gradient(model, params, batch)
    actual = value_and_gradient(model._replace(chunk_size=chunk_size), params, batch)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout_per", ["step", "sequence"])
def test_rows_of_a_batch_draw_the_masks_of_the_whole_batch(dropout_per):
    cell = cells.stack(
        [cells.sitewise(cells.zoneout(cells.lstm(2), 0.5), 3, input_window=1), cells.gru(4)],
        dropout=0.5,
        dropout_per=dropout_per,
        recurrent_dropout=0.5,
    )
    model = make_model(cell, distributions.bernoulli(3))
    params = random_like(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    events = rng.integers(0, 2, (4, 6, 3)).astype(np.uint8)
    mask, reset = np.ones((4, 6), bool), rng.random((4, 6)) < 0.3
    key = jax.random.key(1)

    @jax.jit
    def log_probs(events, mask, reset, first_row):
        carry = model.initial_state(params, len(events))
        batch = events, mask, reset
        return event_log_probs(model, params, carry, batch, key=key, first_row=first_row)[0]

    whole = log_probs(events, mask, reset, 0)
    for first in (0, 2):
        part = slice(first, first + 2)
        rows = log_probs(events[part], mask[part], reset[part], first)
        np.testing.assert_allclose(rows, whole[part], rtol=1e-5, atol=1e-6)
    assert not np.allclose(log_probs(events[2:], mask[2:], reset[2:], 0), whole[2:])


def test_conditioning_moves_the_initial_state():
    cell = cells.stack([cells.lstm(4, learned_initial_state=True), cells.gru(3)])
    model = make_model(cell, distributions.categorical(5), conditioning_size=2)
    params = random_like(model.init, jax.random.key(0))
    vectors = jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
    carry = model.initial_state(params, 2, vectors)
    kernels = to_numpy(params["conditioning"])
    learned = to_numpy(params["cell"]["layer_0"]["initial_state"])
    for index, base in enumerate([learned[0], learned[1], np.zeros(3)]):
        leaf = jax.tree.leaves(carry.cell_state)[index]
        np.testing.assert_allclose(leaf[0], base + kernels[f"kernel_{index}"][0], rtol=1e-5)
        np.testing.assert_allclose(leaf[1], base, rtol=1e-5)
    events = np.zeros((2, 3), int)
    nats = score(model, params, events, conditioning=vectors)
    assert nats[0] != nats[1]
    with pytest.raises(ValueError, match="conditioning must have size 2"):
        grnn_jax.log_prob(model, params, events)
    with pytest.raises(ValueError, match=r"must have shape \(2, 2\), got \(2, 3\)"):
        grnn_jax.log_prob(model, params, events, conditioning=jnp.zeros((2, 3)))


def test_conditioning_moves_both_parts_of_a_complex_state():
    model = make_model(cells.lru(4), distributions.categorical(5), conditioning_size=2)
    params = model.init(jax.random.key(0))
    (state,) = model.initial_state(params, 1, jnp.asarray([[1.0, 0.0]])).cell_state
    expected = params["conditioning"]["kernel_0"][0]
    np.testing.assert_allclose(jnp.concatenate([state[0].real, state[0].imag]), expected)


def test_a_reset_restores_the_conditioned_state():
    model = make_model(cells.gru(4), distributions.categorical(5), conditioning_size=2)
    params = random_like(model.init, jax.random.key(0))
    vector = jnp.asarray([[0.7, -1.0]])
    part = np.array([[1, 2, 3]])
    expected = score(model, params, part, conditioning=vector)[0]
    reset = np.arange(6)[None] == 3
    batch = (np.tile(part, 2), np.ones((1, 6), bool), reset)
    carry = model.initial_state(params, 1, vector)
    run = jax.jit(event_log_probs, static_argnums=0)
    nats, _ = run(model, params, carry, batch, conditioning=vector)
    np.testing.assert_allclose(nats[0, :3].sum(), expected, rtol=1e-5)
    np.testing.assert_allclose(nats[0, 3:].sum(), expected, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(model, params, batch):
    def loss(params):
        carry = model.initial_state(params, len(batch[1]))
        return event_log_probs(model, params, carry, batch)[0].sum()

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("elman", "float32", (3, 6)),
        ("elman", "bfloat16", (1, 8)),
        ("lstm", "float32", (2, 1)),
        ("lstm", "bfloat16", (4, 7)),
        ("gru", "float32", (2, 9)),
        ("gru", "bfloat16", (1, 1)),
    ],
)
@pytest.mark.optimized
def test_engines_agree_for_any_mask_and_reset(name, dtype, shape):
    """Each shape is compiled anew, values are not."""
    distribution = distributions.categorical(5, embedding_size=4, dtype=dtype)
    model = make_model(cells.CELLS[name](6, dtype=dtype), distribution)
    scan, fused = (model._replace(engine=engine) for engine in ("scan", "fused"))
    rtol, relative = (1e-5, 1e-5) if dtype == "float32" else (1e-3, 0.02)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        batch = (rng.integers(0, 5, shape), rng.random(shape) < 0.7, rng.random(shape) < 0.3)
        params = random_like(model.init, jax.random.key(0), seed=seed)
        (value, gradient), found = (value_and_gradient(m, params, batch) for m in (scan, fused))
        np.testing.assert_allclose(found[0], value, rtol=rtol)
        for a, b in zip(*map(jax.tree.leaves, (found[1], gradient)), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=relative * np.abs(b).max() + 1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
@pytest.mark.optimized
def test_narrow_event_dtypes_change_nothing(dtype):
    """A file's uint8 tokens of 256 classes leave no room for the start input's row."""
    model = make_model(cells.gru(4), distributions.categorical(256, embedding_size=4))
    params = random_like(model.init, jax.random.key(0))
    events = np.random.default_rng(0).integers(0, 256, (2, 5))
    expected = grnn_jax.log_prob(model, params, events)
    actual = grnn_jax.log_prob(model, params, events.astype(dtype))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.optimized
def test_a_token_outside_the_classes_is_nan_under_jit_and_padding_is_not():
    model, params = small_model("gru", num_classes=5)
    events = jnp.asarray([[0, 7, 1], [0, 1, -1]])
    mask = jnp.asarray([[True, True, True], [True, True, False]])
    nats = jax.jit(lambda events: grnn_jax.log_prob(model, params, events, mask))(events)
    assert np.isnan(nats[0])
    assert np.isfinite(nats[1])


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0, 0)])
@pytest.mark.optimized
def test_no_events_have_probability_one_and_no_rows_no_number(name, shape):
    family = getattr(distributions, name)(3)
    model = make_model(cells.gru(2), family, skip_input=True, chunk_size=2)
    params = model.init(jax.random.key(0))
    events = np.zeros((*shape, *family.event.shape), family.event.dtype)

    def total(params):
        nats = grnn_jax.log_prob(model, params, events)
        return nats.sum(), nats

    (_, nats), gradient = jax.value_and_grad(total, has_aux=True)(params)
    np.testing.assert_array_equal(nats, np.zeros(shape[0], np.float32), strict=True)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    batch = events, np.ones(shape, bool), np.zeros(shape, bool)
    carry = model.initial_state(params, shape[0])
    nats, after = event_log_probs(model, params, carry, batch)
    assert nats.shape == shape
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, carry)


def test_units():
    assert likelihood.bits(math.log(8)) == pytest.approx(3)
    assert likelihood.perplexity(math.log(65)) == pytest.approx(65)
    assert likelihood.perplexity(1e6) == math.inf


@pytest.mark.parametrize(
    ("events", "mask", "message"),
    [
        (np.array([[0, 5]]), None, r"events must be classes in \[0, 5\), got 5"),
        (np.array([[0, -1]]), None, r"events must be classes in \[0, 5\), got -1"),
        (np.array([0, 1]), None, r"events must have axes \[B, T, ...\], got shape \(2,\)"),
        (np.array([[0.5, 1]]), None, "events must be integers, got dtype float"),
        (np.array([[0, 1]]), np.ones((1, 3), bool), r"mask must have the shape \(1, 2\)"),
        (np.array([[0, 1]]), np.array([[False, True]]), "mask must be True for the first events"),
    ],
)
def test_wrong_events_are_named(events, mask, message):
    model, params = small_model("lstm", num_classes=5)
    with pytest.raises(ValueError, match=message):
        grnn_jax.log_prob(model, params, events, mask)
