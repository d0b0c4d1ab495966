"""The parts that the plain JAX implementations share: loss, Adam, a jitted step with donation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from peers.base import ModelConfig, TrainStep


def start() -> None:
    """Starts the JAX backend."""
    jnp.zeros(1).block_until_ready()


def adam(config: ModelConfig) -> optax.GradientTransformation:
    """Adam with the hyperparameters of the configuration."""
    return optax.adam(config.learning_rate, b1=config.b1, b2=config.b2, eps=config.eps)


def mean_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over all B·T events of -log p(target), in nats and in float32."""
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def compile_step(
    loss_fn: Callable[..., jax.Array],
    params: Any,
    optimizer: optax.GradientTransformation,
    *data: Any,
) -> TrainStep:
    """A jitted update of loss_fn(params, *data); parameters and optimiser state are donated."""
    return compile_update(jax.value_and_grad(loss_fn), params, optimizer, *data)


def compile_update(
    value_and_grad: Callable[..., tuple[jax.Array, Any]],
    params: Any,
    optimizer: optax.GradientTransformation,
    *data: Any,
    sharding: jax.sharding.Sharding | None = None,
) -> TrainStep:
    """The same for a function that returns loss and gradient, and for any devices."""

    def update(params: Any, opt_state: Any, *data: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = value_and_grad(params, *data)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    jitted = jax.jit(update, donate_argnums=(0, 1), out_shardings=sharding)
    # Copies, so that donation frees memory that nobody else reads (NumPy arrays may be aliased).
    params = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
    state = [params, jax.jit(optimizer.init)(params)]
    if sharding is not None:
        state = list(jax.device_put(state, sharding))
    data = jax.tree.map(jnp.asarray, data)

    def step() -> float:
        *state[:], loss = jitted(*state, *data)
        jax.block_until_ready(state)
        return float(loss)

    def temporary_bytes() -> int:
        analysis: Any = jitted.lower(*state, *data).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    return TrainStep(step, temporary_bytes)
