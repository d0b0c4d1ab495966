"""Recurrent cells: tuples of pure functions, one file each."""

from collections.abc import Callable

from grnn_jax.cells.base import Cell, Gated, Layered, Linear, Sitewise, count_parameters
from grnn_jax.cells.coupled_lstm import coupled_lstm
from grnn_jax.cells.diagonal import diagonal_cell
from grnn_jax.cells.diagonal_gru import diagonal_gru
from grnn_jax.cells.diagonal_lstm import diagonal_lstm
from grnn_jax.cells.elman import elman
from grnn_jax.cells.gated import gated_cell
from grnn_jax.cells.gru import gru
from grnn_jax.cells.ind_rnn import ind_rnn
from grnn_jax.cells.layer_norm_gru import layer_norm_gru
from grnn_jax.cells.layer_norm_lstm import layer_norm_lstm
from grnn_jax.cells.linear import linear_cell
from grnn_jax.cells.lru import lru
from grnn_jax.cells.lstm import lstm
from grnn_jax.cells.mgu import mgu
from grnn_jax.cells.min_gru import min_gru
from grnn_jax.cells.min_lstm import min_lstm
from grnn_jax.cells.mogrifier_lstm import mogrifier_lstm
from grnn_jax.cells.multiplicative import multiplicative
from grnn_jax.cells.multiplicative_lstm import multiplicative_lstm
from grnn_jax.cells.multiplicative_rnn import multiplicative_rnn
from grnn_jax.cells.peephole_lstm import peephole_lstm
from grnn_jax.cells.rg_lru import rg_lru
from grnn_jax.cells.sitewise import sitewise, sitewise_gru, sitewise_lstm
from grnn_jax.cells.slstm import slstm
from grnn_jax.cells.stack import stack
from grnn_jax.cells.zoneout import zoneout

CELLS: dict[str, Callable[..., Cell]] = {
    "elman": elman,
    "gru": gru,
    "lstm": lstm,
    "coupled_lstm": coupled_lstm,
    "peephole_lstm": peephole_lstm,
    "layer_norm_gru": layer_norm_gru,
    "layer_norm_lstm": layer_norm_lstm,
    "mgu": mgu,
    "slstm": slstm,
    "multiplicative_rnn": multiplicative_rnn,
    "multiplicative_lstm": multiplicative_lstm,
    "mogrifier_lstm": mogrifier_lstm,
    "ind_rnn": ind_rnn,
    "diagonal_gru": diagonal_gru,
    "diagonal_lstm": diagonal_lstm,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "rg_lru": rg_lru,
    "lru": lru,
    "sitewise_gru": sitewise_gru,
    "sitewise_lstm": sitewise_lstm,
}
"""Cells that a flag can name; a new cell is one file and one line here."""

__all__ = [
    "CELLS",
    "Cell",
    "Gated",
    "Layered",
    "Linear",
    "Sitewise",
    "count_parameters",
    "coupled_lstm",
    "diagonal_cell",
    "diagonal_gru",
    "diagonal_lstm",
    "elman",
    "gated_cell",
    "gru",
    "ind_rnn",
    "layer_norm_gru",
    "layer_norm_lstm",
    "linear_cell",
    "lru",
    "lstm",
    "mgu",
    "min_gru",
    "min_lstm",
    "mogrifier_lstm",
    "multiplicative",
    "multiplicative_lstm",
    "multiplicative_rnn",
    "peephole_lstm",
    "rg_lru",
    "slstm",
    "stack",
    "zoneout",
    "sitewise",
    "sitewise_gru",
    "sitewise_lstm",
]
