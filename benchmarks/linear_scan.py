"""The methods of the linear engine against the scan engine, on a recurrence alone.

    python benchmarks/linear_scan.py --lengths=128,1024,4096 --sizes=1x64,8x256,64x256

One round times every method once; a cell of the table is the median time of a forward and backward
pass of minGRU's recurrence, and in brackets how many times as fast as the scan engine it is.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import timing
from absl import app, flags

from grnn_jax import cells
from grnn_jax.recurrence.linear import linear_engine
from grnn_jax.recurrence.linear_scan import METHODS
from grnn_jax.recurrence.scan import scan_engine

FLAGS = flags.FLAGS


def steps(length: int, batch_size: int, hidden_size: int) -> dict:
    """Each method's forward and backward pass, compiled on first use."""
    cell = cells.min_gru(hidden_size)
    params = cell.init(jax.random.key(0), 1)
    shape = length, batch_size, 2 * hidden_size
    projected = jax.random.normal(jax.random.key(1), shape, jnp.float32)
    state = cell.initial_state(params, batch_size)

    def gradient(engine, projected):
        def loss(projected):
            return jnp.square(engine(cell, params, projected, state, None, state)[0]).sum()

        return jax.value_and_grad(loss)(projected)

    engines = {"scan": scan_engine}
    engines |= {method: functools.partial(linear_engine, method=method) for method in METHODS}
    runs = {}
    for name, engine in engines.items():
        step = jax.jit(functools.partial(gradient, engine))
        runs[name] = lambda step=step: jax.block_until_ready(step(projected))
    return runs


def main(argv: list[str]) -> None:
    """Prints a table for every size."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    print(timing.describe() + "\n")
    lengths = [int(length) for length in FLAGS.lengths]
    for size in FLAGS.sizes:
        batch_size, hidden_size = map(int, size.split("x"))
        columns = []
        for length in lengths:
            seconds = timing.interleave(steps(length, batch_size, hidden_size), FLAGS.repeats)
            columns.append(timing.summarize(seconds, "scan"))
        rows = []
        for name in ("scan", *METHODS):
            found = list(map(operator.itemgetter(name), columns))
            rows.append([name, *(f"{c['median_ms']:.2f} ({1 / c['ratio']:.2f})" for c in found)])
        header = [f"B {batch_size}, H {hidden_size}: ms", *(f"T {length}" for length in lengths)]
        print(timing.markdown_table(header, rows) + "\n", flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("lengths", ["128", "1024", "4096"], "Steps.")
    flags.DEFINE_list("sizes", ["1x64", "8x256", "64x256"], "Batch size x hidden size.")
    flags.DEFINE_integer("repeats", 7, "Rounds.", lower_bound=1)
    app.run(main)
