"""PyTorch, eager: nn.Embedding, nn.LSTM / nn.GRU / nn.RNN(tanh) batch-first, nn.Linear.

Dense inputs enter the layer as they are, [B, T, H], or times a scale that is a parameter.
cross_entropy over all B·T events and torch.optim.Adam(fused=True), the fastest of its Adams on a
CPU. nn.LSTM and its kin carry two biases a gate; the second is 0 at the start. Threads are left
at torch's default. In bfloat16 the forward pass runs under torch.autocast("cpu"): nn.LSTM then is
one oneDNN layer in bfloat16, nn.RNN and nn.GRU have bfloat16 matmuls, nn.GRU a float32 state.
The sampling loop is char-rnn's: inference mode, one step of the layer with the carried state,
softmax, multinomial.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peers.base import ModelConfig, TrainStep, Weights, flat_gates

SUPPORTS_BFLOAT16 = True


def start() -> None:
    """Runs one operation."""
    torch.zeros(1).add_(1)


class CharRNN(nn.Module):
    """Embedding, one recurrent layer, output layer."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        layers = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
        size = config.hidden_size
        if config.inputs == "tokens":
            self.embedding = nn.Embedding(config.num_classes, size)
        elif config.inputs == "layer":
            self.scale = nn.Parameter(torch.ones(size))
        self.inputs = config.inputs
        self.rnn = layers[config.cell](size, size, batch_first=True)
        self.head = nn.Linear(size, config.num_classes)

    def enter(self, inputs: torch.Tensor) -> torch.Tensor:
        """Tokens [B, T] or vectors [B, T, H] -> what the layer receives, [B, T, H]."""
        if self.inputs == "tokens":
            return self.embedding(inputs)
        return inputs * self.scale if self.inputs == "layer" else inputs

    def forward(self, inputs: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Tokens [B, T] or vectors [B, T, H] -> logits [B, T, V], state."""
        hidden, state = self.rnn(self.enter(inputs), state)
        return self.head(hidden), state


def build(config: ModelConfig, weights: Weights) -> CharRNN:
    """The module with the given weights."""
    model = CharRNN(config)
    first: list[tuple[Any, Any]] = []
    if config.inputs == "tokens":
        first = [(model.embedding.weight, weights.embedding)]
    elif config.inputs == "layer":
        first = [(model.scale, weights.scale)]
    with torch.no_grad():
        for parameter, value in (
            *first,
            (model.rnn.weight_ih_l0, flat_gates(weights.input).T),
            (model.rnn.weight_hh_l0, flat_gates(weights.recurrent).T),
            (model.rnn.bias_ih_l0, flat_gates(weights.bias)),
            (model.rnn.bias_hh_l0, 0 * flat_gates(weights.bias)),
            (model.head.weight, weights.output.T),
            (model.head.bias, weights.output_bias),
        ):
            parameter.copy_(torch.tensor(value))
    return model


def train_step(config: ModelConfig, weights: Weights, inputs: Any, targets: Any) -> TrainStep:
    """zero_grad, forward, backward, Adam."""
    model = build(config, weights)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.b1, config.b2),
        eps=config.eps,
        fused=True,
    )
    entering = torch.tensor(inputs, dtype=torch.long if config.inputs == "tokens" else None)
    labels = torch.tensor(targets, dtype=torch.long).reshape(-1)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.dtype == "bfloat16")

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits, _ = model(entering)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return TrainStep(step)


def samplers(
    config: ModelConfig, weights: Weights, num_samples: int, length: int
) -> dict[str, Callable[[], Any]]:
    """The step loop."""
    model = build(config, weights).eval()

    @torch.inference_mode()
    def loop() -> torch.Tensor:
        token = torch.zeros(num_samples, 1, dtype=torch.long)
        state, tokens = None, []
        for _ in range(length):
            logits, state = model(token, state)
            token = torch.multinomial(torch.softmax(logits[:, -1], dim=-1), 1)
            tokens.append(token)
        return torch.cat(tokens, dim=1)

    return {"PyTorch step loop": loop}
