"""Sampling on several devices: each draws its part of the sequences, without waiting for others."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.compiler import outermost_jit
from grnn_jax.conditions import check_conditions
from grnn_jax.model import Model
from grnn_jax.sampling.ancestral import sample
from grnn_jax.sampling.refill import sample_many


class Block(NamedTuple):
    """Sequences, each array split over the devices; the fields are those of `Samples`."""

    events: PyTree
    mask: Bool[Array, "B T"]
    log_probs: Float[Array, "B T"]


@runtime_checkable
class SampleBlock(Protocol):
    """Draws a block of sequences."""

    def __call__(
        self,
        params: Params,
        key: PRNGKey,
        first_index: int | Int[AnyArray, ""],
        conditions: Float[AnyArray, "..."] | None = None,
    ) -> Block:
        """The sequences first_index … first_index + B - 1, each array split over "data".

        Args:
            params: parameters of the model.
            key: a typed key.
            first_index: of the first sequence.
            conditions: [B, C], or [C] for all, of a model with conditions.
        """
        ...


def make_sharded_sample(
    model: Model,
    mesh: Mesh | AbstractMesh,
    num_samples: int,
    length: int,
    *,
    num_rows: int | None = None,
    **options: Any,
) -> SampleBlock:
    """Makes a function that draws a block of sequences on all devices of a mesh.

    Sequence i has the key folded from i, as in `sample`, so it does not depend on the number of
    devices (up to the rounding of the logits). A device stops when its own sequences have ended.

    Args:
        model: the model.
        mesh: mesh with the axis "data".
        num_samples: B, sequences in a block; a multiple of the devices.
        length: most events drawn for each sequence.
        num_rows: sequences drawn side by side on all devices together, each followed by the next
            when it ends, as `sample_many` does; None for all of the block.
        **options: of `sample`, the same for all sequences.

    Returns:
        The compiled function, see `SampleBlock`.

    Raises:
        ValueError: the devices do not divide the block.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> from grnn_jax.sharding import make_mesh
        >>> mesh = make_mesh(jax.devices()[:1])
        >>> draw = sampling.make_sharded_sample(model, mesh, num_samples=2, length=3)
        >>> draw(params, jax.random.key(1), 0).events.shape
        (2, 3)
    """
    num_devices = mesh.shape["data"]
    if num_samples % num_devices:
        raise ValueError(
            f"num_samples must be a multiple of the {num_devices} devices, got {num_samples}"
        )
    part = num_samples // num_devices

    def draw(
        params: Params, key: PRNGKey, first_index: jax.Array, conditions: Array | None
    ) -> Block:
        first = first_index + part * jax.lax.axis_index("data")
        settings = options | {"first_index": first, "conditions": conditions}
        if num_rows is None:
            return Block(*sample(model, params, key, part, length, **settings)[:3])
        rows = -(-num_rows // num_devices)
        return Block(*sample_many(model, params, key, part, length, num_rows=rows, **settings)[:3])

    # The loop of a device ends by its own sequences, so that nothing in it is known to be equal.
    sharded = jax.shard_map(
        draw, mesh=mesh, in_specs=(P(), P(), P(), P("data")), out_specs=P("data"), check_vma=False
    )

    @outermost_jit
    def draw_block(
        params: Params,
        key: PRNGKey,
        first_index: int | Int[AnyArray, ""],
        conditions: Float[AnyArray, "..."] | None = None,
    ) -> Block:
        if conditions is not None:
            check_conditions(model.conditions, conditions, num_samples)
            width = len(model.conditions.sizes)
            conditions = jnp.broadcast_to(jnp.asarray(conditions), (num_samples, width))
        return sharded(params, key, jnp.asarray(first_index, jnp.int32), conditions)

    return draw_block
