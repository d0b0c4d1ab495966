"""What the forward and the backward pass of the packed engine both compute."""

from typing import NamedTuple

import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, PyTree, State
from grnn_jax.cells.base import Gated
from grnn_jax.ops.products import dense, heads_einsum
from grnn_jax.recurrence.packed_inputs import SharedInputs


class PackedPlan(NamedTuple):
    """What of a run is known before it is traced; hashable.

    Attributes:
        gated: the structure of the cell.
        save_recurrent: whether V h_{t-1} is kept for the backward pass, or computed again there.
        unroll: steps in the body of a loop.
    """

    gated: Gated
    save_recurrent: bool
    unroll: int


class PackedParams(NamedTuple):
    """What every step reads, and gradients are formed for.

    Attributes:
        kernel: V, or None for a cell without one.
        weights: the parameters of `Gated.pointwise`.
        inputs: tables and rows of the projected inputs.
    """

    kernel: Float[Array, "heads D GD"] | None
    weights: PyTree
    inputs: SharedInputs


class Entering(NamedTuple):
    """What the elementwise step reads besides the state.

    Attributes:
        gates: x_t + r_t of the additive gates, then r_t of the others; [..., G·H].
        projected: x_t of the others, [..., N·H].
    """

    gates: Float[Array, "... GH"]
    projected: Float[Array, "... NH"]


def enter(
    plan: PackedPlan, projected: Float[Array, "... P"], recurrent: Float[Array, "... GH"]
) -> Entering:
    """Adds what can be added: the sum is then kept for the backward pass in place of both."""
    sums, others = split_additive(plan, projected)
    rest = recurrent.shape[-1] - sums.shape[-1]
    # A sum with zeros, not two parts side by side: it is one elementwise expression.
    padding = [(0, 0)] * (sums.ndim - 1) + [(0, rest)]
    return Entering((jnp.pad(sums, padding) if rest else sums) + recurrent, others)


def split_additive(
    plan: PackedPlan, projected: Float[Array, "... P"]
) -> tuple[Float[Array, "... AH"], Float[Array, "... NH"]]:
    """The projected inputs of the additive gates, and of the others."""
    width = projected.shape[-1] // plan.gated.num_inputs * plan.gated.num_additive
    return projected[..., :width], projected[..., width:]


def pointwise(plan: PackedPlan, weights: PyTree, entering: Entering, state: State) -> State:
    """The elementwise step s_t; additive gates are handed over as x_t, with the number 0 as r_t."""
    gated = plan.gated
    gates = jnp.split(entering.gates, gated.num_gates, -1) if gated.num_gates else []
    num_others = gated.num_inputs - gated.num_additive
    others = jnp.split(entering.projected, num_others, -1) if num_others else []
    projected = (*gates[: gated.num_additive], *others)
    recurrent = (0.0,) * gated.num_additive + tuple(gates[gated.num_additive :])
    return gated.pointwise(weights, projected, recurrent, state)


def multiply(
    kernel: Float[Array, "heads D GD"] | None, hidden: Float[Array, "... H"], plan: PackedPlan
) -> Float[Array, "... GH"]:
    """V h, its gates side by side; nothing for a cell without V."""
    if kernel is None:
        return jnp.zeros((*hidden.shape[:-1], 0), hidden.dtype)
    if len(kernel) == 1:
        return dense(hidden, kernel[0], plan.gated.dtype)
    product = heads_einsum("...nd,ndk->...nk", _heads(hidden, kernel), kernel, plan.gated.dtype)
    by_gate = product.reshape(*product.shape[:-1], plan.gated.num_gates, -1)
    return jnp.swapaxes(by_gate, -3, -2).reshape(*hidden.shape[:-1], -1)


def multiply_transposed(
    kernel: Float[Array, "heads D GD"], d_recurrent: Float[Array, "... GH"], plan: PackedPlan
) -> Float[Array, "... H"]:
    """Vᵀ dr, the gradient of h."""
    if len(kernel) == 1:
        return dense(d_recurrent, kernel[0].T, plan.gated.dtype)
    sides = by_head(kernel, d_recurrent, plan)
    product = heads_einsum("...nk,ndk->...nd", sides, kernel, plan.gated.dtype)
    return product.reshape(*product.shape[:-2], -1)


def kernel_gradient(
    kernel: Float[Array, "heads D GD"],
    before: Float[Array, "T B H"],
    d_recurrent: Float[Array, "T B GH"],
    plan: PackedPlan,
) -> Float[Array, "heads D GD"]:
    """DV = Σ_{t,b} h_{t-1} dr_tᵀ as one product, in float32 or wider."""
    hidden = _heads(before, kernel).reshape(-1, *kernel.shape[:2])
    sides = by_head(kernel, d_recurrent, plan).reshape(-1, len(kernel), kernel.shape[2])
    return heads_einsum("and,ank->ndk", hidden, sides, plan.gated.dtype)


def by_head(
    kernel: Float[Array, "heads D GD"], gates: Float[Array, "... GH"], plan: PackedPlan
) -> Float[Array, "... heads GD"]:
    """Gates side by side for each head, in the compute dtype."""
    by_gate = gates.reshape(*gates.shape[:-1], plan.gated.num_gates, len(kernel), -1)
    sides = jnp.swapaxes(by_gate, -3, -2)
    return sides.reshape(*gates.shape[:-1], *kernel.shape[::2]).astype(kernel.dtype)


def _heads(
    hidden: Float[Array, "... H"], kernel: Float[Array, "heads D GD"]
) -> Float[Array, "... heads D"]:
    """The parts of h that each head reads, in the compute dtype."""
    return hidden.reshape(*hidden.shape[:-1], *kernel.shape[:2]).astype(kernel.dtype)
