"""Samples from a trained model: samples, and nothing else, on standard output.

    python experiments/sample.py --workdir=runs/default --length=1000 --temperature=0.8
    python experiments/sample.py --workdir=runs/default --prefix="ROMEO: " --num_samples=3

A single sample is shown while it is drawn; several are drawn side by side.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import flags as experiment_flags
import jax
import numpy as np

from grnn_jax import sampling
from grnn_jax.config import MAX_SEED
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run, load_run

FLAGS = experiment_flags.FLAGS
CHUNK_LENGTH = 32
# Long texts are drawn side by side in parts, so that memory does not grow with --num_samples.
BATCH_SIZE = 256


def write_samples(
    run: Run,
    file: TextIO,
    *,
    num_samples: int = 1,
    length: int = 600,
    prefix: str = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    log_probs: bool = False,
) -> None:
    """Draws samples and writes them as text.

    One sample of a text is written while it is drawn. Several are parted by an empty line; lines
    (which have an end) are written one sample a line.

    Args:
        run: a trained model.
        file: where the text goes.
        num_samples: number of samples.
        length: most events of a sample, its prefix not counted.
        prefix: text that every sample begins with.
        temperature: divides the logits.
        top_k: keeps the k most probable classes.
        top_p: keeps the most probable classes up to this probability.
        seed: seed of the samples; sample i of a seed is the same whatever num_samples is.
        log_probs: write one JSON object a sample instead: text, and nats and num_events of the
            events drawn, the prefix excluded, under the model at temperature 1, not truncated.
    """
    codec = run.codec
    start = codec.encode(prefix, "--prefix") if prefix else None
    options = {
        "prefix": start,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    key = jax.random.key(seed)
    if num_samples == 1 and not log_probs:
        decoder = codec.incremental_decoder()
        # The prefix goes through the decoder: its last bytes may begin a character.
        file.write(decoder.decode(start) if start is not None else "")
        chunks = sampling.stream(
            run.model, run.params, key, 1, length, chunk_length=CHUNK_LENGTH, **options
        )
        for chunk in chunks:
            file.write(decoder.decode(np.asarray(chunk.events)[np.asarray(chunk.mask)]))
            file.flush()
        file.write(decoder.flush() + ("\n" if codec.end is not None else ""))
        return
    for first in range(0, num_samples, BATCH_SIZE):
        size = min(BATCH_SIZE, num_samples - first)
        samples = sampling.sample(
            run.model, run.params, key, size, length, first_index=first, **options
        )
        rows = zip(
            np.asarray(samples.events),
            np.asarray(samples.mask),
            np.asarray(samples.log_probs, np.float64),
            strict=True,
        )
        for number, (events, mask, nats) in enumerate(rows, start=first):
            ids = events[mask]
            text = codec.decode(ids if start is None else np.concatenate([start, ids]))
            if log_probs:
                record = {"text": text, "nats": float(-nats.sum()), "num_events": int(mask.sum())}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            elif codec.end is not None:
                file.write(text + "\n")
            else:
                file.write(("\n\n" if number else "") + text)
        file.flush()


def check_flags() -> None:
    """Checks what the flags ask for.

    Raises:
        InputError: a number is outside its range.
    """
    for name, low in (("num_samples", 1), ("length", 1), ("temperature", 0), ("top_k", 0)):
        if not FLAGS[name].value >= low:
            raise InputError(f"--{name} must be at least {low}, got {FLAGS[name].value}")
    if not 0 < FLAGS.top_p <= 1:
        raise InputError(f"--top_p must be greater than 0 and at most 1, got {FLAGS.top_p}")
    if not 0 <= FLAGS.seed <= MAX_SEED:
        raise InputError(f"--seed must be from 0 to {MAX_SEED}, got {FLAGS.seed}")


@contextlib.contextmanager
def output(path: str) -> Iterator[TextIO]:
    """Standard output, or a file, both in UTF-8."""
    if not path:
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            path = os.path.expanduser(path)
            file = stack.enter_context(open(path, "w", encoding="utf-8", newline=""))
        except OSError as error:
            raise InputError(f"--output: cannot write {path}: {error.strerror}") from error
        yield file


def main() -> None:
    """Samples as the flags say."""
    check_flags()
    run = load_run(FLAGS.workdir, FLAGS.checkpoint)
    if FLAGS.prefix:
        run.codec.encode(FLAGS.prefix, "--prefix")  # Before --output is made.
    with output(FLAGS.output) as file:
        write_samples(
            run,
            file,
            num_samples=FLAGS.num_samples,
            length=FLAGS.length,
            prefix=FLAGS.prefix,
            temperature=FLAGS.temperature,
            top_k=FLAGS.top_k or None,
            top_p=FLAGS.top_p if FLAGS.top_p < 1 else None,
            seed=FLAGS.seed,
            log_probs=FLAGS.log_probs,
        )
        if not FLAGS.output and file.isatty():
            file.write("\n")


if __name__ == "__main__":
    define = experiment_flags.define
    define("integer", "num_samples", 1, "Number of samples.")
    define("integer", "length", 600, "Most events of a sample; the prefix is not counted.")
    define("string", "prefix", "", "Text that every sample begins with.")
    define("float", "temperature", 1.0, "Divides the logits; 0 takes the most probable event.")
    define("integer", "top_k", 0, "Keep the k most probable events; 0 keeps all.")
    define("float", "top_p", 1.0, "Keep the most probable events up to this probability.")
    define("integer", "seed", 0, "Seed; the same seed gives the same samples.")
    define("string", "output", "", "File to write to; empty for standard output.")
    nats = (
        "Write JSON lines: text; nats (of the model untempered) and num_events, without the prefix."
    )
    define("boolean", "log_probs", False, nats)
    define("enum", "checkpoint", "best", "Checkpoint to use.", enum_values=["best", "latest"])
    experiment_flags.define_machine(distributed=False)
    experiment_flags.run(main, __doc__)
