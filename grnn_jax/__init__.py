"""Generative recurrent networks in JAX: exact likelihoods, any cell, any output distribution."""

from grnn_jax import cells, distributions, likelihood, sampling
from grnn_jax.array_types import Batch
from grnn_jax.cells import Cell, stack
from grnn_jax.distributions import Distribution
from grnn_jax.likelihood import event_log_probs, log_prob
from grnn_jax.model import Carry, Model, make_model
from grnn_jax.recurrence import (
    Tokens,
    explain_engine,
    newton_unroll,
    supported_engines,
    unroll,
    unroll_sharded,
)
from grnn_jax.sampling import Samples, sample, stream

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Carry",
    "Cell",
    "Distribution",
    "Model",
    "Samples",
    "Tokens",
    "cells",
    "distributions",
    "event_log_probs",
    "explain_engine",
    "likelihood",
    "log_prob",
    "make_model",
    "newton_unroll",
    "sample",
    "sampling",
    "stack",
    "stream",
    "supported_engines",
    "unroll",
    "unroll_sharded",
]
