"""What every implementation starts from: the configuration, the weights, the data.

The model is the char-rnn one: embedding [V, H], one recurrent layer H -> H, output layer H -> V.
Gates are ordered i, f, g, o (LSTM) and r, z, n (GRU, reset after the matmul), one bias a gate:

    LSTM   c' = σ(f) c + σ(i) tanh(g)          h' = σ(o) tanh(c')
    GRU    n = tanh(x_n + σ(r) (h V_n))         h' = (1 - σ(z)) n + σ(z) h
    Elman  h' = tanh(x U + b + h V)

Where the inputs are dense, real vectors [B, T, X = H] take the place of the embedded tokens:

    tokens  embedding[token], the embedding is trained
    dense   x itself, as real-valued data: no gradient with respect to it is needed
    layer   scale ⊙ x with a trained scale [H], as the output of a layer below: the whole gradient
            with respect to the inputs of the recurrent layer is needed
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

GATES = {"lstm": 4, "gru": 3, "elman": 1}
INPUTS = ("tokens", "dense", "layer")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model and its optimiser, the same for all implementations."""

    cell: str
    hidden_size: int
    num_classes: int = 65
    inputs: str = "tokens"  # one of INPUTS
    dtype: str = "float32"
    engine: str = "auto"  # grnn_jax only
    num_devices: int = 1  # grnn_jax only
    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclasses.dataclass(frozen=True)
class Weights:
    """NumPy float32 weights; G gates in the order of the module's docstring."""

    embedding: np.ndarray  # [V, H]
    scale: np.ndarray  # [H]
    input: np.ndarray  # [H, G, H]
    recurrent: np.ndarray  # [H, G, H]
    bias: np.ndarray  # [G, H]
    output: np.ndarray  # [H, V]
    output_bias: np.ndarray  # [V]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A compiled training step that keeps its own state."""

    step: Callable[[], Any]  # one update; returns the loss [nats per event] once all is done
    temporary_bytes: Callable[[], int] | None = None  # XLA's own account, where there is one


def random_weights(config: ModelConfig, seed: int = 0, scale: float = 1.0) -> Weights:
    """Uniform weights in ±scale/√H, biases included; the embedding is normal."""
    size, classes, gates = config.hidden_size, config.num_classes, GATES[config.cell]
    rng = np.random.default_rng(seed)
    bound = scale * size**-0.5

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    return Weights(
        embedding=rng.normal(size=(classes, size)).astype(np.float32),
        scale=np.ones(size, np.float32),
        input=uniform(size, gates, size),
        recurrent=uniform(size, gates, size),
        bias=uniform(gates, size),
        output=uniform(size, classes),
        output_bias=uniform(classes),
    )


def random_batch(
    config: ModelConfig, batch_size: int, length: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, T] or vectors [B, T, H] that enter, and the tokens [B, T] to predict."""
    rng = np.random.default_rng(seed)
    stream = rng.integers(config.num_classes, size=(batch_size, length + 1), dtype=np.int32)
    if config.inputs == "tokens":
        return stream[:, :-1], stream[:, 1:]
    vectors = rng.normal(size=(batch_size, length, config.hidden_size))
    return vectors.astype(np.float32), stream[:, 1:]


def flat_gates(weight: np.ndarray) -> np.ndarray:
    """[..., G, H] -> [..., G·H]."""
    return weight.reshape(*weight.shape[:-2], -1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def log_probs(config: ModelConfig, weights: Weights, tokens: np.ndarray) -> np.ndarray:
    """Log p(x_t = · | x_<t) for every t, with token 0 fed in front of x_0, in NumPy float64.

    Returns:
        Log-probabilities [B, T, V].
    """
    memory = hidden = np.zeros((len(tokens), config.hidden_size))
    logs = []
    for token in np.pad(tokens, ((0, 0), (1, 0)))[:, :-1].T:
        x = np.einsum("bx,xgh->gbh", weights.embedding[token].astype(np.float64), weights.input)
        x = x + weights.bias[:, None]
        v = np.einsum("bd,dgh->gbh", hidden, weights.recurrent)
        if config.cell == "lstm":
            i, f, g, o = x + v
            memory = _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g)
            hidden = _sigmoid(o) * np.tanh(memory)
        elif config.cell == "gru":
            z = _sigmoid(x[1] + v[1])
            candidate = np.tanh(x[2] + _sigmoid(x[0] + v[0]) * v[2])
            hidden = (1 - z) * candidate + z * hidden
        else:
            hidden = np.tanh(x[0] + v[0])
        logits = hidden @ weights.output + weights.output_bias
        peak = logits.max(-1, keepdims=True)
        logs.append(logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True)))
    return np.stack(logs, axis=1)
