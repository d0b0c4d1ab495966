"""Flax: nnx.Embed, nnx.RNN over OptimizedLSTMCell / GRUCell / SimpleCell, nnx.Linear.

nnx.Optimizer with optax.adam, the update under nnx.jit with model and optimiser donated. The
input projection sits inside the scan, as nnx.RNN has it. Dense inputs enter the layer as they
are, or times a scale that is a parameter. In bfloat16 the layers get dtype=bfloat16, and the
inputs of the recurrent one are cast.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from peers.base import ModelConfig, TrainStep, Weights, flat_gates
from peers.jax_common import adam, mean_cross_entropy, start

__all__ = ["SUPPORTS_BFLOAT16", "samplers", "start", "train_step"]

SUPPORTS_BFLOAT16 = True
CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}


class CharRNN(nnx.Module):
    """Embedding, one recurrent layer, output layer."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        size, dtype = config.hidden_size, jnp.dtype(config.dtype)
        if config.inputs == "tokens":
            self.embed = nnx.Embed(config.num_classes, size, dtype=dtype, rngs=rngs)
        elif config.inputs == "layer":
            self.scale = nnx.Param(jnp.ones(size))
        self.inputs, self.dtype = config.inputs, dtype
        self.rnn = nnx.RNN(CELLS[config.cell](size, size, dtype=dtype, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(size, config.num_classes, dtype=dtype, rngs=rngs)
        # The LSTM promotes its state to float32; the other two keep the dtype they compute in.
        self.carry_dtype = jnp.float32 if config.cell == "lstm" else dtype

    def initial_carry(self, batch_size: int) -> Any:
        """Zeros, for the cell alone."""
        carry = self.rnn.cell.initialize_carry((batch_size, 1), nnx.Rngs(0))
        return jax.tree.map(lambda x: x.astype(self.carry_dtype), carry)

    def enter(self, inputs: jax.Array) -> jax.Array:
        """Tokens [B, T] or vectors [B, T, H] -> what the layer receives, [B, T, H]."""
        if self.inputs == "tokens":
            return self.embed(inputs)
        scaled = inputs * self.scale[...] if self.inputs == "layer" else inputs
        return scaled.astype(self.dtype)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Tokens [B, T] or vectors [B, T, H] -> logits [B, T, V]."""
        carry = self.initial_carry(inputs.shape[0])
        return self.head(self.rnn(self.enter(inputs), initial_carry=carry))

    def step(self, carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        """One token [B] -> new carry, logits [B, V]."""
        carry, hidden = self.rnn.cell(carry, self.embed(token))
        return carry, self.head(hidden)


def build(config: ModelConfig, weights: Weights) -> CharRNN:
    """The module with the given weights."""
    model = CharRNN(config, nnx.Rngs(0))
    cell: Any = model.rnn.cell
    with_bias = cell.dense_h if config.cell == "lstm" else cell.dense_i
    pairs: list[tuple[Any, Any]] = [
        (cell.dense_i.kernel, flat_gates(weights.input)),
        (cell.dense_h.kernel, flat_gates(weights.recurrent)),
        (with_bias.bias, flat_gates(weights.bias)),
        (model.head.kernel, weights.output),
        (model.head.bias, weights.output_bias),
    ]
    if config.inputs == "tokens":
        pairs.append((model.embed.embedding, weights.embedding))
    elif config.inputs == "layer":
        pairs.append((model.scale, weights.scale))
    for variable, value in pairs:
        if variable.shape != value.shape:
            raise ValueError(f"expected shape {variable.shape}, got {value.shape}")
        variable[...] = jnp.array(value, copy=True)
    return model


def train_step(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """The whole update under nnx.jit."""
    model = build(config, weights)
    optimizer = nnx.Optimizer(model, adam(config), wrt=nnx.Param)
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)

    def update(
        model: CharRNN, optimizer: nnx.Optimizer, inputs: jax.Array, targets: jax.Array
    ) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: mean_cross_entropy(m(inputs), targets))(model)
        optimizer.update(model, grads)
        return loss

    jitted = nnx.jit(update, donate_argnums=(0, 1))

    def step() -> float:
        loss = jitted(model, optimizer, inputs, targets)
        jax.block_until_ready(nnx.state(model))
        return float(loss)

    def temporary_bytes() -> int:
        compiled: Any = jitted.lower(model, optimizer, inputs, targets).compile()
        # nnx wraps what jax compiled; the analysis belongs to the inner object.
        compiled = getattr(compiled, "compiled", compiled)
        return compiled.memory_analysis().temp_size_in_bytes

    return TrainStep(step, temporary_bytes)


def samplers(
    config: ModelConfig, weights: Weights, num_samples: int, length: int
) -> dict[str, Callable[[], Any]]:
    """The cell in a lax.scan under one jit, and a Python loop around a jitted single step."""
    graphdef, state = nnx.split(build(config, weights))
    initial = nnx.merge(graphdef, state).initial_carry(num_samples)
    first = jnp.zeros(num_samples, jnp.int32)
    root = jax.random.key(0)
    calls = iter(range(1 << 30))

    def draw(model: CharRNN, carry: Any, token: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        carry, logits = model.step(carry, token)
        return carry, jax.random.categorical(key, logits.astype(jnp.float32))

    @jax.jit
    def scanned(state: Any, key: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)

        def body(loop: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            carry, token = draw(model, loop[0], loop[1], key)
            return (carry, token), token

        _, tokens = jax.lax.scan(body, (initial, first), jax.random.split(key, length))
        return tokens.T

    # A step folds its key itself: one dispatch a character, not two.
    @jax.jit
    def single(
        state: Any, carry: Any, token: jax.Array, key: jax.Array, t: int
    ) -> tuple[Any, jax.Array]:
        return draw(nnx.merge(graphdef, state), carry, token, jax.random.fold_in(key, t))

    def scan() -> Any:
        return scanned(state, jax.random.fold_in(root, next(calls))).block_until_ready()

    def loop() -> Any:
        key = jax.random.fold_in(root, next(calls))
        carry, token, tokens = initial, first, []
        for t in range(length):
            carry, token = single(state, carry, token, key, t)
            tokens.append(token)
        return jnp.stack(tokens, axis=1).block_until_ready()

    return {"flax cell in lax.scan": scan, "flax jitted step, Python loop": loop}
