"""Keeping, restoring and forking the state of sequences that are being drawn."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Int, PRNGKey
from grnn_jax.sampling.state import SampleState, sequence_keys


def to_arrays(state: SampleState) -> SampleState:
    """The state with its typed keys as plain uint32 arrays, as files hold them.

    `jax.tree.leaves` of it are arrays without exception; `from_arrays` is the way back.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> state = sampling.start(model, params, jax.random.key(1), 2)
        >>> sampling.to_arrays(state).key.dtype.name
        'uint32'
    """
    return state._replace(key=jax.random.key_data(state.key))


def from_arrays(arrays: SampleState, impl: str | None = None) -> SampleState:
    """The state that `to_arrays` turned into plain arrays (NumPy's or JAX's).

    Args:
        arrays: what `to_arrays` returned, or the same read from a file.
        impl: the implementation of the keys, where it is not JAX's default.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> state = sampling.start(model, params, jax.random.key(1), 2)
        >>> restored = sampling.from_arrays(sampling.to_arrays(state))
        >>> bool((jax.random.key_data(restored.key) == jax.random.key_data(state.key)).all())
        True
    """
    state: SampleState = jax.tree.map(jnp.asarray, arrays)
    return state._replace(key=jax.random.wrap_key_data(state.key, impl=impl))


def fork(
    state: SampleState, rows: Sequence[int] | Int[AnyArray, " N"], key: PRNGKey | None = None
) -> SampleState:
    """Some of the sequences, each as often as it is named, to be continued with `extend`.

    Args:
        state: of B sequences.
        rows: indices in [0, B), in any order, repeated at will.
        key: None continues every sequence as it would have gone on, so that copies stay equal.
            With a key, copy n goes on with the key folded from it and n.

    Returns:
        The state of N sequences; `state` itself stays as it was.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> state = sampling.start(model, params, jax.random.key(1), 2)
        >>> copies = sampling.fork(state, [0, 0, 1], jax.random.key(2))  # each goes on by itself
        >>> sampling.extend(model, params, copies, length=4).events.shape
        (3, 4)
    """
    rows = jnp.asarray(rows)
    forked: SampleState = jax.tree.map(lambda leaf: leaf[rows], state)
    if key is None:
        return forked
    return forked._replace(key=sequence_keys(key, jnp.arange(rows.shape[0])))
