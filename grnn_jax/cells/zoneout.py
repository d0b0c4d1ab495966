"""Zoneout: units that keep their old value at random (Krueger et al. 2017)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Params, PRNGKey, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.masks import EventIndex, Rate, check_rate, event_mask


@cached_factory
def zoneout(cell: Cell, rate: Rate | Sequence[Rate]) -> Cell:
    r"""The same cell with zoneout, and with the same structure declared.

        s_t = k_t ⊙ s_{t-1} + (1 - k_t) ⊙ cell(s_{t-1}, x_t)

    for each array s of the state by itself; the output is that of the new state. k is drawn anew
    for each event and unit, 1 with probability `rate`, where `unroll` is given a key (training);
    elsewhere it is its expectation, `rate`. It stands behind the cell's own projected inputs, one
    block as wide as each array of the state, so that every engine sees it as an input. A cell that
    is linear in its state remains so: a becomes k + (1 - k) ⊙ a and b becomes (1 - k) ⊙ b.

    Args:
        cell: a single layer. Where its states are not values but logarithms or sums with a scale
            of their own (`slstm`), the expectation mixes them as they are.
        rate: probability of keeping an old value, for all arrays of the state or one for each:
            (0.05, 0.5) for the h and the c of an LSTM on characters in the paper. Traced or not.

    Returns:
        The cell; parameters and state are those of `cell`.

    Raises:
        ValueError: for a stack or a sitewise cell, a rate outside of [0, 1), or another number of
            rates than arrays.

    Reference: D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden
    activations", ICLR 2017.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell, plain = cells.zoneout(cells.gru(4), 0.25), cells.gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> before = plain.initial_state(params, 2)  # zeros, of which a quarter is kept
        >>> _, new = plain.step(params, before, plain.project(params, inputs))
        >>> bool(jax.numpy.allclose(output, 0.75 * new, atol=1e-5))
        True
    """
    if cell.layered is not None:
        raise ValueError("cell must be a single layer, got a stack; wrap each of its cells")
    if cell.sitewise is not None:
        raise ValueError(
            "cell must not be sitewise; wrap the cell of one site: sitewise(zoneout(cell), …)"
        )

    def one_state(key: PRNGKey) -> State:
        return cell.initial_state(cell.init(key, 1), 1)

    widths = [leaf.shape[-1] for leaf in jax.eval_shape(one_state, jax.random.key(0))]
    rates = tuple(rate) if isinstance(rate, Sequence) else (rate,) * len(widths)
    if len(rates) != len(widths):
        raise ValueError(f"rate must be one number or {len(widths)}, got {len(rates)}")
    rates = tuple(check_rate("rate", number) for number in rates)
    total = sum(widths)
    bounds = [sum(widths[: number + 1]) for number in range(len(widths) - 1)]

    def divide(projected: Array) -> tuple[Array, list[Array]]:
        """The cell's own projected input, and k for each array of the state."""
        return projected[..., :-total], jnp.split(projected[..., -total:], bounds, -1)

    def project(params: Params, inputs: Array) -> Array:
        projected = cell.project(params, inputs)
        expected = [jnp.full((w,), r, projected.dtype) for w, r in zip(widths, rates, strict=True)]
        shape = (*projected.shape[:-1], total)
        kept = jnp.broadcast_to(jnp.concatenate(expected), shape)
        return jnp.concatenate([projected, kept], -1)

    def perturb(key: PRNGKey, projected: Array, index: EventIndex) -> Array:
        own, _ = divide(projected)
        keys = jax.random.split(key, len(widths) + 1)
        if cell.perturb is not None:
            own = cell.perturb(keys[-1], own, index)
        drawn = [
            event_mask(keys[number], index, width, rates[number])
            for number, width in enumerate(widths)
        ]
        return jnp.concatenate([own, jnp.concatenate(drawn, -1).astype(own.dtype)], -1)

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        own, kept = divide(projected_t)
        state = _mix(kept, state, cell.step(params, state, own)[0])
        if cell.linear is not None:
            return state, cell.linear.readout(params, state[0], own)
        return state, state[0]

    gated, linear = cell.gated, cell.linear
    if cell.gated is not None:
        inner_pointwise, num_inputs = cell.gated.pointwise, cell.gated.num_inputs

        def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
            new = inner_pointwise(weights, projected[:num_inputs], recurrent, state)
            return _mix(projected[num_inputs:], state, new)

        gated = cell.gated._replace(
            pointwise=pointwise,
            num_inputs=num_inputs + len(widths),
            project_gates=None,
        )
    if cell.linear is not None:
        inner_coefficients, inner_readout = cell.linear

        def coefficients(params: Params, projected: Array) -> tuple[Array, Array]:
            own, (kept,) = divide(projected)
            decay, update = inner_coefficients(params, own)
            return kept + (1 - kept) * decay, (1 - kept) * update

        def readout(params: Params, hidden: Array, projected: Array) -> Array:
            return inner_readout(params, hidden, divide(projected)[0])

        linear = cell.linear._replace(coefficients=coefficients, readout=readout)
    return cell._replace(project=project, step=step, gated=gated, linear=linear, perturb=perturb)


def _mix(kept: Sequence[Array], old: State, new: State) -> State:
    """K ⊙ old + (1 - k) ⊙ new for each array of a state."""
    return tuple(k * a + (1 - k) * b for k, a, b in zip(kept, old, new, strict=True))
