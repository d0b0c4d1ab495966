"""What each of N ordered sites sees of the others, by the distance between them."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Array, DType, Float
from grnn_jax.ops.compute_type import EXACT
from grnn_jax.ops.products import dense


def neighbour_kernel(
    num_sites: int, offsets: Sequence[int], period: int, *, below: bool = False
) -> Float[np.ndarray, "N NF"]:
    """The constant matrix of `see_neighbours`.

        S[j, n, k] = 1 where j = n + offsets_k;   S[j, n, r] = 1 where j - n = r modulo period

    Args:
        num_sites: N.
        offsets: distances at which a site sees its neighbours one by one.
        period: number of classes of distances, each of which a site sees the sum over; 0 for none.
        below: the sums run over sites below n only.

    Returns:
        S, with F = len(offsets) + period.
    """
    distance = np.arange(num_sites)[:, None] - np.arange(num_sites)
    seen = distance[..., None] == np.asarray(offsets, int)
    if period:
        classes = distance[..., None] % period == np.arange(period)
        classes &= (distance[..., None] < 0) | (not below)
        seen = np.concatenate([seen, classes], -1)
    kernel: np.ndarray = seen.reshape(num_sites, -1).astype(np.float32)
    return kernel


def see_neighbours(
    row: Float[Array, "... N"], kernel: Float[np.ndarray, "N NF"], dtype: DType = jnp.float32
) -> Float[Array, "... N F"]:
    """For every site the row's values at given distances from it, zero beyond the edges.

    One product with a constant matrix: on a CPU it is faster than a gather, and so is its gradient.
    """
    features = dense(row, jnp.asarray(kernel, row.dtype), dtype)
    return features.reshape(*row.shape[:-1], row.shape[-1], -1)


def mix_sites(
    rows: Float[Array, "... N C"], kernel: Float[Array, "L C"]
) -> Float[Array, "... N C"]:
    """A convolution over all sites, channel by channel: y[n] = Σ_j k[j - n] ⊙ x[j].

    In the dtype of its arguments, exactly.

    Args:
        rows: x.
        kernel: k from -(N-1) to N-1, L = 2N - 1.
    """
    sites = np.arange(rows.shape[-2])
    by_distance = kernel[sites[:, None] - sites + sites[-1]]  # [j, n, C]
    return jnp.einsum("...jc,jnc->...nc", rows, by_distance, precision=EXACT)


def position_features(num_sites: int, count: int) -> Float[np.ndarray, "N K"]:
    """Smooth functions of the site's number, cos(π k (n + ½) / N) for k = 1 … K."""
    angles = np.pi * np.arange(1, count + 1) * (np.arange(num_sites)[:, None] + 0.5) / num_sites
    return np.cos(angles)
