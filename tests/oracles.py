"""Independent NumPy float64 implementations, one step and one sequence at a time."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def block_diagonal(kernel):
    """V [heads, D, G·D] as a dense [H, G·H] with gates side by side."""
    num_heads, width, columns = kernel.shape
    num_gates = columns // width
    hidden_size = num_heads * width
    dense = np.zeros((hidden_size, num_gates * hidden_size))
    for n in range(num_heads):
        for g in range(num_gates):
            rows = slice(n * width, (n + 1) * width)
            cols = slice(g * hidden_size + n * width, g * hidden_size + (n + 1) * width)
            dense[rows, cols] = kernel[n, :, g * width : (g + 1) * width]
    return dense


def elman_step(params, state, x, activation=np.tanh):
    h = state[0]
    v = block_diagonal(params["recurrent_kernel"])
    return (activation(x @ params["input_kernel"] + params["bias"] + h @ v),)


def lstm_step(params, state, x):
    h, c = state
    u, b, v = params["input_kernel"], params["bias"], block_diagonal(params["recurrent_kernel"])
    size = h.shape[-1]
    gates = [x @ u[:, k * size : (k + 1) * size] + b[k * size : (k + 1) * size] for k in range(4)]
    recurrent = [h @ v[:, k * size : (k + 1) * size] for k in range(4)]
    i, f, o = (sigmoid(gates[k] + recurrent[k]) for k in (0, 1, 3))
    c = f * c + i * np.tanh(gates[2] + recurrent[2])
    return o * np.tanh(c), c


def gru_step(params, state, x):
    h = state[0]
    u, b, v = params["input_kernel"], params["bias"], block_diagonal(params["recurrent_kernel"])
    size = h.shape[-1]
    gates = [x @ u[:, k * size : (k + 1) * size] + b[k * size : (k + 1) * size] for k in range(3)]
    recurrent = [h @ v[:, k * size : (k + 1) * size] for k in range(3)]
    r = sigmoid(gates[0] + recurrent[0])
    z = sigmoid(gates[1] + recurrent[1])
    n = np.tanh(gates[2] + r * (recurrent[2] + params["candidate_bias"]))
    return ((1 - z) * n + z * h,)


def elman_relu_step(params, state, x):
    return elman_step(params, state, x, activation=lambda z: np.maximum(z, 0))


STEPS = {"elman": elman_step, "elman_relu": elman_relu_step, "lstm": lstm_step, "gru": gru_step}


def initial_state(params, num_states, batch_size, hidden_size):
    if "initial_state" in params:
        return tuple(np.tile(row, (batch_size, 1)) for row in params["initial_state"])
    return tuple(np.zeros((batch_size, hidden_size)) for _ in range(num_states))


def unroll(step, params, inputs, state, reset=None, initial=None):
    """outputs [B, T, H] and the final state, by a loop over time and rows."""
    outputs = []
    for t in range(inputs.shape[1]):
        if reset is not None:
            state = tuple(
                np.where(reset[:, t, None], fresh, old)
                for fresh, old in zip(initial, state, strict=True)
            )
        state = step(params, state, inputs[:, t])
        outputs.append(state[0])
    return np.stack(outputs, 1), state


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def truncated(p, temperature=1.0, top_k=None, top_p=None, min_p=0.0, typical_p=None):
    """The truncated distribution of one row, class by class, in plain Python."""
    q = p ** (1 / temperature)
    q = q / q.sum()

    def restrict(q, kept):
        kept = [k in kept for k in range(len(q))]
        return np.where(kept, q, 0) / q[kept].sum()

    def nucleus(q, order, mass):
        kept, reached = [], 0.0
        for k in order:
            if mass is None or reached < mass:
                kept.append(k)
                reached += q[k]
        return kept

    order = sorted(range(len(q)), key=lambda k: (-q[k], k))
    q = restrict(q, order[: len(q) if top_k is None else int(top_k)])
    q = restrict(q, nucleus(q, order, top_p))
    q = restrict(q, [k for k in order if q[k] >= min_p * q.max()])
    possible = [k for k in range(len(q)) if q[k] > 0]
    entropy = -sum(q[k] * np.log(q[k]) for k in possible)
    order = sorted(possible, key=lambda k: (abs(-np.log(q[k]) - entropy), k))
    return restrict(q, nucleus(q, order, typical_p))
