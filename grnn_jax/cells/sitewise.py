"""Cells whose weights are shared across sites, such as the keys of a piano (Johnson 2017)."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, PyTree, State
from grnn_jax.cells.base import Cell, Sitewise
from grnn_jax.cells.gru import gru
from grnn_jax.cells.lstm import lstm
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.sites import (
    mix_sites,
    neighbour_kernel,
    position_features,
    see_neighbours,
)

SITE_KERNEL = "site_kernel"


@cached_factory
def sitewise(
    cell: Cell,
    num_sites: int = 1,
    *,
    input_window: int = 24,
    period: int = 12,
    num_positions: int = 0,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""One small cell at each of N sites, all with the same weights.

        s_t[n], h_t[n] = cell(s_{t-1}[n], z_t[n]),      h_t = [h_t[0], …, h_t[N-1]]
        z_t[n] = [x_t[n-R … n+R],  Σ_{j ≡ n+r mod period} x_t[j] for each r,  cos(πk(n+½)/N)]

    for inputs of one number a site: a window of R sites on either side, zero beyond the edges, and
    the sums over classes of distances (of pitches: how many notes sound at each interval, octaves
    apart taken together). What is learned at one site holds at all: for a piano roll, in every key.
    Where the inputs have C > 1 numbers a site, as in the upper layers of a stack,

        z_t[n] = [x_t[n],  Σ_j k[j - n] ⊙ x_t[j],  cos(πk(n+½)/N)],

    with a learned kernel k[-N+1 … N-1] of C numbers each, at first 1/N, so that a site sees how the
    others stand by their distance, and in the beginning their mean.

    Args:
        cell: the cell of one site, D units.
        num_sites: N.
        input_window: R.
        period: number of classes of distances, 12 for the octave; 0 for no sums.
        num_positions: K smooth features of the site's number; with 0 the cell is equivariant: it
            commutes with a transposition, but for notes less than R from an edge (and, where k
            reaches that far, for what the sites at the edges say).
        dtype: compute dtype of the product that gathers the windows.

    Returns:
        The cell; hidden_size is N·D, sites side by side in every array, its parameters are the
        inner cell's, and k [2N-1, C] as "site_kernel". The structure `sitewise` lets engines run
        the inner cell on B·N rows.

    Raises:
        ValueError: for a number out of range, a sitewise or a layered cell; from `init`, for an
            input size that is not a multiple of N.

    Reference: D. D. Johnson, "Generating polyphonic music using tied parallel networks",
    EvoMUSART 2017.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> small, large = (cells.sitewise(cells.gru(2), n, input_window=3) for n in (12, 88))
        >>> small.hidden_size, large.hidden_size  # N·D
        (24, 176)
        >>> params = small.init(jax.random.key(0), 12)
        >>> cells.count_parameters(params)  # those of one site, which has 2·3 + 1 + 12 inputs
        134
        >>> bits = jax.numpy.zeros((1, 88)).at[0, 60].set(1)  # one note, anywhere
        >>> state = large.initial_state(params, 1)
        >>> large.step(params, state, large.project(params, bits))[1].shape
        (1, 176)
    """
    for name, value, least in (
        ("num_sites", num_sites, 1),
        ("input_window", input_window, 0),
        ("period", period, 0),
        ("num_positions", num_positions, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if cell.sitewise is not None or cell.layered is not None:
        raise ValueError("cell must be a single cell of one site, got a sitewise cell or a stack")
    offsets = range(-input_window, input_window + 1)
    kernel = neighbour_kernel(num_sites, offsets, period)
    positions = position_features(num_sites, num_positions)

    def features(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... N F"]:
        if inputs.shape[-1] == num_sites:
            seen = see_neighbours(inputs, kernel, dtype)
        else:
            seen = inputs.reshape(*inputs.shape[:-1], num_sites, -1)
            if num_sites > 1:
                mixed = mix_sites(seen, params[SITE_KERNEL])
                seen = jnp.concatenate([seen, mixed], -1)
        if not num_positions:
            return seen
        place = jnp.asarray(positions, seen.dtype)
        place = jnp.broadcast_to(place, (*seen.shape[:-1], num_positions))
        return jnp.concatenate([seen, place], -1)

    def init(key: PRNGKey, input_size: int) -> Params:
        if input_size < 1 or input_size % num_sites:
            raise ValueError(
                f"the input size of a sitewise cell must be a multiple of num_sites={num_sites}, "
                f"got {input_size}"
            )
        channels = input_size // num_sites
        if channels == 1:
            return cell.init(key, len(offsets) + period + num_positions)
        if num_sites == 1:
            return cell.init(key, channels + num_positions)
        params = cell.init(key, 2 * channels + num_positions)
        kernel = jnp.full((2 * num_sites - 1, channels), 1 / num_sites, jnp.float32)
        return params | {SITE_KERNEL: kernel}

    def initial_state(params: Params, batch_size: int) -> PyTree:
        return unfold_sites(cell.initial_state(params, batch_size * num_sites), num_sites)

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... NP"]:
        projected = cell.project(params, features(params, inputs))
        return projected.reshape(*projected.shape[:-2], -1)

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        rows = fold_sites((state, projected_t), num_sites)
        state, output = unfold_sites(cell.step(params, *rows), num_sites)
        return state, output

    return Cell(
        init,
        initial_state,
        project,
        step,
        num_sites * cell.hidden_size,
        sitewise=Sitewise(cell, num_sites, features),
    )


def fold_sites(tree: PyTree, num_sites: int) -> PyTree:
    """Sites side by side, [..., B, N·Y], as rows [..., B·N, Y]."""
    return jax.tree.map(
        lambda a: a.reshape(*a.shape[:-2], a.shape[-2] * num_sites, a.shape[-1] // num_sites), tree
    )


def unfold_sites(tree: PyTree, num_sites: int) -> PyTree:
    """Rows [..., B·N, Y] as sites side by side, [..., B, N·Y]."""
    return jax.tree.map(
        lambda a: a.reshape(*a.shape[:-2], a.shape[-2] // num_sites, a.shape[-1] * num_sites), tree
    )


@cached_factory
def sitewise_lstm(
    hidden_size: int,
    *,
    num_sites: int = 1,
    input_window: int = 24,
    num_positions: int = 0,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    """One LSTM for all sites, hidden_size / num_sites units each; see `sitewise` and `lstm`.

    With one site it is the LSTM itself, for inputs of more than one number.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.sitewise_lstm(24, num_sites=12)
        >>> cell.sitewise.cell.hidden_size, cell.sitewise.num_sites
        (2, 12)
    """
    return sitewise(
        lstm(
            _site_units(hidden_size, num_sites),
            forget_bias=forget_bias,
            learned_initial_state=learned_initial_state,
            dtype=dtype,
        ),
        num_sites,
        input_window=input_window,
        num_positions=num_positions,
        dtype=dtype,
    )


@cached_factory
def sitewise_gru(
    hidden_size: int,
    *,
    num_sites: int = 1,
    input_window: int = 24,
    num_positions: int = 0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    """One GRU for all sites, hidden_size / num_sites units each; see `sitewise` and `gru`.

    With one site it is the GRU itself, for inputs of more than one number.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.sitewise_gru(24, num_sites=12)
        >>> cell.sitewise.cell.hidden_size, cell.sitewise.num_sites
        (2, 12)
    """
    return sitewise(
        gru(
            _site_units(hidden_size, num_sites),
            learned_initial_state=learned_initial_state,
            dtype=dtype,
        ),
        num_sites,
        input_window=input_window,
        num_positions=num_positions,
        dtype=dtype,
    )


def _site_units(hidden_size: int, num_sites: int) -> int:
    """D; raises ValueError where the units cannot be shared out."""
    if num_sites < 1:
        raise ValueError(f"num_sites must be at least 1, got {num_sites}")
    if hidden_size < 1 or hidden_size % num_sites:
        raise ValueError(
            f"hidden_size of a sitewise cell must be a multiple of its {num_sites} sites, "
            f"got {hidden_size}"
        )
    return hidden_size // num_sites
