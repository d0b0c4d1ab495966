"""What benchmarks/accelerator.py compares with: cuDNN by `jax.experimental.rnn` and by PyTorch.

All start from random weights of their own: only the amount of work is the same. Inputs are
time-major in PyTorch, as cuDNN likes them. `jax.experimental.rnn` has the LSTM alone, in float32.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from accelerator_programs import Prepare, Prepared, compiled, random_array
from accelerator_rows import CLASSES, Row

JAX_RNN = "jax.experimental.rnn"
TORCH = "torch"
HALF = "torch float16"
"""cuDNN in the other half precision, in rows of bfloat16."""


def peer_programs(row: Row) -> dict[str, Prepare]:
    """The peers that do what the row asks for, by name."""
    found: dict[str, Prepare] = {}
    if row.num_heads != 1 or row.inputs == "projected":
        return found  # cuDNN has neither heads nor inputs that are projected already.
    if row.cell == "lstm" and row.kind in ("forward", "training") and row.dtype != "bfloat16":
        found[JAX_RNN] = lambda: _jax_rnn(row)
    if row.cell in ("lstm", "gru", "elman"):
        found[TORCH] = lambda: _torch(row, row.dtype)
        if row.dtype == "bfloat16" and row.kind in ("forward", "training"):
            found[HALF] = lambda: _torch(row, "float16")
    return found


def _jax_rnn(row: Row) -> Prepared:
    from jax.experimental import rnn

    size, batch_size, length = row.hidden_size, row.batch_size, row.length
    if jax.default_backend() != "gpu":
        raise NotImplementedError("jax.experimental.rnn calls cuDNN, which needs a GPU")
    shape = batch_size, length, size
    entering, weighing = (jnp.asarray(random_array(*shape, seed=seed)) for seed in (0, 1))
    weights = rnn.init_lstm_weight(jax.random.key(0), size, size, 1, False)
    zero = jnp.zeros((1, batch_size, size), jnp.float32)
    lengths = jnp.full((batch_size,), length, jnp.int32)
    exact = row.dtype == "float32"
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT

    def forward(weights: jax.Array, entering: jax.Array) -> jax.Array:
        return rnn.lstm(
            entering, zero, zero, weights, lengths, size, size, 1, 0.0, False, precision=precision
        )[0]

    def loss(weights: jax.Array, entering: jax.Array, weighing: jax.Array) -> jax.Array:
        return (forward(weights, entering) * weighing).sum()

    if row.kind == "forward":
        return Prepared(compiled(forward, weights, entering))
    return Prepared(compiled(jax.value_and_grad(loss, argnums=(0, 1)), weights, entering, weighing))


def _torch(row: Row, dtype: str) -> Prepared:
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("torch is not installed")
    import torch

    on_cpu = jax.default_backend() == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device")
    make = {"step": _torch_step, "sample": _torch_sample}.get(row.kind, _torch_layer)
    device = torch.device("cpu" if on_cpu else "cuda")
    work = make(torch, row, dtype, device)

    def run() -> Any:
        _allow_tensorfloat32(torch, dtype == "tensorfloat32")
        result = work()
        if not on_cpu:
            torch.cuda.synchronize()
        return result

    return Prepared(run)


def _allow_tensorfloat32(torch: Any, allowed: bool) -> None:
    """Whether products of float32 may be rounded to TF32: a setting of the process."""
    backends = torch.backends
    if hasattr(backends.cudnn, "rnn"):  # PyTorch 2.9
        value = "tf32" if allowed else "ieee"
        backends.cuda.matmul.fp32_precision = backends.cudnn.rnn.fp32_precision = value
    else:
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed


def _module(torch: Any, row: Row, **options: Any) -> Any:
    name = {"lstm": "LSTM", "gru": "GRU", "elman": "RNN"}[row.cell]
    return getattr(torch.nn, name)(row.hidden_size, row.hidden_size, **options)


def _torch_type(torch: Any, dtype: str) -> Any:
    return torch.float32 if dtype == "tensorfloat32" else getattr(torch, dtype)


def _torch_layer(torch: Any, row: Row, dtype: str, device: Any) -> Callable[[], Any]:
    kind = _torch_type(torch, dtype)
    layer = _module(torch, row).to(device, kind)
    shape = row.length, row.batch_size, row.hidden_size
    entering, weighing = (
        torch.from_numpy(random_array(*shape, seed=seed)).to(device, kind) for seed in (0, 1)
    )
    entering.requires_grad_(row.kind == "training")

    def forward() -> Any:
        with torch.no_grad():
            return layer(entering)[0]

    def training() -> Any:
        entering.grad = None
        layer.zero_grad(set_to_none=True)
        layer(entering)[0].backward(weighing)
        return entering.grad

    return forward if row.kind == "forward" else training


def _char_rnn(torch: Any, row: Row, device: Any) -> Any:
    """Embedding, layer, output layer, as the model of grnn_jax has them."""
    size = row.hidden_size
    parts = {
        "embedding": torch.nn.Embedding(CLASSES, size),
        "rnn": _module(torch, row, batch_first=True),
        "head": torch.nn.Linear(size, CLASSES),
    }
    return torch.nn.ModuleDict(parts).to(device)


def _torch_step(torch: Any, row: Row, dtype: str, device: Any) -> Callable[[], Any]:
    model = _char_rnn(torch, row, device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    shape = row.batch_size, row.length
    tokens, targets = (torch.randint(CLASSES, shape, device=device) for _ in range(2))
    kind = _torch_type(torch, dtype)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind is not torch.float32)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model["head"](model["rnn"](model["embedding"](tokens))[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        optimizer.step()
        return loss

    return step


def _torch_sample(torch: Any, row: Row, dtype: str, device: Any) -> Callable[[], Any]:
    model = _char_rnn(torch, row, device).to(_torch_type(torch, dtype)).eval()

    def draw() -> Any:
        token = torch.zeros(row.batch_size, 1, dtype=torch.long, device=device)
        state, tokens = None, []
        with torch.inference_mode():
            for _ in range(row.length):
                hidden, state = model["rnn"](model["embedding"](token), state)
                logits = model["head"](hidden[:, -1]).float()
                token = torch.multinomial(torch.softmax(logits, -1), 1)
                tokens.append(token)
        return torch.cat(tokens, 1)

    return draw
