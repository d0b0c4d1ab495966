r"""Times one whole training step of one character model in several libraries, on a CPU.

    python benchmarks/train_step.py --output=train_step.json
    python benchmarks/train_step.py --cells=lstm --sizes=128,512 --repeats=5 --nomemory
    python benchmarks/train_step.py --inputs=tokens,dense,layer --dtypes=float32,bfloat16

The model is char-rnn's: 65 classes, embedding V -> H, one recurrent layer H -> H, output layer
H -> V, mean cross-entropy over the B·T events in float32, gradient, Adam (1e-3, 0.9, 0.999,
1e-8). All start from the same weights and see the same random tokens, from a zero state:

    grnn_jax   likelihood.event_log_probs from a carried state (mask and reset included, as its
               trainer uses it), engines auto and scan; on a CPU the rows are shared by as many
               virtual devices as its trainer takes, see --devices; its input projection of tokens
               projects the V rows of the embedding table and gathers, which is the same function
    flax       nnx.Embed, nnx.RNN(OptimizedLSTMCell | GRUCell | SimpleCell), nnx.Linear,
               nnx.Optimizer under nnx.jit
    haiku      hk.Embed, hk.dynamic_unroll(LSTM | GRU | VanillaRNN with tanh), hk.Linear. Its GRU
               resets the state before the matmul: another function, the same amount of work
    equinox    eqx.nn.Embedding, LSTMCell | GRUCell | an Elman cell in its style, vmapped over the
               batch inside a lax.scan, eqx.nn.Linear
    torch      nn.Embedding, nn.LSTM | nn.GRU | nn.RNN batch first, nn.Linear, eager mode,
               Adam(fused=True); a second bias in every gate, as the library has it

With --inputs=dense, random real vectors [B, T, H], batch first as data come, take the place of
the embedded tokens: nothing can be gathered, and no library needs their gradient. With
--inputs=layer they are multiplied by a trained scale [H] first, so that the gradient with respect
to all inputs of the layer is needed, as in the second layer of a stack.

JAX implementations use optax.adam in one compiled step with donated parameters and optimiser
state. Threads are left at each library's default. Before anything is timed, all losses of a tiny
model are compared at equal weights (and, where the parameters are the same, after three updates).

A round times each implementation once, in shuffled order. Tables hold the median in ms and, in
brackets, the median over rounds of implementation / grnn_jax (above 1: grnn_jax is faster).
Memory is measured in a process of its own for each implementation: the peak resident memory over
the whole run (compilation included) and over the steps after the second one, both less what the
library needs once it is started; and the size of XLA's temporary buffers.
"""

import itertools
import json
import subprocess
import sys
from typing import Any

import jax
import peers
import timing
from absl import app, flags, logging
from peers.base import GATES, ModelConfig, TrainStep, random_batch, random_weights
from peers.base import INPUTS as INPUT_KINDS

from grnn_jax.sharding import num_cores, useful_cpu_devices

CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "elman"], "Cells: lstm, gru, elman.")
SIZES = flags.DEFINE_list("sizes", ["128", "256", "512", "1024"], "Hidden sizes H.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Sequences B in a batch.", lower_bound=1)
LENGTH = flags.DEFINE_integer("length", 128, "Time steps T in a sequence.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 15, "Rounds; each times everything once.", lower_bound=1)
PEERS = flags.DEFINE_list("peers", list(peers.PEERS), "Libraries; the first is the reference.")
ENGINES = flags.DEFINE_list("engines", ["auto", "scan"], "Engines of grnn_jax.")
DEVICES = flags.DEFINE_list(
    "devices",
    ["auto"],
    "CPU devices that share the rows in grnn_jax: numbers, or auto.",
)
DTYPES = flags.DEFINE_list("dtypes", ["float32"], "Compute dtypes: float32, bfloat16.")
INPUTS = flags.DEFINE_list("inputs", ["tokens"], "Inputs of the layer: tokens, dense, layer.")
MEMORY = flags.DEFINE_boolean("memory", True, "Also measure peak memory.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything measured.")
CHILD = flags.DEFINE_string("child", None, "Internal: measures memory of one implementation.")

flags.register_validator("cells", lambda v: set(v) <= set(GATES), "must name lstm, gru, elman")
flags.register_validator(
    "sizes", lambda v: all(s.isdecimal() and int(s) > 0 for s in v), "must be positive integers"
)
flags.register_validator(
    "devices",
    lambda v: v and all(d == "auto" or (d.isdecimal() and int(d) > 0) for d in v),
    "must be auto or positive integers",
)
flags.register_validator(
    "peers", lambda v: v and set(v) <= set(peers.PEERS), f"must name some of {list(peers.PEERS)}"
)
flags.register_validator(
    "inputs", lambda v: v and set(v) <= set(INPUT_KINDS), "must name tokens, dense, layer"
)
flags.register_validator(
    "dtypes", lambda v: set(v) <= {"float32", "bfloat16"}, "must name float32, bfloat16"
)

MEGABYTE = 2**20
MEMORY_STEPS = 3


def variants() -> dict[str, dict[str, str]]:
    """Label -> key of the peer, engine and dtype; says what is skipped and why."""
    found = {}
    for key in PEERS.value:
        try:
            module = peers.load(key)
        except peers.MissingPeerError as error:
            print(f"skipped {key}: {error}")
            continue
        label = peers.PEERS[key][1]
        for dtype in DTYPES.value:
            if dtype != "float32" and not module.SUPPORTS_BFLOAT16:
                print(f"skipped {key} in {dtype}: float32 only")
                continue
            suffix = "" if dtype == "float32" else f", {dtype}"
            if key != "grnn_jax":
                found[label + suffix] = {"key": key, "dtype": dtype}
                continue
            for engine, devices in itertools.product(ENGINES.value, DEVICES.value):
                on = "" if devices == "auto" else f", {devices} device(s)"
                variant = {"key": key, "dtype": dtype, "engine": engine, "devices": devices}
                found[f"{label} {engine}{on}{suffix}"] = variant
    return found


def num_devices(variant: dict[str, str], size: int, batch_size: int) -> int:
    """The CPU devices of a variant."""
    devices = variant.get("devices", "1")
    if devices != "auto":
        return int(devices)
    return useful_cpu_devices(num_cores(), size, batch_size, batch_size)


def build(
    variant: dict[str, str], cell: str, inputs: str, size: int, *shape: int, classes: int = 65
) -> TrainStep:
    """The training step of one implementation for inputs [B, T, ...] with [B, T] = shape."""
    config = ModelConfig(
        cell,
        size,
        num_classes=classes,
        inputs=inputs,
        dtype=variant["dtype"],
        engine=variant.get("engine", "auto"),
        num_devices=num_devices(variant, size, shape[0]),
    )
    module = peers.load(variant["key"])
    return module.train_step(config, random_weights(config), *random_batch(config, *shape))


def cases() -> list[tuple[str, str]]:
    """The models: cell and kind of inputs."""
    return [(cell, inputs) for cell in CELLS.value for inputs in INPUTS.value]


def title(cell: str, inputs: str) -> str:
    """The name of a model in tables."""
    return cell if inputs == "tokens" else f"{cell}, {inputs} inputs"


def check(variants: dict[str, dict[str, str]]) -> dict[str, dict[str, list[float]]]:
    """Losses of a tiny model in all implementations: the first one, and after three updates.

    Raises:
        SystemExit: if implementations of the same function disagree.
    """
    report: dict[str, dict[str, list[float]]] = {}
    for cell, inputs in cases():
        losses = {}
        for name, variant in variants.items():
            step = build(variant, cell, inputs, 8, 3, 7, classes=11).step
            losses[name] = [step() for _ in range(4)]
        report[title(cell, inputs)] = losses
        reference = next(iter(losses))
        for name, values in losses.items():
            variant = variants[name]
            if cell == "gru" and variant["key"] == "haiku":
                continue  # another function
            rounding = 1e-5 if variant["dtype"] == "float32" else 2e-2
            # Updates agree where the parameters do. torch's second bias doubles what Adam does to
            # the bias; of the GRUs only two have a recurrent bias in the candidate.
            pair = {variant["key"], variants[reference]["key"]}
            same_parameters = "torch" not in pair and (
                cell != "gru" or pair <= {"grnn_jax", "equinox"}
            )
            compared = (0, 3) if same_parameters else (0,)
            for update in compared:
                difference = abs(values[update] - losses[reference][update])
                if not difference <= rounding:
                    sys.exit(
                        f"error: {title(cell, inputs)}: {name} has loss {values[update]:.7f} "
                        f"after {update} updates, {reference} has {losses[reference][update]:.7f}"
                    )
    return report


def run_child(variant: dict[str, str]) -> None:
    """Measures one implementation in this process and prints one line of JSON."""
    peers.load(variant["key"]).start()
    record: dict[str, Any] = {"baseline": timing.peak_memory()}
    ((cell, inputs),) = cases()
    training = build(variant, cell, inputs, int(SIZES.value[0]), BATCH_SIZE.value, LENGTH.value)
    for _ in range(2):
        training.step()
    record["peak"] = timing.peak_memory()
    # So that compilation does not hide what the steps need.
    resettable = timing.forget_peak()
    for _ in range(MEMORY_STEPS):
        training.step()
    after = timing.peak_memory()
    record["peak_steps"] = after if resettable else None
    record["peak"] = max(record["peak"], after)
    if training.temporary_bytes is not None:
        record["temporary"] = training.temporary_bytes() / MEGABYTE
    print(json.dumps(record))


def measure_memory(
    variant: dict[str, str], cell: str, inputs: str, size: int
) -> dict[str, float | None]:
    """Memory in MB above the started library, measured in a fresh process."""
    command = [
        sys.executable,
        __file__,
        f"--child={json.dumps(variant)}",
        f"--cells={cell}",
        f"--inputs={inputs}",
        f"--sizes={size}",
        f"--batch_size={BATCH_SIZE.value}",
        f"--length={LENGTH.value}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: measuring the memory of {variant} failed:\n{done.stderr}")
    record = json.loads(done.stdout.splitlines()[-1])
    base = record["baseline"]
    steps = record["peak_steps"]
    return {
        "peak_mb": record["peak"] - base,
        "peak_steps_mb": None if steps is None else steps - base,
        "xla_temporary_mb": record.get("temporary"),
    }


def _tables(results: list[dict[str, Any]], names: list[str]) -> str:
    parts = []
    for case in cases():
        of_cell = [entry for entry in results if (entry["cell"], entry["inputs"]) == case]
        header = [title(*case), *(f"H {entry['hidden_size']}" for entry in of_cell)]
        rows = []
        for name in names:
            timed = [entry["timing"][name] for entry in of_cell]
            rows.append([name, *(f"{t['median_ms']:.1f} ({t['ratio']:.2f})" for t in timed)])
        parts.append("Training step, ms (ratio)\n\n" + timing.markdown_table(header, rows))
        if not MEMORY.value:
            continue
        rows = []
        for name in names:
            used = [entry["memory"][name] for entry in of_cell]
            keys = ("peak_mb", "peak_steps_mb", "xla_temporary_mb")
            rows.append([name, *(" / ".join(_megabytes(u[key]) for key in keys) for u in used)])
        head = "Memory, MB: peak of the process / of the steps alone / XLA temporaries\n\n"
        parts.append(head + timing.markdown_table(header, rows))
    return "\n\n".join(parts)


def _megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def main(argv: list[str]) -> None:
    """Checks, times, measures memory, prints the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    most = max(num_cores(), *(int(d) for d in ["1", *DEVICES.value] if d != "auto"))
    jax.config.update("jax_num_cpu_devices", most)
    if CHILD.value is not None:
        run_child(json.loads(CHILD.value))
        return
    print(timing.describe(), flush=True)
    machine = timing.machine()
    compared = variants()
    if not compared:
        sys.exit("error: none of the libraries of --peers is installed")
    names = list(compared)
    losses = check(compared)
    print(f"checked: equal losses at equal weights; ratios are to {names[0]}", flush=True)
    results = []
    for cell, inputs in cases():
        for size in map(int, SIZES.value):
            shape = (BATCH_SIZE.value, LENGTH.value)
            steps = {n: build(v, cell, inputs, size, *shape).step for n, v in compared.items()}
            seconds = timing.interleave(steps, REPEATS.value)
            del steps
            entry: dict[str, Any] = {
                "cell": cell,
                "inputs": inputs,
                "hidden_size": size,
                "batch_size": shape[0],
                "length": shape[1],
                "timing": timing.summarize(seconds, names[0]),
            }
            if MEMORY.value:
                entry["memory"] = {
                    n: measure_memory(v, cell, inputs, size) for n, v in compared.items()
                }
            results.append(entry)
            medians = ", ".join(f"{n} {t['median_ms']:.1f}" for n, t in entry["timing"].items())
            print(f"{title(cell, inputs)} H {size}: {medians} ms", flush=True)
    print("\n" + _tables(results, names))
    if OUTPUT.value:
        record = {"machine": machine, "reference": names[0], "losses": losses, "results": results}
        timing.write_json(OUTPUT.value, record)


if __name__ == "__main__":
    app.run(main)
