r"""Scores generated molecules with the metrics of MOSES, as molsets itself computes them.

    pip install "grnn_jax[moses]"
    pip install --no-deps molsets==0.3.1
    python experiments/sample.py --workdir=runs/moses --num_samples=30000 --length=100 \
        --output=samples.txt
    python benchmarks/moses_metrics.py --samples=samples.txt --output=metrics.json

molsets pins a package that no longer builds, hence --no-deps; what it and fcd_torch use of older
RDKit, pandas, NumPy and SciPy is supplied here. Its splits are in the package, as CSV with the
column SMILES: moses/dataset/data/{train,test,test_scaffolds}.csv.gz.

Protocol (`moses.get_all_metrics` with its default reference sets: 176,074 test molecules, 176,225
with scaffolds that are not in training, 1,584,663 training molecules):

    valid            part of all lines that RDKit parses; an empty line is an invalid molecule
    unique@k         distinct canonical SMILES among the first k valid ones
    FCD, SNN, Frag,  of all valid molecules, repeated ones included, against the test molecules
      Scaf           (Test) and those with new scaffolds (TestSF)
    IntDiv, Filters, of all valid molecules
      logP … weight  (the last four: Wasserstein-1 distances of properties to Test)
    Novelty          part of the distinct valid molecules that is not in the training set

MOSES asks for 30,000 samples, drawn at temperature 1; FCD and Scaf depend on their number. The
table ends with what D. Polykovskiy et al., "Molecular Sets (MOSES): a benchmarking platform for
molecular generation models", Frontiers in Pharmacology 11, 2020, report for CharRNN (mean ±
standard deviation of three runs) and for the training set itself. The last line is JSON.
"""

import contextlib
import functools
import importlib.metadata
import json
import math
import multiprocessing
import pathlib
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import timing
from absl import app, flags

SAMPLES = flags.DEFINE_string("samples", None, "File of samples, one SMILES a line.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything computed.")
N_JOBS = flags.DEFINE_integer("n_jobs", 1, "Processes that analyse molecules.", lower_bound=1)
DEVICE = flags.DEFINE_string("device", "cpu", "Where ChemNet and similarities run: cpu or cuda:0.")

INSTALL = 'pip install "grnn_jax[moses]"; pip install --no-deps molsets==0.3.1'
DISTRIBUTIONS = ("molsets", "rdkit", "fcd_torch", "torch", "pandas", "numpy", "scipy")

# Metric -> CharRNN, the training set.
PUBLISHED = {
    "valid": ("0.9748 ± 0.0264", "1"),
    "unique@1000": ("1.0 ± 0.0", "1"),
    "unique@10000": ("0.9994 ± 0.0003", "1"),
    "FCD/Test": ("0.0732 ± 0.0247", "0.008"),
    "FCD/TestSF": ("0.5204 ± 0.0379", "0.4755"),
    "SNN/Test": ("0.6015 ± 0.0206", "0.6419"),
    "SNN/TestSF": ("0.5649 ± 0.0142", "0.5859"),
    "Frag/Test": ("0.9998 ± 0.0002", "1"),
    "Frag/TestSF": ("0.9983 ± 0.0003", "0.9986"),
    "Scaf/Test": ("0.9242 ± 0.0058", "0.9907"),
    "Scaf/TestSF": ("0.1101 ± 0.0081", "0"),
    "IntDiv": ("0.8562 ± 0.0005", "0.8567"),
    "IntDiv2": ("0.8503 ± 0.0005", "0.8508"),
    "Filters": ("0.9943 ± 0.0034", "1"),
    "Novelty": ("0.8419 ± 0.0509", ""),
    "logP": ("", ""),
    "SA": ("", ""),
    "QED": ("", ""),
    "weight": ("", ""),
}


def import_or_exit(name: str) -> Any:
    """Imports a module; where it or one that it needs is missing, says in one sentence which."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; {INSTALL}")


@functools.cache
def import_moses() -> Any:
    """Imports molsets 0.3.1 with what it and fcd_torch need of older versions of their libraries.

    Raises:
        SystemExit: names the first package that is missing.
    """
    names = ("rdkit", "torch", "matplotlib", "pandas", "scipy.linalg", "fcd_torch.utils")
    *_, pd, linalg, fcd_utils = [import_or_exit(name) for name in names]
    six: Any = types.ModuleType("rdkit.six")
    six.iteritems = lambda mapping: iter(mapping.items())
    sys.modules["rdkit.six"] = six

    def append(self: Any, other: Any, sort: bool = False) -> Any:
        return pd.concat([self, other], sort=sort)

    with mock.patch.object(pd.DataFrame, "append", append, create=True):
        moses = import_or_exit("moses")
    metrics = moses.metrics.metrics

    def sqrtm(matrix: Any, disp: bool = True) -> Any:
        root = linalg.sqrtm(matrix)
        return root if disp else (root, math.nan)

    np.row_stack = np.vstack
    fcd_utils.linalg = types.SimpleNamespace(sqrtm=sqrtm)

    cos_similarity = metrics.cos_similarity

    def cos_similarity_of_floats(reference: Mapping, generated: Mapping) -> float:
        # The product of the squared norms of the counts of fragments exceeds 64-bit integers.
        counts = ({k: float(v) for k, v in c.items()} for c in (reference, generated))
        return cos_similarity(*counts)

    metrics.cos_similarity = cos_similarity_of_floats
    for metric in (metrics.FCDMetric, metrics.SNNMetric, metrics.FragMetric, metrics.ScafMetric):
        metric.precalc = remember_last(metric.precalc)
    return moses


def remember_last(precalc: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Statistics of the same molecules, asked for against Test and TestSF, are computed once."""
    last: list[Any] = [None, None]

    def remembered(metric: Any, molecules: Any) -> Any:
        if last[0] is not molecules:
            last[:] = molecules, precalc(metric, molecules)
        return last[1]

    return remembered


def read_samples(path: str) -> list[str]:
    """The lines of a file without their ends; an empty line is a sample too."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"error: cannot read {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        sys.exit(f"error: {path} is not UTF-8: {error.reason} at byte {error.start}")
    return text.removesuffix("\n").split("\n") if text else []


def score(
    samples: Sequence[str],
    *,
    n_jobs: int = 1,
    device: str = "cpu",
    unique: Sequence[int] = (1000, 10000),
    **references: Sequence[str],
) -> tuple[int, dict[str, float | None]]:
    """Computes the metrics of MOSES.

    Args:
        samples: SMILES, some of which may be invalid.
        n_jobs: processes that analyse molecules.
        device: where ChemNet and similarities run.
        unique: the numbers k of unique@k.
        **references: `test`, `test_scaffolds`, `train`: SMILES instead of those of MOSES.

    Returns:
        The number of valid samples, and metric -> value; None where it is not defined.

    Raises:
        SystemExit: fewer than two samples are valid.
    """
    moses = import_moses()
    # Forked, since a fresh process would import molsets without the above.
    fork = multiprocessing.get_context("fork") if n_jobs > 1 else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)
        moses.utils.disable_rdkit_log()
        pool = stack.enter_context(fork.Pool(n_jobs)) if fork else 1
        valid = moses.metrics.fraction_valid(samples, pool) if samples else 0.0
        num_valid = round(valid * len(samples))
        if num_valid < 2:
            sys.exit(
                f"error: {num_valid} of {len(samples)} samples are valid SMILES; "
                "the metrics need at least two"
            )
        k = [k for k in unique if k <= num_valid]
        computed = moses.get_all_metrics(samples, k=k, pool=pool, device=device, **references)
    found: dict[str, float | None] = {f"unique@{k}": None for k in unique}
    for name, value in computed.items():
        found[name] = None if math.isnan(value) else float(value)
    return num_valid, found


def table(metrics: Mapping[str, float | None]) -> str:
    """The metrics beside those published."""
    rows = []
    for name, published in PUBLISHED.items():
        value = metrics.get(name)
        rows.append([name, "undefined" if value is None else f"{value:.4f}", *published])
    return timing.markdown_table(["", "samples", "CharRNN", "training set"], rows)


def main(argv: list[str]) -> None:
    """Reads the samples, prints the table and one line of JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    samples = read_samples(SAMPLES.value)
    num_valid, metrics = score(samples, n_jobs=N_JOBS.value, device=DEVICE.value)
    record = {
        "samples": SAMPLES.value,
        "num_samples": len(samples),
        "num_valid": num_valid,
        "metrics": metrics,
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
    }
    print(f"{len(samples):,} samples, {num_valid:,} of them valid\n\n{table(metrics)}\n")
    print(json.dumps(record))
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
