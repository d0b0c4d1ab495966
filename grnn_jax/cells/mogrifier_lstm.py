"""LSTM whose input and state modulate each other before each step (Melis et al. 2020)."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, State
from grnn_jax.cells.base import Cell
from grnn_jax.cells.lstm import lstm
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense


@cached_factory
def mogrifier_lstm(
    hidden_size: int,
    *,
    num_rounds: int = 5,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""Mogrifier LSTM cell.

        x ← 2σ(Q_k h) ⊙ x     for k = 1, 3, 5, … ≤ num_rounds
        h ← 2σ(R_k x) ⊙ h     for k = 2, 4, 6, … ≤ num_rounds, in turns with the above
        (h_t, c_t) = LSTM(x, (h, c_{t-1}))

    from x = x_t and h = h_{t-1}. 4·H·(X + H/heads + 1) + num_rounds·X·H parameters, the Q and R of
    full rank. The input enters the loop as it is: no structure, runs by "scan", and U x is
    computed step by step.

    Args:
        hidden_size: H.
        num_rounds: rounds of modulation; 0 is `lstm`. The paper found 5 best.
        num_heads: heads of a block-diagonal V; 1 is dense.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: for sizes that do not fit, or a negative num_rounds.

    Reference: G. Melis, T. Kočiský, P. Blunsom, "Mogrifier LSTM", ICLR 2020.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells
        >>> cell = cells.mogrifier_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + H + 1) + 5·X·H
        188
        >>> grnn_jax.supported_engines(cell)  # the input is modulated inside the loop
        ('scan',)
    """
    if num_rounds < 0:
        raise ValueError(f"num_rounds must not be negative, got {num_rounds}")
    cell = lstm(
        hidden_size,
        num_heads=num_heads,
        forget_bias=forget_bias,
        learned_initial_state=learned_initial_state,
        dtype=dtype,
    )
    names = [f"round_kernel_{number}" for number in range(1, num_rounds + 1)]

    def init(key: PRNGKey, input_size: int) -> Params:
        lecun_normal = jax.nn.initializers.lecun_normal()
        shapes = [(hidden_size, input_size), (input_size, hidden_size)]
        cell_key, *keys = jax.random.split(key, 1 + num_rounds)
        return cell.init(cell_key, input_size) | {
            name: lecun_normal(key, shapes[index % 2], jnp.float32)
            for index, (name, key) in enumerate(zip(names, keys, strict=True))
        }

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... X"]:
        return inputs

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        modulated, modulating = projected_t, state[0]
        for name in names:
            gate = 2 * jax.nn.sigmoid(dense(modulating, params[name], dtype))
            modulated, modulating = modulating, gate * modulated
        inputs, hidden = (modulating, modulated) if num_rounds % 2 else (modulated, modulating)
        return cell.step(params, (hidden, *state[1:]), cell.project(params, inputs))

    return Cell(init, cell.initial_state, project, step, hidden_size)
