r"""Times the sampling of characters in several libraries, on a CPU.

    python benchmarks/sampling.py --output=sampling.json
    python benchmarks/sampling.py --batch_sizes=1,64 --hidden_size=128 --repeats=5

The model is char-rnn's (65 classes, embedding V -> H, one recurrent layer, output layer H -> V);
B sequences of --length characters are drawn in parallel at temperature 1, each character fed back:

    grnn_jax               grnn_jax.sample, compiled once; also returns the log-probability of every
                           character, which the others do not compute; from 16 sequences on they
                           are shared by as many virtual CPU devices as there are cores, as by
                           sample.py (make_sharded_sample)
    PyTorch step loop      inference mode, one step of nn.LSTM with the carried state, softmax,
                           multinomial, as char-rnn does
    flax cell in lax.scan  the nnx cell in a lax.scan with jax.random.categorical, under one jit
    flax jitted step       a jitted single step of the same, called for each character

All have the same weights and feed the same first input. Before anything is timed, the tokens of
each are scored by a NumPy implementation of the model, so that a sampler of another distribution
is found out.

    matmuls alone          the matmuls of as many steps one after the other, h V and h W, and
                           nothing else: no sampler with these shapes is faster

A round times each implementation once, in shuffled order. The table holds characters per second
(B·length / median time) and, in brackets, the median over rounds of grnn_jax's speed divided by
the implementation's (above 1: grnn_jax is faster), and the median over rounds of its speed as a
share of that of the matmuls alone.

Then, in rounds of their own, grnn_jax draws 16 B sequences of widely different lengths (from 1 to
--length, log-uniform) through B rows, in three ways:

    equal lengths          B sequences of --length: the price of a step that is of use
    continuous refill      grnn_jax.sampling.sample_many: a finished row takes the next sequence
    side by side           batches of B, each until its longest sequence has ended

For each the second table holds the steps of rows that were computed for each that was of use, the
median time of an event that was of use, and the median over rounds of that time divided by the one
of equal lengths.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
import timing
from absl import app, flags, logging
from peers.base import GATES, ModelConfig, Weights, flat_gates, log_probs, random_weights

import grnn_jax
from grnn_jax.sharding import num_cores, useful_cpu_devices

CELL = flags.DEFINE_enum("cell", "lstm", list(GATES), "Recurrent cell.")
HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 512, "Hidden size H.", lower_bound=1)
BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "64", "512"], "Sequences drawn in parallel.")
LENGTH = flags.DEFINE_integer("length", 256, "Characters in a sequence.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 11, "Rounds; each times everything once.", lower_bound=1)
SAMPLERS = ["grnn_jax", "flax", "torch"]
PEERS = flags.DEFINE_list("peers", SAMPLERS, "Implementations; the first is the reference.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything measured.")

flags.register_validator(
    "batch_sizes", lambda v: all(s.isdecimal() and int(s) > 0 for s in v), "must be positive"
)
flags.register_validator(
    "peers", lambda v: v and set(v) <= set(SAMPLERS), f"must name some of {SAMPLERS}"
)


def build(config: ModelConfig, weights: Weights, batch_size: int, length: int) -> dict[str, Any]:
    """Label -> function that draws [B, length] tokens, for every library that is installed."""
    runs: dict[str, Callable[[], Any]] = {}
    for key in PEERS.value:
        try:
            module = peers.load(key)
        except peers.MissingPeerError:
            continue
        runs |= module.samplers(config, weights, batch_size, length)
    return runs


LIMIT = "matmuls alone"


def matmul_limit(weights: Weights, batch_size: int, length: int) -> Callable[[], Any]:
    """The matmuls that drawing [B, length] characters cannot do without, one after the other.

    Each step multiplies h [B, H] by V [H, G·H] and by W [H, K]; the first H columns of h V make the
    next h, so that no step can begin before the one in front of it has ended.
    """
    recurrent, output = jnp.asarray(flat_gates(weights.recurrent)), jnp.asarray(weights.output)
    size = output.shape[0]
    first = jnp.ones((batch_size, size), jnp.float32)

    @jax.jit
    def run(recurrent: jax.Array, output: jax.Array, first: jax.Array) -> tuple:
        def step(_: int, carry: tuple) -> tuple:
            hidden, scores = carry
            # The addition keeps the numbers away from zero, where arithmetic is slow.
            following = first + (hidden @ recurrent)[:, :size]
            return following, scores + hidden @ output

        scores = jnp.zeros((batch_size, output.shape[1]), jnp.float32)
        return jax.lax.fori_loop(0, length, step, (first, scores))

    return lambda: jax.block_until_ready(run(recurrent, output, first))


RAGGED = ("equal lengths", "continuous refill", "side by side")
RAGGED_BATCHES = 16


def ragged_lengths(batch_size: int, longest: int) -> np.ndarray:
    """Lengths of the sequences that B rows draw: log-uniform from 1 to the longest."""
    uniform = np.random.default_rng(0).random(RAGGED_BATCHES * batch_size)
    return np.maximum(1, np.round(np.exp(uniform * np.log(longest)))).astype(np.int32)


def ragged(
    config: ModelConfig, weights: Weights, batch_size: int, longest: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, dict[str, int]]]:
    """Ways of drawing sequences of different lengths through B rows.

    Returns:
        Name -> a function that draws, and name -> the steps of rows that it computes, and of these
        the useful ones, which become events.

    Raises:
        SystemExit: if the ways do not draw sequences of the lengths that were asked for.
    """
    model, params = peers.load("grnn_jax").build(config, weights)
    lengths = ragged_lengths(batch_size, longest)
    batches = lengths.reshape(RAGGED_BATCHES, batch_size)
    key = jax.random.key(0)

    def equal() -> Any:
        return jax.block_until_ready(grnn_jax.sample(model, params, key, batch_size, longest))

    def refill() -> Any:
        drawn = grnn_jax.sampling.sample_many(
            model, params, key, lengths.size, longest, num_rows=batch_size, lengths=lengths
        )
        return jax.block_until_ready(drawn)

    def side_by_side() -> Any:
        return [
            jax.block_until_ready(
                grnn_jax.sample(
                    model, params, key, batch_size, longest, lengths=part,
                    first_index=number * batch_size,
                )
            )
            for number, part in enumerate(batches)
        ]  # fmt: skip

    refilled, parts = refill(), side_by_side()
    masks = [refilled.mask, np.concatenate([part.mask for part in parts])]
    if not all((np.asarray(mask).sum(1) == lengths).all() for mask in masks):
        sys.exit("error: sequences are not as long as was asked for")
    useful, whole = int(lengths.sum()), batch_size * longest
    steps = {
        "equal lengths": {"steps": whole, "useful": whole},
        "continuous refill": {"steps": int(refilled.steps), "useful": useful},
        "side by side": {"steps": batch_size * int(batches.max(1).sum()), "useful": useful},
    }
    return dict(zip(RAGGED, (equal, refill, side_by_side), strict=True)), steps


def time_ragged(config: ModelConfig, weights: Weights, batch_size: int) -> dict[str, Any]:
    """Times the ways of `ragged`, each per event that is of use."""
    runs, steps = ragged(config, weights, batch_size, LENGTH.value)
    seconds = timing.interleave(runs, REPEATS.value)
    per_event = {
        name: [value / steps[name]["useful"] for value in values]
        for name, values in seconds.items()
    }
    timed = timing.summarize(per_event, "equal lengths")
    for name, entry in timed.items():
        entry |= steps[name] | {"steps_per_useful": steps[name]["steps"] / steps[name]["useful"]}
    return timed


def ragged_table(config: ModelConfig, results: list[dict[str, Any]]) -> str:
    """Steps for each useful one, µs for each useful event, and the ratio to equal lengths."""
    header = [f"{config.cell}, H {config.hidden_size}", *(f"B {r['batch_size']}" for r in results)]
    rows = []
    for name in RAGGED:
        entries = [r["ragged"][name] for r in results]
        cells = [
            f"{e['steps_per_useful']:.2f}; {1e3 * e['median_ms']:.2f} µs ({e['ratio']:.2f})"
            for e in entries
        ]
        rows.append([name, *cells])
    return timing.markdown_table(header, rows)


def check(num_samples: int = 5000, length: int = 8) -> dict[str, float]:
    """Mean log-probability [nats per character] of what each implementation samples.

    Raises:
        SystemExit: if tokens are out of range or a mean is off by more than chance allows.
    """
    config = ModelConfig(CELL.value, 8, num_classes=11)
    weights = random_weights(config, scale=4.0)
    means = {}
    for name, run in build(config, weights, num_samples, length).items():
        tokens = np.asarray(run())
        if tokens.shape != (num_samples, length) or not (tokens >= 0).all() & (tokens < 11).all():
            sys.exit(f"error: {name} returned tokens of shape {tokens.shape} or out of range")
        logs = log_probs(config, weights, tokens)  # [B, T, V]
        chosen = np.take_along_axis(logs, tokens[..., None], axis=-1)[..., 0]
        # E[log p(x) | past] is known exactly, so chance is only in the difference from it.
        surplus = (chosen - (np.exp(logs) * logs).sum(-1)).mean(1)
        error = surplus.std() / np.sqrt(num_samples)
        if abs(surplus.mean()) > 5 * error:
            sigmas = surplus.mean() / error
            sys.exit(f"error: {name} does not sample from the model ({sigmas:.1f} σ)")
        means[name] = float(chosen.mean())
    return means


def main(argv: list[str]) -> None:
    """Checks, times, prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_num_cpu_devices", num_cores())
    print(timing.describe(), flush=True)
    machine = timing.machine()
    for key in PEERS.value:
        try:
            peers.load(key)
        except peers.MissingPeerError as error:
            print(f"skipped {key}: {error}")
    means = check()
    if not means:
        sys.exit("error: none of the libraries of --peers is installed")
    names = list(means)
    print(f"checked: all sample from the model; ratios are to {names[0]}", flush=True)
    weights = random_weights(ModelConfig(CELL.value, HIDDEN_SIZE.value))
    results: list[dict[str, Any]] = []
    for batch_size in map(int, BATCH_SIZES.value):
        devices = useful_cpu_devices(num_cores(), HIDDEN_SIZE.value, batch_size, batch_size)
        config = ModelConfig(CELL.value, HIDDEN_SIZE.value, num_devices=devices)
        runs = build(config, weights, batch_size, LENGTH.value)
        runs[LIMIT] = matmul_limit(weights, batch_size, LENGTH.value)
        timed = timing.summarize(timing.interleave(runs, REPEATS.value), names[0])
        for entry in timed.values():
            entry["characters_per_second"] = batch_size * LENGTH.value / entry["median_ms"] * 1e3
            limit = timing.median_ratio(timed[LIMIT]["seconds"], entry["seconds"])
            entry["share_of_matmul_limit"] = limit
        results.append({"batch_size": batch_size, "timing": timed})
        if "grnn_jax" in PEERS.value:
            results[-1]["ragged"] = time_ragged(config, weights, batch_size)
        speeds = ", ".join(f"{n} {t['characters_per_second']:,.0f}" for n, t in timed.items())
        print(f"B {batch_size}: {speeds} characters/s", flush=True)
    header = [f"{config.cell}, H {config.hidden_size}", *(f"B {r['batch_size']}" for r in results)]
    rows = []
    for name in [*names, LIMIT]:
        entries = [r["timing"][name] for r in results]
        rates = []
        for e in entries:
            share = f"{e['share_of_matmul_limit']:.0%}"
            rates.append(f"{e['characters_per_second']:,.0f} ({e['ratio']:.2f}; {share})")
        rows.append([name, *rates])
    print(
        "\nCharacters per second (ratio; share of the matmul limit)\n\n"
        + timing.markdown_table(header, rows)
    )
    if "grnn_jax" in PEERS.value:
        print(
            "\nRagged lengths: steps for each of use; time of an event of use (ratio to equal "
            "lengths)\n\n" + ragged_table(config, results)
        )
    if OUTPUT.value:
        record = {
            "machine": machine,
            "cell": config.cell,
            "hidden_size": config.hidden_size,
            "length": LENGTH.value,
            "reference": names[0],
            "check_nats_per_character": means,
            "results": results,
        }
        timing.write_json(OUTPUT.value, record)


if __name__ == "__main__":
    app.run(main)
