"""How a cell is run over time: one file per engine, one dispatcher."""

from grnn_jax.recurrence.chunks import scan_chunks
from grnn_jax.recurrence.tokens import Tokens
from grnn_jax.recurrence.unroll import ENGINES, choose_engine, unroll

__all__ = ["ENGINES", "Tokens", "choose_engine", "scan_chunks", "unroll"]
