"""What enters a cell: rows of a table or vectors, and what is added to their projection."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params
from grnn_jax.cells.base import Cell
from grnn_jax.cells.sitewise import fold_sites
from grnn_jax.ops.lookup import lookup, lookup_segments


class Tokens(NamedTuple):
    """Inputs [B, T, X] given as `table[indices]`.

    Attributes:
        indices: rows of the table, [..., B, T].
        table: encodings of all tokens, [V, X].
    """

    indices: Int[AnyArray, "..."]
    table: Float[AnyArray, "V X"]


class Addend(NamedTuple):
    """What is added to the projected inputs of a cell: the sum of the parts that are given.

    Conditions and covariates enter here, projected in front of the loop. Time-major, `step` and
    `segment` have the axes [T, B]; P is the width of `Cell.project`.

    Attributes:
        row: the same at all steps of a row, [B, P].
        step: one for each step, [B, T, P].
        table: one for each segment, [S, P]: rows of packed sequences change it at their resets.
        segment: the row of `table` that is added at each step, [B, T].
    """

    row: Float[Array, "B P"] | None = None
    step: Float[Array, "... P"] | None = None
    table: Float[Array, "S P"] | None = None
    segment: Int[Array, "..."] | None = None

    def total(self) -> Float[Array, "... P"] | None:
        """The sum, time-major or of one step; None where nothing is given."""
        parts = [part for part in (self.row, self.by_step()) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def by_step(self) -> Float[Array, "... P"] | None:
        """The parts that differ from step to step, segments spread out."""
        if self.table is None or self.segment is None:
            return self.step
        spread = lookup_segments(self.table, self.segment)
        return spread if self.step is None else self.step + spread

    def of_sites(self, num_sites: int) -> "Addend":
        """The addend where every row is that of many sites; time-major."""
        return Addend(*fold_sites((self.row, self.by_step()), num_sites))


class Inputs(NamedTuple):
    """What enters the network, batch-major [B, T] or, inside of the engines, time-major [T, B].

        x_t = table[values_t] or values_t,   the start input where not started_t
        projected_t = U x_t + b + addend_t

    Attributes:
        values: rows of `table`, or, without one, the vectors x [..., X].
        table: encodings of all tokens, [V, X], or None.
        start: the start input [X]; None where it never enters.
        started: False where the start input enters in place of the value.
        projected_table: `table` with the start input as its last row, projected by the cell once
            for a loop of many steps, [V + 1, P]; or None.
        addend: what is added to the projected inputs.
    """

    values: Array
    table: Float[Array, "V X"] | None = None
    start: Float[Array, " X"] | None = None
    started: Bool[Array, "..."] | None = None
    projected_table: Float[Array, "V+1 P"] | None = None
    addend: Addend = Addend()

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes in front of the features: (B, T), or (T, B) time-major, or (B,) at one step."""
        return self.values.shape if self.table is not None else self.values.shape[:-1]

    def time_major(self) -> "Inputs":
        """The same with T and B exchanged: indices move at no cost, vectors by one copy."""
        return self.with_steps(*jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), self.steps()))

    def steps(self) -> tuple[Any, ...]:
        """What differs from step to step: arrays [B, T, ...], which can be cut in time."""
        return self.values, self.started, self.addend.step, self.addend.segment

    def with_steps(self, values: Any, started: Any, step: Any, segment: Any) -> "Inputs":
        """The same inputs at other steps, as `steps` gives them: arrays, or how they are split."""
        addend = self.addend._replace(step=step, segment=segment)
        return self._replace(values=values, started=started, addend=addend)

    def table_pays(self) -> bool:
        """Whether projecting all rows of the table is cheaper than projecting every event."""
        return self.table is not None and projecting_a_table_pays(
            self.table.shape[0], self.start is not None, self.values.size
        )

    def rows(self) -> tuple[Float[Array, "rows X"], Int[Array, "..."]]:
        """The table with the start input as its last row, and which row enters."""
        assert self.table is not None
        if self.start is None or self.started is None:
            return self.table, self.values
        indices = jnp.where(self.started, self.values, self.table.shape[0])
        return table_with_start(self.table, self.start), indices

    def lookup(self) -> Float[Array, "... X"]:
        """The vectors x themselves."""
        vectors = self.values if self.table is None else lookup(self.table, self.values)
        if self.start is None or self.started is None:
            return vectors
        # Not a longer table: it would be copied at every step of a loop.
        return jnp.where(self.started[..., None], vectors, self.start)

    def project(self, cell: Cell, params: Params) -> Float[Array, "... P"]:
        """The cell's projected inputs, of time-major inputs or of one step.

        `Cell.project` acts row by row, so of tokens the table's rows are projected and gathered
        where that is cheaper than projecting every event.
        """
        if self.projected_table is not None:
            # In a loop over single events this is all that is left of the input layer: a gather.
            started = True if self.started is None else self.started
            last = self.projected_table.shape[0] - 1
            projected = lookup(self.projected_table, jnp.where(started, self.values, last))
        elif self.table_pays():
            table, indices = self.rows()
            projected = lookup(cell.project(params, table), indices)
        else:
            projected = cell.project(params, self.lookup())
        # Behind the gather: an addend differs from row to row, a table's rows do not.
        addend = self.addend.total()
        return projected if addend is None else projected + addend

    def of_sites(self, cell: Cell, params: Params) -> "Inputs":
        """What enters the cell of one site, whose rows are those of all sites; time-major."""
        assert cell.sitewise is not None
        _, num_sites, features = cell.sitewise
        vectors = features(params, self.lookup())
        vectors = vectors.reshape(vectors.shape[0], -1, vectors.shape[-1])
        return Inputs(vectors, addend=self.addend.of_sites(num_sites))


def as_inputs(inputs: Float[AnyArray, "..."] | Tokens | Inputs) -> Inputs:
    """Vectors or `Tokens`, as public functions take them, as `Inputs`."""
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, Tokens):
        return Inputs(jnp.asarray(inputs.indices, jnp.int32), jnp.asarray(inputs.table))
    return Inputs(jnp.asarray(inputs))


def projecting_a_table_pays(num_rows: int, with_start: bool, num_events: int) -> bool:
    """Whether a table, with a row for the start input, has at most as many rows as events come.

    Projected once for all tokens, the first layer of a character model has no product over B·T
    events at all: its training steps took 37, 132 and 419 ms at H 128, 256 and 512, those of
    vectors 54, 206 and 687 ms (LSTM, B 64, T 128, two CPU cores; benchmarks/RESULTS.md).
    """
    return num_rows + with_start <= num_events


def table_with_start(
    table: Float[Array, "V X"], start: Float[Array, " X"]
) -> Float[Array, "V+1 X"]:
    """The encodings of all tokens, with the start input as the last row."""
    return jnp.concatenate([table, start[None]])
