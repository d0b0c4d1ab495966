"""What is built from the repository: it is whole, and its commands run where it is installed."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from fork_server import environment

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv*", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache")
BUILD = """
import sys, setuptools.build_meta as backend
print(getattr(backend, "build_" + sys.argv[1])(sys.argv[2]), file=sys.stderr)
"""


def run(command, folder, **variables):
    """Standard output of a command that ends well."""
    ended = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True,
        env={k: v for k, v in (os.environ | variables).items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def build(kind, source, output):
    """Builds without isolation, so that nothing is downloaded; returns the file."""
    output.mkdir()
    run([sys.executable, "-c", BUILD, kind, output], source)
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    with tarfile.open(build("sdist", folder / "source", folder / "built")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("grnn_jax-*")
    return unpacked


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """The commands of a fresh environment that holds the wheel, and finds what it needs here."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build("wheel", sdist, folder / "built")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel], folder)
    return python.parent


def test_the_sdist_has_everything(sdist):
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if names.returncode:
        pytest.skip("this is no clone, and git cannot tell what the repository holds")
    tracked = {name for name in names.stdout.splitlines() if (ROOT / name).exists()}
    assert "setup.cfg" in tracked
    assert {name for name in tracked if not (sdist / name).exists()} == set()


def test_commands_of_the_wheel_run_in_an_empty_folder(installed, tmp_path):
    data, folder = tmp_path / "text.txt", tmp_path / "empty"
    data.write_text("an old cat sat there\n" * 200)
    folder.mkdir()
    cache = environment(tmp_path / "cache")
    variables = {name: cache[name] for name in cache if name.startswith("JAX_")}
    where = "import grnn_jax; from grnn_jax.cli import presets"
    where += "; print(grnn_jax.__file__, *presets.names())"
    path, *names = run([installed / "python", "-c", where], folder).split()
    assert Path(path).is_relative_to(installed.parent)
    assert names == sorted(each.stem for each in ROOT.glob("grnn_jax/cli/presets/*.flags"))
    flags = ("--preset=smoke", "--hidden_size=8", "--num_steps=2", "--workdir=run")
    run([installed / "grnn-train", f"--data={data}", *flags], folder, **variables)
    scored = run([installed / "grnn-evaluate", "--workdir=run"], folder, **variables)
    assert json.loads(scored.splitlines()[-1])["step"] == 2
    sampled = run([installed / "grnn-sample", "--workdir=run", "--length=9"], folder, **variables)
    assert len(sampled.rstrip("\n")) <= 9 and sampled
    assert "    grnn-plot --workdirs=" in run([installed / "grnn-plot", "--help"], folder)
    assert {"grnn-score", "grnn-diagnose"} <= {each.name for each in installed.iterdir()}


def test_no_tool_has_settings_in_both_files():
    ini = configparser.ConfigParser()
    ini.read(ROOT / "setup.cfg")
    here = {section.partition("-")[0].partition(":")[0] for section in ini.sections()}
    there = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert here == {"mypy", "coverage", "mutmut"}
    assert not here & set(there)
    others = (".coveragerc", ".mypy.ini", "mypy.ini", "pytest.ini", "ruff.toml", "tox.ini")
    assert not [name for name in others if (ROOT / name).exists()]
