"""Makes the runs of this folder, with the code of an earlier version, and what they score.

    git worktree add --detach OLD 1f4d101
    PYTHONPATH=OLD python -P tests/old_runs/make.py tests/old_runs

That commit is the last one before `format_version` 2 of config.json. Each run is a folder with its
data, the run directory `run`, and `expected.json`: scores, samples, and the metrics of the same
run trained on. `tests/old_runs_test.py` asks today's code for the same. The runs are not made
again: they show that what was written then is read now. A later format gets a folder of its own.
"""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

# As tests/conftest.py sets it, so that numbers agree to more digits.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_cpu_opt_preset=FAST_COMPILE"
    " --xla_cpu_use_fusion_emitters=false"
)

import jax  # noqa: E402
import numpy as np  # noqa: E402

import grnn_jax  # noqa: E402
from grnn_jax.config import Config  # noqa: E402
from grnn_jax.evaluation import evaluate  # noqa: E402
from grnn_jax.monitor import read_metrics  # noqa: E402
from grnn_jax.runner import train  # noqa: E402
from grnn_jax.workdir import load_run  # noqa: E402

COMMON = {
    "batch_size": 2,
    "eval_batch_size": 2,
    "num_steps": 6,
    "schedule": "constant",
    "learning_rate": 0.01,
    "valid_fraction": 0.25,
    "test_fraction": 0.25,
    "ema_decay": 0.9,
    "log_every": 1,
    "eval_every": 3,
    "checkpoint_every": 0,
}
CONFIGS = {
    "text": Config(
        data="corpus.txt",
        hidden_size=8,
        sequence_length=16,
        dropout=0.2,
        recurrent_dropout=0.1,
        accumulate_steps=2,
        plateau_patience=1,
        **COMMON,
    ),
    "pianoroll": Config(
        data="rolls.npz",
        format="pianoroll",
        sequence_length=8,
        transpose=2,
        cell="tied_lstm",
        num_layers=2,
        hidden_size=2 * 88,
        input_window=1,
        num_positions=2,
        distribution="tied_nade",
        nade_hidden_size=3,
        site_bias=True,
        skip_input=True,
        residual=True,
        dropout=0.1,
        dropout_per="sequence",
        **COMMON,
    ),
}
RESUMED_STEPS = 10
NUM_SAMPLES, LENGTH, SEED = 3, 12, 5


def write_data() -> None:
    """The two data files, in the current folder."""
    rng = np.random.default_rng(0)
    words = ["an", "old", "cat", "sat", "there", "säße"]
    lines = [" ".join(rng.choice(words, 4)) + "\n" for _ in range(40)]
    Path("text/corpus.txt").write_text("".join(lines), encoding="utf-8")
    rolls = {f"roll_{i}": (rng.random((10 + i, 88)) < 0.05).astype(np.uint8) for i in range(8)}
    np.savez_compressed("pianoroll/rolls.npz", **rolls)


def make(name: str) -> None:
    """Trains a run in the current folder, scores it, and trains a copy on."""
    config = CONFIGS[name]
    train(config, "run")
    run = load_run("run")
    samples = grnn_jax.sample(run.model, run.params, jax.random.key(SEED), NUM_SAMPLES, LENGTH)
    expected = {
        "evaluate": {split: evaluate("run", split=split) for split in ("train", "valid", "test")},
        "samples": {
            "events": np.asarray(samples.events).tolist(),
            "log_probs": np.asarray(samples.log_probs).tolist(),
        },
    }
    shutil.copytree("run", "copy")
    train(dataclasses.replace(config, num_steps=RESUMED_STEPS), "copy")
    expected["resumed_evaluate"] = evaluate("copy", split="test", checkpoint="latest")
    expected["resumed_metrics"] = read_metrics("copy")
    shutil.rmtree("copy")
    Path("expected.json").write_text(json.dumps(expected) + "\n")
    shutil.rmtree("run/tensorboard")
    # The newest checkpoint is enough to go on from.
    steps = sorted(Path("run/checkpoints/latest").iterdir(), key=lambda path: int(path.name))
    for path in steps[:-1]:
        shutil.rmtree(path)


def main() -> None:
    """Makes both runs in the folder of the first argument."""
    print(f"made with {grnn_jax.__file__}")
    folder = Path(sys.argv[1]).resolve()
    for name in CONFIGS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    os.chdir(folder)
    write_data()
    for name in CONFIGS:
        os.chdir(folder / name)
        make(name)


if __name__ == "__main__":
    main()
