"""Recurrent cells: tuples of pure functions, one file each."""

from grnn_jax.array_types import Callable
from grnn_jax.cells.base import Cell, Gated, Layered, Linear, count_parameters
from grnn_jax.cells.diagonal import diagonal_cell
from grnn_jax.cells.diagonal_gru import diagonal_gru
from grnn_jax.cells.diagonal_lstm import diagonal_lstm
from grnn_jax.cells.elman import elman
from grnn_jax.cells.gated import gated_cell
from grnn_jax.cells.gru import gru
from grnn_jax.cells.ind_rnn import ind_rnn
from grnn_jax.cells.linear import linear_cell
from grnn_jax.cells.lru import lru
from grnn_jax.cells.lstm import lstm
from grnn_jax.cells.min_gru import min_gru
from grnn_jax.cells.min_lstm import min_lstm
from grnn_jax.cells.rg_lru import rg_lru
from grnn_jax.cells.stack import stack

CELLS: dict[str, Callable[..., Cell]] = {
    "elman": elman,
    "gru": gru,
    "lstm": lstm,
    "ind_rnn": ind_rnn,
    "diagonal_gru": diagonal_gru,
    "diagonal_lstm": diagonal_lstm,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "rg_lru": rg_lru,
    "lru": lru,
}
"""Cells that a flag can name; a new cell is one file and one line here."""

__all__ = [
    "CELLS",
    "Cell",
    "Gated",
    "Layered",
    "Linear",
    "count_parameters",
    "diagonal_cell",
    "diagonal_gru",
    "diagonal_lstm",
    "elman",
    "gated_cell",
    "gru",
    "ind_rnn",
    "linear_cell",
    "lru",
    "lstm",
    "min_gru",
    "min_lstm",
    "rg_lru",
    "stack",
]
