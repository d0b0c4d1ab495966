"""Checkpoints: exact, kept apart, and falling back where one cannot be read."""

import gc
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from grnn_jax import checkpoint
from grnn_jax.checkpoint import CheckpointStore, SaveError
from grnn_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(step: int):
    params = {"cell": {"kernel": jnp.full((3, 2), step / 3, jnp.float32)}, "bias": jnp.arange(2.0)}
    # Too large to lie beside its own checksum, and not to be compressed.
    noise = np.random.default_rng(step).normal(size=(40, 20))
    params["cell"]["noise"] = jnp.asarray(noise, jnp.float32)
    optimizer = optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation()
    state = {
        "opt_state": optimizer.init(params),
        "key": jax.random.fold_in(jax.random.key(7), step),
        "carry": (jnp.ones((4, 2)) * step, jnp.zeros((4,), jnp.int32), jnp.ones((4,), bool)),
        "scale": jnp.float32(0.5),
    }
    return {"params": params, "averaged": None}, state


def shapes(tree):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def leaf(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)

    return jax.tree.map(leaf, tree)


def save(store, step):
    params, state = make_state(step)
    store.save_latest(step, params, state, {"position": step}, {"best": step + 0.1})


def restore(store):
    params, state = make_state(0)
    return store.restore_latest(shapes(params), shapes(state))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def warnings_said(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda form, *args: said.append(form % args))
    yield said
    gc.collect()  # Reads that a failed one left behind complain here, and not in another test.


def test_round_trip_is_exact_and_only_the_last_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    assert restore(store) is None
    for step in (1, 2, 3):
        save(store, step)
    store.wait()
    assert store.steps() == [2, 3]
    store.close()
    found = restore(CheckpointStore(tmp_path))
    params, state = make_state(3)
    assert found.step == 3
    assert found.data == {"position": 3}
    assert found.progress == {"best": 3.1}
    assert_same(found.params, params)
    assert_same(found.state, state)


def test_a_checkpoint_that_holds_the_data_of_a_key_is_read_as_a_key(tmp_path):
    params, state = make_state(5)
    store = CheckpointStore(tmp_path)
    written = state | {"key": jax.random.key_data(state["key"])}  # As the first versions did.
    store.save_latest(5, params, written, {"position": 5}, {})
    store.close()
    assert_same(restore(CheckpointStore(tmp_path)).state, state)


def test_donating_the_state_during_a_save_does_not_change_what_is_saved(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    params = {"w": jnp.zeros((512, 512))}
    store = CheckpointStore(tmp_path, keep=4)
    for i in range(4):
        store.save_latest(i, params, {"x": jnp.zeros(1)}, None, {})
        for _ in range(3):
            params = step(params)
    store.wait()
    store.close()
    found = CheckpointStore(tmp_path).restore_params(shapes(params), "latest")
    np.testing.assert_array_equal(found[1]["w"], 9)


@pytest.mark.parametrize("damage", ["truncate", "remove_item", "empty"])
def test_unreadable_checkpoint_falls_back_to_the_one_before(tmp_path, warnings_said, damage):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    save(store, 2)
    store.close()
    broken = tmp_path / "checkpoints" / "latest" / "2"
    if damage == "truncate":
        for path in broken.rglob("*"):
            if path.is_file() and path.parent.name == "d":
                os.truncate(path, path.stat().st_size // 2)
    elif damage == "remove_item":
        shutil.rmtree(broken / "state")
    else:
        shutil.rmtree(broken)
        broken.mkdir()
    store = CheckpointStore(tmp_path)
    found = restore(store)
    assert found.step == 1
    assert_same(found.params, make_state(1)[0])
    assert any("step 2" in said and "unreadable" in said for said in warnings_said)
    # The run goes on, and writes the step again.
    save(store, 2)
    store.close()
    assert restore(CheckpointStore(tmp_path)).step == 2


def test_no_readable_checkpoint_is_an_error_and_not_a_new_start(tmp_path, warnings_said):
    store = CheckpointStore(tmp_path)
    save(store, 5)
    store.close()
    shutil.rmtree(tmp_path / "checkpoints" / "latest" / "5" / "params")
    with pytest.raises(InputError, match="no checkpoint in .*latest is readable"):
        restore(CheckpointStore(tmp_path))


def test_all_processes_go_on_from_the_step_that_all_can_read(tmp_path, monkeypatch, warnings_said):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    save(store, 2)
    store.close()
    # The other process cannot read step 2.
    answers = iter([[[1, 2]] * 2, ["", "gone"], ["", ""]])
    gather = checkpoint._gather

    def of_two(value):
        return next(answers) if isinstance(value, str | list) else gather(value)

    monkeypatch.setattr(checkpoint, "_gather", of_two)
    params, state = make_state(0)
    store = checkpoint.CheckpointStore(tmp_path)
    assert store._newest(store._latest, {"params": shapes(params)})[0] == 1
    assert any("step 2" in said and "(gone)" in said for said in warnings_said)
    monkeypatch.setattr(checkpoint, "_gather", lambda steps: [steps, []])
    with pytest.raises(InputError, match="process 1 finds no checkpoint .*shared file system"):
        restore(CheckpointStore(tmp_path))


def test_best_is_kept_apart_and_evaluation_falls_back_to_the_latest(tmp_path, warnings_said):
    store = CheckpointStore(tmp_path)
    template = shapes(make_state(0)[0])
    for step in (1, 2, 3):
        save(store, step)
    assert store.restore_params(template)[0] == 3
    store.save_best(1, make_state(1)[0], {})
    store.save_best(2, make_state(2)[0], {})
    store.wait()
    assert store.steps("best") == [2]
    step, params = store.restore_params(template)
    assert step == 2
    assert_same(params, make_state(2)[0])
    # A run that goes on from an earlier step finds its own best again.
    store.save_best(1, make_state(1)[0], {})
    store.wait()
    assert store.steps("best") == [1]
    store.close()
    shutil.rmtree(tmp_path / "checkpoints" / "best" / "1" / "params")
    assert CheckpointStore(tmp_path, read_only=True).restore_params(template)[0] == 3
    # Orbax adds a warning of its own where the machine is so busy that writing takes long.
    assert any("unreadable" in said for said in warnings_said)


def test_leftovers_of_an_interrupted_write_are_ignored_and_removed(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    store.close()
    latest = tmp_path / "checkpoints" / "latest"
    shutil.copytree(latest / "1", latest / "2.orbax-checkpoint-tmp")
    shutil.rmtree(latest / "2.orbax-checkpoint-tmp" / "state")
    store = CheckpointStore(tmp_path)
    assert restore(store).step == 1
    save(store, 2)
    store.close()
    assert sorted(path.name for path in latest.iterdir()) == ["1", "2"]


def test_a_failed_write_says_what_is_kept(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    store.wait()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._latest, "save", full)
    with pytest.raises(SaveError, match="No space left on device; .*step 1 is kept"):
        save(store, 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A workdir with the checkpoints of steps 1 and 2, and all files of the second."""
    workdir = tmp_path_factory.mktemp("written")
    store = CheckpointStore(workdir)
    save(store, 1)
    save(store, 2)
    store.close()
    files = sorted(p for p in (workdir / "checkpoints/latest/2").rglob("*") if p.is_file())
    return workdir, [path for path in files if path.stat().st_size]


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_is_noticed_or_changes_nothing(written, part, warnings_said):
    workdir, files = written
    rng, noticed, places = np.random.default_rng(part), 0, 0
    for path in files[part::4]:
        good = path.read_bytes()
        # Where values lie uncompressed nothing but the checksums tells.
        for place in rng.integers(0, len(good), 3):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            found = restore(CheckpointStore(workdir, read_only=True))
            places, noticed = places + 1, noticed + (found.step == 1)
            params, state = make_state(found.step)
            assert_same((found.params, found.state), (params, state))
            assert (found.data, found.progress) == (
                {"position": found.step},
                {"best": found.step + 0.1},
            )
        path.write_bytes(good)
    assert noticed
    assert (
        len([said for said in warnings_said if "step 2" in said and "unreadable" in said])
        == noticed
    )


@pytest.mark.parametrize("change", ["value", "json", "missing"])
def test_what_is_readable_but_other_than_what_was_written_is_not_taken(
    tmp_path, change, warnings_said, monkeypatch
):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    with monkeypatch.context() as patch:
        if change == "value":  # As if a bit of it changed on the disk: only the checksums know.
            other = make_state(2)[0] | {"averaged": None}
            other["params"]["bias"] = other["params"]["bias"].at[1].set(1.0000001)
            wrong = checkpoint.checksums({"params": other, "state": make_state(2)[1]})
            patch.setattr(checkpoint, "checksums", lambda _: wrong)
        save(store, 2)
    store.close()
    progress = tmp_path / "checkpoints/latest/2/progress/metadata"
    if change == "json":
        progress.write_text(progress.read_text().replace("2.1", "2.2"))
    if change == "missing":
        shutil.rmtree(tmp_path / "checkpoints/latest/2/checksums")
    found = restore(CheckpointStore(tmp_path))
    assert found.step == (2 if change == "missing" else 1)
    words = {
        "value": "params/params/bias is not what was written",
        "json": "progress is not what was written",
        "missing": "without checksums: it could not be verified",
    }[change]
    assert any("step 2" in said and words in said for said in warnings_said)


@pytest.mark.parametrize(
    "name", ["a[x]", "q[lr=3]/run", "s*r?", "back\\slash", "gs:", "a[[]", "%20#"]
)
def test_a_path_that_reads_as_a_pattern_is_a_path(tmp_path, name):
    for step in (1, 2):
        store = CheckpointStore(tmp_path / name)
        save(store, step)
        store.save_best(step, make_state(step)[0], {})
        store.close()
    (tmp_path / name).rename(tmp_path / "renamed")
    for store in (CheckpointStore(tmp_path / "renamed"), CheckpointStore(tmp_path / "b[x]")):
        if store.steps():
            found = restore(store)
            assert found.step == 2
            assert_same(found.params, make_state(2)[0])


def test_a_checkpoint_that_is_not_there_after_it_was_written_is_an_error(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    store._latest.wait_until_finished()
    shutil.rmtree(tmp_path / "checkpoints/latest/1/state")
    with pytest.raises(SaveError, match="step 1"):
        store.wait()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "make room on the disk"),
        (ValueError("UNAVAILABLE: Too many open files [x]"), "limit of open files"),
        (RuntimeError("can't start new thread"), "limit of processes and threads"),
        (PermissionError(13, "Permission denied"), "the right to read and write it"),
        (ValueError("what nobody knows"), "what nobody knows; .* is kept; start the same"),
    ],
)
def test_a_failed_write_or_read_blames_what_failed(tmp_path, monkeypatch, error, words):
    def failing(*_, **__):
        raise error

    store = CheckpointStore(tmp_path)
    save(store, 1)
    store.wait()
    monkeypatch.setattr(store._latest, "save", failing)
    with pytest.raises(SaveError, match=words):
        save(store, 2)
    if "nobody" not in words:  # It is not unreadable, and no older one takes its place.
        monkeypatch.setattr(store._latest, "restore", failing)
        with pytest.raises(SaveError, match=f"could not read the checkpoint of step 1 .*{words}"):
            restore(store)
