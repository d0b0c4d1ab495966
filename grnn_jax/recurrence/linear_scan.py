"""First-order linear recurrences s_t = a_t ⊙ s_{t-1} + b_t, in time or in O(log T) depth."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Inexact

METHODS = ("sequential", "chunked", "parallel")


def linear_scan(
    decay: Inexact[Array, "T ..."],
    update: Inexact[Array, "T ..."],
    initial: Inexact[Array, "..."],
    *,
    method: str = "chunked",
    chunk_size: int | None = None,
) -> Inexact[Array, "T ..."]:
    r"""All states of an elementwise linear recurrence.

        s_t = a_t ⊙ s_{t-1} + b_t,   t = 1 … T

        gradient   g_t = ds_t + a_{t+1} ⊙ g_{t+1}     one scan in reverse
                   da_t = g_t ⊙ s_{t-1},  db_t = g_t,  ds_0 = a_1 ⊙ g_1

    The backward pass keeps a and s only. Nothing is divided by a product of decays, so decays of
    0 (a restart) and products that underflow are exact. Reverse mode, to any order, and `vmap`; no
    forward mode.

    Args:
        decay: a, real or complex.
        update: b, of the shape of `decay`.
        initial: s_0.
        method: "sequential", one step after another; "parallel", `lax.associative_scan`, depth
            O(log T) and work O(T log T); "chunked", steps in sequence inside of chunks that stand
            side by side, then from chunk to chunk: work O(T), depth O(√T).
        chunk_size: steps of a chunk; None is about √T.

    Returns:
        s_1 … s_T, in the widest dtype of the arguments and at least in float32.

    Raises:
        ValueError: for an unknown method, a chunk_size below 1, or shapes that do not fit.

    Reference: G. E. Blelloch, "Prefix sums and their applications", 1990.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if decay.shape != update.shape or decay.shape[1:] != initial.shape:
        raise ValueError(
            "decay and update must have one shape [T, ...] and initial the shape [...], got "
            f"{decay.shape}, {update.shape} and {initial.shape}"
        )
    dtype = jnp.promote_types(jnp.result_type(decay, update, initial), jnp.float32)
    if decay.shape[0] == 0:
        return jnp.zeros(decay.shape, dtype)
    if chunk_size is None:
        chunk_size = max(1, round(decay.shape[0] ** 0.5))
    return _scan(method, chunk_size, *(x.astype(dtype) for x in (decay, update, initial)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(method: str, chunk_size: int, decay: Array, update: Array, initial: Array) -> Array:
    if method == "sequential":
        return _sequential(decay, update, initial)
    if method == "parallel":
        return _parallel(decay, update, initial)
    return _chunked(chunk_size, decay, update, initial)


def _scan_forward(
    method: str, chunk_size: int, decay: Array, update: Array, initial: Array
) -> tuple[Array, tuple]:
    states = _scan(method, chunk_size, decay, update, initial)
    return states, (decay, states, initial)


def _scan_backward(method: str, chunk_size: int, residuals: tuple, d_states: Array) -> tuple:
    decay, states, initial = residuals
    following = jnp.concatenate([decay[1:], jnp.zeros_like(decay[:1])])
    reversed_total = _scan(
        method, chunk_size, following[::-1], d_states[::-1], jnp.zeros_like(initial)
    )
    total = reversed_total[::-1]
    before = jnp.concatenate([initial[None], states[:-1]])
    return total * before, total, decay[0] * total[0]


_scan.defvjp(_scan_forward, _scan_backward)


def _sequential(decay: Array, update: Array, initial: Array) -> Array:
    def step(state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        state = inputs[0] * state + inputs[1]
        return state, state

    return jax.lax.scan(step, initial, (decay, update))[1]


def _combine(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """The affine map `second` after `first`."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def _parallel(decay: Array, update: Array, initial: Array) -> Array:
    decays, states = jax.lax.associative_scan(_combine, (decay, update))
    return states + decays * initial


def _chunked(chunk_size: int, decay: Array, update: Array, initial: Array) -> Array:
    length = decay.shape[0]
    count = length // chunk_size
    whole = count * chunk_size
    if count < 2:
        return _sequential(decay, update, initial)

    def cut(array: Array) -> Array:
        return jnp.swapaxes(array[:whole].reshape(count, chunk_size, *array.shape[1:]), 0, 1)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        carry = _combine(carry, inputs)
        return carry, carry

    like = (count, *decay.shape[1:])
    identity = jnp.ones(like, decay.dtype), jnp.zeros(like, decay.dtype)
    last, (decays, states) = jax.lax.scan(step, identity, (cut(decay), cut(update)))
    after = _sequential(*last, initial)
    entering = jnp.concatenate([initial[None], after[:-1]])
    states = jnp.swapaxes(states + decays * entering, 0, 1).reshape(whole, *decay.shape[1:])
    if whole == length:
        return states
    rest = _sequential(decay[whole:], update[whole:], after[-1])
    return jnp.concatenate([states, rest])
