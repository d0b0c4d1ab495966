"""How a cell is run over time: one file per engine, one dispatcher."""

from grnn_jax.recurrence.chunks import scan_chunks
from grnn_jax.recurrence.engines import ENGINES, EngineChoice, explain_engine, supported_engines
from grnn_jax.recurrence.tokens import Tokens
from grnn_jax.recurrence.unroll import unroll

__all__ = [
    "ENGINES",
    "EngineChoice",
    "Tokens",
    "explain_engine",
    "scan_chunks",
    "supported_engines",
    "unroll",
]
