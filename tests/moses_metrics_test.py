"""MOSES metrics: the values of molsets' own tests, counts too large for integers, mistakes."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
HAS_MOSES = importlib.util.find_spec("moses") and importlib.util.find_spec("fcd_torch")
needs_moses = pytest.mark.skipif(not HAS_MOSES, reason="molsets or fcd_torch is not installed")

# Input and expected values of tests/test_metrics.py of molsets; Novelty is ours.
GENERATED = [
    "CNC",
    "Oc1ccccc1-c1cccc2cnccc12",
    "INVALID",
    "CCCP",
    "Cc1noc(C)c1CN(C)C(=O)Nc1cc(F)cc(F)c1",
    "Cc1nc(NCc2ccccc2)no1-c1ccccc1",
]
TEST = ["Oc1ccccc1-c1cccc2cnccc12", "COc1cccc(NC(=O)Cc2coc3ccc(OC)cc23)c1"]
TEST_SCAFFOLDS = [
    "COCc1nnc(NC(=O)COc2ccc(C(C)(C)C)cc2)s1",
    "O=C(C1CC2C=CC1C2)N1CCOc2ccccc21",
    "Nc1c(Br)cccc1C(=O)Nc1ccncn1",
]
EXPECTED = {
    "valid": 2 / 3,
    "unique@3": 1.0,
    "unique@5": None,
    "FCD/Test": 52.58371754126664,
    "SNN/Test": 0.3152585653588176,
    "Frag/Test": 0.3,
    "Scaf/Test": 0.5,
    "IntDiv": 0.7189187309761661,
    "Filters": 0.75,
    "Novelty": 0.75,
}


def run(command, hidden=None):
    paths = [*([hidden] if hidden else []), BENCHMARKS, BENCHMARKS.parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment["OMP_NUM_THREADS"] = "1"  # Threads that spin are slow beside other processes.
    command = [sys.executable, *command]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def run_script(*arguments, hidden=None):
    return run([str(BENCHMARKS / "moses_metrics.py"), *arguments], hidden)


def call(expression):
    """The value of an expression in the module, from a process of its own."""
    code = f"import json, moses_metrics; print(json.dumps(moses_metrics.{expression}))"
    done = run(["-W", "error", "-c", code])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_moses
def test_metrics_are_those_of_the_tests_of_molsets():
    train = [GENERATED[0], TEST[1]]
    num_valid, metrics = call(
        f"score({GENERATED}, n_jobs=2, unique=(3, 5), test={TEST}, "
        f"test_scaffolds={TEST_SCAFFOLDS}, train={train})"
    )
    assert num_valid == 4
    found = {name: metrics[name] for name in EXPECTED}
    assert found == {
        name: value if value is None else pytest.approx(value, rel=1e-5)
        for name, value in EXPECTED.items()
    }
    # What is kept of the molecules for one reference set is right for the other too.
    swapped = call(
        f"score({GENERATED}, unique=(), test={TEST_SCAFFOLDS}, test_scaffolds={TEST}, "
        f"train={train})"
    )[1]
    for name in ("FCD", "SNN", "Frag", "Scaf"):
        assert metrics[f"{name}/TestSF"] == pytest.approx(swapped[f"{name}/Test"], rel=1e-6)


@needs_moses
def test_counts_whose_product_exceeds_64_bits_are_compared():
    reference, generated = {"a": 126_225, "b": 75_983}, {"a": 21_000, "c": 90_000}
    found = call(f"import_moses().metrics.metrics.cos_similarity({reference}, {generated})")
    expected = 126_225 * 21_000 / np.hypot(126_225, 75_983) / np.hypot(21_000, 90_000)
    assert found == pytest.approx(expected, rel=1e-12)


@needs_moses
def test_samples_without_two_valid_molecules_are_refused(tmp_path):
    path = tmp_path / "samples.txt"
    path.write_text("CCO\n\nC1CC\n")
    done = run_script(f"--samples={path}")
    assert done.returncode == 1
    assert done.stderr == (
        "error: 1 of 3 samples are valid SMILES; the metrics need at least two\n"
    )


def test_an_empty_line_is_a_sample(tmp_path):
    path = tmp_path / "samples.txt"
    for text, expected in [("CC\n\nCO\n", ["CC", "", "CO"]), ("\n", [""]), ("", []), ("C", ["C"])]:
        path.write_text(text)
        assert call(f"read_samples({str(path)!r})") == expected


def test_a_missing_file_and_a_missing_package_are_one_sentence(tmp_path):
    done = run_script(f"--samples={tmp_path / 'none.txt'}")
    assert done.returncode == 1
    assert done.stderr == f"error: cannot read {tmp_path / 'none.txt'}: No such file or directory\n"
    (tmp_path / "rdkit.py").write_text('raise ModuleNotFoundError("hidden", name="rdkit")\n')
    (tmp_path / "samples.txt").write_text("CC\nCO\n")
    done = run_script(f"--samples={tmp_path / 'samples.txt'}", hidden=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: rdkit is not installed; pip install")
    assert done.stderr.count("\n") == 1


def test_the_table_holds_every_metric_and_marks_what_is_undefined():
    metrics = {"valid": 0.5, "FCD/Test": 12.34567, "Scaf/TestSF": None}
    rows = [line.strip("| ").split("|") for line in call(f"table({metrics})").splitlines()[2:]]
    values = {row[0].strip(): row[1].strip() for row in rows}
    assert len(values) == 19
    assert (values["valid"], values["FCD/Test"]) == ("0.5000", "12.3457")
    assert values["Scaf/TestSF"] == values["Novelty"] == "undefined"
