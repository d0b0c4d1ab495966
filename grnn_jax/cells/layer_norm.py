"""Layer normalisation inside of a gated cell: of U x and of V h, before they are added."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.cells.base import Cell
from grnn_jax.ops.products import dense, split_gates
from grnn_jax.ops.ranks import align

EPSILON = 1e-5


def layer_norm_groups(gates: tuple[Array, ...], groups: tuple[int, ...]) -> tuple[Array, ...]:
    """Gates of mean 0 and variance 1 over the units of all gates of a group together.

    Args:
        gates: G arrays [..., H].
        groups: how many gates each group has, in their order.

    Returns:
        G arrays [..., H].
    """
    normalised: list[Array] = []
    for size in groups:
        group = gates[len(normalised) : len(normalised) + size]
        mean = sum(gate.mean(-1, keepdims=True) for gate in group) / size
        centred = [gate - mean for gate in group]
        variance = sum(jnp.square(gate).mean(-1, keepdims=True) for gate in centred) / size
        normalised += [gate * jax.lax.rsqrt(variance + EPSILON) for gate in centred]
    return tuple(normalised)


def layer_norm_recurrent(
    weights: Params, recurrent: tuple[Array, ...], groups: tuple[int, ...]
) -> tuple[Array, ...]:
    """Normalised V h times the gains "recurrent_scale_k"."""
    normalised = layer_norm_groups(recurrent, groups)
    scales = (weights[f"recurrent_scale_{k}"] for k in range(len(normalised)))
    return tuple(align(s, gate) * gate for s, gate in zip(scales, normalised, strict=True))


def recurrent_scales(hidden_size: int, num_gates: int) -> Params:
    """The initial gains of `layer_norm_recurrent`: ones."""
    ones = jnp.ones((hidden_size,), jnp.float32)
    return {f"recurrent_scale_{gate}": ones for gate in range(num_gates)}


def layer_norm_projection(cell: Cell, groups: tuple[int, ...], dtype: DType) -> Cell:
    """The same cell with U x normalised and times a gain, "input_scale", before b is added."""
    num_gates = sum(groups)

    def init(key: PRNGKey, input_size: int) -> Params:
        scale = jnp.ones((num_gates * cell.hidden_size,), jnp.float32)
        return cell.init(key, input_size) | {"input_scale": scale}

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... GH"]:
        gates = split_gates(dense(inputs, params["input_kernel"], dtype), num_gates)
        normalised = jnp.concatenate(layer_norm_groups(gates, groups), -1)
        scale, bias = (align(params[name], normalised) for name in ("input_scale", "bias"))
        return normalised * scale + bias

    assert cell.gated is not None
    gated = cell.gated._replace(project_gates=None)
    return cell._replace(init=init, project=project, gated=gated)
