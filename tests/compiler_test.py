"""Compiler options: they reach the outermost program of a GPU, and no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import grnn_jax
from grnn_jax import cells, compiler, distributions, sampling
from grnn_jax.config import Config
from grnn_jax.data import load_splits
from grnn_jax.evaluation import make_evaluate
from grnn_jax.scoring import make_score_events
from grnn_jax.sharding import make_mesh
from grnn_jax.signals import Signals
from grnn_jax.training_loop import TrainingLoop
from grnn_jax.workdir import data_settings

OF_A_GPU = compiler.compiler_options("cuda")
UNKNOWN = {"xla_gpu_enable_command_buffer": "NO_SUCH_KIND"}
REFUSED = "'NO_SUCH_KIND' is not a valid enum value"
MODEL = grnn_jax.make_model(cells.gru(4), distributions.categorical(3, end=0))


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0))


@pytest.fixture
def given(monkeypatch):
    """Sets the options of outermost programs; the compiler refuses those that it does not know."""
    return lambda options: monkeypatch.setattr(compiler, "compiler_options", lambda: options)


def draw(params):
    return grnn_jax.sample(MODEL, params, jax.random.key(1), num_samples=2, length=3).log_probs


def score(params):
    return grnn_jax.log_prob(MODEL, params, jnp.array([[1, 2, 1], [2, 1, 0]])).sum()


def in_a_vmap(params):
    return jax.vmap(draw)(jax.tree.map(lambda leaf: leaf[None], params))


def in_a_scan(params):
    return jax.lax.scan(lambda carry, _: (carry, draw(params)), 0, None, length=2)


def in_a_shard_map(params):
    mesh = make_mesh(jax.devices()[:1])
    return jax.shard_map(draw, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)(params)


INSIDE = {
    "jit": lambda params: jax.jit(draw)(params),
    "jit of constants": lambda params: jax.jit(lambda: draw(params))(),
    "vmap": in_a_vmap,
    "scan": in_a_scan,
    "shard_map": in_a_shard_map,
    "shapes": lambda params: jax.eval_shape(draw, params),
    "eager gradient": lambda params: jax.grad(score)(params),
    "block": lambda params: jax.jit(draw_block())(params, jax.random.key(0), 0),
}


def draw_block():
    return sampling.make_sharded_sample(MODEL, make_mesh(jax.devices()[:1]), 2, 3)


def test_only_a_gpu_has_options(monkeypatch):
    assert compiler.compiler_options() == compiler.compiler_options("tpu") == {}
    (value,) = OF_A_GPU.values()
    assert {"FUSION", "CONDITIONAL", "WHILE"} < set(value.split(","))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.compiler_options() == OF_A_GPU == compiler.compiler_options("rocm")
    monkeypatch.setenv("XLA_FLAGS", "--a=b --xla_gpu_enable_command_buffer=")
    assert compiler.compiler_options() == {}


def test_this_version_knows_the_options_and_they_arrive(params, given):
    expected = draw(params)
    given(OF_A_GPU)
    np.testing.assert_array_equal(draw(params), expected)
    given(UNKNOWN)
    for call in (draw, score, lambda params: draw_block()(params, jax.random.key(0), 0)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=REFUSED):
            call(params)


@pytest.mark.parametrize("name", INSIDE)
def test_inside_of_other_transformations_there_are_none(params, given, name):
    given(UNKNOWN)
    INSIDE[name](params)


def test_the_programs_of_a_run_are_given_them(tmp_path, params, given):
    (tmp_path / "a.txt").write_text("ab\n" * 40)
    config = Config(
        data=str(tmp_path / "a.txt"), format="lines", cell="gru", hidden_size=4, batch_size=2,
        sequence_length=4, eval_batch_size=2, num_steps=4, valid_fraction=0.2,
    )  # fmt: skip
    corpus, mesh = load_splits(**data_settings(config)).valid, make_mesh()
    loop = TrainingLoop(config, tmp_path / "run", Signals())
    given(UNKNOWN)
    calls = [loop.advance] + [
        lambda make=make: make(MODEL, config, mesh)(params, corpus)
        for make in (make_evaluate, make_score_events)
    ]
    for call in calls:
        with pytest.raises(jax.errors.JaxRuntimeError, match=REFUSED):
            call()
    loop.close()
