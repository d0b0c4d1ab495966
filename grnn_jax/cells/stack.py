"""Layers of cells in depth, with residual connections, layer norm and dropout between them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Params, PRNGKey, State
from grnn_jax.cells.base import RECURRENT_KERNEL, Cell, Layered
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.masks import Rate, check_rate, is_zero
from grnn_jax.ops.ranks import align

DROPOUT_PER = ("step", "sequence")

LayerStates = tuple[Any, ...]
"""One `State` for each layer."""


@cached_factory
def stack(
    cells: Sequence[Cell],
    *,
    residual: bool = False,
    layer_norm: bool = False,
    dropout: Rate = 0.0,
    dropout_per: str = "step",
    recurrent_dropout: Rate = 0.0,
) -> Cell:
    r"""Stacks cells in depth; the stack is a cell itself.

        u_1 = x                                 u_{l+1} = dropout(norm(y_l))
        y_l = cell_l(u_l) + y_{l-1}             the sum only with `residual`, and for l > 1
        output = u_{L+1}

    Dropout acts only where `unroll` is given a key (training); dropped elements are zero and
    the others are divided by 1 - dropout. `recurrent_dropout` is DropConnect on V: one draw for
    a window, shared by all its steps (Merity et al. 2018).

    Args:
        cells: the layers, the first one nearest to the input.
        residual: adds y_{l-1}, the output of the layer below before its norm and dropout, to
            the output of each layer after the first.
        layer_norm: normalises what each layer passes on (Ba et al. 2016).
        dropout: probability of dropping an element of what each layer passes on; it may be a
            traced number, as may `recurrent_dropout`.
        dropout_per: "step", a new mask for each time step (Zaremba et al. 2014), or
            "sequence", the same mask for all steps of a sequence in a window (Gal &
            Ghahramani 2016); a sequence that spans windows draws anew in each.
        recurrent_dropout: probability of dropping an element of V.

    Returns:
        The stacked cell; its state holds the states of the layers one after another.

    Raises:
        ValueError: if there is no cell, a rate lies outside [0, 1), residual layers differ in
            width, or recurrent dropout is asked of a cell without a recurrent kernel.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.stack([cells.lstm(4), cells.gru(4)], residual=True, layer_norm=True)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> sorted(params)
        ['layer_0', 'layer_1', 'norm_0', 'norm_1']
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, [len(layer) for layer in state]
        ((2, 4), [2, 1])
    """
    cells = tuple(cells)
    if not cells:
        raise ValueError("cells must hold at least one cell, got none")
    dropout = check_rate("dropout", dropout)
    recurrent_dropout = check_rate("recurrent_dropout", recurrent_dropout)
    if dropout_per not in DROPOUT_PER:
        raise ValueError(f"dropout_per must be one of {DROPOUT_PER}, got {dropout_per!r}")
    widths = [cell.hidden_size for cell in cells]
    if residual and len(set(widths)) > 1:
        raise ValueError(f"residual layers must have one hidden_size, got {widths}")
    if any(cell.layered for cell in cells):
        raise ValueError("cells must be single layers, got a stack inside a stack")
    if not is_zero(recurrent_dropout) and not all(_has_recurrent_kernel(cell) for cell in cells):
        raise ValueError("recurrent_dropout needs gated cells with a recurrent kernel")
    layered = Layered(cells, residual, layer_norm, dropout, dropout_per, recurrent_dropout)

    def init(key: PRNGKey, input_size: int) -> Params:
        params = {}
        for index, cell in enumerate(cells):
            params[f"layer_{index}"] = cell.init(jax.random.fold_in(key, index), input_size)
            input_size = cell.hidden_size
            if layer_norm:
                params[f"norm_{index}"] = {
                    "scale": jnp.ones((cell.hidden_size,), jnp.float32),
                    "bias": jnp.zeros((cell.hidden_size,), jnp.float32),
                }
        return params

    def initial_state(params: Params, batch_size: int) -> LayerStates:
        return tuple(
            cell.initial_state(params[f"layer_{index}"], batch_size)
            for index, cell in enumerate(cells)
        )

    def project(params: Params, inputs: Array) -> Array:
        return cells[0].project(params["layer_0"], inputs)

    def step(params: Params, state: LayerStates, projected_t: Array) -> tuple[LayerStates, Array]:
        new_state: list[State] = []
        hidden = passed = projected_t
        for index, cell in enumerate(cells):
            layer = params[f"layer_{index}"]
            projected_t = cell.project(layer, passed) if index > 0 else projected_t
            layer_state, output = cell.step(layer, state[index], projected_t)
            new_state.append(layer_state)
            hidden = output + hidden if residual and index > 0 else output
            passed = apply_layer_norm(params, index, hidden) if layer_norm else hidden
        return tuple(new_state), passed

    return Cell(init, initial_state, project, step, widths[-1], layered=layered)


def _has_recurrent_kernel(cell: Cell) -> bool:
    gated = cell.gated if cell.sitewise is None else cell.sitewise.cell.gated
    return gated is not None and gated.num_gates > 0


def apply_layer_norm(
    params: Params, index: int, hidden: Float[Array, "... H"], epsilon: float = 1e-5
) -> Float[Array, "... H"]:
    """Layer norm over the units of one layer's output (Ba et al. 2016)."""
    norm = params[f"norm_{index}"]
    centred = hidden - hidden.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    scale, bias = (align(norm[name], hidden) for name in ("scale", "bias"))
    return centred * jax.lax.rsqrt(variance + epsilon) * scale + bias


def drop_recurrent_kernel(key: PRNGKey, params: Params, rate: Rate) -> Params:
    """DropConnect: parameters with elements of V zeroed, the others divided by 1 - rate.

    Reference: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013;
    S. Merity et al., "Regularizing and optimizing LSTM language models", ICLR 2018.
    """
    kernel = params[RECURRENT_KERNEL]
    keep = jax.random.bernoulli(key, 1 - rate, kernel.shape)
    return params | {RECURRENT_KERNEL: jnp.where(keep, kernel / (1 - rate), 0)}
