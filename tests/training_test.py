"""One training step against what it is made of."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import grnn_jax
from grnn_jax import cells, distributions
from grnn_jax.config import Config
from grnn_jax.data import Batch
from grnn_jax.optimizer import make_optimizer
from grnn_jax.sharding import make_mesh
from grnn_jax.training import (
    init_train_state,
    make_eval_step,
    make_train_step,
    train_state_shardings,
    update_average,
)

CONFIG = Config(
    hidden_size=8, batch_size=3, sequence_length=5, learning_rate=0.1, schedule="constant"
)


@functools.cache
def make_parts(config=CONFIG, dropout=0.0):
    cell = cells.stack([cells.lstm(config.hidden_size)], dropout=dropout)
    model = grnn_jax.make_model(cell, distributions.categorical(4))
    optimizer = make_optimizer(config)
    init = jax.jit(lambda: init_train_state(model, optimizer, config))
    return model, optimizer, init()


@functools.cache
def make_step(config=CONFIG, dropout=0.0):
    """The training step of `make_parts`, compiled once for all tests."""
    model, optimizer, _ = make_parts(config, dropout)
    return jax.jit(make_train_step(model, optimizer, config))


def make_batches(num: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    shape = (CONFIG.batch_size, CONFIG.sequence_length)
    batches = []
    for i in range(num):
        reset = np.zeros(shape, bool)
        reset[:, 0] = i == 0
        mask = rng.random(shape) < 0.7
        batches.append(Batch(rng.integers(4, size=shape, dtype=np.int32), mask, reset))
    return batches


def flat(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("scored", [None, 1])
def test_every_scored_event_weighs_the_same_in_an_update(scored):
    model, optimizer, state = make_parts()
    batch = make_batches(1)[0]
    if scored:  # The last window of an epoch.
        batch = batch._replace(mask=np.arange(15).reshape(3, 5) < scored)

    def loss_fn(params):
        log_probs, _ = grnn_jax.event_log_probs(model, params, state.carry, batch)
        return -jnp.sum(log_probs) / (CONFIG.batch_size * CONFIG.sequence_length)

    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(state.params)
    updates, _ = optimizer.update(grads, state.opt_state, state.params)
    expected = optax.apply_updates(state.params, updates)
    new, metrics = make_step()(state, batch)
    np.testing.assert_allclose(metrics["nats"], loss * batch.mask.size, rtol=1e-6)
    mean = loss * batch.mask.size / batch.mask.sum()
    np.testing.assert_allclose(metrics["loss"], mean, rtol=1e-6)
    assert int(metrics["num_events"]) == batch.mask.sum()
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(flat(grads)), rtol=1e-5)
    assert bool(metrics["finite"]) and int(new.step) == 1
    np.testing.assert_allclose(flat(new.params), flat(expected), rtol=1e-5, atol=1e-6)


def test_windows_in_a_row_score_as_one_long_window():
    model, _, state = make_parts()
    first, second = make_batches(2)
    eval_step = jax.jit(make_eval_step(model))
    carry, a = eval_step(state.params, state.carry, first)
    _, b = eval_step(state.params, carry, second)
    pairs = zip(first[:3], second[:3], strict=True)
    whole = Batch(*(np.concatenate(pair, axis=1) for pair in pairs))
    _, both = eval_step(state.params, state.carry, whole)
    np.testing.assert_allclose(a["nats"] + b["nats"], both["nats"], rtol=1e-6)
    # And the state matters: the second window alone scores otherwise.
    _, alone = eval_step(state.params, state.carry, second)
    assert abs(float(alone["nats"] - b["nats"])) > 1e-4


def test_training_carries_the_state_of_the_window_before():
    model, _, state = make_parts()
    train_step = make_step()
    eval_step = jax.jit(make_eval_step(model))
    carry = state.carry
    for batch in make_batches(3):
        # Each window by the parameters of its time, from the end of the one before.
        carry, expected = eval_step(state.params, carry, batch)
        state, metrics = train_step(state, batch)
        np.testing.assert_allclose(metrics["nats"], expected["nats"], rtol=1e-5)
        np.testing.assert_allclose(flat(state.carry), flat(carry), rtol=1e-4, atol=1e-6)


def test_the_average_of_parameters():
    config = dataclasses.replace(CONFIG, ema_decay=0.3, accumulate_steps=2)
    _, _, state = make_parts(config)
    train_step = make_step(config)
    average, updates = flat(state.params), 0
    for number, batch in enumerate(make_batches(8)):
        state, _ = train_step(state, batch)
        if number % 2:
            decay = min(0.3, (1 + updates) / (10 + updates))
            average = decay * average + (1 - decay) * flat(state.params)
            updates += 1
        np.testing.assert_allclose(flat(state.averaged_params), average, rtol=1e-5, atol=1e-6)
    assert state.evaluated_params is state.averaged_params
    assert np.abs(flat(state.params) - average).max() > 1e-3
    late = update_average({"w": jnp.float32(1)}, {"w": jnp.float32(3)}, 0.9, jnp.int32(10**6))
    np.testing.assert_allclose(late["w"], 0.9 * 1 + 0.1 * 3, rtol=1e-6)


def test_learning_rate_scale_multiplies_the_update():
    _, _, state = make_parts()
    batch = make_batches(1)[0]
    train_step = make_step()
    whole, _ = train_step(state, batch)
    half, _ = train_step(state.replace(learning_rate_scale=jnp.float32(0.5)), batch)
    before = flat(state.params)
    np.testing.assert_allclose(
        flat(half.params) - before, 0.5 * (flat(whole.params) - before), rtol=1e-3, atol=1e-7
    )


def test_dropout_draws_anew_in_every_step_and_not_in_evaluation():
    config = dataclasses.replace(CONFIG, dropout=0.5, learning_rate=1e-30)
    model, _, state = make_parts(config, dropout=0.5)
    batch = make_batches(1)[0]
    train_step = make_step(config, dropout=0.5)
    state_1, first = train_step(state, batch)
    _, again = train_step(state, batch)
    _, second = train_step(state.replace(step=state_1.step), batch)
    assert float(first["nats"]) == float(again["nats"]) != float(second["nats"])
    plain, _, _ = make_parts()
    _, metrics = jax.jit(make_eval_step(model))(state.params, state.carry, batch)
    _, expected = jax.jit(make_eval_step(plain))(state.params, state.carry, batch)
    np.testing.assert_allclose(metrics["nats"], expected["nats"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["recurrent_dropout", "zoneout"])
def test_each_kind_of_dropout_by_itself_is_drawn_in_training(kind):
    config = dataclasses.replace(CONFIG, **{kind: 0.5})
    cell = cells.lstm(config.hidden_size)
    if kind == "zoneout":
        cell = cells.zoneout(cell, 0.5)
    else:
        cell = cells.stack([cell], recurrent_dropout=0.5)
    model = grnn_jax.make_model(cell, distributions.categorical(4))
    optimizer = make_optimizer(config)
    state = jax.jit(lambda: init_train_state(model, optimizer, config))()
    train_step = jax.jit(make_train_step(model, optimizer, config))
    batch = make_batches(1)[0]
    _, first = train_step(state, batch)
    _, second = train_step(state.replace(step=state.step + 1), batch)
    assert float(first["nats"]) != float(second["nats"])


@pytest.mark.parametrize("place", ["params", "carry"])
def test_what_is_not_finite_is_told(place):
    model, optimizer, state = make_parts()
    spoiled = jax.tree.map(
        lambda leaf: leaf * jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        getattr(state, place),
    )
    batch = make_batches(2)[1]  # Without a reset, which would hide a spoiled carry.
    train_step = make_step()
    _, metrics = train_step(state.replace(**{place: spoiled}), batch)
    assert not bool(metrics["finite"])


@pytest.mark.optimized
def test_a_batch_without_events_changes_nothing_and_is_finite():
    config = dataclasses.replace(CONFIG, optimizer="sgd", momentum=0.0)
    _, _, state = make_parts(config)
    batch = make_batches(1)[0]._replace(mask=np.zeros((3, 5), bool))
    new, metrics = make_step(config)(state, batch)
    assert float(metrics["loss"]) == 0 and int(metrics["num_events"]) == 0
    assert bool(metrics["finite"])
    np.testing.assert_array_equal(flat(new.params), flat(state.params))


def test_shardings_split_the_streams_and_replicate_the_rest():
    model, optimizer, _ = make_parts()
    config = dataclasses.replace(CONFIG, ema_decay=0.9)
    shapes = jax.eval_shape(lambda: init_train_state(model, optimizer, config))
    shardings = train_state_shardings(shapes, make_mesh())
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    carried = {s.spec for s in jax.tree.leaves(shardings.carry)}
    rest = {s.spec for s in jax.tree.leaves(shardings.replace(carry=None))}
    assert carried == {jax.sharding.PartitionSpec("data")}
    assert rest == {jax.sharding.PartitionSpec()}
