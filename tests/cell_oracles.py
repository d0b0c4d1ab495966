"""Every cell as a NumPy float64 step, written from its paper's equations and nothing else."""

import numpy as np
from oracles import elman_step, gru_step, lstm_step, sigmoid


def affine(params, x, size):
    """The blocks of U x + b."""
    projected = x @ params["input_kernel"] + params["bias"]
    return [projected[:, k : k + size] for k in range(0, projected.shape[1], size)]


def diagonal(step):
    """A cell with V_k = diag(v_k)."""

    def diagonal_step(params, state, x):
        weights = [params[name] for name in sorted(params) if name.startswith("recurrent_weight_")]
        v = np.concatenate([np.diag(row) for row in weights], 1)
        return step(params | {"recurrent_kernel": v[None]}, state, x)

    return diagonal_step


def min_gru(params, state, x):
    (h,) = state
    z, n = affine(params, x, h.shape[1])
    return ((1 - sigmoid(z)) * h + sigmoid(z) * n,)


def min_lstm(params, state, x):
    (h,) = state
    i, f, g = affine(params, x, h.shape[1])
    i, f = sigmoid(i), sigmoid(f)
    return (f / (f + i) * h + i / (f + i) * g,)


def rg_lru(params, state, x):
    (h,) = state
    r, i, v = affine(params, x, h.shape[1])
    a = np.exp(-8 * np.log(1 + np.exp(params["decay"])) * sigmoid(r))
    return (a * h + np.sqrt(1 - a**2) * (sigmoid(i) * v),)


def lru(params, state, x):
    (s,) = state
    size = s.shape[1]
    eigenvalue = np.exp(-np.exp(params["log_rate"]) + 1j * np.exp(params["log_phase"]))
    b = params["input_kernel"][:, :size] + 1j * params["input_kernel"][:, size:]
    return (eigenvalue * s + np.exp(params["log_scale"]) * (x @ b),)


def lru_output(params, state, x):
    (s,) = state
    size = s.shape[1]
    c = params["output_kernel"][:size] + 1j * params["output_kernel"][size:]
    return (s @ c).real + x @ params["skip_kernel"]


STEPS = {
    "elman": elman_step,
    "gru": gru_step,
    "lstm": lstm_step,
    "ind_rnn": diagonal(elman_step),
    "diagonal_gru": diagonal(gru_step),
    "diagonal_lstm": diagonal(lstm_step),
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "rg_lru": rg_lru,
    "lru": lru,
}
"""(params, state, x) -> state, for every name in `cells.CELLS`."""

OUTPUTS = {"lru": lru_output}
"""(params, state, x) -> h where it is not the first array of the state."""

PARAMETERS = {
    "elman": lambda h, x: h * (x + h + 1),
    "gru": lambda h, x: 3 * h * (x + h + 1) + h,
    "lstm": lambda h, x: 4 * h * (x + h + 1),
    "ind_rnn": lambda h, x: h * (x + 2),
    "diagonal_gru": lambda h, x: 3 * h * (x + 2) + h,
    "diagonal_lstm": lambda h, x: 4 * h * (x + 2),
    "min_gru": lambda h, x: 2 * h * (x + 1),
    "min_lstm": lambda h, x: 3 * h * (x + 1),
    "rg_lru": lambda h, x: 3 * h * (x + 1) + h,
    "lru": lambda h, x: h * (2 * h + 3 * x + 3),
}
"""How many parameters the docstrings promise."""


def run(name, params, inputs, state, reset, initial):
    """outputs [B, T, H] and the last state, by a loop over time."""
    outputs = []
    for t in range(inputs.shape[1]):
        rows = reset[:, t, None]
        state = tuple(np.where(rows, i, s) for i, s in zip(initial, state, strict=True))
        state = STEPS[name](params, state, inputs[:, t])
        output = OUTPUTS[name](params, state, inputs[:, t]) if name in OUTPUTS else state[0]
        outputs.append(output)
    return np.stack(outputs, 1), state
