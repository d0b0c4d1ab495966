"""Many sequences through few rows: the same sequences, and few idle steps."""

import os
import pathlib
import subprocess
import sys

import enumerable
import jax
import numpy as np
import pytest
from helpers import CELLS, perturb

import grnn_jax
from grnn_jax import distributions, sampling


def test_refilled_rows_draw_the_same_sequences_and_stand_idle_little():
    model, params = enumerable.make(4, end=3, seed=2)
    count, length = 96, 40
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random(count) < 0.1, length, rng.integers(1, 8, count))
    # An end so rare that the lengths asked for decide: a few are long, most are short.
    params["distribution"]["bias"] = params["distribution"]["bias"].at[3].set(-4.0)
    settings = {"lengths": lengths, "temperature": rng.uniform(0.5, 2, count)}
    expected = grnn_jax.sample(model, params, jax.random.key(1), count, length, **settings)
    many = sampling.sample_many(
        model, params, jax.random.key(1), count, length, num_rows=6, **settings
    )
    np.testing.assert_array_equal(many.events, expected.events)
    np.testing.assert_array_equal(many.mask, expected.mask)
    np.testing.assert_allclose(many.log_probs, expected.log_probs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(many.done, expected.state.done)
    useful = int(many.mask.sum())
    side_by_side = count * int(np.asarray(expected.mask).sum(1).max())
    assert side_by_side > 3 * useful
    assert int(many.steps) <= 1.3 * useful


def test_refilled_rows_take_prefixes_stops_penalties_and_parts_of_a_request():
    model, params = enumerable.make(4, end=3)
    stop = sampling.stop_sequences([[1, 2]], 4)
    prefix = np.random.default_rng(0).integers(0, 3, (20, 2))
    penalty = np.linspace(0.5, 3, 20)
    expected = grnn_jax.sample(
        model, params, jax.random.key(1), 20, 9, prefix=prefix, stop=stop,
        repetition_penalty=penalty, min_p=0.05,
    )  # fmt: skip
    part = slice(4, 17)
    many = sampling.sample_many(
        model, params, jax.random.key(1), 13, 9, num_rows=4, prefix=prefix[part], stop=stop,
        repetition_penalty=penalty[part], min_p=0.05, first_index=4,
    )  # fmt: skip
    np.testing.assert_array_equal(many.events, expected.events[part])
    np.testing.assert_array_equal(many.done, expected.state.done[part])
    with pytest.raises(ValueError, match="num_rows must be at least 1, got 0"):
        sampling.sample_many(model, params, jax.random.key(1), 3, 9, num_rows=0)


def test_a_sample_does_not_depend_on_the_engine():
    drawn = []
    for engine in ("scan", "fused"):
        distribution = distributions.categorical(5, embedding_size=4)
        model = grnn_jax.make_model(CELLS["lstm"](), distribution, engine=engine)
        params = perturb(model.init(jax.random.key(0)))
        prefix = np.array([0, 3, 1])
        drawn.append(grnn_jax.sample(model, params, jax.random.key(2), 8, 10, prefix=prefix).events)
    np.testing.assert_array_equal(*drawn)


SHARDED = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
import enumerable
import grnn_jax
from grnn_jax import sampling
from jax.sharding import NamedSharding, PartitionSpec
assert jax.device_count() == 4
model, params = enumerable.make(5)
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
state = sampling.start(model, params, jax.random.key(3), 8)
rows = jax.device_put(state, NamedSharding(mesh, PartitionSpec("data")))
sharded = sampling.extend(model, params, rows, 10, top_p=0.9)
assert len(sharded.events.sharding.device_set) == 4
alone = sampling.extend(model, params, state, 10, top_p=0.9)
np.testing.assert_array_equal(sharded.events, alone.events)
assert len(np.unique(alone.events, axis=0)) == 8
"""


def test_a_sample_does_not_depend_on_the_number_of_devices():
    command = [sys.executable, "-W", "error", "-c", SHARDED]
    ended = subprocess.run(command, capture_output=True, text=True, env=path_of_tests())
    assert ended.returncode == 0, ended.stderr


def path_of_tests():
    tests = pathlib.Path(__file__).parents[1]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
