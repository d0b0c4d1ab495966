"""What cannot fit into memory is refused before it is begun."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import grnn_jax
from grnn_jax import host_memory, runner
from grnn_jax.errors import InputError
from grnn_jax.evaluation import make_evaluate
from grnn_jax.scoring import make_score_events


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()[:1]), ("data",))


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("max")
    (tmp_path / "limit").write_text("12345")
    for names, expected in ((["max", "none"], None), (["max", "limit"], 12345)):
        monkeypatch.setattr(host_memory, "_LIMITS", [str(tmp_path / name) for name in names])
        found = host_memory.host_memory.__wrapped__()
        assert found == expected or (expected is None and found > 2**28)


def test_more_than_there_is_is_refused(monkeypatch, mesh):
    monkeypatch.setattr(host_memory, "host_memory", lambda: 4 * 6 * 7 * 8)
    host_memory.check_batch_memory(mesh, 6, 7, 8, "batch_size")
    words = r"^batch_size or sequence_length must be smaller: the hidden states .* \(6 x 7 x 9\) "
    with pytest.raises(InputError, match=words):
        host_memory.check_batch_memory(mesh, 6, 7, 9, "batch_size")
    monkeypatch.setattr(host_memory, "host_memory", lambda: None)
    host_memory.check_batch_memory(mesh, 6, 7, 9, "batch_size")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 2**20}, "hidden_size must be smaller: the .* parameters"),
        ({"batch_size": 2**20, "sequence_length": 2**10}, "batch_size or sequence_length must be"),
        ({"eval_batch_size": 2**20, "sequence_length": 2**10}, "eval_batch_size or sequence_len"),
        (
            {"steps_per_call": 2**16, "batch_size": 2**9, "sequence_length": 2**10},
            r"steps_per_call or batch_size must be smaller: .* \(512 x 1024 x 65536\)",
        ),
    ],
)
def test_training_takes_no_memory_first(tmp_path, mesh, changes, words):
    (tmp_path / "a.txt").write_text("an old cat\n" * 200)
    config = grnn_jax.Config(
        data=str(tmp_path / "a.txt"), format="lines", hidden_size=2**10, batch_size=1,
        eval_batch_size=1, sequence_length=1, embedding_size=2,
    )  # fmt: skip
    with pytest.raises(InputError, match=words):
        runner.train(dataclasses.replace(config, **changes), tmp_path / "run")
    if "eval_batch_size" in changes:
        model = grnn_jax.make_model(
            grnn_jax.cells.gru(2**10), grnn_jax.distributions.categorical(3)
        )
        for make in (make_evaluate, make_score_events):
            with pytest.raises(InputError, match=words):
                make(model, dataclasses.replace(config, **changes), mesh)
