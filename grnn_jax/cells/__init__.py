"""Recurrent cells: tuples of pure functions, one file each."""

from grnn_jax.cells.base import Cell, Gated, Layered, Linear, count_parameters
from grnn_jax.cells.elman import elman
from grnn_jax.cells.gated import gated_cell
from grnn_jax.cells.gru import gru
from grnn_jax.cells.linear import linear_cell
from grnn_jax.cells.lstm import lstm
from grnn_jax.cells.min_gru import min_gru
from grnn_jax.cells.min_lstm import min_lstm
from grnn_jax.cells.stack import stack

CELLS = {"elman": elman, "gru": gru, "lstm": lstm, "min_gru": min_gru, "min_lstm": min_lstm}
"""Cells that a flag can name; a new cell is one file and one line here."""

__all__ = [
    "CELLS",
    "Cell",
    "Gated",
    "Layered",
    "Linear",
    "count_parameters",
    "elman",
    "gated_cell",
    "gru",
    "linear_cell",
    "lstm",
    "min_gru",
    "min_lstm",
    "stack",
]
