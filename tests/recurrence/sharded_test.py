"""Eight devices along time against one, in a process of their own; run as a program it is that."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def distances(found, expected):
    """Largest difference of each array, relative to its largest element."""
    import jax
    import numpy as np

    assert jax.tree.structure(found) == jax.tree.structure(expected)
    return [
        float(np.abs(np.asarray(a) - np.asarray(b)).max() / max(1, np.abs(np.asarray(b)).max()))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]


def main():
    """Prints the distances of each case as one JSON object."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    import jax.numpy as jnp
    import numpy as np
    from helpers import perturb

    from grnn_jax import Tokens, cells, linear_scan, newton_unroll, unroll, unroll_sharded
    from grnn_jax.recurrence.linear_scan import METHODS

    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("time",))
    rng = np.random.default_rng(0)
    length = 96
    reset = jnp.asarray(rng.random((2, length)) < 0.05)
    layers = [cells.min_gru(4, learned_initial_state=True), cells.lstm(4, num_heads=4)]
    stack = cells.stack(layers, residual=True, layer_norm=True)
    elman = cells.elman(4, num_heads=4, learned_initial_state=True)
    tokens = jnp.asarray(rng.integers(0, 5, (2, length)))
    table = jnp.float32(rng.normal(size=(5, 3)))
    values = {}

    def compare(name, cell, params, wrap, inputs):
        state = perturb(cell.initial_state(params, 2), 1, scale=1.0)
        weights = jnp.float32(rng.normal(size=(2, length, 4)))

        def run(params, inputs, state, sharded):
            arguments = cell, params, wrap(inputs), state
            if sharded:
                return unroll_sharded(*arguments, mesh=mesh, axis="time", reset=reset)
            return unroll(*arguments, reset=reset, engine="scan")

        def loss(params, inputs, state, sharded):
            outputs, final = run(params, inputs, state, sharded)
            total = sum(jnp.cos(leaf).sum() for leaf in jax.tree.leaves(final))
            return (outputs * weights).sum() + total, (outputs, final)

        both = [
            jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)(
                params, inputs, state, sharded
            )
            for sharded in (True, False)
        ]
        spread = str(both[0][0][1][0].sharding.spec)
        values[name] = {"spread": spread, "distances": distances(*both)}
        return state

    params = perturb(stack.init(jax.random.key(0), 3))
    compare("stack", stack, params, lambda table: Tokens(tokens, table), table)
    params = perturb(elman.init(jax.random.key(0), 3))
    params["recurrent_kernel"] = jnp.float32([4, -4, 3, -3]).reshape(4, 1, 1)
    inputs = jnp.float32(rng.normal(size=(2, length, 3)))
    state = compare("fallback", elman, params, lambda inputs: inputs, inputs)
    report = newton_unroll(elman, params, inputs, state, reset=reset, max_iterations=50)[2]
    values["fallback"]["converged"] = report.converged.tolist()
    scans = {}
    decay, update = (jnp.float32(rng.uniform(-1, 1, size=(16, 3))) for _ in "ab")
    initial = jnp.float32(rng.normal(size=3))
    weights = jnp.float32(rng.normal(size=(16, 3)))
    split = jax.P("time")
    for method in METHODS:
        for reverse in (False, True):

            def loss(decay, update, initial, scan):
                states = scan(decay, update, initial)
                return (states * weights).sum(), states

            def over_devices(*arrays, method=method, reverse=reverse):
                run = functools.partial(
                    linear_scan, method=method, reverse=reverse, axis_name="time"
                )
                specs = {"in_specs": (split, split, jax.P()), "out_specs": split}
                return jax.shard_map(run, mesh=mesh, check_vma=False, **specs)(*arrays)

            def one_by_one(decay, update, state, reverse=reverse):
                states = [None] * 16
                for t in reversed(range(16)) if reverse else range(16):
                    states[t] = state = decay[t] * state + update[t]
                return jnp.stack(states)

            both = [
                jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)(
                    decay, update, initial, scan
                )
                for scan in (over_devices, one_by_one)
            ]
            scans[f"{method}, {reverse}"] = distances(*both)
    messages = []
    for cell, more in (
        (elman, {"axis": "data"}),
        (elman, {"inputs": inputs[:, 1:]}),
        (elman, {"reset": reset.T}),
        (elman, {"engine": "scan"}),
        (cells.lstm(9), {}),
    ):
        params = cell.init(jax.random.key(0), 3)
        arguments = {"inputs": inputs, "state": cell.initial_state(params, 2)}
        try:
            unroll_sharded(cell, params, **arguments | {"mesh": mesh, "axis": "time"} | more)
        except ValueError as error:
            messages.append(str(error))
    print(json.dumps({"cases": values, "messages": messages, "scans": scans}))


@pytest.fixture(scope="module")
def eight():
    ended = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_eight_devices_equal_one(eight):
    """A linear layer below a Newton layer, of tokens; then a cell that falls back."""
    assert eight["cases"]["fallback"]["converged"] != [True, True]
    for name, found in eight["cases"].items():
        assert "time" in found["spread"], (name, found)
        assert max(found["distances"]) < 1e-5, (name, found)


def test_scans_over_devices_equal_a_loop_in_either_direction(eight):
    assert len(eight["scans"]) == 6
    for name, found in eight["scans"].items():
        assert max(found) < 1e-6, (name, found)


def test_wrong_arguments_are_named(eight):
    axis, steps, reset, engine, cell = eight["messages"]
    assert axis == "axis must be one of the mesh's ['time'], got 'data'"
    assert "8 devices of axis 'time' divide, got 95" in steps
    assert reset == "reset must have shape (2, 96), got (96, 2)"
    assert engine == "engine must be one of ['linear', 'newton'] on split steps, got 'scan'"
    assert "engine=newton needs a cell with gated, elementwise" in cell


if __name__ == "__main__":
    main()
