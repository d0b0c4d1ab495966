"""Sampling from a model."""

from grnn_jax.sampling.ancestral import Samples, SampleState, sample, start, stream
from grnn_jax.sampling.sharded import make_sharded_sample

__all__ = ["SampleState", "Samples", "make_sharded_sample", "sample", "start", "stream"]
