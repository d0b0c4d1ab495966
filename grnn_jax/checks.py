"""What a model is given: events, and what was carried to them, are looked at by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Params, PyTree
from grnn_jax.distributions.acceptance import accept
from grnn_jax.model import Carry, Model
from grnn_jax.ops.checks import check_array, check_tree


def check_shapes(model: Model, events: PyTree, name: str = "events") -> tuple[int, int]:
    """Names events that have not the structure or the shapes of the family's.

    Args:
        model: the model.
        events: what came.
        name: of the argument.

    Returns:
        B and T.

    Raises:
        ValueError: for a list, or arrays that are not [B, T, ...].
    """
    specs = jax.tree_util.tree_leaves_with_path(model.distribution.event)
    structure: Any = jax.tree.structure(model.distribution.event)
    try:
        leaves = structure.flatten_up_to(events)
    except (ValueError, TypeError) as error:
        fields = [f"{name}{jax.tree_util.keystr(path)}" for path, _ in specs]
        raise ValueError(f"{name} must have {', '.join(fields)} and no more") from error
    shape: tuple[int, ...] | None = None
    for (path, spec), leaf in zip(specs, leaves, strict=True):
        label = f"{name}{jax.tree_util.keystr(path)}"
        check_array(label, leaf)
        if len(leaf.shape) < 2:
            raise ValueError(f"{label} must have axes [B, T, ...], got shape {tuple(leaf.shape)}")
        if tuple(leaf.shape[2:]) != spec.shape:
            axes = ", ".join(["B", "T", *map(str, spec.shape)])
            raise ValueError(f"{label} must have axes [{axes}], got shape {tuple(leaf.shape)}")
        shape = shape or tuple(leaf.shape[:2])
        check_array(label, leaf, shape + spec.shape)
    assert shape is not None
    batch_size, length = shape
    return batch_size, length


def check_carry(
    model: Model, params: Params, carry: Carry, batch_size: int, name: str = "carry"
) -> None:
    """Names a carry of another model or batch."""
    state = jax.eval_shape(
        lambda params: model.cell.initial_state(params["cell"], batch_size), params
    )
    event = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct((batch_size, *spec.shape), spec.dtype),
        model.distribution.event,
    )
    started = jax.ShapeDtypeStruct((batch_size,), bool)
    given = None
    if model.conditions.sizes and carry.conditions is not None:
        given = jax.eval_shape(
            lambda params: (
                model.initial_state(
                    params, batch_size, conditions=jnp.zeros(len(model.conditions.sizes))
                ).conditions
            ),
            params,
        )
    expected = Carry(state, event, started, given)  # type: ignore[arg-type]
    check_tree(name, carry, expected, f"a carry of this model for a batch of {batch_size}")


def check_events(
    model: Model, events: PyTree, mask: AnyArray | None = None, name: str = "events"
) -> None:
    """Names the first value that is no event of the family; inside jit values are unknown: passes.

    Args:
        model: the model.
        events: [..., ...], of any dtype.
        mask: bool [...], False where anything may stand.
        name: of the argument.

    Raises:
        ValueError: for such a value.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((events, mask))):
        return
    family = model.distribution
    values = jax.tree.map(lambda _, leaf: np.asarray(leaf), family.event, events)
    if family.num_tokens is not None and values.size and values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got dtype {values.dtype}")
    wrong = ~np.asarray(accept(family, values)[1])
    first = np.argwhere(wrong if mask is None else wrong & np.asarray(mask))[:1]
    if first.size:
        place = tuple(first[0].tolist())
        value = jax.tree.map(lambda leaf: leaf[place].tolist(), values)
        expected = f"events of {family.name}"
        if family.num_tokens is not None:
            expected = f"classes in [0, {family.num_tokens})"
        raise ValueError(f"{name} must be {expected}, got {value} at {name}{list(place)}")
