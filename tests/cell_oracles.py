"""Every cell as a NumPy float64 step, written from its paper's equations and nothing else."""

import numpy as np
from oracles import block_diagonal, elman_step, gru_step, lstm_step, sigmoid


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


def both(params, state, x):
    """The blocks of U x + b and of V h."""
    h = state[0]
    recurrent = h @ block_diagonal(params["recurrent_kernel"])
    size = h.shape[1]
    return affine(params, x, size), [
        recurrent[:, k : k + size] for k in range(0, recurrent.shape[1], size)
    ]


def coupled_lstm(params, state, x):
    f, g, o = (a + b for a, b in zip(*both(params, state, x), strict=True))
    c = sigmoid(f) * state[1] + (1 - sigmoid(f)) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def peephole_lstm(params, state, x):
    i, f, g, o = (a + b for a, b in zip(*both(params, state, x), strict=True))
    i = sigmoid(i + params["input_peephole"] * state[1])
    f = sigmoid(f + params["forget_peephole"] * state[1])
    c = f * state[1] + i * np.tanh(g)
    return sigmoid(o + params["output_peephole"] * c) * np.tanh(c), c


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def recurrent_scale(params):
    names = sorted(name for name in params if name.startswith("recurrent_scale_"))
    return np.concatenate([params[name] for name in names])


def layer_norm_lstm(params, state, x):
    h, c = state
    total = layer_norm(h @ block_diagonal(params["recurrent_kernel"])) * recurrent_scale(params)
    total = total + layer_norm(x @ params["input_kernel"]) * params["input_scale"] + params["bias"]
    i, f, g, o = np.split(total, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(layer_norm(c) * params["memory_scale"] + params["memory_bias"]), c


def layer_norm_gru(params, state, x):
    (h,) = state
    size = h.shape[1]
    scale, bias = params["input_scale"], params["bias"]
    ux, vh = x @ params["input_kernel"], h @ block_diagonal(params["recurrent_kernel"])
    alpha = recurrent_scale(params)
    gates = layer_norm(ux[:, : 2 * size]) * scale[: 2 * size] + bias[: 2 * size]
    gates = gates + layer_norm(vh[:, : 2 * size]) * alpha[: 2 * size]
    r, z = np.split(sigmoid(gates), 2, -1)
    again = layer_norm(vh[:, 2 * size :]) * alpha[2 * size :] + params["candidate_bias"]
    n = layer_norm(ux[:, 2 * size :]) * scale[2 * size :] + bias[2 * size :]
    return ((1 - z) * np.tanh(n + r * again) + z * h,)


def mgu(params, state, x):
    (h,) = state
    (xf, xn), (hf, hn) = both(params, state, x)
    f = sigmoid(xf + hf)
    return ((1 - f) * h + f * np.tanh(xn + f * (hn + params["candidate_bias"])),)


def slstm(params, state, x):
    """The paper's equations (8) to (17), with the stabilised gates i' and f'."""
    h, c, n, m = state
    i, f, g, o = (a + b for a, b in zip(*both(params, state, x), strict=True))
    log_f = np.log(sigmoid(f))
    new_m = np.where(n > 0, np.maximum(log_f + m, i), i)
    kept, entering = np.where(n > 0, np.exp(log_f + m - new_m), 0), np.exp(i - new_m)
    c, n = kept * c + entering * np.tanh(g), kept * n + entering
    return sigmoid(o) * c / n, c, n, new_m


def multiplicative(step):
    def multiplicative_step(params, state, x):
        m = (x @ params["factor_input_kernel"]) * (state[0] @ params["factor_recurrent_kernel"])
        return step(params, (m, *state[1:]), x)

    return multiplicative_step


def mogrifier_lstm(params, state, x):
    h, c = state
    for number in range(1, 6):
        kernel = params[f"round_kernel_{number}"]
        if number % 2:
            x = 2 * sigmoid(h @ kernel) * x
        else:
            h = 2 * sigmoid(x @ kernel) * h
    return lstm_step(params, (h, c), x)


STEPS = {
    "elman": elman_step,
    "gru": gru_step,
    "lstm": lstm_step,
    "coupled_lstm": coupled_lstm,
    "peephole_lstm": peephole_lstm,
    "layer_norm_gru": layer_norm_gru,
    "layer_norm_lstm": layer_norm_lstm,
    "mgu": mgu,
    "slstm": slstm,
    "multiplicative_rnn": multiplicative(elman_step),
    "multiplicative_lstm": multiplicative(lstm_step),
    "mogrifier_lstm": mogrifier_lstm,
    "ind_rnn": diagonal(elman_step),
    "diagonal_gru": diagonal(gru_step),
    "diagonal_lstm": diagonal(lstm_step),
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "rg_lru": rg_lru,
    "lru": lru,
    "sitewise_gru": gru_step,
    "sitewise_lstm": lstm_step,
}
"""(params, state, x) -> state, for every name in `cells.CELLS`."""

OUTPUTS = {"lru": lru_output}
"""(params, state, x) -> h where it is not the first array of the state."""

PARAMETERS = {
    "elman": lambda h, x: h * (x + h + 1),
    "gru": lambda h, x: 3 * h * (x + h + 1) + h,
    "lstm": lambda h, x: 4 * h * (x + h + 1),
    "coupled_lstm": lambda h, x: 3 * h * (x + h + 1),
    "peephole_lstm": lambda h, x: 4 * h * (x + h + 1) + 3 * h,
    "layer_norm_gru": lambda h, x: 3 * h * (x + h + 3) + h,
    "layer_norm_lstm": lambda h, x: 4 * h * (x + h + 3) + 2 * h,
    "mgu": lambda h, x: 2 * h * (x + h + 1) + h,
    "slstm": lambda h, x: 4 * h * (x + h + 1),
    "multiplicative_rnn": lambda h, x: h * (2 * x + 2 * h + 1),
    "multiplicative_lstm": lambda h, x: h * (5 * x + 5 * h + 4),
    "mogrifier_lstm": lambda h, x: 4 * h * (x + h + 1) + 5 * x * h,
    "ind_rnn": lambda h, x: h * (x + 2),
    "diagonal_gru": lambda h, x: 3 * h * (x + 2) + h,
    "diagonal_lstm": lambda h, x: 4 * h * (x + 2),
    "min_gru": lambda h, x: 2 * h * (x + 1),
    "min_lstm": lambda h, x: 3 * h * (x + 1),
    "rg_lru": lambda h, x: 3 * h * (x + 1) + h,
    "lru": lambda h, x: h * (2 * h + 3 * x + 3),
    "sitewise_gru": lambda h, x: (
        3 * h * (x + h + 1) + h
    ),  # With one site; more in sitewise_test.py.
    "sitewise_lstm": lambda h, x: 4 * h * (x + h + 1),
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
