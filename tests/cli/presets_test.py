"""--preset, and the names that flags took in earlier versions, through the commands."""

import json

import pytest
from fork_server import ForkServer

from grnn_jax.cli import old_names, presets
from grnn_jax.errors import InputError

TINY = (
    "--data=text.txt", "--num_steps=1", "--eval_every=0", "--checkpoint_every=0",
    "--noshow_sample",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    (folder / "text.txt").write_text("an old cat sat there\n" * 100)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    server = ForkServer(folder)
    return server.run


def settings(folder, workdir):
    return json.loads((folder / workdir / "config.json").read_text())


def test_what_is_given_wins_over_the_preset_wherever_it_stands(run, folder):
    ended = run("train", "--hidden_size=8", "--preset=smoke", "--workdir=runs/own", *TINY)
    assert ended.status == 0, ended.err
    values = settings(folder, "runs/own")
    assert (values["hidden_size"], values["num_steps"]) == (8, 1)
    assert (values["batch_size"], values["log_every"]) == (16, 10)
    # So do the flags of a file; what nobody else gives comes from the preset, its workdir too.
    (folder / "mine.flags").write_text("--hidden_size=4\n--preset=smoke\n")
    ended = run("train", "--flagfile=mine.flags", *TINY)
    assert ended.status == 0, ended.err
    assert settings(folder, "runs/smoke")["hidden_size"] == 4


def test_an_unknown_preset_lists_those_that_there_are(run):
    ended = run("train", "--preset=nope")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error: --preset must be one of chorales, ")
    assert ended.err.endswith("got 'nope'\n") and "jsb_sitewise" in ended.err
    ended = run("sample", "--preset=smoke")
    assert ended.status == 1 and "preset" in ended.err


def test_names_of_earlier_versions_are_accepted_with_a_note(run, folder):
    names = ("--cell=tied_lstm", "--distribution=tied_nade", "--workdir=old", "--data=none.npz")
    ended = run("train", *names, "--flagfile=experiments/presets/jsb_tied.flags")
    assert ended.status == 1 and "none.npz" in ended.err.splitlines()[-1]
    notes = [line.partition(" ")[2] for line in ended.err.splitlines()[:-1]]
    assert "--cell=tied_lstm is called sitewise_lstm now" in notes
    assert "--distribution=tied_nade is called sitewise_nade now" in notes
    assert (
        "--flagfile=experiments/presets/jsb_tied.flags is called --preset=jsb_sitewise now" in notes
    )
    ended = run("train", "--preset=jsb_tied", "--workdir=old", "--data=none.npz")
    assert "--preset=jsb_tied is called jsb_sitewise now" in ended.err
    ended = run("train", "--cell=nope")
    assert ended.status == 1 and "sitewise_lstm" in ended.err and "tied_lstm" not in ended.err


def test_old_names_stand_inside_a_list_of_fields_too():
    parse = old_names.NameParser("distribution").parse
    assert parse("pitch=tied_bernoulli,wait=weibull") == "pitch=sitewise_bernoulli,wait=weibull"
    assert parse("nade") == "nade"
    assert old_names.notes.pop().endswith("is called pitch=sitewise_bernoulli,wait=weibull now")
    assert not old_names.notes


def test_a_file_of_flags_stays_a_file(tmp_path):
    path = tmp_path / "presets" / "smoke.flags"
    for argument in ("--flagfile=mine/smoke.flags", "--flagfile=presets/nope.flags", "--data=x"):
        assert old_names.accept_argument(argument) == argument
    path.parent.mkdir()
    path.write_text("--seed=1")
    assert old_names.accept_argument(f"--flagfile={path}") == f"--flagfile={path}"
    assert not old_names.notes


def test_a_flag_of_a_preset_without_a_value_is_true():
    values = presets.read("jsb_sitewise")
    assert (values["skip_input"], values["cell"]) == ("true", "sitewise_lstm")
    with pytest.raises(InputError, match="--preset must be one of"):
        presets.read("../presets/smoke")
