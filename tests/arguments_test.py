"""What does not fit is told by the name of the argument, before anything is computed."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import grnn_jax
from grnn_jax import Tokens, cells, distributions, make_model, sampling


@pytest.fixture(autouse=True)
def without_types():
    """Callers have no checks of types in front of the library's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def zeros_of(init, *arguments):
    """Parameters that cost no compilation."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key: init(key, *arguments), key)
    return jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), shapes)


def zero_state(cell, batch_size, width=3):
    shapes = jax.eval_shape(lambda p: cell.initial_state(p, batch_size), zeros_of(cell.init, width))
    return jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), shapes)


TOKENS = make_model(cells.lstm(8), distributions.categorical(5))
OTHER = make_model(cells.lstm(6), distributions.categorical(5))
REALS = make_model(cells.stack([cells.gru(6), cells.min_gru(6)]), distributions.gaussian(3))
CONDITIONAL = make_model(cells.lstm(8), distributions.categorical(5), conditioning_size=2)
FIELDS = make_model(
    cells.gru(6),
    distributions.product({"a": distributions.categorical(2), "b": distributions.gaussian(2)}),
)
EVENTS, ALL = np.zeros((2, 4), int), np.ones((2, 4), bool)


@pytest.mark.parametrize(
    ("model", "owner", "events", "arguments", "message"),
    [
        (TOKENS, OTHER, EVENTS, {}, r"params\['cell'\]\['bias'\] must have shape \(32,\)"),
        (TOKENS, REALS, EVENTS, {}, r"params must be those of this model: .* is missing"),
        (TOKENS, CONDITIONAL, EVENTS, {}, r"params\['conditioning'\].* is not expected"),
        (TOKENS, TOKENS, [[0, 1]], {}, "events must be an array, got a list"),
        (TOKENS, TOKENS, EVENTS, {"mask": ALL.tolist()}, "mask must be an array, got a list"),
        (TOKENS, TOKENS, EVENTS, {"mask": ALL.T}, r"mask must have the shape \(2, 4\) of"),
        (TOKENS, TOKENS, EVENTS, {"key": 0}, "key must be one random key, .* got int"),
        (REALS, REALS, np.zeros((2, 4, 2)), {}, r"events must have axes \[B, T, 3\], got shape"),
        (FIELDS, FIELDS, {"a": EVENTS}, {}, r"events must have events\['a'\], events\['b'\]"),
        (FIELDS, FIELDS, EVENTS, {}, r"events must have events\['a'\], events\['b'\]"),
        (
            FIELDS, FIELDS, {"a": EVENTS, "b": np.zeros((2, 3, 2))}, {},
            r"events\['b'\] must have shape \(2, 4, 2\), got \(2, 3, 2\)",
        ),
        (CONDITIONAL, CONDITIONAL, EVENTS, {}, "conditioning must have size 2"),
        (
            CONDITIONAL, CONDITIONAL, EVENTS, {"conditioning": [[0.0, 0.0]] * 2},
            "conditioning must be an array, got a list",
        ),
        (
            CONDITIONAL, CONDITIONAL, EVENTS, {"conditioning": np.zeros((3, 2))},
            r"conditioning must have shape \(2, 2\)",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("under_jit", [False, True])
def test_log_prob(model, owner, events, arguments, message, under_jit):
    params = zeros_of(owner.init)

    def run(params):
        return grnn_jax.log_prob(model, params, events, **arguments)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(run, params) if under_jit else run(params)


@pytest.mark.parametrize(
    ("rows", "mask", "reset", "message"),
    [
        (3, ALL, ~ALL, r"carry.cell_state\[0\] must have shape \(2, 8\), got shape \(3, 8\)"),
        (2, ALL.tolist(), ~ALL, "mask must be an array, got a list"),
        (2, ALL, ~ALL[:1], r"reset must have shape \(2, 4\), got \(1, 4\)"),
    ],
)
def test_windows(rows, mask, reset, message):
    params = zeros_of(TOKENS.init)
    carry = TOKENS.initial_state(params, rows)
    with pytest.raises(ValueError, match=message):
        grnn_jax.event_log_probs(TOKENS, params, carry, (EVENTS, mask, reset))


CELL, INPUTS = cells.diagonal_gru(4), np.zeros((2, 5, 3), np.float32)
STACK = cells.stack([cells.gru(4), cells.lstm(4)])


@pytest.mark.parametrize(
    ("cell", "change", "message"),
    [
        (CELL, {"inputs": INPUTS[..., :2]}, "inputs must have width 3, as params have, got 2"),
        (CELL, {"inputs": INPUTS[0]}, r"inputs must be \[B, T, X\], got shape \(5, 3\)"),
        (
            CELL, {"inputs": Tokens(np.zeros((2, 5), int), np.zeros((7, 2)))},
            "inputs must have width 3, as params have, got 2",
        ),
        (CELL, {"inputs": Tokens(np.zeros((2, 5, 1), int), np.zeros((7, 3)))}, "indices"),
        (CELL, {"params": zeros_of(cells.lstm(4).init, 3)}, "params must be those of the cell"),
        (CELL, {"params": zeros_of(cells.diagonal_gru(5).init, 3)}, "params must be those of the"),
        (CELL, {"state": zero_state(CELL, 3)}, r"state\[0\] must have shape \(2, 4\)"),
        (CELL, {"state": zero_state(CELL, 2)[0]}, r"state\[0\] of shape \(2, 4\) is missing"),
        (CELL, {"initial_state": zero_state(CELL, 1)}, r"initial_state\[0\] must have shape"),
        (CELL, {"reset": np.zeros((5, 2), bool)}, r"reset must have shape \(2, 5\), got \(5, 2\)"),
        (CELL, {"reset": [[False] * 5] * 2}, "reset must be an array, got a list"),
        (STACK, {"inputs": INPUTS[..., :1]}, "inputs must have width 3, as params have, got 1"),
        (STACK, {"state": zero_state(STACK, 2)[:1]}, r"state\[1\]\[0\] of shape \(2, 4\) is miss"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", ["unroll", "newton_unroll", "unroll_sharded"])
def test_unroll(cell, change, message, function):
    arguments = {"params": zeros_of(cell.init, 3), "inputs": INPUTS, "state": zero_state(cell, 2)}
    arguments |= change
    if function == "unroll_sharded":
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("time",))
        arguments |= {"mesh": mesh, "axis": "time"}
    with pytest.raises(ValueError, match=message):
        getattr(grnn_jax, function)(cell, **arguments)


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda params: grnn_jax.sample(TOKENS, params, 0, 2, 3), "key must be one random key"),
        (lambda params: TOKENS.init(0), "key must be one random key"),
        (lambda params: grnn_jax.sample(OTHER, params, KEY, 2, 3), "params must be those of this"),
        (lambda params: OTHER.initial_state(params, 2), "params must be those of this model"),
        (
            lambda params: OTHER.step(params, TOKENS.initial_state(params, 2)),
            "params must be those",
        ),
        (
            lambda params: sampling.beam_search(OTHER, params, beam_width=2, length=3),
            "params must be those of this model",
        ),
        (
            lambda params: grnn_jax.sample(TOKENS, params, KEY, 2, 3, prefix=np.zeros((3, 2), int)),
            r"prefix must be \[P\] or \[2, P\], got shape \(3, 2\)",
        ),
        (
            lambda params: grnn_jax.sample(
                REALS, zeros_of(REALS.init), KEY, 2, 3, prefix=np.zeros((2, 2))
            ),
            r"prefix must be \[P, 3\] or \[2, P, 3\], got shape",
        ),
        (
            lambda params: grnn_jax.sample(TOKENS, params, KEY, 2, 3, lengths=[1, 2, 3]),
            r"lengths must be one number or \[2\], got shape \(3,\)",
        ),
        (
            lambda params: sampling.extend(
                TOKENS,
                params,
                sampling.SampleState(
                    OTHER.initial_state(zeros_of(OTHER.init), 2), KEY, jnp.zeros(2), jnp.zeros(2)
                ),
                2,
            ),
            r"state.carry must be a carry of this model .* state.carry.cell_state\[0\]",
        ),
    ],
)
def test_samplers(call, message):
    with pytest.raises(ValueError, match=message):
        call(zeros_of(TOKENS.init))
