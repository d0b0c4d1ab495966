"""Sampling from a model."""

from grnn_jax.sampling.ancestral import Samples, extend, sample, stream
from grnn_jax.sampling.automaton import Automaton, automaton_over_tokens, stop_sequences
from grnn_jax.sampling.beam_search import Beams, beam_search
from grnn_jax.sampling.constrained import ConstrainedSamples, sample_masked
from grnn_jax.sampling.constraint import (
    FREE,
    Constraint,
    count_good_prefixes,
    count_sequences,
    enumerate_sequences,
    make_constraint,
    step_masks,
    template,
)
from grnn_jax.sampling.enumerated import ScoredPrefixes, sample_enumerated, score_prefixes
from grnn_jax.sampling.fork import fork, from_arrays, to_arrays
from grnn_jax.sampling.lengths import LengthStatistics, length_statistics, statistics_of_counts
from grnn_jax.sampling.particles import Particles, sample_particles
from grnn_jax.sampling.refill import ManySamples, sample_many
from grnn_jax.sampling.regex import compile_regex
from grnn_jax.sampling.sharded import make_sharded_sample
from grnn_jax.sampling.state import SampleState, start
from grnn_jax.sampling.stochastic_beam_search import DistinctSamples, stochastic_beam_search

__all__ = [
    "FREE",
    "Automaton",
    "Beams",
    "ConstrainedSamples",
    "Constraint",
    "DistinctSamples",
    "LengthStatistics",
    "ManySamples",
    "Particles",
    "SampleState",
    "Samples",
    "ScoredPrefixes",
    "beam_search",
    "compile_regex",
    "count_good_prefixes",
    "count_sequences",
    "enumerate_sequences",
    "extend",
    "fork",
    "from_arrays",
    "length_statistics",
    "automaton_over_tokens",
    "make_constraint",
    "make_sharded_sample",
    "sample",
    "sample_enumerated",
    "sample_many",
    "sample_masked",
    "sample_particles",
    "score_prefixes",
    "start",
    "statistics_of_counts",
    "step_masks",
    "stochastic_beam_search",
    "stop_sequences",
    "stream",
    "template",
    "to_arrays",
]
