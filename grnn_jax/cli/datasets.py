"""Writes small real data sets that installed packages ship, as files for train.py.

    pip install scikit-learn && python experiments/datasets.py --name=digits --output=digits.npz
    pip install --no-deps lifelines
    python experiments/datasets.py --name=recurrences --output=recur.csv

digits: the 1,797 images of handwritten digits (8 x 8 pixels, 17 levels) of scikit-learn, and their
labels, which train.py reads with --condition_on=label.
recurrences: the recurrent events of 400 patients (Hosmer, Lemeshow, May 2008) that lifelines ships:
the time of each, whether the patient was treated, and the end of observation.
"""

import csv
import importlib.metadata
from pathlib import Path

import numpy as np

from grnn_jax.cli import command, flags
from grnn_jax.errors import InputError

FLAGS = flags.FLAGS
HELD_OUT = 0.1
"""Part of the digits held out for validation, and as much for the test."""


def write_digits(output: Path) -> None:
    """Writes the images as uint8 arrays [N, 8, 8] and their labels, split by a fixed seed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("--name=digits needs scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    count = int(HELD_OUT * len(order))
    splits = {"train": order[2 * count :], "valid": order[:count], "test": order[count : 2 * count]}
    with open(output, "wb") as file:  # NumPy adds .npz to the name of any other file.
        arrays = {name: digits.images[part].astype(np.uint8) for name, part in splits.items()}
        labels = {f"{name}_label": digits.target[part] for name, part in splits.items()}
        np.savez_compressed(file, **arrays, **labels)


def write_recurrences(output: Path) -> None:
    """Writes one row an event, and one row without a time for a patient who had none."""
    try:
        files = importlib.metadata.files("lifelines") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    tables = [file for file in files if file.name == "recur.csv"]
    if not tables:
        raise InputError("--name=recurrences needs lifelines: pip install --no-deps lifelines")
    with open(tables[0].locate(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    patients: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        patients.setdefault(row["ID"], []).append(row)
    with open(output, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sequence", "time", "treatment", "end"])
        for patient, rows in sorted(patients.items(), key=lambda item: int(item[0])):
            end = max(float(row["TIME1"]) for row in rows)
            group = "yes" if rows[0]["TREAT"] == "1" else "no"
            times = sorted(float(row["TIME1"]) for row in rows if row["CENSOR"] == "1")
            for time in times:
                writer.writerow([patient, f"{time:g}", group, f"{end:g}"])
            if not times:
                writer.writerow([patient, "", group, f"{end:g}"])


DATASETS = {"digits": write_digits, "recurrences": write_recurrences}


def run() -> None:
    """Writes the data set that the flags name."""
    if not FLAGS.output:
        raise InputError("--output must name a file, got none")
    try:
        DATASETS[FLAGS.name](Path(FLAGS.output))
    except OSError as error:
        raise InputError(f"--output: cannot write {FLAGS.output}: {error.strerror}") from error


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    define("enum", "name", "digits", "Data set to write.", enum_values=list(DATASETS))
    define("string", "output", "", "File to write to.")


def main() -> None:
    """The command."""
    command.start(run, define_flags, __doc__)
