"""Every flag of every command: numbers have bounds, files of flags are text."""

import contextlib
import importlib
import os

import pytest
from absl import flags as absl_flags

from grnn_jax.cli import command, flag_files, flags
from grnn_jax.config import FIELDS, Config
from grnn_jax.errors import InputError
from grnn_jax.workdir import choices
from grnn_jax.workdir.flag_file import to_flags

COMMANDS = ("datasets", "diagnose", "evaluate", "plots", "sample", "score", "train")
ODD = {"int": ("2147483648", "-1", "0", "9223372036854775808"), "float": ("nan", "inf", "-inf")}


@contextlib.contextmanager
def defined(name):
    """The flags of a command, which no other command sees, and which sees no others."""
    modules = flags.FLAGS.find_module_defining_flag
    others = {each: flags.FLAGS[each] for each in flags.FLAGS if "absl" not in str(modules(each))}
    for each in others:  # Other tests of this process define some.
        delattr(flags.FLAGS, each)
    before, sections, ranges = set(flags.FLAGS), dict(flags._sections), dict(flags._ranges)
    flags._sections.clear()
    flags._ranges.clear()
    importlib.import_module(f"grnn_jax.cli.{name}").define_flags()
    flags.define_import_module()
    own = sorted(set(flags.FLAGS) - before)
    try:
        yield own
    finally:
        for each in own:
            delattr(flags.FLAGS, each)
        for each, flag in others.items():
            flags.FLAGS[each] = flag
        flags._sections.clear()
        flags._sections.update(sections)
        flags._ranges.clear()
        flags._ranges.update(ranges)


def refusal(*arguments):
    """What a command line is refused with, or None."""
    flags.FLAGS.unparse_flags()
    for name in flags._ranges:
        flags.FLAGS[name].unparse()
    try:
        command._parse(["command", *arguments])
    except (absl_flags.Error, InputError) as error:
        return str(error)
    finally:
        flags.FLAGS.mark_as_parsed()
    return None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_has_bounds(name):
    with defined(name) as own:
        kinds = {each: flags.FLAGS[each].flag_type() for each in own}
        assert {each for each in own if kinds[each] in ODD} == set(flags._ranges)
        for flag, (low, high) in flags._ranges.items():
            whole = kinds[flag] == "int"
            assert refusal() is None and -flags.LARGEST <= low < high <= flags.LARGEST
            assert high < 2**32 or not whole
            for value in ODD[kinds[flag]]:
                told = refusal(f"--{flag}={value}")
                if whole and low <= int(value) <= high:
                    assert told is None, told
                    continue
                assert told is not None and told.count("\n") == 0, (flag, value)
                assert told.startswith(f"--{flag} must be ") and told.endswith(f"got {value}")
                if whole:
                    assert f"at {'least' if int(value) < low else 'most'} " in told
                    assert str(low if int(value) < low else high) in told
            edge = (str(low), str(high)) if whole else (repr(low), repr(high))
            assert [refusal(f"--{flag}={value}") for value in edge] == [None, None]
            beyond = (low - 1, high + 1) if whole else (low * 2 - 1, high * 2)
            assert all(refusal(f"--{flag}={value}") for value in beyond), flag


def test_a_number_without_bounds_cannot_be_defined():
    try:
        with pytest.raises(TypeError, match="of_a_test needs minimum and maximum"):
            flags.define("integer", "of_a_test", 1, "Counts.", minimum=0)
    finally:
        del flags.FLAGS.of_a_test
        flags._sections[flags.OWN].remove("of_a_test")


def test_files_of_flags_are_small_texts_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "binary": bytes(range(256)),
        "zeros": bytes(9),
        "large": b"#" * (flag_files.MAX_BYTES + 1),
        "good": b"--seed=1\n",
        "nests": b"# a comment\n--flagfile=binary\n",
        "itself": b"--flagfile=itself\n",
        "twice": b"--flagfile=more\n--flagfile=more\n",
        "more": b"--flagfile=good\n" * 60,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for name in ("good", "itself", "missing", "more"):
        flag_files.check([f"--flagfile={name}"])
        flag_files.check(["--", "--flagfile=binary"])
    for name in ("binary", "zeros", "nests", "pipe", "/dev/zero", ".", "large", "twice"):
        for arguments in ([f"--flagfile={name}"], ["-flagfile", name], ["x", f"-flagfile={name}"]):
            with pytest.raises(InputError, match="^--flagfile") as told:
                flag_files.check(arguments)
            assert "\n" not in str(told.value)


def test_many_groups_inside_each_other_are_refused():
    from grnn_jax.sampling.regex import MAX_DEPTH, compile_regex

    depth = MAX_DEPTH
    assert compile_regex("(" * depth + "a" + ")" * depth, "ab").table.shape[1] == 2
    for depth in (MAX_DEPTH + 1, 3000):
        with pytest.raises(ValueError, match="groups inside each other"):
            compile_regex("(" * depth + "a" + ")" * depth, "ab")


def other(field):
    """A value of a setting that is not its default."""
    allowed = choices().get(field.name, field.metadata["choices"])
    if allowed:
        return allowed[-1]
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, str):
        return "/a b#ä,=-'x\""
    return field.default + 1 if isinstance(field.default, int) else field.default / 3 + 0.1


def test_the_flags_that_a_run_writes_make_its_settings(tmp_path):
    settings = {name: other(field) for name, field in FIELDS.items()} | {"extend_to": 0}
    config = Config(**settings)
    path = tmp_path / "flags.txt"
    path.write_text(to_flags(config), encoding="utf-8")
    with defined("train"):
        assert refusal(f"--flagfile={path}") is None
        flags.FLAGS.unparse_flags()
        command._parse(["train", f"--flagfile={path}"])
        assert flags.config_from_flags() == config
    lines = to_flags(Config(data="/a\nb", time_unit="x ")).splitlines()
    assert "# --data cannot be written here" in lines
    assert "# --time_unit cannot be written here" in lines
