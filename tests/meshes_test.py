"""Four devices in a mesh of the caller's against one, in a process of their own.

Run as a program it is that process. The mesh is what `jax.make_mesh` makes, of explicit axes: the
types of arrays say how they are split, and `jax.shard_map` checks what varies over its devices.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ENGINES = ("scan", "fused", "fused_recompute", "packed", "linear", "newton")


def main():
    """Prints a distance from one device for every case, and how results are split."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    import jax.numpy as jnp
    import numpy as np
    from helpers import perturb

    import grnn_jax
    from grnn_jax import cells, distributions, make_model

    mesh = jax.make_mesh((2, 2), ("data", "model"))
    split, whole = jax.P("data"), jax.P()
    rng = np.random.default_rng(0)
    events = rng.integers(0, 5, (4, 5))
    mask = np.arange(5) < np.array([[5], [3], [2], [5]])
    inputs = np.float32(rng.normal(size=(4, 5, 3)))
    distances, specs = {}, {}

    def put(tree, spec):
        return jax.device_put(tree, jax.NamedSharding(mesh, spec))

    def by_units(tree):
        """Parameters split over the last axis, where it can be."""
        return jax.tree.map(
            lambda leaf: put(
                leaf,
                jax.P(*[None] * (leaf.ndim - 1), None if leaf.shape[-1] % 2 else "model"),
            ),
            tree,
        )

    def compare(name, found, expected, spec_of=None):
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        distances[name] = max(
            float(np.abs(np.subtract(a, b)).max() / max(1, np.abs(b).max())) for a, b in pairs
        )
        if spec_of is not None:
            specs[name] = str(jax.typeof(spec_of(found)).sharding.spec[0])

    def over_devices(function, in_specs, out_specs):
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs))

    each = {
        "scan": cells.elman(4),
        "fused": cells.stack([cells.lstm(4, num_heads=2)], layer_norm=True),
        "fused_recompute": cells.gru(4, learned_initial_state=True),
        "packed": cells.gru(4, learned_initial_state=True),
        "linear": cells.lru(4),
        "newton": cells.diagonal_gru(4),
    }
    for engine, cell in each.items():
        model = make_model(cell, distributions.categorical(5, embedding_size=3), engine=engine)
        params = perturb(model.init(jax.random.key(0)))

        def score(params, events, mask, model=model):
            def loss(params):
                log_probs = grnn_jax.log_prob(model, params, events, mask)
                return log_probs.sum(), log_probs

            gradient, log_probs = jax.grad(loss, has_aux=True)(params)
            return log_probs, gradient

        def unroll(params, inputs, cell=cell, engine=engine):
            state = cell.initial_state(params, len(inputs))
            return grnn_jax.unroll(cell, params, inputs, state, engine=engine)

        def sample(params, key, count=4, first=0, model=model):
            drawn = grnn_jax.sample(model, params, key, count, 4, top_k=3, first_index=first)
            return drawn.events, drawn.log_probs

        def sample_part(params, key, sample=sample):
            return sample(params, key, 2, 2 * jax.lax.axis_index("data"))

        key = jax.random.key(1)
        scored = jax.jit(score)(params, events, mask)
        ran = unroll(params["cell"], inputs)
        rows, narrow = put((events, mask, inputs), split), by_units(params)

        found = over_devices(score, (whole, split, split), (split, whole))(
            put(params, whole), *rows[:2]
        )
        compare(f"{engine}: shard_map", found, scored)
        with jax.set_mesh(mesh):
            found = jax.jit(score)(narrow, *rows[:2])
            compare(f"{engine}: explicit", found, scored, lambda found: found[0])
        # The mesh is that of the arrays where there is none around.
        found = jax.jit(unroll)(narrow["cell"], rows[2])
        compare(f"{engine}: explicit, unroll", found, ran, lambda found: found[0])
        if engine == "fused":
            found = grnn_jax.log_prob(model, params, *rows[:2])
            compare("fused: eager", found, scored[0], lambda found: found)
            drawn = sample(params, key)
            run = over_devices(sample_part, (whole, whole), split)
            compare("sample: shard_map", run(put(params, whole), key), drawn)
            compare("sample: explicit", jax.jit(sample)(narrow, key), drawn)
        if engine in ("linear", "newton"):
            along = jax.make_mesh((4,), ("time",))
            longer = jnp.float32(rng.normal(size=(2, 8, 3)))

            def both(params, inputs, sharded, cell=cell, engine=engine, along=along):
                state = cell.initial_state(params, 2)
                if not sharded:
                    return grnn_jax.unroll(cell, params, inputs, state, engine="scan")
                more = {"mesh": along, "axis": "time"}
                return grnn_jax.unroll_sharded(cell, params, inputs, state, engine=engine, **more)

            found = both(params["cell"], longer, True)
            compare(f"{engine}: unroll_sharded", found, both(params["cell"], longer, False))

            def loss(params, sharded, both=both, longer=longer):
                return jnp.square(both(params, longer, sharded)[0]).sum()

            with jax.set_mesh(along):
                found = jax.jit(jax.grad(loss), static_argnums=1)(params["cell"], True)
            expected = jax.grad(loss)(params["cell"], False)
            compare(f"{engine}: unroll_sharded, gradient", found, expected)
    print(json.dumps({"distances": distances, "specs": specs}))


@pytest.fixture(scope="module")
def found():
    ended = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(("kind", "count"), [*((engine, 3) for engine in ENGINES), ("sample", 2)])
def test_a_mesh_of_the_callers_equals_one_device(found, kind, count):
    distances = {name: d for name, d in found["distances"].items() if name.split(":")[0] == kind}
    assert len(distances) >= count
    assert max(distances.values()) < 2e-5, distances


def test_results_are_split_as_the_rows_are(found):
    assert set(found["specs"].values()) == {"data"}


if __name__ == "__main__":
    main()
