"""How to make the recurrent matrix of a cell depend on its input."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, State
from grnn_jax.cells.base import Cell
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense


@cached_factory
def multiplicative(cell: Cell, dtype: DType = jnp.float32) -> Cell:
    r"""The same cell with V m_t in place of V h_{t-1}.

        m_t = (U_m x_t) ⊙ (V_m h_{t-1})

    so that the recurrent matrix is V diag(U_m x_t) V_m, one for each input. Two products follow
    each other in a step: the cell declares no structure. H·(X + H) more parameters.

    Args:
        cell: a cell whose step reads h_{t-1}, the first array of its state, only in V h_{t-1}.
        dtype: compute dtype of the products for m.

    Returns:
        The cell; its state is that of `cell`.

    Reference: I. Sutskever et al., "Generating text with recurrent neural networks", ICML 2011.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.multiplicative(cells.gru(4))
        >>> params = cell.init(jax.random.key(0), 3)
        >>> plain = cells.gru(4).init(jax.random.key(0), 3)
        >>> cells.count_parameters(params) - cells.count_parameters(plain)  # H·(X + H)
        28
    """
    width = cell.hidden_size

    def init(key: PRNGKey, input_size: int) -> Params:
        cell_key, input_key, recurrent_key = jax.random.split(key, 3)
        lecun_normal, orthogonal = (
            jax.nn.initializers.lecun_normal(),
            jax.nn.initializers.orthogonal(),
        )
        return cell.init(cell_key, input_size) | {
            "factor_input_kernel": lecun_normal(input_key, (input_size, width), jnp.float32),
            "factor_recurrent_kernel": orthogonal(recurrent_key, (width, width), jnp.float32),
        }

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... P"]:
        factor = dense(inputs, params["factor_input_kernel"], dtype)
        return jnp.concatenate([factor, cell.project(params, inputs)], -1)

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        factor, projected_t = projected_t[..., :width], projected_t[..., width:]
        hidden = factor * dense(state[0], params["factor_recurrent_kernel"], dtype)
        return cell.step(params, (hidden, *state[1:]), projected_t)

    return Cell(init, cell.initial_state, project, step, width)
