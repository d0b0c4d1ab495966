"""First-order linear recurrences s_t = a_t s_{t-1} + b_t, in time or in O(log T) depth."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Inexact
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.ops.ranks import align
from grnn_jax.recurrence.devices import is_first_device, scan_over_devices, shift

METHODS = ("sequential", "chunked", "parallel")

CHUNK_LIMIT = 64
"""Longest chunk by default: the depth of a chunked scan is then 64 + O(log T)."""


def linear_scan(
    decay: Inexact[Array, "T ..."],
    update: Inexact[Array, "T ..."],
    initial: Inexact[Array, "..."],
    *,
    method: str = "chunked",
    chunk_size: int | None = None,
    reverse: bool = False,
    axis_name: str | None = None,
) -> Inexact[Array, "T ..."]:
    r"""All states of an elementwise linear recurrence.

        s_t = a_t ⊙ s_{t-1} + b_t,   t = 1 … T

        gradient   g_t = ds_t + a_{t+1} ⊙ g_{t+1}     one scan in reverse
                   da_t = g_t ⊙ s_{t-1},  db_t = g_t,  ds_0 = a_1 ⊙ g_1

    The backward pass keeps a and s only. Nothing is divided by a product of decays, so decays of
    0 (a restart, for finite states) and products that underflow are exact, and no logarithms are
    needed. Reverse mode, to any order, and `vmap`; no forward mode.

    Args:
        decay: a, real or complex.
        update: b, of the shape of `decay`.
        initial: s_0.
        method: "sequential", one step after another; "parallel", `lax.associative_scan`, depth
            O(log T) and work O(T) in strided passes; "chunked", steps in sequence inside of
            chunks that stand side by side, then "parallel" over the chunks: work O(T), depth
            chunk_size + O(log T).
        chunk_size: steps of a chunk; None is about √T and at most `CHUNK_LIMIT`.
        reverse: from the last step to the first, s_t = a_t ⊙ s_{t+1} + b_t.
        axis_name: axis of a mesh over whose devices the steps are split in equal pieces, inside
            of `jax.shard_map`; each device then scans its own steps, and one gather of the
            products of the pieces joins them. "sequential" goes from device to device.

    Returns:
        s_1 … s_T, in the widest dtype of the arguments and at least in float32.

    Raises:
        ValueError: for an unknown method, a chunk_size below 1, or shapes that do not fit.

    Reference: G. E. Blelloch, "Prefix sums and their applications", 1990.

    Example:
        >>> import grnn_jax
        >>> decay, update = jnp.full(4, 0.5), jnp.ones(4)
        >>> grnn_jax.linear_scan(decay, update, jnp.array(2.0)).tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> grnn_jax.linear_scan(decay, update, jnp.array(0.0)).tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    if decay.shape != update.shape or decay.shape[1:] != initial.shape:
        raise ValueError(
            "decay and update must have one shape [T, ...] and initial the shape [...], got "
            f"{decay.shape}, {update.shape} and {initial.shape}"
        )
    plan = _Plan(method, chunk_size, False, reverse, axis_name)
    states: Array = _checked_scan(plan, decay, update, initial)
    return states


def block_linear_scan(
    matrices: Inexact[Array, "T N N U"],
    update: Inexact[Array, "T N U"],
    initial: Inexact[Array, "N U"],
    *,
    method: str = "chunked",
    chunk_size: int | None = None,
    reverse: bool = False,
    axis_name: str | None = None,
) -> Inexact[Array, "T N U"]:
    r"""All states of U linear recurrences with small matrices.

        s_t[:, u] = A_t[:, :, u] s_{t-1}[:, u] + b_t[:, u],   t = 1 … T

    Products of matrices are sums of elementwise products over U, exact to the dtype on every
    platform; the work of all methods but "sequential" grows with N³.

    Args:
        matrices: A; the row axis first.
        update: b.
        initial: s_0.
        method: see `linear_scan`, as all that follows.
        chunk_size: steps of a chunk.
        reverse: from the last step to the first.
        axis_name: axis of a mesh over which the steps are split.

    Returns:
        s_1 … s_T.

    Raises:
        ValueError: for an unknown method, a chunk_size below 1, or shapes that do not fit.

    Example:
        >>> import grnn_jax
        >>> fibonacci = jnp.array([[1.0, 1.0], [1.0, 0.0]])
        >>> matrices = jnp.broadcast_to(fibonacci[None, :, :, None], (6, 2, 2, 1))  # [T, N, N, U]
        >>> start = jnp.array([[1.0], [0.0]])  # [N, U]
        >>> states = grnn_jax.block_linear_scan(matrices, jnp.zeros((6, 2, 1)), start)
        >>> states[:, 0, 0].tolist()
        [1.0, 2.0, 3.0, 5.0, 8.0, 13.0]
    """
    if matrices.shape[:2] + matrices.shape[3:] != update.shape or update.shape[1:] != initial.shape:
        raise ValueError(
            "matrices must have the shape [T, N, N, U], update [T, N, U] and initial [N, U], got "
            f"{matrices.shape}, {update.shape} and {initial.shape}"
        )
    plan = _Plan(method, chunk_size, True, reverse, axis_name)
    states: Array = _checked_scan(plan, matrices, update, initial)
    return states


def linear_scan_gradient(
    decay: Inexact[Array, "T ..."],
    initial: Inexact[Array, "..."],
    states: Inexact[Array, "T ..."],
    d_states: Inexact[Array, "T ..."],
    *,
    method: str = "chunked",
    chunk_size: int | None = None,
    axis_name: str | None = None,
) -> tuple[Inexact[Array, "T ..."], Inexact[Array, "T ..."], Inexact[Array, "..."]]:
    """The gradient of `linear_scan`, for who has its states and computes its decays again.

    Args:
        decay: a.
        initial: s_0.
        states: s_1 … s_T.
        d_states: the gradient of the states.
        method: see `linear_scan`, as all that follows.
        chunk_size: steps of a chunk.
        axis_name: axis of a mesh over which the steps are split.

    Returns:
        da, db and ds_0.
    """
    plan = _plan(_Plan(method, chunk_size, False, False, axis_name), decay.shape[0])
    decay, initial = decay.astype(states.dtype), initial.astype(states.dtype)
    return _scan_backward(plan, (decay, states, initial), d_states)


_Maps = tuple[Array, Array]
"""Affine maps s -> a s + b, as their a and b."""


class _Plan(NamedTuple):
    """How a scan is run, as the arguments of `linear_scan`; `blocks`: decays are matrices."""

    method: str
    chunk_size: int | None
    blocks: bool
    reverse: bool
    axis_name: str | None

    def reversed(self) -> "_Plan":
        return self._replace(reverse=not self.reverse)

    @property
    def first(self) -> int:
        return -1 if self.reverse else 0

    @property
    def last(self) -> int:
        return 0 if self.reverse else -1


def _plan(plan: _Plan, length: int) -> _Plan:
    """The plan with its chunk size; ValueError for one that cannot be."""
    if plan.method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {plan.method!r}")
    if plan.chunk_size is not None and plan.chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {plan.chunk_size}")
    if plan.chunk_size is not None:
        return plan
    return plan._replace(chunk_size=max(1, min(CHUNK_LIMIT, round(length**0.5))))


@entry(num_static=1, rows=(1,), inline=True)
def _checked_scan(plan: _Plan, decay: Array, update: Array, initial: Array) -> Array:
    plan = _plan(plan, decay.shape[0])
    # Products of hundreds of decays lose all digits of a bfloat16.
    dtype = jnp.promote_types(jnp.result_type(decay, update, initial), jnp.float32)
    if decay.shape[0] == 0:
        return jnp.zeros(update.shape, dtype)
    return _scan(plan, *(x.astype(dtype) for x in (decay, update, initial)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: _Plan, decay: Array, update: Array, initial: Array) -> Array:
    if plan.method == "sequential":
        run = functools.partial(_sequential, plan, decay, update)
        states: Array = scan_over_devices(
            run, initial, reverse=plan.reverse, axis_name=plan.axis_name
        )
        return states
    # What each chunk does to a state is known before any state is: the maps of whole chunks are
    # joined first (of devices too), then every chunk is entered with the state that reaches it.
    inside, totals = (_whole if plan.method == "parallel" else _chunks)(plan, decay, update)
    if plan.axis_name is not None:
        initial = _entering_device(plan, totals, initial)
    decays, updates = _prefixes(plan, totals)
    after = _apply(plan, decays, initial) + updates
    entering = shift(after, initial, reverse=plan.reverse)
    states = _apply(plan, inside[0], entering) + inside[1]
    return states.swapaxes(0, 1).reshape(-1, *initial.shape)[: decay.shape[0]]


def _scan_forward(
    plan: _Plan, decay: Array, update: Array, initial: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    states = _scan(plan, decay, update, initial)
    return states, (decay, states, initial)


def _scan_backward(
    plan: _Plan, residuals: tuple[Array, Array, Array], d_states: Array
) -> tuple[Array, Array, Array]:
    decay, states, initial = residuals
    back = plan.reversed()
    following = shift(
        decay, jnp.zeros_like(decay[0]), reverse=back.reverse, axis_name=plan.axis_name
    )
    total = _scan(back, _transpose(plan, following), d_states, jnp.zeros_like(initial))
    before = shift(states, initial, reverse=plan.reverse, axis_name=plan.axis_name)
    d_initial = _apply(plan, _transpose(plan, decay[plan.first]), total[plan.first])
    if plan.axis_name is not None:
        d_initial = jnp.where(is_first_device(plan.axis_name, plan.reverse), d_initial, 0)
    if plan.blocks:
        return total[..., :, None, :] * before[..., None, :, :], total, d_initial
    return total * before, total, d_initial


_scan.defvjp(_scan_forward, _scan_backward)


def _apply(plan: _Plan, decay: Array, state: Array) -> Array:
    rows = state[..., None, :, :] if plan.blocks else state
    product = decay * align(rows, decay)
    return product.sum(-2) if plan.blocks else product


def _compose(plan: _Plan, first: _Maps, second: _Maps) -> _Maps:
    """The affine map `second` after `first`."""
    if plan.blocks:
        product = (second[0][..., :, :, None, :] * first[0][..., None, :, :, :]).sum(-3)
    else:
        product = second[0] * first[0]
    return product, _apply(plan, second[0], first[1]) + second[1]


def _transpose(plan: _Plan, decay: Array) -> Array:
    return decay.swapaxes(-3, -2) if plan.blocks else decay


def _identity(plan: _Plan, decay: Array) -> Array:
    """Decays of the given shape that change nothing."""
    if not plan.blocks:
        return jnp.ones_like(decay)
    return jnp.broadcast_to(jnp.eye(decay.shape[-2], dtype=decay.dtype)[:, :, None], decay.shape)


def _sequential(plan: _Plan, decay: Array, update: Array, initial: Array) -> tuple[Array, Array]:
    def step(state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        state = _apply(plan, inputs[0], state) + inputs[1]
        return state, state

    return jax.lax.scan(step, initial, (decay, update), reverse=plan.reverse)


def _prefixes(plan: _Plan, maps: _Maps) -> _Maps:
    """The affine maps from the beginning to each place."""
    combine = functools.partial(_compose, plan)
    prefixes: _Maps = jax.lax.associative_scan(combine, maps, reverse=plan.reverse)
    return prefixes


def _whole(plan: _Plan, decay: Array, update: Array) -> tuple[_Maps, _Maps]:
    """One chunk of all steps: its prefixes [T, 1, ...], and its total [1, ...]."""
    prefixes = _prefixes(plan, (decay, update))
    inside = prefixes[0][:, None], prefixes[1][:, None]
    return inside, (inside[0][plan.last], inside[1][plan.last])


def _chunks(plan: _Plan, decay: Array, update: Array) -> tuple[_Maps, _Maps]:
    """Prefixes inside of chunks [chunk, count, ...], and the total of each chunk [count, ...]."""
    length, chunk_size = decay.shape[0], plan.chunk_size
    assert chunk_size is not None
    count = -(-length // chunk_size)
    missing = count * chunk_size - length
    if missing:
        # Maps that change nothing fill the last chunk; what they give is cut off by `_scan`.
        like = jnp.broadcast_to(decay[:1], (missing, *decay.shape[1:]))
        decay = jnp.concatenate([decay, _identity(plan, like)])
        update = jnp.concatenate([update, jnp.zeros((missing, *update.shape[1:]), update.dtype)])

    def cut(array: Array) -> Array:
        # Steps first: one loop of `chunk_size` steps runs over all chunks side by side.
        return array.reshape(count, chunk_size, *array.shape[1:]).swapaxes(0, 1)

    def step(carry: _Maps, inputs: _Maps) -> tuple[_Maps, _Maps]:
        carry = _compose(plan, carry, inputs)
        return carry, carry

    maps = cut(decay), cut(update)
    start = vary_alike((_identity(plan, maps[0][0]), jnp.zeros_like(maps[1][0])), maps)
    totals, inside = jax.lax.scan(step, start, maps, reverse=plan.reverse)
    return inside, totals


def _entering_device(plan: _Plan, totals: _Maps, initial: Array) -> Array:
    """The state that enters this device's steps, from the product of every device's maps."""
    mine = tuple(array[plan.last] for array in _prefixes(plan, totals))
    decays, updates = jax.lax.all_gather(mine, plan.axis_name)
    _, after = _sequential(plan, decays, updates, initial)
    entering = shift(after, initial, reverse=plan.reverse)
    return entering[jax.lax.axis_index(plan.axis_name)]
