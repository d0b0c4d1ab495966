r"""Times one training step of models that are shared across the 88 keys of a piano roll, on a CPU.

    python benchmarks/sitewise_step.py --output=sitewise_step.json
    python benchmarks/sitewise_step.py --cells=sitewise_gru --layers=1,2,3 --units=64 --devices=2

The step is the trainer's (`training.make_train_step`: loss over a window, gradient, AdamW, moving
average) for random piano rolls in which each key sounds with probability 0.05. All variants are
timed once a round, in shuffled order. The table holds the median in ms, the frames a second that
it makes, and the median over rounds of variant / first variant (above 1: the first is faster).
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import timing
from absl import app, flags, logging

from grnn_jax.array_types import Batch
from grnn_jax.config import Config
from grnn_jax.data.pianoroll import NUM_KEYS, PianorollCodec
from grnn_jax.optimizer import make_optimizer
from grnn_jax.sharding import batch_sharding, make_mesh, num_cores, put_on_mesh, replicated
from grnn_jax.training import init_train_state, make_train_step, train_state_shardings
from grnn_jax.workdir import build_model

CELLS = flags.DEFINE_list(
    "cells", ["sitewise_gru", "sitewise_lstm"], "Cells: sitewise_gru, sitewise_lstm."
)
LAYERS = flags.DEFINE_list("layers", ["1", "2", "3"], "Recurrent layers.")
UNITS = flags.DEFINE_list("units", ["64", "96"], "Units of a layer at each key.")
DEVICES = flags.DEFINE_list("devices", ["1", "2"], "CPU devices that share the rows.")
DTYPES = flags.DEFINE_list("dtypes", ["bfloat16"], "Compute dtypes: float32, bfloat16.")
DISTRIBUTION = flags.DEFINE_enum(
    "distribution", "sitewise_bernoulli", ["sitewise_bernoulli", "sitewise_nade"], "Output family."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pieces B in a batch.", lower_bound=1)
LENGTH = flags.DEFINE_integer("length", 64, "Frames T of a window.", lower_bound=1)
REMAT_CHUNK = flags.DEFINE_integer("remat_chunk", 16, "As in train.py.", lower_bound=0)
REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds; each times everything once.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything measured.")

for _name in ("layers", "units", "devices"):
    flags.register_validator(
        _name,
        lambda v: v and all(s.isdecimal() and int(s) > 0 for s in v),
        "must be positive integers",
    )
flags.register_validator(
    "cells",
    lambda v: v and set(v) <= {"sitewise_gru", "sitewise_lstm"},
    "must name sitewise_gru, sitewise_lstm",
)
flags.register_validator(
    "dtypes", lambda v: v and set(v) <= {"float32", "bfloat16"}, "must name float32, bfloat16"
)


class Variant(NamedTuple):
    """One row of the table."""

    cell: str
    layers: int
    units: int
    dtype: str
    devices: int

    def __str__(self) -> str:
        return f"{self.cell} {self.layers} x {self.units}, {self.dtype}, {self.devices} device(s)"


def variants() -> list[Variant]:
    """All combinations of the flags."""
    chosen = (CELLS, LAYERS, UNITS, DTYPES, DEVICES)
    return [
        Variant(cell, int(layers), int(units), dtype, int(devices))
        for cell, layers, units, dtype, devices in itertools.product(*(f.value for f in chosen))
    ]


def random_batch() -> Batch:
    """Random rolls that go on from the window before."""
    shape = (BATCH_SIZE.value, LENGTH.value)
    events = np.random.default_rng(0).random((*shape, NUM_KEYS)) < 0.05
    return Batch(events.astype(np.uint8), np.ones(shape, bool), np.zeros(shape, bool))


def build(variant: Variant) -> Callable[[], float]:
    """A function that takes one step and returns its loss when it is done."""
    config = Config(
        format="pianoroll", cell=variant.cell, num_layers=variant.layers,
        hidden_size=NUM_KEYS * variant.units, dtype=variant.dtype, num_positions=6,
        distribution=DISTRIBUTION.value, skip_input=True, ema_decay=0.99,
        batch_size=BATCH_SIZE.value, sequence_length=LENGTH.value, remat_chunk=REMAT_CHUNK.value,
    )  # fmt: skip
    mesh = make_mesh(jax.devices()[: variant.devices])
    model, optimizer = build_model(config, PianorollCodec()), make_optimizer(config)
    shapes = jax.eval_shape(lambda: init_train_state(model, optimizer, config))
    shardings = train_state_shardings(shapes, mesh)
    step = jax.jit(
        make_train_step(model, optimizer, config, mesh),
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),
    )
    state = put_on_mesh(init_train_state(model, optimizer, config), shardings)
    batch = jax.device_put(random_batch(), batch_sharding(mesh))

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return run


def check(runs: dict[str, Callable[[], float]], compared: list[Variant]) -> None:
    """Devices and products' dtypes change no loss at the first step, but for rounding.

    Raises:
        SystemExit: they do.
    """
    losses: dict[tuple, tuple[str, float]] = {}
    for variant in compared:
        loss = runs[str(variant)]()
        name, first = losses.setdefault(variant[:3], (str(variant), loss))
        if not abs(loss - first) <= 2e-3 * first:
            raise SystemExit(f"error: the first loss of {variant} is {loss}, of {name} {first}")


def main(argv: list[str]) -> None:
    """Checks, times, prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    compared = variants()
    jax.config.update("jax_num_cpu_devices", max(num_cores(), *(v.devices for v in compared)))
    print(timing.describe(), flush=True)
    runs = {str(variant): build(variant) for variant in compared}
    check(runs, compared)
    print("checked: equal first losses on all devices and dtypes", flush=True)
    summary: dict[str, dict[str, Any]] = timing.summarize(
        timing.interleave(runs, REPEATS.value), str(compared[0])
    )
    frames = BATCH_SIZE.value * LENGTH.value
    rows = []
    for name, t in summary.items():
        t["frames_per_second"] = 1000 * frames / t["median_ms"]
        rows.append(
            [name, f"{t['median_ms']:.0f}", f"{t['frames_per_second']:.0f}", f"{t['ratio']:.2f}"]
        )
    print("\n" + timing.markdown_table(["model", "ms", "frames/s", "ratio"], rows))
    if OUTPUT.value:
        timing.write_json(OUTPUT.value, {"reference": str(compared[0]), "results": summary})


if __name__ == "__main__":
    app.run(main)
