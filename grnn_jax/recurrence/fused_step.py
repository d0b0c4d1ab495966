"""What the forward and the backward pass of the fused engine both compute at a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, PyTree, State
from grnn_jax.cells.base import Gated
from grnn_jax.ops.products import recurrent_product
from grnn_jax.recurrence.gates import Gates, ReadGates


class FusedPlan(NamedTuple):
    """What of a run is known before it is traced; hashable.

    Attributes:
        gated: the structure of the cell.
        save_recurrent: whether V h_{t-1} is kept for the backward pass, or computed again there.
        read: see `gates.ProjectedGates`.
        by_chunk: whether projected inputs are computed for a chunk of steps at once, which stays
            in the cache; else they are gathered, or are there, step by step.
    """

    gated: Gated
    save_recurrent: bool
    read: ReadGates | None
    by_chunk: bool

    @property
    def reads_projected_again(self) -> bool:
        """Whether the backward pass reads x_t besides what was kept: not if it came in chunks."""
        return self.save_recurrent and not self.by_chunk


class FusedParams(NamedTuple):
    """What every step reads, and gradients are formed for.

    Attributes:
        kernel: V, or None for a cell without one.
        weights: the parameters of `Gated.pointwise`.
        shared: tables, or U and b, see `gates.ProjectedGates`.
    """

    kernel: Float[Array, "heads D GD"] | None
    weights: PyTree
    shared: PyTree


class Entering(NamedTuple):
    """What the elementwise step reads besides the state, gate by gate.

    Attributes:
        sums: x_t + r_t of the additive gates, of which `pointwise` reads nothing else.
        projected: x_t of the others.
        recurrent: r_t of the others.
    """

    sums: Gates
    projected: Gates
    recurrent: Gates


def read_gates(plan: FusedPlan, shared: PyTree, sequence: PyTree) -> Gates:
    """The projected inputs x_t, of one step or of a chunk of steps."""
    if plan.read is not None:
        return plan.read(shared, sequence)
    gates: Gates = sequence
    return gates


def multiply(
    plan: FusedPlan, kernel: Float[Array, "heads D GD"] | None, hidden: Float[Array, "... H"]
) -> Gates:
    """The product r_t = V h_{t-1}."""
    if kernel is None:
        return ()
    gates = recurrent_product(kernel, hidden, plan.gated.num_gates, plan.gated.dtype)
    # Without the barrier XLA fuses the split of the product into the elementwise step, which then
    # reads slices of one array and is not vectorised (see `gates.Gates`).
    apart: Gates = jax.lax.optimization_barrier(gates)
    return apart


def enter(plan: FusedPlan, projected: Gates, recurrent: Gates) -> Entering:
    """Adds what can be added: the sum is then kept for the backward pass in place of both."""
    additive = plan.gated.num_additive
    sums = tuple(map(jnp.add, projected[:additive], recurrent[:additive]))
    if additive:
        # One array that is both kept and read, and not an addition in each of its readers.
        sums = jax.lax.optimization_barrier(sums)
    return Entering(sums, projected[additive:], recurrent[additive:])


def keep(plan: FusedPlan, entering: Entering) -> PyTree:
    """What the backward pass needs of it, and does not have otherwise."""
    if not plan.save_recurrent:
        return ()
    # Where x_t did not come in chunks it is gathered again, or still there.
    return entering if plan.by_chunk else (entering.sums, entering.recurrent)


def complete(plan: FusedPlan, kept: PyTree, shared: PyTree, sequence: PyTree) -> Entering:
    """The inverse of `keep`, at one step."""
    if not plan.reads_projected_again:
        entering: Entering = kept
        return entering
    sums, recurrent = kept
    additive = plan.gated.num_additive
    # Where all gates are additive the sums are all that is read.
    others = additive < plan.gated.num_inputs
    projected = read_gates(plan, shared, sequence)[additive:] if others else ()
    return Entering(sums, projected, recurrent)


def pointwise(plan: FusedPlan, weights: PyTree, entering: Entering, state: State) -> State:
    """The elementwise step s_t; additive gates are handed over as x_t, with the number 0 as r_t."""
    zeros = (0.0,) * len(entering.sums)
    projected = entering.sums + entering.projected
    return plan.gated.pointwise(weights, projected, zeros + entering.recurrent, state)
