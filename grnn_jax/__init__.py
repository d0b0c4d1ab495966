"""Generative recurrent networks in JAX: exact likelihoods, any cell, any output distribution."""

import grnn_jax.startup as startup  # noqa: F401 - before all that takes time.

# isort: split

import importlib
from typing import TYPE_CHECKING, Any

from grnn_jax import cells, distributions, likelihood, sampling
from grnn_jax.array_types import Batch
from grnn_jax.cells import Cell, stack
from grnn_jax.compiler import compiler_options
from grnn_jax.config import Config
from grnn_jax.distributions import Distribution
from grnn_jax.errors import InputError, RunError
from grnn_jax.likelihood import event_log_probs, log_prob
from grnn_jax.model import Carry, Model, make_model
from grnn_jax.recurrence import (
    Addend,
    EngineChoice,
    Inputs,
    NewtonReport,
    Tokens,
    explain_engine,
    newton_unroll,
    supported_engines,
    unroll,
    unroll_sharded,
)
from grnn_jax.recurrence.linear_scan import block_linear_scan, linear_scan
from grnn_jax.sampling import Samples, sample, stream

if TYPE_CHECKING:
    from grnn_jax.evaluation import evaluate as evaluate
    from grnn_jax.runner import train as train
    from grnn_jax.trained import TrainedRun as TrainedRun
    from grnn_jax.trained import load as load

__version__ = "0.1.0"

_RESOLVED_LATER = {
    "TrainedRun": "trained",
    "evaluate": "evaluation",
    "load": "trained",
    "train": "runner",
}
"""Names whose files need grain, Orbax, tensorboardX or mido, which the pure functions do not."""

__all__ = [
    "Addend",
    "Batch",
    "Carry",
    "Cell",
    "Config",
    "Distribution",
    "EngineChoice",
    "InputError",
    "Inputs",
    "Model",
    "NewtonReport",
    "RunError",
    "Samples",
    "Tokens",
    "TrainedRun",
    "block_linear_scan",
    "cells",
    "compiler_options",
    "distributions",
    "evaluate",
    "event_log_probs",
    "explain_engine",
    "likelihood",
    "linear_scan",
    "load",
    "log_prob",
    "make_model",
    "newton_unroll",
    "sample",
    "sampling",
    "stack",
    "stream",
    "supported_engines",
    "train",
    "unroll",
    "unroll_sharded",
]


def __getattr__(name: str) -> Any:
    if name in _RESOLVED_LATER:
        module = importlib.import_module(f"grnn_jax.{_RESOLVED_LATER[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_RESOLVED_LATER})
