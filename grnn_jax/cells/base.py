"""The contract of a cell, and the structures it can declare to the engines."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, PyTree, State
from grnn_jax.ops.masks import EventIndex, Rate

RECURRENT_KERNEL = "recurrent_kernel"
"""Name of V in the parameters of every cell that has one."""

PROJECTION = ("input_kernel", "bias")
"""Names of U and b, the parameters that `Gated.project_gates` reads."""


Blocks = tuple[tuple[Array, ...], tuple[Array, ...]]
"""The blocks of U, one for each gate, and those of b."""

Gates = tuple[Any, ...]
"""Arrays [..., H], one for each gate (or the number 0, see `Gated.num_additive`)."""


@runtime_checkable
class PointwiseFn(Protocol):
    """The elementwise part of a gated step."""

    def __call__(
        self, weights: PyTree, projected: Gates, recurrent: Gates, state: State, /
    ) -> State:
        """The state after a step.

        Args:
            weights: the parameters that it reads, `Gated.pointwise_weights`; arrays [H].
            projected: the blocks of x_t, `num_inputs` arrays of one common shape [..., H].
            recurrent: the blocks of r_t, `num_gates` arrays of the same shape.
            state: s_{t-1}, arrays of the same shape.

        Returns:
            s_t; its first array is the output.
        """


@runtime_checkable
class StepFn(Protocol):
    """The definition of a cell: one step of a batch."""

    def __call__(self, params: Params, state: State, projected_t: Array, /) -> tuple[State, Array]:
        """Moves the state on by one step.

        Args:
            params: of the cell.
            state: s_{t-1}, arrays [B, ...].
            projected_t: [B, P], one step of what `Cell.project` returned.

        Returns:
            s_t, and the output h_t [B, H].
        """


class Gated(NamedTuple):
    """Structure of a cell whose step is one recurrent matmul and one cheap function.

        r_t = V h_{t-1}                 V block-diagonal over heads
        s_t = pointwise(weights, x_t, r_t, s_{t-1})

    An engine is free to choose the axes in front of H that `pointwise` sees. The output is the
    first array of the state.

    Attributes:
        num_heads: heads of width D = H / num_heads; 1 is a dense V.
        num_gates: G, the blocks of width H in r_t; 0 where no units are mixed, and the recurrence
            is in `pointwise` alone.
        num_inputs: the blocks of width H in x_t.
        dtype: compute type of the recurrent matmul, see `ops.compute_type`.
        recurrent_kernel: params -> V [heads, D, G·D]; not called for G = 0.
        pointwise: the elementwise step.
        pointwise_weights: params -> the parameters `pointwise` reads, arrays [H] (or none).
        elementwise: whether `pointwise` acts on every unit by itself; with G = 0 or num_heads = H
            the step's Jacobian is then one small block for each unit.
        num_additive: so many of the first blocks `pointwise` reads as the sums x_t + r_t alone; an
            engine may keep the sum for the backward pass in place of both, and hand it over as
            x_t with the number 0 as r_t.
        project_gates: ((blocks of U, blocks of b), inputs [..., X]) -> the blocks of `project`
            as separate arrays [..., H], where that is cheaper than to cut them apart; or None.
    """

    num_heads: int
    num_gates: int
    num_inputs: int
    dtype: DType
    recurrent_kernel: Callable[[Params], Float[Array, "heads D GD"]]
    pointwise: PointwiseFn
    pointwise_weights: Callable[[Params], PyTree]
    elementwise: bool = True
    num_additive: int = 0
    project_gates: Callable[[Blocks, Array], tuple[Array, ...]] | None = None


class Linear(NamedTuple):
    """Structure of a cell that is linear in its state, with coefficients of the input alone.

        s_t = a_t ⊙ s_{t-1} + b_t,   h_t = readout(s_t, x_t)

    so that all steps can be computed in O(log T) depth. The cell's state is the tuple (s,).

    Attributes:
        coefficients: (params, projected [..., P]) -> (a [..., S], b [..., S]), real or complex,
            in float32 (complex64) or wider.
        readout: (params, s [..., S], projected [..., P]) -> h [..., H], row by row.
    """

    coefficients: Callable[[Params, Array], tuple[Array, Array]]
    readout: Callable[[Params, Array, Array], Array]


class Layered(NamedTuple):
    """Structure of a cell made of layers, which an engine runs over time one after another.

    Attributes:
        cells: the layers' cells, the first one nearest to the input.
        residual: whether the sum of the layers below is added to each layer's output.
        layer_norm: whether each layer's output is normalised before it is passed on.
        dropout: probability of zeroing an element of each layer's output.
        dropout_per: "step", a new mask for each step, or "sequence", one mask for all steps of
            a sequence in a window.
        recurrent_dropout: probability of zeroing an element of V, drawn once per window.
    """

    cells: tuple["Cell", ...]
    residual: bool
    layer_norm: bool
    dropout: Rate
    dropout_per: str
    recurrent_dropout: Rate


class Sitewise(NamedTuple):
    """Structure of a cell that is one cell at each of many sites, with the same weights.

    Every array of the cell has the sites side by side, [..., N·Y]; its parameters are the inner
    cell's and those that `features` reads. An engine runs the inner cell on rows [..., B·N, Y].

    Attributes:
        cell: the cell of one site.
        num_sites: N.
        features: (params, inputs [..., X]) -> what each site's cell receives, [..., N, F].
    """

    cell: "Cell"
    num_sites: int
    features: Callable[[Params, Array], Array]


class Cell(NamedTuple):
    """A recurrent cell as a tuple of pure functions.

    Attributes:
        init: (key, input_size) -> params.
        initial_state: (params, batch_size) -> state; zeros, or the learned h_0.
        project: (params, inputs [..., X]) -> projected [..., P], the time-parallel part; row
            by row, so that the rows of an embedding table can be projected once and gathered.
        step: (params, state, projected_t [B, P]) -> (state, output [B, H]); the definition.
        hidden_size: H, the width of the output.
        gated: structure declared for the engines that can use it, or None.
        linear: likewise, for a cell that is linear in its state.
        layered: likewise, for a stack of cells.
        perturb: (key, projected [T, B, P], index) -> projected, with what is drawn in training
            alone; events of a row with equal numbers in the index draw alike. None draws nothing.
        sitewise: likewise, for one cell at many sites.
    """

    init: Callable[[PRNGKey, int], Params]
    initial_state: Callable[[Params, int], State]
    project: Callable[[Params, Array], Array]
    step: StepFn
    hidden_size: int
    gated: Gated | None = None
    linear: Linear | None = None
    layered: Layered | None = None
    perturb: Callable[[PRNGKey, Array, EventIndex], Array] | None = None
    sitewise: Sitewise | None = None


def count_parameters(params: PyTree) -> int:
    """Number of scalars in a tree of parameters.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cells.count_parameters(cells.gru(4).init(jax.random.key(0), 3))
        100
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
