"""What docs/ says about formats and codecs from outside the package, done with the commands."""

import json
import re
import sys

import pytest
from extension_test import page_code
from fork_server import ForkServer

from grnn_jax.cli import user_modules
from grnn_jax.errors import InputError

SMALL = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--num_steps=4", "--log_every=2", "--eval_every=2",
    "--checkpoint_every=2",
)  # fmt: skip
GENES = [f"ATG{'GCC' * (i % 4)}{'AAG' * (i % 3)}TAA" for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    for module, page in (("fasta", "format"), ("codons", "codec"), ("gates", "cell")):
        (folder / f"{module}.py").write_text(page_code(f"adding_a_{page}.md"))
    write_fasta(folder / "genes.fasta", GENES)
    (folder / "genes.txt").write_text("\n".join(GENES) + "\n")
    (folder / "broken.py").write_text("def scale():\n    return 1 / 0\n\n\nscale()\n")
    (folder / "eager.py").write_text("import jax.numpy as jnp\n\nONE = jnp.ones(()) + 0\n")
    return folder


def write_fasta(path, sequences):
    path.write_text("".join(f">{i}\n{g[:5]}\n{g[5:]}\n" for i, g in enumerate(sequences)))


@pytest.fixture(scope="module")
def run(folder):
    server = ForkServer(folder)
    return server.run


@pytest.fixture(scope="module")
def fasta_run(run):
    flags = ["--workdir=genes", "--data=genes.fasta", "--format=fasta", "--model_end", *SMALL]
    ended = run("train", "--import_module=fasta", *flags)
    assert (ended.status, ended.out) == (0, ""), ended.err
    return ended


def json_lines(ended):
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_a_format_from_outside_is_trained_scored_and_sampled(run, fasta_run, folder):
    assert "wrote 9 samples to genes/samples" in fasta_run.err
    assert [path.name for path in (folder / "genes" / "samples").iterdir()] == ["samples.jsonl"]
    flags = ["--import_module=fasta", "--workdir=genes"]
    (values,) = json_lines(run("evaluate", *flags, "--split=train"))
    total = sum(len(gene) + 1 for gene in GENES)
    assert values["num_events"] > 0.8 * total
    scores = json_lines(run("score", *flags, "--data=genes.fasta"))
    assert [score["num_events"] for score in scores] == [len(gene) + 1 for gene in GENES]
    samples = json_lines(run("sample", *flags, "--num_samples=4", "--seed=3"))
    assert all(set(sample["events"]) <= set("ACGT") for sample in samples)
    # A sample has the nats of the file that holds it.
    write_fasta(folder / "samples.fasta", [sample["events"] for sample in samples])
    scores = json_lines(run("score", *flags, "--data=samples.fasta"))
    for sample, score in zip(samples, scores, strict=True):
        assert sample["num_events"] == score["num_events"] == len(sample["events"]) + 1
        assert sample["nats"] == pytest.approx(score["nats"], rel=1e-4)
    ended = run("sample", *flags, "--num_samples=4", "--seed=3", "--output=s.jsonl")
    assert (ended.status, ended.out) == (0, ""), ended.err
    written = (folder / "s.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == samples
    ended = run("sample", *flags, "--output=s.csv")
    assert "samples of fasta need a .jsonl file or a folder, got s.csv" in ended.err


def test_what_the_format_refuses_is_told_in_one_sentence(run, fasta_run, folder):
    del fasta_run
    (folder / "odd.fasta").write_text(">a\nATX\n")
    ended = run("score", "--import_module=fasta", "--workdir=genes", "--data=odd.fasta")
    message = "error: odd.fasta, a: the letter 'X' does not occur in training\n"
    assert ended.status == 1 and ended.err.endswith(message)


def test_a_run_says_that_a_module_is_missing(run, fasta_run):
    del fasta_run
    ended = run("sample", "--workdir=genes")
    assert ended.status == 1 and ended.out == ""
    assert re.fullmatch(
        "error: --format must be one of text, .*, got 'fasta'; .* .--import_module=NAME.\n",
        ended.err,
    )


def test_a_codec_and_a_cell_from_outside(run, folder):
    (folder / "my.flags").write_text("--import_module=codons, gates\n--codec=codons\n")
    flags = ["--flagfile=my.flags", "--cell=ugrnn"]
    ended = run("train", "--data=genes.txt", "--format=lines", "--workdir=lines", *flags, *SMALL)
    assert ended.status == 0, ended.err
    codec = json.loads((folder / "lines" / "codec.json").read_text())
    assert codec["codec"] == "codons" and codec["vocabulary"] == ["AAG", "ATG", "GCC", "TAA"]
    modules = ["--import_module", "codons", "--import_module=gates"]
    samples = json_lines(
        run("sample", *modules, "--workdir=lines", "--num_samples=3", "--log_probs")
    )
    assert all(len(sample["text"]) % 3 == 0 for sample in samples)
    helped = run("train", "--help", *modules)
    listed = "".join(helped.out.split())
    assert "--codec=chars|bytes|words|smiles|codons" in listed and "|ugrnn|qrnn" in listed


@pytest.mark.parametrize("script", ["train", "evaluate", "sample", "score", "diagnose", "plots"])
def test_every_command_names_a_module_that_fails(run, script):
    ended = run(script, "--import_module=broken")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "error: --import_module=broken cannot be imported (broken.py, line 2): "
        "ZeroDivisionError: division by zero\n"
    )


def test_a_module_that_computes_is_refused(run):
    ended = run("train", "--import_module=eager", "--num_cpu_devices=2")
    assert ended.status == 1
    assert ended.err.startswith("error: --import_module: a module computed with JAX")


def test_modules_are_named_in_flag_files_and_in_lists(tmp_path):
    (tmp_path / "f.flags").write_text("--import_module=b,c\n--seed=1\n")
    names = user_modules.names_in(
        ["--import_module=a", "--x=y", "-import_module", "b", f"--flagfile={tmp_path / 'f.flags'}",
         "--import_module= d ,", "--", "--import_module=e"]
    )  # fmt: skip
    assert names == ["a", "b", "c", "d"]


def test_a_format_that_is_refused_is_told_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    code = "from grnn_jax.data import FORMATS, SequenceCodec, SequenceFormat\n\n"
    code += "FORMATS['nameless'] = SequenceFormat(SequenceCodec)\n"
    (tmp_path / "nameless.py").write_text(code)
    message = r"cannot be imported \(nameless\.py, line 3\): InputError: .* must have a name"
    with pytest.raises(InputError, match=message):
        user_modules.import_modules(["nameless"])


def test_a_missing_module(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    message = "--import_module=no_such cannot be imported: ModuleNotFoundError: No module named"
    with pytest.raises(InputError, match=message):
        user_modules.import_modules(["no_such"])
