"""grnn_jax: one-layer model over a categorical distribution with an embedding of size H.

The loss is the mean of `likelihood.event_log_probs`, from a carried state whose last event is the
first token of the row: the way the trainer computes it, mask and reset included, and with the rows
of the batch on as many CPU devices as the configuration says, by the trainer's own function.
optax.adam in one jax.jit with parameters and optimiser state donated. Dense inputs go through
`unroll` and `log_prob` of the distribution, as from Python. In bfloat16 matmuls take bfloat16
inputs, state and loss stay float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import grnn_jax
from grnn_jax import likelihood
from grnn_jax.array_types import Batch
from grnn_jax.sharding import (
    batch_sharding,
    make_mesh,
    replicated,
    value_and_grad_over_rows,
)
from peers.base import ModelConfig, TrainStep, Weights, flat_gates
from peers.jax_common import adam, compile_update, start

__all__ = ["SUPPORTS_BFLOAT16", "samplers", "start", "train_step"]

SUPPORTS_BFLOAT16 = True


def build(config: ModelConfig, weights: Weights) -> tuple[Any, Any]:
    """The model of tokens and its parameters with the given weights."""
    dtype = jnp.dtype(config.dtype)
    cell = grnn_jax.cells.CELLS[config.cell](config.hidden_size, dtype=dtype)
    distribution = grnn_jax.distributions.categorical(
        config.num_classes, embedding_size=config.hidden_size, dtype=dtype
    )
    model = grnn_jax.make_model(cell, distribution, engine=config.engine)
    output = output_leaves(weights) | {"embedding": weights.embedding}
    # The start input stands where the other implementations feed token 0.
    start_input = {"start": weights.embedding[0]}
    params = convert(model.init(jax.random.key(0)), cell_leaves(weights), output, start_input)
    return model, params


def cell_leaves(weights: Weights) -> dict[str, np.ndarray]:
    """Parameters of the cell by their names."""
    return {
        "input_kernel": flat_gates(weights.input),
        "recurrent_kernel": flat_gates(weights.recurrent)[None],  # one head
        "bias": flat_gates(weights.bias),
    }


def output_leaves(weights: Weights) -> dict[str, np.ndarray]:
    """Parameters of the output layer by their names."""
    return {"kernel": weights.output, "bias": weights.output_bias}


def convert(params: Any, *groups: dict[str, np.ndarray]) -> Any:
    """The parameters with the leaves of each group replaced, wherever they sit together."""
    replaced = 0

    def visit(tree: Any) -> Any:
        nonlocal replaced
        if not isinstance(tree, dict):
            return tree
        tree = {name: visit(child) for name, child in tree.items()}
        for leaves in groups:
            if leaves.keys() <= tree.keys():
                for name, value in leaves.items():
                    if tree[name].shape != value.shape:
                        raise ValueError(f"{name}: {tree[name].shape} expected, got {value.shape}")
                    tree[name] = jnp.array(value, copy=True)
                    replaced += 1
        return tree

    params = visit(params)
    if replaced != sum(map(len, groups)):
        raise ValueError("the parameters of grnn_jax are not laid out as expected here")
    return params


def train_step(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """jax.value_and_grad of the mean loss, optax.adam."""
    if config.inputs != "tokens":
        return train_step_dense(config, weights, inputs, targets)
    model, params = build(config, weights)
    batch = Batch(
        events=np.asarray(targets),
        mask=np.ones(targets.shape, bool),
        reset=np.zeros(targets.shape, bool),
    )
    carry = model.initial_state(params, len(targets))
    carry = carry._replace(event=jnp.asarray(inputs[:, 0]), started=jnp.ones(len(targets), bool))

    def loss_fn(params: Any, _: None, rows: Any, first_row: Any) -> tuple[jax.Array, None]:
        log_probs, _ = likelihood.event_log_probs(model, params, *rows)
        return -log_probs.sum() / targets.size, None

    return compile_over_devices(loss_fn, params, config, (carry, batch))


def train_step_dense(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """The same for vectors [B, T, H]: `unroll`, then the distribution's `log_prob`."""
    dtype = jnp.dtype(config.dtype)
    cell = grnn_jax.cells.CELLS[config.cell](config.hidden_size, dtype=dtype)
    distribution = grnn_jax.distributions.categorical(config.num_classes, dtype=dtype)
    cell_key, output_key = jax.random.split(jax.random.key(0))
    params = {
        "cell": cell.init(cell_key, config.hidden_size),
        "output": distribution.init(output_key, config.hidden_size),
    }
    params = convert(params, cell_leaves(weights), output_leaves(weights))
    if config.inputs == "layer":
        params["scale"] = weights.scale

    num_events = targets.size

    def loss_fn(params: Any, _: None, rows: Any, first_row: Any) -> tuple[jax.Array, None]:
        inputs, targets = rows
        if config.inputs == "layer":
            inputs = inputs * params["scale"]
        state = cell.initial_state(params["cell"], len(inputs))
        hidden, _ = grnn_jax.unroll(cell, params["cell"], inputs, state, engine=config.engine)
        log_probs = distribution.log_prob(params["output"], hidden, targets)
        return -log_probs.sum() / num_events, None

    return compile_over_devices(loss_fn, params, config, (inputs, targets))


def compile_over_devices(
    loss_fn: Callable[..., Any], params: Any, config: ModelConfig, rows: Any
) -> TrainStep:
    """The compiled step; every CPU device takes its part of the rows."""
    num_rows = len(jax.tree.leaves(rows)[0])
    mesh = make_mesh(jax.devices()[: config.num_devices])
    if num_rows % mesh.size:
        mesh = make_mesh(jax.devices()[:1])
    value_and_grad = value_and_grad_over_rows(loss_fn, mesh)

    def mean_and_grad(params: Any, *rows: Any) -> tuple[jax.Array, Any]:
        (loss, _), grads = value_and_grad(params, None, rows)
        return loss, grads

    rows = jax.device_put(rows, batch_sharding(mesh))
    return compile_update(mean_and_grad, params, adam(config), *rows, sharding=replicated(mesh))


def samplers(
    config: ModelConfig, weights: Weights, num_samples: int, length: int
) -> dict[str, Callable[[], Any]]:
    """`grnn_jax.sample`, compiled once, on the configuration's devices if they divide the rows."""
    model, params = build(config, weights)
    root = jax.random.key(0)
    calls = iter(range(1 << 30))
    mesh = make_mesh(jax.devices()[: config.num_devices])
    if num_samples % mesh.size or mesh.size == 1:
        draw = functools.partial(
            grnn_jax.sample, model, params, num_samples=num_samples, length=length
        )
    else:
        sharded = grnn_jax.sampling.make_sharded_sample(model, mesh, num_samples, length)
        draw = functools.partial(sharded, params, first_index=0)

    def run() -> Any:
        key = jax.random.fold_in(root, next(calls))
        return jax.block_until_ready(draw(key=key)).events

    return {"grnn_jax.sample": run}
