"""Partition rules, and the checks of what several devices or processes are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from grnn_jax import sharding
from grnn_jax.errors import InputError


def test_partition_rules_match_paths_in_order():
    params = {
        "cell": {"recurrent_kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "out": [jnp.ones(3)],
    }
    rules = ((r"recurrent_kernel$", P(None, "model")), (r"^out/0$", P("model")), (r".*", P()))
    assert sharding.partition_specs(params, rules) == {
        "cell": {"recurrent_kernel": P(None, "model"), "bias": P()},
        "out": [P("model")],
    }
    with pytest.raises(ValueError, match="cell/bias"):
        sharding.partition_specs(params, rules[:2])
    assert set(jax.tree.leaves(sharding.partition_specs(params))) <= {P()}


def test_shard_batch_gives_global_arrays():
    mesh = sharding.make_mesh()
    rows = np.arange(mesh.shape["data"] * 6).reshape(-1, 3)
    array = sharding.shard_batch({"x": rows}, mesh)["x"]
    assert array.sharding.spec == P("data")
    np.testing.assert_array_equal(array, rows)


def test_batch_size_must_fit_the_devices():
    sharding.check_batch_size(5, sharding.make_mesh(jax.devices()[:1]))
    three = Mesh(np.asarray(jax.devices()[:1] * 3), ("data",))
    with pytest.raises(InputError, match="batch_size must be a multiple of the 3 devices, got 4"):
        sharding.check_batch_size(4, three)


@pytest.mark.parametrize(
    ("num_cores", "hidden_size", "batch_size", "eval_batch_size", "expected"),
    [
        (2, 128, 64, 64, 2),
        (1, 128, 64, 64, 1),
        (16, 512, 64, 64, 8),  # 8 rows each
        (2, 1024, 64, 64, 1),  # the products use all cores
        (2, 128, 12, 64, 1),
        (4, 128, 66, 64, 2),
        (2, 128, 64, 1, 1),
        (3, 128, 65, 65, 1),
    ],
)
def test_cpu_devices_divide_the_rows(num_cores, hidden_size, batch_size, eval_batch_size, expected):
    sizes = hidden_size, batch_size, eval_batch_size
    assert sharding.useful_cpu_devices(num_cores, *sizes) == expected


def test_sites_are_rows_of_a_small_cell():
    assert sharding.useful_cpu_devices(2, 88 * 96, 4, 4) == 1
    assert sharding.useful_cpu_devices(2, 88 * 96, 4, 4, num_sites=88) == 2
    assert sharding.useful_cpu_devices(8, 88 * 96, 4, 4, num_sites=88) == 4  # a row each
    assert sharding.useful_cpu_devices(2, 88 * 1024, 4, 4, num_sites=88) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", 2, 0), "coordinator_address"),
        (("localhost:1", 0, 0), "num_processes must be at least 1, got 0"),
        (("localhost:1", 2, 2), "process_id must be from 0 to 1, got 2"),
        (("localhost:1", 2, -1), "process_id must be from 0 to 1, got -1"),
        (("foo", 2, 0), "coordinator_address must be host:port, .* got 'foo'"),
        (("foo:70000", 2, 0), "coordinator_address must be host:port"),
    ],
)
def test_wrong_processes(arguments, words):
    with pytest.raises(InputError, match=words):
        sharding.initialize_distributed(*arguments)


def test_processes_that_do_not_meet(monkeypatch):
    def fail(*_):
        raise RuntimeError("DEADLINE_EXCEEDED:\nno answer")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match="1 of 2 .* at localhost:1: DEADLINE_EXCEEDED: no answer"):
        sharding.initialize_distributed("localhost:1", 2, 1)
