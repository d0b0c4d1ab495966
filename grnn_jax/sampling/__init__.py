"""Sampling from a model."""

from grnn_jax.sampling.ancestral import Samples, SampleState, sample, start, stream

__all__ = ["SampleState", "Samples", "sample", "start", "stream"]
