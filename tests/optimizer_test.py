"""The gradient methods against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grnn_jax.config import Config
from grnn_jax.optimizer import decay_mask, has_updated, make_optimizer, make_schedule

PARAMS = {
    "cell": {"bias": np.ones(3), "kernel": np.full((2, 3), 2.0), "initial_state": np.ones((2, 3))},
    "out": {"kernel": np.full((3, 2), -1.0)},
}


def params_and_grads(seed: int, num: int):
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(draw, PARAMS), [jax.tree.map(draw, PARAMS) for _ in range(num)]


def run(config, params, grads):
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_methods_with_clipping_and_weight_decay(name):
    config = Config(
        optimizer=name,
        learning_rate=0.1,
        schedule="constant",
        clip_norm=1.5,
        weight_decay=0.2,
        b2=0.999,
    )
    params, grads = params_and_grads(0, 4)
    theta = flat(params)
    decayed = flat(jax.tree.map(lambda d, x: np.full(x.shape, d), decay_mask(params), params))
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, grad in enumerate(grads, start=1):
        g = flat(grad)
        g = g * min(1.0, 1.5 / np.linalg.norm(g))
        if name != "adamw":
            g = g + 0.2 * decayed * theta
        if name in ("adam", "adamw"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        elif name == "sgd":
            m = 0.9 * m + g
            u = m
        else:
            v = 0.999 * v + 0.001 * g**2
            m = 0.9 * m + g / np.sqrt(v + 1e-8)
            u = m
        if name == "adamw":
            u = u + 0.2 * decayed * theta
        theta = theta - 0.1 * u
    np.testing.assert_allclose(flat(run(config, params, grads)), theta, rtol=2e-5, atol=2e-6)


def test_weight_decay_skips_biases_and_learned_states():
    assert decay_mask(PARAMS) == {
        "cell": {"bias": False, "kernel": True, "initial_state": False},
        "out": {"kernel": True},
    }
    config = Config(optimizer="adamw", learning_rate=0.1, schedule="constant", weight_decay=0.5)
    params = jax.tree.map(jnp.asarray, PARAMS)
    after = run(config, params, [jax.tree.map(jnp.zeros_like, params)])
    np.testing.assert_array_equal(after["cell"]["bias"], params["cell"]["bias"])
    np.testing.assert_array_equal(after["cell"]["initial_state"], PARAMS["cell"]["initial_state"])
    np.testing.assert_allclose(after["out"]["kernel"], -0.95, rtol=1e-6)


def test_accumulation_equals_one_step_on_the_mean_gradient():
    params, grads = params_and_grads(1, 6)
    settings = {"learning_rate": 0.1, "schedule": "constant", "clip_norm": 0.7}
    means = [jax.tree.map(lambda *g: sum(g) / 3, *grads[i : i + 3]) for i in (0, 3)]
    expected = run(Config(**settings), params, means)
    found = run(Config(accumulate_steps=3, **settings), params, grads)
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-5, atol=1e-6)


def test_has_updated():
    params, grads = params_and_grads(2, 4)
    optimizer = make_optimizer(Config(accumulate_steps=2))
    state, seen = optimizer.init(params), []
    for grad in grads:
        _, state = optimizer.update(grad, state, params)
        seen.append(bool(has_updated(state)))
    assert seen == [False, True, False, True]
    assert bool(has_updated(make_optimizer(Config()).init(params)))


def test_schedules():
    def values(steps=12, **settings):
        schedule = make_schedule(
            Config(learning_rate=0.5, final_learning_rate_fraction=0.1, **settings)
        )
        return np.array([float(schedule(s)) for s in range(steps)])

    rise = 0.5 * np.arange(1, 5) / 5
    s = np.arange(8)
    cosine = 0.5 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * s / 16)))
    found = values(schedule="cosine", warmup_steps=4, num_steps=20)
    np.testing.assert_allclose(found, np.concatenate([rise, cosine]), rtol=1e-5)
    found = values(schedule="step", warmup_steps=4, decay_every=3, decay_factor=0.25)
    np.testing.assert_allclose(found, np.concatenate([rise, 0.5 * 0.25 ** (s // 3)]), rtol=1e-5)
    found = values(schedule="constant", warmup_steps=4)
    np.testing.assert_allclose(found, np.concatenate([rise, np.full(8, 0.5)]), rtol=1e-6)
    # Steps past the end keep the last value.
    assert values(31, schedule="cosine", num_steps=20)[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_schedules_of_as_many_steps_as_can_be_counted(name):
    last = 2**31 - 1
    schedule = make_schedule(
        Config(schedule=name, warmup_steps=last, num_steps=last, decay_every=last)
    )
    rates = [float(jax.jit(schedule)(jnp.int32(step))) for step in (0, last // 2, last)]
    assert 0 < rates[0] < rates[1] <= rates[2] == pytest.approx(3e-3)


def test_schedule_counts_training_steps_under_accumulation():
    config = Config(
        optimizer="sgd", momentum=0.0, clip_norm=0.0, learning_rate=1.0, schedule="step",
        decay_every=4, decay_factor=0.1, accumulate_steps=2,
    )  # fmt: skip
    params = {"kernel": jnp.zeros((1, 1))}
    grads = [{"kernel": jnp.ones((1, 1))}] * 8
    found = run(config, params, grads)
    # Updates come at the steps 1, 3, 5, 7 (from 0); the rate falls to a tenth at step 4.
    np.testing.assert_allclose(found["kernel"], -(1 + 1 + 0.1 + 0.1), rtol=1e-6)
