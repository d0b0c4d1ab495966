"""Sampling from a model."""

from grnn_jax.sampling.ancestral import Samples, extend, sample, stream
from grnn_jax.sampling.automaton import Automaton, lift, stop_sequences
from grnn_jax.sampling.lengths import LengthStatistics, length_statistics
from grnn_jax.sampling.refill import ManySamples, sample_many
from grnn_jax.sampling.state import SampleState, start

__all__ = [
    "Automaton",
    "LengthStatistics",
    "ManySamples",
    "SampleState",
    "Samples",
    "extend",
    "length_statistics",
    "lift",
    "sample",
    "sample_many",
    "start",
    "stop_sequences",
    "stream",
]
