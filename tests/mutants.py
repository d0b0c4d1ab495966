"""Mutation testing: changes the code in one place, and asks whether a test fails.

    python tests/mutants.py --num_mutants=300 --seed=13 --output=mutants.jsonl

Draws mutants of mutmut's operators (an operator, a comparison, a number or an argument changed)
over the files that setup.cfg names under [mutmut], every file represented. Each runs the tests
that are about its file, in a copy of the repository, until the first failure. The output has one
JSON object a mutant: what was changed and whether it was killed. The same command goes on after the
mutants that the output has.

mutmut's own runner draws no sample, and forks a process in which JAX's threads run.
"""

import argparse
import collections
import configparser
import difflib
import fnmatch
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "grnn_jax"

ENGINES = (
    "recurrence/inputs_test.py", "recurrence/packed_test.py", "recurrence/unroll_test.py",
    "cells/zoneout_test.py", "cells/sitewise_test.py", "cells/stack_test.py",
    "recurrence/agreement_test.py",
)  # fmt: skip
SAMPLING = (
    "sampling/structured_test.py", "sampling/ancestral_test.py", "sampling/settings_test.py",
    "sampling/fork_test.py", "sampling/refill_test.py", "sampling/sharded_test.py",
)  # fmt: skip
TESTS: dict[str, tuple[str, ...]] = {
    "model.py": ("model_test.py", "likelihood_test.py", "sampling/ancestral_test.py"),
    "likelihood.py": ("likelihood_test.py", "model_test.py", "training_test.py"),
    "training.py": ("training_test.py", "old_runs_test.py", "runner_test.py"),
    "optimizer.py": ("optimizer_test.py", "training_test.py", "old_runs_test.py"),
    "sharding.py": ("sharding_test.py", "sampling/sharded_test.py", "devices_test.py"),
    "recurrence/linear*.py": (
        "recurrence/linear_test.py", "recurrence/packed_test.py", "recurrence/inputs_test.py",
    ),
    "recurrence/jacobian.py": ("recurrence/newton_test.py", "recurrence/inputs_test.py"),
    "recurrence/newton*.py": ("recurrence/newton_test.py", "recurrence/sharded_test.py"),
    "recurrence/sharded.py": ("recurrence/sharded_test.py", "recurrence/linear_test.py"),
    "recurrence/devices.py": ("recurrence/sharded_test.py", "recurrence/linear_test.py"),
    "recurrence/*.py": ENGINES,
    "sampling/state.py": SAMPLING,
    "sampling/ancestral.py": SAMPLING,
    "distributions/truncation.py": (
        "distributions/truncation_test.py", "sampling/settings_test.py",
        "distributions/categorical_test.py",
    ),
}  # fmt: skip
"""The tests that are about a file of the package: those that fail soonest stand first. Of arguments
that do not fit one file tells for all of them, and runs last."""


class Mutant(NamedTuple):
    """A file of the package with one change.

    Attributes:
        path: the file, relative to the package.
        function: the outermost function that holds the change.
        code: the whole file.
        diff: the lines that changed.
    """

    path: str
    function: str
    code: str
    diff: str


def mutants_of(path: str) -> dict[str, list[Callable[[], Mutant]]]:
    """The mutants of a file by what they change: a call, a comparison, a number, …"""
    import libcst
    from mutmut.mutation.file_mutation import create_mutations, deep_replace

    source = (ROOT / PACKAGE / path).read_text()
    module, mutations, _, _ = create_mutations(path, source)
    # What an error says is for readers; whether it is raised stays among the mutants.
    words = {id(node) for raised in _nodes(module, libcst.Raise) for node in _nodes(raised)}

    def make(mutation) -> Mutant:
        code = deep_replace(module, mutation.original_node, mutation.mutated_node).code
        lines = difflib.unified_diff(source.splitlines(), code.splitlines(), n=1, lineterm="")
        name = mutation.contained_by_top_level_function.name.value
        return Mutant(path, name, code, "\n".join(list(lines)[2:]))

    by_kind = collections.defaultdict(list)
    for mutation in mutations:
        inside = isinstance(mutation.contained_by_top_level_function, libcst.FunctionDef)
        if inside and id(mutation.original_node) not in words:
            kind = type(mutation.original_node).__name__
            by_kind[kind].append(functools.partial(make, mutation))
    return dict(by_kind)


def _nodes(node, kind=object):
    """All nodes of a syntax tree of one kind."""
    if isinstance(node, kind):
        yield node
    for child in node.children:
        yield from _nodes(child, kind)


def tests_of(path: str) -> list[str]:
    """The test files that are about a file of the package; a new file needs a line in `TESTS`."""
    pattern = next(pattern for pattern in TESTS if fnmatch.fnmatch(path, pattern))
    names = dict.fromkeys((*TESTS[pattern], "arguments_test.py"))
    return [f"tests/{name}" for name in names if (ROOT / "tests" / name).exists()]


def draw(num_mutants: int, seed: int) -> list[Mutant]:
    """Draws mutants without repetition.

    Files come round in turn, so that each is represented alike, and in a file the kinds of change:
    seven of ten possible ones are an argument that is missing, which hardly any test can overlook.

    Args:
        num_mutants: how many, over all files.
        seed: the same draws the same, from the same code.
    """
    rng = random.Random(seed)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["mutmut"]["only_mutate"].split()
    files = sorted({file for pattern in patterns for file in ROOT.glob(pattern)})
    paths = [str(file.relative_to(ROOT / PACKAGE)) for file in files if file.suffix == ".py"]
    possible = {path: mutants_of(path) for path in paths}
    left = {path: kinds for path, kinds in possible.items() if kinds}
    drawn = []
    while left and len(drawn) < num_mutants:
        for path in list(left)[: num_mutants - len(drawn)]:
            kinds = left[path]
            kind = rng.choice(sorted(kinds))
            drawn.append(kinds[kind].pop(rng.randrange(len(kinds[kind])))())
            left[path] = {kind: mutants for kind, mutants in kinds.items() if mutants}
            if not left[path]:
                del left[path]
    return drawn


def copy_repository(folder: Path) -> None:
    """Copies what the tests need."""
    ignore = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "build", "dist")
    shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)


def run_tests(
    mutant: Mutant, repository: Path, timeout: float, first: Sequence[str] = ()
) -> tuple[str, str]:
    """Runs the tests about a mutant's file in a copy of the repository that holds it.

    Args:
        mutant: the mutant.
        repository: the copy.
        timeout: seconds.
        first: tests that killed other mutants of the file, which are tried before all.

    Returns:
        "killed", "timeout" or "survived", and the first test that failed.
    """
    path = repository / PACKAGE / mutant.path
    original = path.read_text()
    path.write_text(mutant.code)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-n", "0", "--tb=no"]
    # A process that a timeout ended may have left the half of a compiled program.
    command += [
        "-W",
        "ignore:Error reading persistent compilation cache",
        *first,
        *tests_of(mutant.path),
    ]
    variables = {
        "JAX_COMPILATION_CACHE_DIR": str(repository / ".xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    variables |= os.environ | {"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=repository,
        env=variables, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "timeout", ""
    finally:
        path.write_text(original)
    if process.returncode == pytest.ExitCode.USAGE_ERROR and first:  # One is there no more.
        return run_tests(mutant, repository, timeout)
    failed = [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if process.returncode == 0:
        return "survived", ""
    return "killed", failed[0] if failed else out[-200:]


def main() -> None:
    """Draws, runs what the output lacks, and counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--timeout", type=float, default=900, help="seconds of one mutant")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth mutant from the Ith on")
    parser.add_argument("--output", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    arguments = parser.parse_args()
    first, step = (int(number) for number in arguments.part.split("/"))
    mutants = list(enumerate(draw(arguments.num_mutants, arguments.seed)))[first::step]
    if arguments.list:
        for number, mutant in mutants:
            print(f"{number} {mutant.path} {mutant.function}\n{mutant.diff}\n")
        return
    records = []
    if arguments.output.exists():
        records = [json.loads(line) for line in arguments.output.read_text().splitlines()]
    done = {record["number"] for record in records}
    killers = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder, open(arguments.output, "a") as output:
        copy_repository(Path(folder))
        for number, mutant in mutants:
            if number in done:
                continue
            begin = time.monotonic()
            first_tests = [test for test, _ in killers[mutant.path].most_common(3)]
            status, test = run_tests(mutant, Path(folder), arguments.timeout, first_tests)
            if test.startswith("FAILED"):
                name = test.removeprefix("FAILED ").partition(" - ")[0]
                killers[mutant.path][name] += 1
            record = {"number": number, **mutant._asdict(), "status": status, "test": test}
            record |= {"seconds": round(time.monotonic() - begin, 1)}
            del record["code"]
            records.append(record)
            print(json.dumps(record), file=output, flush=True)
            print(f"{number} {mutant.path} {status} {test}", file=sys.stderr)
    print(json.dumps(collections.Counter(record["status"] for record in records)))


if __name__ == "__main__":
    main()
