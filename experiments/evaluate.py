"""Scores a trained model; the last line printed is one JSON object.

    python experiments/evaluate.py --workdir=runs/default --split=test
    python experiments/evaluate.py --workdir=runs/default --data=other.txt

The model is rebuilt from --workdir alone.
"""

import json

import flags as experiment_flags

from grnn_jax import evaluation
from grnn_jax.config import SPLITS

FLAGS = experiment_flags.FLAGS


def main() -> None:
    """Scores what the flags name."""
    values = evaluation.evaluate(
        FLAGS.workdir,
        data=FLAGS.data,
        split=FLAGS.split,
        checkpoint=FLAGS.checkpoint,
        eval_batch_size=FLAGS.eval_batch_size,
    )
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    define = experiment_flags.define
    define("string", "data", "", "File to score whole; empty for a split of the run's own data.")
    define("enum", "split", "valid", "Split to score.", enum_values=list(SPLITS))
    define("enum", "checkpoint", "best", "Checkpoint to score.", enum_values=["best", "latest"])
    streams = "Streams that text is scored as, each after 256 events of context; 0: as the run."
    define("integer", "eval_batch_size", 0, streams)
    experiment_flags.define_machine(distributed=False)
    experiment_flags.run(main, __doc__)
