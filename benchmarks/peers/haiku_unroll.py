"""Haiku: hk.Embed (or a scale of dense inputs), hk.dynamic_unroll, hk.Linear.

The cores are hk.LSTM, hk.GRU and a tanh hk.VanillaRNN.
Three differences that the library has and the comparison keeps: hk.LSTM concatenates x and h for
one matmul inside the scan and adds 1 to the forget gate (the converted bias takes it off again);
hk.GRU resets the state before the matmul, tanh(x_n + (r h) V_n), which is another function with
the same matmul work; hk.VanillaRNN computes relu, so the Elman cell here is the same core with
tanh and one bias.
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from peers.base import ModelConfig, TrainStep, Weights, flat_gates
from peers.jax_common import adam, compile_step, mean_cross_entropy, start

__all__ = ["SUPPORTS_BFLOAT16", "start", "train_step"]

SUPPORTS_BFLOAT16 = False


class TanhRNN(hk.VanillaRNN):
    """hk.VanillaRNN with tanh in place of relu."""

    def __call__(self, inputs: jax.Array, prev_state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """H' = tanh(x U + b + h V)."""
        projected = hk.Linear(self.hidden_size)(inputs)
        out = jnp.tanh(projected + hk.Linear(self.hidden_size, with_bias=False)(prev_state))
        return out, out


CELLS = {"lstm": hk.LSTM, "gru": hk.GRU, "elman": TanhRNN}


def _cell_params(cell: str, weights: Weights) -> dict[str, dict[str, np.ndarray]]:
    if cell == "lstm":
        order = [0, 2, 1, 3]  # i, g, f, o
        bias = weights.bias[order].copy()
        bias[2] -= 1.0
        both = np.concatenate([weights.input, weights.recurrent])[:, order]
        return {"lstm/linear": {"w": flat_gates(both), "b": flat_gates(bias)}}
    if cell == "gru":
        order = [1, 0, 2]  # z, r, a; here z weighs the candidate, hence the signs
        sign = np.array([-1.0, 1.0, 1.0], np.float32)[:, None]
        return {
            "gru": {
                "w_i": flat_gates(weights.input[:, order] * sign),
                "w_h": flat_gates(weights.recurrent[:, order] * sign),
                "b": flat_gates(weights.bias[order] * sign),
            }
        }
    return {
        "tanh_rnn/linear": {"w": flat_gates(weights.input), "b": flat_gates(weights.bias)},
        "tanh_rnn/linear_1": {"w": flat_gates(weights.recurrent)},
    }


def train_step(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """hk.transform, jax.value_and_grad, optax.adam, one jax.jit with donation."""

    def network(inputs: jax.Array) -> jax.Array:
        core = CELLS[config.cell](config.hidden_size)
        # Time-major, as dynamic_unroll runs: tokens are turned at no cost, vectors by one copy.
        entering = jnp.swapaxes(inputs, 0, 1)
        if config.inputs == "tokens":
            entering = hk.Embed(config.num_classes, config.hidden_size)(entering)
        elif config.inputs == "layer":
            entering = entering * hk.get_parameter("scale", (config.hidden_size,), init=jnp.ones)
        hidden, _ = hk.dynamic_unroll(core, entering, core.initial_state(inputs.shape[0]))
        return hk.Linear(config.num_classes)(hidden)

    transformed: Any = hk.without_apply_rng(hk.transform(network))

    def loss_fn(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return mean_cross_entropy(transformed.apply(params, inputs), targets.T)

    first = {
        "tokens": {"embed": {"embeddings": weights.embedding}},
        "layer": {"~": {"scale": weights.scale}},
        "dense": {},
    }
    params = {
        **first[config.inputs],
        "linear": {"w": weights.output, "b": weights.output_bias},
        **_cell_params(config.cell, weights),
    }
    expected = jax.eval_shape(transformed.init, jax.random.key(0), jnp.asarray(inputs))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(lambda x: x.shape, dict(expected)):
        raise ValueError("the converted weights do not fit the haiku modules")
    return compile_step(loss_fn, params, adam(config), inputs, targets)
