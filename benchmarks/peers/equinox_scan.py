"""Equinox: eqx.nn.LSTMCell / GRUCell vmapped over the batch in a lax.scan.

The rest is eqx.nn.Embedding (or a scale of dense inputs) and eqx.nn.Linear. Equinox has no Elman
cell; the one here is written as its cells are. The input projection sits inside the scan, as in
the library's own example. optax.adam under one jax.jit with donation.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from peers.base import ModelConfig, TrainStep, Weights, flat_gates
from peers.jax_common import adam, compile_step, mean_cross_entropy, start

__all__ = ["SUPPORTS_BFLOAT16", "start", "train_step"]

SUPPORTS_BFLOAT16 = False


class ElmanCell(eqx.Module):
    """h' = tanh(U x + V h + b), in the style of eqx.nn.GRUCell."""

    weight_ih: jax.Array
    weight_hh: jax.Array
    bias: jax.Array

    def __init__(self, input_size: int, hidden_size: int, *, key: jax.Array):
        keys = jax.random.split(key, 3)
        bound = math.sqrt(1 / hidden_size)
        self.weight_ih, self.weight_hh, self.bias = (
            jax.random.uniform(k, shape, minval=-bound, maxval=bound)
            for k, shape in zip(
                keys,
                ((hidden_size, input_size), (hidden_size, hidden_size), (hidden_size,)),
                strict=True,
            )
        )

    def __call__(self, inputs: jax.Array, hidden: jax.Array) -> jax.Array:
        """One step for one sequence."""
        return jnp.tanh(self.weight_ih @ inputs + self.weight_hh @ hidden + self.bias)


CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell, "elman": ElmanCell}


class CharRNN(eqx.Module):
    """Embedding, one recurrent layer, output layer."""

    embedding: eqx.nn.Embedding | None
    scale: jax.Array | None
    cell: Any
    head: eqx.nn.Linear
    hidden_size: int = eqx.field(static=True)

    def __init__(self, config: ModelConfig, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.hidden_size = config.hidden_size
        size = config.hidden_size
        self.embedding = self.scale = None
        if config.inputs == "tokens":
            self.embedding = eqx.nn.Embedding(config.num_classes, size, key=keys[0])
        elif config.inputs == "layer":
            self.scale = jnp.ones(size)
        self.cell = CELLS[config.cell](size, size, key=keys[1])
        self.head = eqx.nn.Linear(config.hidden_size, config.num_classes, key=keys[2])

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Tokens [B, T] or vectors [B, T, H] -> logits [T, B, V]."""
        entering = jnp.swapaxes(inputs, 0, 1)
        if self.embedding is not None:
            entering = jax.vmap(jax.vmap(self.embedding))(entering)
        elif self.scale is not None:
            entering = entering * self.scale
        zeros = jnp.zeros((inputs.shape[0], self.hidden_size))
        is_lstm = isinstance(self.cell, eqx.nn.LSTMCell)

        def body(state: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
            state = jax.vmap(self.cell)(inputs, state)
            return state, state[0] if is_lstm else state

        _, hidden = jax.lax.scan(body, (zeros, zeros) if is_lstm else zeros, entering)
        return jax.vmap(jax.vmap(self.head))(hidden)


def train_step(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """The array leaves of the module are the parameters."""
    model = CharRNN(config, jax.random.key(0))
    bias = flat_gates(weights.bias)
    model = eqx.tree_at(
        lambda m: (
            m.cell.weight_ih,
            m.cell.weight_hh,
            m.cell.bias,
            m.head.weight,
            m.head.bias,
        ),
        model,
        (
            flat_gates(weights.input).T,
            flat_gates(weights.recurrent).T,
            bias,
            weights.output.T,
            weights.output_bias,
        ),
    )
    if config.inputs == "tokens":
        model = eqx.tree_at(lambda m: m.embedding.weight, model, weights.embedding)
    elif config.inputs == "layer":
        model = eqx.tree_at(lambda m: m.scale, model, weights.scale)
    if config.cell == "gru":  # a second bias of the candidate, which starts at zero
        model = eqx.tree_at(lambda m: m.cell.bias_n, model, jnp.zeros(config.hidden_size))
    params, static = eqx.partition(model, lambda leaf: hasattr(leaf, "shape"))

    def loss_fn(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return mean_cross_entropy(eqx.combine(params, static)(inputs), targets.T)

    return compile_step(loss_fn, params, adam(config), inputs, targets)
