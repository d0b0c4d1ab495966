"""How a cell is run over time: one file per engine, one dispatcher."""

from grnn_jax.recurrence.engines import ENGINES, EngineChoice, explain_engine, supported_engines
from grnn_jax.recurrence.inputs import Addend, Inputs, Tokens
from grnn_jax.recurrence.newton import NewtonReport
from grnn_jax.recurrence.newton_unroll import newton_unroll
from grnn_jax.recurrence.sharded import unroll_sharded
from grnn_jax.recurrence.unroll import unroll

__all__ = [
    "ENGINES",
    "Addend",
    "EngineChoice",
    "Inputs",
    "NewtonReport",
    "Tokens",
    "explain_engine",
    "newton_unroll",
    "supported_engines",
    "unroll",
    "unroll_sharded",
]
