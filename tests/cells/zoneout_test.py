"""Zoneout: its expectation, its masks, and that engines and structures stay what they were."""

import dataclasses

import cell_oracles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import perturb

from grnn_jax import cells, event_log_probs, unroll, workdir
from grnn_jax.config import Config
from grnn_jax.data import Batch, build_codec
from grnn_jax.optimizer import make_optimizer
from grnn_jax.recurrence import supported_engines
from grnn_jax.recurrence.dropout import dropout_index
from grnn_jax.training import init_train_state, make_train_step

B, T, X, H = 2, 9, 3, 4


def case(name, seed=0):
    cell = cells.CELLS[name](H)
    params = perturb(cell.init(jax.random.key(seed), X), seed)
    rng = np.random.default_rng(seed)
    reset = np.zeros((B, T), bool)
    reset[0, 4] = True
    return cell, params, jnp.float32(rng.normal(size=(B, T, X))), jnp.asarray(reset)


def run(cell, params, inputs, reset, engine, key=None, chunk_size=None):
    """Outputs and last state, with gradients of a function of them."""

    def loss(params, inputs):
        state = cell.initial_state(params, B)
        outputs, last = unroll(
            cell, params, inputs, state, reset=reset, engine=engine, key=key, chunk_size=chunk_size
        )
        return (outputs**2).sum() + (jnp.abs(last[-1]) ** 2).sum(), (outputs, last)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, inputs)


@pytest.mark.parametrize(("name", "rate"), [("lstm", (0.3, 0.6)), ("lru", 0.4)])
def test_evaluation_mixes_old_and_new_by_the_expected_rate(name, rate):
    cell, params, inputs, reset = case(name)
    (_, (outputs, _)), _ = run(cells.zoneout(cell, rate), params, inputs, reset, "scan")
    rates = rate if isinstance(rate, tuple) else (rate,)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    initial = state = tuple(np.zeros((B, H)) for _ in rates)
    for t in range(T):
        x = np.asarray(inputs[:, t], np.float64)
        rows = np.asarray(reset)[:, t, None]
        state = tuple(np.where(rows, i, s) for i, s in zip(initial, state, strict=True))
        new = cell_oracles.STEPS[name](params, state, x)
        state = tuple(k * a + (1 - k) * b for k, a, b in zip(rates, state, new, strict=True))
        expected = cell_oracles.OUTPUTS.get(name, lambda _, state, x: state[0])(params, state, x)
        np.testing.assert_allclose(outputs[:, t], expected, rtol=1e-4, atol=1e-5)


def test_training_keeps_units_at_random_and_computes_the_others():
    width, length, rate = 32, 60, 0.3
    cell = cells.gru(width)
    params = cell.init(jax.random.key(0), X)
    inputs = jnp.float32(np.random.default_rng(0).normal(size=(B, length, X)))
    outputs, _ = unroll(
        cells.zoneout(cell, rate), params, inputs, cell.initial_state(params, B),
        key=jax.random.key(1),
    )  # fmt: skip
    before = jnp.concatenate([jnp.zeros_like(outputs[:, :1]), outputs[:, :-1]], 1)
    kept = np.asarray(outputs == before)
    assert abs(kept.mean() - rate) < 0.02
    assert abs((kept[:, 1:] & kept[:, :-1]).mean() - rate**2) < 0.02  # A new mask for each step,
    assert abs((kept[0] & kept[1]).mean() - rate**2) < 0.03  # and for each row.
    step = jax.vmap(lambda state, x: cell.step(params, (state,), cell.project(params, x))[1], 1, 1)
    np.testing.assert_allclose(
        outputs, jnp.where(kept, before, step(before, inputs)), rtol=1e-5, atol=1e-6
    )


def test_every_array_of_the_state_has_its_own_mask():
    cell, params, inputs, _ = case("lstm")
    wrapped = cells.zoneout(cell, (0.0, 0.5))
    projected = wrapped.project(params, jnp.swapaxes(inputs, 0, 1))
    index = dropout_index(B, T, None).of_steps()
    drawn = wrapped.perturb(jax.random.key(0), projected, index)
    np.testing.assert_array_equal(drawn[..., : 4 * H], projected[..., : 4 * H])
    assert (drawn[..., 4 * H : 5 * H] == 0).all()
    assert set(np.unique(drawn[..., 5 * H :])) == {0, 1}
    both = cells.zoneout(cell, 0.5).perturb(jax.random.key(0), projected, index)
    assert (both[..., 4 * H : 5 * H] != both[..., 5 * H :]).any()


@pytest.mark.parametrize("name", ["lstm", "diagonal_gru", "lru"])
def test_engines_and_chunks_equal_scan_with_masks(name):
    cell, params, inputs, reset = case(name)
    wrapped, key = cells.zoneout(cell, 0.4), jax.random.key(3)
    assert supported_engines(wrapped) == supported_engines(cell)
    expected = run(wrapped, params, inputs, reset, "scan", key)
    actual = run(wrapped, params, inputs, reset, supported_engines(cell)[1], key, chunk_size=4)
    for found, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["slstm", "min_gru", "multiplicative_rnn"])
def test_rate_0_is_the_cell_itself(name):
    cell, params, inputs, _ = case(name)
    wrapped = cells.zoneout(cell, 0.0)
    projected = wrapped.project(params, inputs[:, :3])
    index = dropout_index(3, B, None).of_steps()
    drawn = wrapped.perturb(jax.random.key(0), projected, index)
    # Op by op: compiled as a whole the same operations may be contracted otherwise.
    for seen in (projected, drawn):
        state = expected_state = cell.initial_state(params, B)
        for t in range(3):
            state, output = wrapped.step(params, state, seen[:, t])
            own = cell.project(params, inputs[:, :3])[:, t]
            expected_state, expected = cell.step(params, expected_state, own)
            jax.tree.map(np.testing.assert_array_equal, (state, output), (expected_state, expected))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\), got 1"):
        cells.zoneout(cells.lstm(4), 1.0)
    with pytest.raises(ValueError, match="rate must be one number or 2, got 3"):
        cells.zoneout(cells.lstm(4), (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="cell must be a single layer, got a stack"):
        cells.zoneout(cells.stack([cells.lstm(4)]), 0.1)


def test_the_flag_acts_in_training_alone(tmp_path):
    (tmp_path / "t.txt").write_text("an old cat\n" * 20)
    config = Config(data=str(tmp_path / "t.txt"), hidden_size=4, batch_size=2, sequence_length=5)
    codec, events = build_codec("chars", ["an old cat"]), np.arange(10).reshape(2, 5) % 7
    batch = Batch(events, np.ones((2, 5), bool), np.eye(2, 5, dtype=bool))
    config = dataclasses.replace(config, zoneout=0.5, optimizer="sgd", schedule="constant")
    model, optimizer = workdir.build_model(config, codec), make_optimizer(config)
    state = init_train_state(model, optimizer, config)
    scored = -event_log_probs(model, state.params, state.carry, batch)[0].mean()
    again = -event_log_probs(model, state.params, state.carry, batch)[0].mean()
    assert scored == again
    step = jax.jit(make_train_step(model, optimizer, config))
    trained = [step(state.replace(step=jnp.int32(n)), batch)[1]["loss"] for n in (0, 1)]
    assert len({round(float(loss), 6) for loss in (scored, *trained)}) == 3


def test_a_sitewise_cell_is_refused():
    with pytest.raises(ValueError, match="cell must not be sitewise"):
        cells.zoneout(cells.sitewise_lstm(6, num_sites=3), 0.1)
