"""Sampling from a model."""

from grnn_jax.sampling.ancestral import Samples, extend, sample, stream
from grnn_jax.sampling.automaton import Automaton, lift, stop_sequences
from grnn_jax.sampling.beam_search import Beams, beam_search
from grnn_jax.sampling.lengths import LengthStatistics, length_statistics
from grnn_jax.sampling.refill import ManySamples, sample_many
from grnn_jax.sampling.state import SampleState, start
from grnn_jax.sampling.stochastic_beam_search import DistinctSamples, stochastic_beam_search

__all__ = [
    "Automaton",
    "Beams",
    "DistinctSamples",
    "LengthStatistics",
    "ManySamples",
    "SampleState",
    "Samples",
    "beam_search",
    "extend",
    "length_statistics",
    "lift",
    "sample",
    "sample_many",
    "start",
    "stochastic_beam_search",
    "stop_sequences",
    "stream",
]
