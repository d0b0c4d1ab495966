"""Blocks drawn on a mesh are those of `sample`; several devices are tested by the scripts."""

import jax
import numpy as np
import pytest
from helpers import perturb

import grnn_jax
from grnn_jax import cells, distributions, make_model, sampling
from grnn_jax.sharding import make_mesh


def test_blocks_are_parts_of_one_set():
    model = make_model(cells.gru(6), distributions.categorical(4, embedding_size=4, end=3))
    params, key = perturb(model.init(jax.random.key(0))), jax.random.key(1)
    whole = grnn_jax.sample(model, params, key, 9, 7, prefix=np.array([1, 2]), top_k=3)
    mesh, options = make_mesh(jax.devices()[:1]), {"prefix": np.array([1, 2]), "top_k": 3}
    draw = sampling.make_sharded_sample(model, mesh, 3, 7, **options)
    refilled = sampling.make_sharded_sample(model, mesh, 3, 7, num_rows=2, **options)
    for first, draw_block in ((6, draw), (0, draw), (3, draw), (6, refilled)):
        block = draw_block(params, key, first)
        np.testing.assert_array_equal(block.events, whole.events[first : first + 3])
        np.testing.assert_array_equal(block.mask, whole.mask[first : first + 3])
        np.testing.assert_allclose(block.log_probs, whole.log_probs[first : first + 3], rtol=1e-5)


def test_a_block_is_cut_evenly():
    model = make_model(cells.gru(2), distributions.categorical(2))
    mesh = jax.sharding.AbstractMesh((4,), ("data",))
    with pytest.raises(ValueError, match="num_samples must be a multiple of the 4 devices, got 6"):
        sampling.make_sharded_sample(model, mesh, 6, 3)
