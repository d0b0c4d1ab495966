"""sample.py: methods, constraints, stops and truncations by flags."""

import json
import re

import numpy as np
import pytest
from fork_server import ForkServer

SMALL = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--num_steps=2", "--eval_every=2", "--checkpoint_every=2",
    "--noshow_sample",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    words = np.array(["an", "old", "cat", "sat", "there"])
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, 3)) + "\n" for _ in range(80)]
    (folder / "text.txt").write_text("".join(lines))
    server = ForkServer(folder)
    for name, flags in (("lines", ["--format=lines"]), ("words", ["--codec=words"])):
        ended = server.run("train", f"--workdir={name}", "--data=text.txt", *flags, *SMALL)
        assert ended.status == 0, ended.err
    return server


@pytest.fixture(scope="module")
def run(server):
    return server.run


def records(run, *flags):
    ended = run("sample", "--log_probs", *flags)
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_constraints_hold_and_give_the_same_evidence(run):
    lines = ["--workdir=lines", "--length=6"]
    regex = ["--regex=[an]{1,2}t|old", "--num_samples=30"]
    found = {}
    for method, extra in (
        ("enumerate", []),
        ("particles", ["--num_particles=200"]),
        ("masked", []),
    ):
        found[method] = records(run, *lines, *regex, f"--method={method}", *extra)
        assert len(found[method]) == 30
        assert all(re.fullmatch("[an]{1,2}t|old", r["text"]) for r in found[method])
        assert all(r["num_events"] == len(r["text"]) + 1 and r["nats"] > 0 for r in found[method])
    exact = found["enumerate"][0]["log_evidence"]
    assert {r["log_evidence"] for r in found["enumerate"]} == {exact}
    assert (
        abs(np.log(np.mean([np.exp(r["log_evidence"]) for r in found["particles"]])) - exact) < 0.2
    )
    (one,) = records(run, "--workdir=lines", "--template=s_t th_", "--prefix=an ")
    assert re.fullmatch("an s.t th.", one["text"]) and one["num_events"] == 8
    # What follows the last given word is drawn freely, so that nine ways decide it all.
    open_end = ["--workdir=words", "--template=old _ sat_______", "--num_samples=9"]
    exact = records(run, *open_end)
    assert all(re.match("(?s)old .+ sat", r["text"]) and r["num_events"] == 12 for r in exact)
    assert len({r["text"] for r in exact}) > 1 and len({r["log_evidence"] for r in exact}) == 1
    closed = records(run, "--workdir=words", "--template=old _ sat", "--method=enumerate")
    assert exact[0]["log_evidence"] == pytest.approx(closed[0]["log_evidence"], rel=1e-5)
    # Particles where their number is asked for.
    several = records(run, *open_end, "--num_particles=20")
    assert len({r["log_evidence"] for r in several}) > 1


@pytest.mark.parametrize(
    ("count", "flags"),
    [
        (20000, ["--regex=[an]{1,2}t|old", "--method=masked"]),
        (4000, ["--regex=[an]{1,2}t|old", "--num_particles=4", "--method=particles"]),
        (20000, ["--regex=[an]{1,2}t|old", "--log_probs"]),
    ],
    ids=["masked", "particles", "enumerate"],
)
def test_a_killed_request_equals_the_uninterrupted_one(server, tmp_path, count, flags):
    flags = ["--workdir=lines", "--length=6", f"--num_samples={count}", *flags]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = server.run("sample", *flags, f"--output={whole}")
    assert ended.status == 0 and f"{count:,} samples, " in ended.err, ended.err
    progress = tmp_path / "killed.progress"
    done = server.kill_partway(progress, "sample", *flags, f"--output={killed}")
    assert 0 < done < count
    ended = server.run("sample", *flags, f"--output={killed}")
    assert ended.status == 0 and f"going on after {done:,} samples" in ended.err, ended.err
    assert killed.read_bytes() == whole.read_bytes() and whole.read_bytes().count(b"\n") == count


def test_beams(run):
    flags = ["--workdir=lines", "--length=4", "--num_samples=5"]
    best = records(run, *flags, "--method=beam", "--beam_width=40")
    scores = [record["score"] for record in best]
    assert scores == sorted(scores, reverse=True) and len({r["text"] for r in best}) == 5
    np.testing.assert_allclose(scores, [-record["nats"] for record in best], rtol=1e-4)
    distinct = records(run, *flags, "--method=stochastic_beam")
    assert len({record["text"] for record in distinct}) == 5
    assert all(-r["nats"] - 1e-4 < r["log_weight"] <= 0 for r in distinct)
    assert all(r["log_inclusion"] <= 0 for r in distinct)
    # Groups without much of a penalty find the same, which is written once.
    groups = records(run, *flags, "--method=beam", "--beam_groups=4", "--diversity=0.01")
    assert len({record["text"] for record in groups}) == len(groups) >= 2


def test_stops_and_truncations(run):
    plain = run("sample", "--workdir=words", "--length=60", "--num_samples=3")
    assert "3 samples of 60 to 60 events" in plain.err
    # A stop may lie inside a word.
    stopped = run(
        "sample", "--workdir=words", "--length=60", "--num_samples=3", "--stop=ther", "--stop=l"
    )
    assert stopped.status == 0, stopped.err
    for long, short in zip(plain.out.split("\n\n"), stopped.out.split("\n\n"), strict=False):
        ends = [m.end() for m in re.finditer(r"there|old", long)]
        assert short == long[: min(ends, default=len(long))]
    greedy = run("sample", "--workdir=lines", "--length=9", "--temperature=0").out
    for flag in ("--min_p=1", "--typical_p=1e-9"):
        ended = run("sample", "--workdir=lines", "--length=9", flag, "--repetition_penalty=1.0")
        assert ended.status == 0
        assert flag != "--min_p=1" or ended.out == greedy
    once = run("sample", "--workdir=words", "--length=6", "--repetition_penalty=1000").out
    tokens = re.findall(r"<unk>|an|old|cat|sat|there|\s", once)
    assert len(set(tokens)) == len(tokens) == 6


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--min_p=2"], ["--min_p must lie in [0, 1], got 2"]),
        (["--method=beam", "--top_p=0.5"], ["--top_p is for --method=ancestral", "beam"]),
        (["--beam_width=3"], ["--beam_width is for --method=beam", "ancestral"]),
        (["--method=masked"], ["--method=masked needs --regex or --template"]),
        (["--method=beam", "--regex=a"], ["--regex needs a --method of masked"]),
        (["--regex=a", "--template=a"], ["do not go together"]),
        (["--method=beam", "--num_samples=9"], ["--beam_width=8", "--num_samples=9"]),
        (["--regex=a("], ["--regex", "not closed", "position 1"]),
        (["--regex=Q"], ["--regex", "no symbol of this run matches 'Q'"]),
        (["--template=Q_"], ["--template", "'Q'"]),
        (["--stop=Q"], ["--stop", "'Q'"]),
        (["--method=enumerate", "--regex=.*"], ["at most 100000 beginnings", "--method=particles"]),
        (["--method=beam", "--seed=0"], ["--seed is for", "stochastic_beam", "no effect on beam"]),
        (["--method=beam", "--temperature=1"], ["--temperature is for", "no effect on beam"]),
        (["--method=beam", "--beam_groups=2"], ["--beam_groups", "--diversity", "together"]),
        (["--method=beam", "--diversity=2"], ["--beam_groups=1", "--diversity=2", "together"]),
        (["--method=beam", "--length_penalty=1", "--workdir=words"], ["--length_penalty", "end"]),
        (["--bias=0"], ["--bias", "--temperature", "--top_k"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(run, flags, words):
    ended = run("sample", "--workdir=lines", *flags)
    assert (ended.status, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
