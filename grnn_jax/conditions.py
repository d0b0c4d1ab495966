r"""What is known of a sequence beforehand: classes and numbers, added to the projected input.

    a(c) = Σ_j A_j[c_j]            of a class, the row of a table
         + Σ_j c_j w_j             of a number

A value that is missing (NaN) has a row of its own in place of these. Where conditions enter "steps"
a(c) is added at every step of a sequence, the first one included; "start" adds it where the start
input enters, and nowhere else; "both" does both, with parameters for each.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey
from grnn_jax.ops.checks import check_array
from grnn_jax.ops.lookup import lookup
from grnn_jax.recurrence.inputs import Addend

ENTERS = "steps", "start", "both"
"""Where conditions may enter."""
MAX_CLASSES = 2**24
"""Most classes of a condition: float32 tells all of them apart."""

NO_CONDITIONS = "conditions must be given to a model with conditions, got none"


class Conditions(NamedTuple):
    """What the conditions of a model are.

    Attributes:
        sizes: for each the number of its classes, 0 for a number.
        enters: one of `ENTERS`.
        num_sites: sites of the first layer, each of which is given the same.
    """

    sizes: tuple[int, ...] = ()
    enters: str = "steps"
    num_sites: int = 1


class ProjectedConditions(NamedTuple):
    """What conditions add to the projected inputs of the first layer.

    Attributes:
        steps: at every step, [..., P]; None where nothing is.
        start: where the start input enters, [..., P]; None where nothing is.
    """

    steps: Float[Array, "... P"] | None
    start: Float[Array, "... P"] | None

    def at_step(self, started: Bool[Array, " B"]) -> Float[Array, "B P"]:
        """What is added at one step of rows."""
        if self.start is None:
            assert self.steps is not None
            return self.steps
        at_start = jnp.where(started[..., None], 0, self.start)
        return at_start if self.steps is None else at_start + self.steps


def check_settings(sizes: Sequence[int], enters: str, num_sites: int) -> Conditions:
    """Conditions from the arguments of `make_model`; raises ValueError for what cannot be."""
    for size in sizes:
        if not isinstance(size, int) or not 0 <= size <= MAX_CLASSES:
            raise ValueError(
                f"conditions must be numbers of classes up to {MAX_CLASSES}, 0 for a number, "
                f"got {size!r}"
            )
    if enters not in ENTERS:
        raise ValueError(f"condition_enters must be one of {', '.join(ENTERS)}, got {enters!r}")
    return Conditions(tuple(sizes), enters, num_sites)


def init_conditions(key: PRNGKey, conditions: Conditions, width: int) -> Params:
    """The tables, [K + 1, P] of K classes and [2, P] of a number, the last row for missing values.

    Rows are drawn so that what all conditions add together has variance 1, as an input's projection
    has.

    Args:
        key: a typed key.
        conditions: what they are.
        width: of the projected input of the first layer.
    """
    width //= conditions.num_sites
    scale = len(conditions.sizes) ** -0.5
    parts = [part for part in ("steps", "start") if conditions.enters in (part, "both")]
    return {
        part: {
            f"table_{index}": scale
            * jax.random.normal(
                jax.random.fold_in(jax.random.fold_in(key, ENTERS.index(part)), index),
                (max(size, 1) + 1, width),
                jnp.float32,
            )
            for index, size in enumerate(conditions.sizes)
        }
        for part in parts
    }


def project_conditions(
    params: Params, conditions: Conditions, values: Float[AnyArray, "... C"]
) -> ProjectedConditions:
    """What values of the conditions add.

    Args:
        params: the tables.
        conditions: what they are.
        values: class indices and numbers, NaN where they are missing.

    Returns:
        Arrays [..., P]; NaN for what is no class.
    """
    values = jnp.asarray(values, jnp.float32)

    def project(tables: Params) -> Array:
        parts = [
            _project_one(tables[f"table_{index}"], size, values[..., index])
            for index, size in enumerate(conditions.sizes)
        ]
        return jnp.tile(functools.reduce(jnp.add, parts), conditions.num_sites)

    return ProjectedConditions(*(project(params[p]) if p in params else None for p in ENTERS[:2]))


def _project_one(table: Float[Array, "K P"], size: int, value: Float[Array, "..."]) -> Array:
    """What one condition adds."""
    missing = jnp.isnan(value)
    if size:
        index, is_class = _class_index(value, size)
        return jnp.where(is_class[..., None], lookup(table, index), jnp.nan)
    number = jnp.where(missing, 0, value)[..., None] * table[0]
    return jnp.where(missing[..., None], table[1], number)


def _class_index(
    value: Float[Array, "..."], size: int
) -> tuple[Int[Array, "..."], Bool[Array, "..."]]:
    """The row of a class, the last one of a missing class, and whether it is one."""
    missing = jnp.isnan(value)
    is_class = missing | ((value >= 0) & (value < size) & (value == jnp.round(value)))
    return jnp.where(missing, size, jnp.where(is_class, value, 0)).astype(jnp.int32), is_class


class SegmentedConditions(NamedTuple):
    """What conditions add in a window, in the form of an `Addend`.

    Attributes:
        addend: but for its `segment`.
        segment: the row of its table at each step, [B, T], or None.
        wrong: True where no condition is given, or what is no class, [B, T]; None where that
            cannot be.
    """

    addend: Addend
    segment: Int[Array, "B T"] | None
    wrong: Bool[Array, "B T"] | None = None


def of_rows(projected: ProjectedConditions, started: Bool[Array, "B T"]) -> SegmentedConditions:
    """The addend of rows that each have one condition in all of a window.

    Args:
        projected: of rows, [B, P].
        started: False where the start input enters.
    """
    addend = Addend(row=projected.steps)
    if projected.start is None:
        return SegmentedConditions(addend, None)
    rows = jnp.arange(started.shape[0])[:, None]
    return SegmentedConditions(*_only_at_start(projected.start, addend, rows, started))


def of_segments(
    params: Params,
    conditions: Conditions,
    values: Float[AnyArray, "B S C"],
    started: Bool[Array, "B T"],
    reset: Bool[Array, "B T"],
) -> SegmentedConditions:
    """The addend of packed rows, which change their conditions at their resets.

    Args:
        params: the tables.
        conditions: what they are.
        values: of each row those of the sequence that goes on from the window before, then those
            of each sequence that begins in this one.
        started: False where the start input enters.
        reset: True where a sequence begins.
    """
    values = jnp.asarray(values, jnp.float32)
    batch_size, count, _ = values.shape
    within = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
    segment = jnp.arange(batch_size, dtype=jnp.int32)[:, None] * count + within
    wrong = within >= count
    values = values.reshape(batch_size * count, -1)
    indices = [_class_index(values[:, i], size) for i, size in enumerate(conditions.sizes) if size]
    valid = functools.reduce(jnp.logical_and, (ok for _, ok in indices), jnp.ones((), bool))
    wrong |= ~jnp.broadcast_to(valid, values.shape[:1])[segment]
    rows = [size + 1 for size in conditions.sizes]
    if all(conditions.sizes) and math.prod(rows) <= len(values):
        # A row for each combination of classes: the smaller the table, the cheaper its gradient.
        combined = functools.reduce(
            lambda sum, each: sum * each[0] + each[1],
            zip(rows, (index for index, _ in indices), strict=True),
            jnp.zeros(len(values), jnp.int32),
        )
        segment = combined[segment]
        grid = np.indices(rows).reshape(len(rows), -1).T
        values = jnp.asarray(np.where(grid == np.array(conditions.sizes), np.nan, grid))
    steps, start = project_conditions(params, conditions, values)
    if start is None:
        return SegmentedConditions(Addend(table=steps), segment, wrong)
    if steps is None:
        return SegmentedConditions(*_only_at_start(start, Addend(), segment, started), wrong)
    table = jnp.concatenate([steps, steps + start])
    segment = jnp.where(started, segment, segment + len(steps))
    return SegmentedConditions(Addend(table=table), segment, wrong)


def _only_at_start(
    start: Float[Array, "S P"],
    addend: Addend,
    segment: Int[Array, "..."],
    started: Bool[Array, "B T"],
) -> tuple[Addend, Int[Array, "B T"]]:
    """Adds rows of a table where the start input enters, and elsewhere its last row, zeros."""
    table = jnp.concatenate([start, jnp.zeros_like(start[:1])])
    return addend._replace(table=table), jnp.where(started, len(start), segment)


def check_conditions(
    conditions: Conditions,
    values: Any,
    batch_size: int,
    name: str = "conditions",
    *,
    by_segment: bool = False,
) -> None:
    """Names conditions that do not fit a model; inside jit values are unknown: only shapes.

    Args:
        conditions: those of the model.
        values: what came, [B, C] or [C]; by segment [B, S, C]; None for none.
        batch_size: B.
        name: of the argument.
        by_segment: whether each row has several.

    Raises:
        ValueError: for another shape, or a value that is no class or not finite.
    """
    if not conditions.sizes:
        if values is not None:
            raise ValueError(f"{name} must be None for a model without conditions")
        return
    if values is None:
        raise ValueError(NO_CONDITIONS)
    check_array(name, values)
    shape: tuple[int, ...] = (batch_size, len(conditions.sizes))
    if by_segment:
        shape = (batch_size, *values.shape[1:2], len(conditions.sizes))
    elif len(values.shape) == 1:
        shape = shape[1:]
    check_array(name, values, shape)
    if isinstance(values, jax.core.Tracer):
        return
    for index, size in enumerate(conditions.sizes):
        column = np.asarray(values)[..., index]
        given = column[~np.isnan(column)]
        good = np.isfinite(given)
        if size:
            good &= (given >= 0) & (given < size) & (given == np.round(given))
        if not good.all():
            expected = f"classes in [0, {size})" if size else "finite numbers"
            raise ValueError(
                f"{name}[..., {index}] must be {expected}, or NaN where they are missing, "
                f"got {given[~good][0]}"
            )
