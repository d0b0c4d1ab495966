"""The benchmark scripts run at tiny sizes, compare equal functions and write what they measured."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from fork_server import ForkServer

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
ROOT = BENCHMARKS.parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run_script(tmp_path_factory):
    """Runs a script to its end, without importing JAX anew."""
    server = ForkServer(tmp_path_factory.mktemp("benchmarks"))

    def run(name, *arguments):
        return server.run(str(BENCHMARKS / name), *arguments)

    return run


def test_interleave_times_everything_once_a_round_in_shuffled_order():
    timing = load("timing")
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abcd"}
    seconds = timing.interleave(runs, 20, warmup=1, pause=0.0)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abcd", 20)
    assert calls[:4] == list("abcd")
    rounds = [tuple(calls[i : i + 4]) for i in range(4, len(calls), 4)]
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 5
    calls.clear()
    timing.interleave(runs, 20, warmup=1, pause=0.0)
    assert [tuple(calls[i : i + 4]) for i in range(4, len(calls), 4)] == rounds


def test_ratio_is_the_median_of_ratios_within_rounds():
    timing = load("timing")
    # A machine that slows down threefold in the last two rounds leaves the ratio alone.
    summary = timing.summarize({"us": [1.0, 1.0, 3.0, 3.0], "peer": [2.0, 2.0, 6.0, 6.0]}, "us")
    assert summary["peer"]["ratio"] == 2.0
    assert summary["us"]["ratio"] == 1.0
    assert summary["peer"]["median_ms"] == 4000.0


def test_train_step_checks_times_and_writes_json(run_script, tmp_path):
    output = tmp_path / "train_step.json"
    done = run_script(
        "train_step",
        "--cells=lstm",
        "--sizes=4",
        "--batch_size=2",
        "--length=3",
        "--repeats=2",
        "--engines=auto",
        "--inputs=tokens,layer",
        f"--output={output}",
        "--nomemory",
    )
    assert done.status == 0, done.err
    assert "Warning" not in done.err
    record = json.loads(output.read_text())
    assert record["reference"] == "grnn_jax auto"
    assert [entry["inputs"] for entry in record["results"]] == ["tokens", "layer"]
    for entry in record["results"]:
        assert {"grnn_jax auto", "flax nnx.RNN"} <= set(entry["timing"])
        assert all(len(timed["seconds"]) == 2 for timed in entry["timing"].values())
    assert list(record["losses"]) == ["lstm", "lstm, layer inputs"]
    for losses in record["losses"].values():
        assert all(values[3] < values[0] for values in losses.values())
    for package, key in (("haiku", "haiku"), ("equinox", "equinox"), ("torch", "torch")):
        skipped = f"skipped {key}: {package} is not installed" in done.out
        assert skipped == (importlib.util.find_spec(package) is None)


def test_train_step_measures_memory_and_skips_a_missing_peer(tmp_path):
    output = tmp_path / "memory.json"
    (tmp_path / "haiku.py").write_text('raise ModuleNotFoundError("hidden", name="haiku")\n')
    command = [
        sys.executable,
        "-W",
        "error",
        str(BENCHMARKS / "train_step.py"),
        "--cells=elman",
        "--sizes=8",
        "--batch_size=2",
        "--length=3",
        "--repeats=1",
        "--peers=grnn_jax,haiku",
        "--engines=scan",
        "--inputs=dense",
        f"--output={output}",
    ]
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # this run compiles more than it computes
    }
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    assert "skipped haiku: haiku is not installed" in done.stdout
    (entry,) = json.loads(output.read_text())["results"]
    assert set(entry["timing"]) == {"grnn_jax scan"}
    memory = entry["memory"]["grnn_jax scan"]
    assert 0 < memory["peak_mb"] < 2000
    assert 0 < memory["xla_temporary_mb"] < 1


def test_recurrence_checks_times_and_draws(run_script, tmp_path):
    output, figure = tmp_path / "recurrence.json", tmp_path / "cost.png"
    done = run_script(
        "recurrence",
        "--cells=elman,min_gru",
        "--sweep=T",
        "--lengths=3,5",
        "--sizes=4",
        "--batch_sizes=2",
        "--repeats=2",
        "--engines=fused,linear",
        f"--output={output}",
        f"--plot={figure}",
    )
    assert done.status == 0, done.err
    assert "Warning" not in done.err
    assert figure.read_bytes().startswith(b"\x89PNG")
    record = json.loads(output.read_text())
    engines = {"elman": {"scan", "fused", "products alone"}, "min_gru": {"scan", "linear"}}
    assert [(entry["cell"], entry["length"]) for entry in record["results"]] == [
        ("elman", 3), ("elman", 5), ("min_gru", 3), ("min_gru", 5)
    ]  # fmt: skip
    for entry in record["results"]:
        names = engines[entry["cell"]]
        assert set(entry["difference"]) == names - {"products alone"}
        assert all(difference < 1e-4 for difference in entry["difference"].values())
        for pass_name in ("forward", "forward + backward"):
            assert set(entry[pass_name]) == names
            assert all(len(timed["seconds"]) == 2 for timed in entry[pass_name].values())
            assert all(
                ("limit_ratio" in timed) == (entry["cell"] == "elman")
                for timed in entry[pass_name].values()
            )
    assert record["results"][1]["temporary_mb"]["scan"] > 0
    assert "| elman, forward + backward, ms |" in done.out


def test_sampling_checks_times_and_writes_json(run_script, tmp_path):
    output = tmp_path / "sampling.json"
    done = run_script(
        "sampling",
        "--hidden_size=4",
        "--batch_sizes=3",
        "--length=4",
        "--repeats=2",
        f"--output={output}",
    )
    assert done.status == 0, done.err
    assert "Warning" not in done.err
    record = json.loads(output.read_text())
    assert [entry["batch_size"] for entry in record["results"]] == [3]
    assert all(
        timed["characters_per_second"] > 0
        for entry in record["results"]
        for timed in entry["timing"].values()
    )

    (entry,) = record["results"]
    assert entry["timing"]["matmuls alone"]["share_of_matmul_limit"] == 1.0
    ragged = entry["ragged"]
    assert ragged["equal lengths"]["steps_per_useful"] == ragged["equal lengths"]["ratio"] == 1
    many, side_by_side = ragged["continuous refill"], ragged["side by side"]
    assert many["useful"] == side_by_side["useful"] and 48 <= many["useful"] <= 4 * 48
    assert many["useful"] <= many["steps"] < side_by_side["steps"]
    assert "| continuous refill |" in done.out


def test_the_matmul_limit_multiplies_what_it_says(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    base, sampling = importlib.import_module("peers.base"), load("sampling")
    weights = base.random_weights(base.ModelConfig("lstm", 4, num_classes=3))
    hidden, scores = sampling.matmul_limit(weights, 2, 5)()
    expected, total = np.ones((2, 4)), np.zeros((2, 3))
    for _ in range(5):
        total += expected @ weights.output
        gates = np.einsum("bd,dgh->bgh", expected, weights.recurrent)
        expected = 1 + gates[:, 0]  # The first of the gates.
    np.testing.assert_allclose(hidden, expected, rtol=1e-5)
    np.testing.assert_allclose(scores, total, rtol=1e-5)


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        ("train_step", "--cells=cnn"),
        ("train_step", "--sizes=-3"),
        ("train_step", "--peers=keras"),
        ("train_step", "--dtypes=int8"),
        ("recurrence", "--lengths=3,5"),
    ],
)
def test_a_bad_flag_is_named_without_a_traceback(run_script, script, flag):
    done = run_script(script, flag)
    assert done.status == 1
    assert flag.split("=")[0].strip("-") in done.err
    assert "Traceback" not in done.err


def test_char_rnn_split_validates_on_the_end_of_every_stream():
    windows, tail = 40, "cut off"
    streams = [chr(0x100 + b) * (50 * windows) for b in range(50)]
    train, valid = load("char_rnn_split").split("".join(streams) + tail)
    assert train == "".join(stream[: 38 * 50] for stream in streams)
    assert valid == "".join(stream[38 * 50 :] for stream in streams)


def test_marginals_of_events(run_script, tmp_path):
    # Sequences observed until 10, 4 and 6: three at risk at time 2, two at times 5 and 6.
    (tmp_path / "data.csv").write_text(
        "sequence,time,treatment,end\n1,2,yes,10\n1,5,yes,10\n2,,no,4\n3,6,no,6\n"
    )
    (tmp_path / "samples.csv").write_text("sequence,time,treatment\n0,1,yes\n1,7.5,no\n")
    ended = run_script(
        "event_marginals", f"--data={tmp_path}/data.csv", f"--samples={tmp_path}/samples.csv",
        "--num_samples=2", "--until=10",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[2:] == [
        "| mean number of events up to 2 | 0.333 | 0.500 |",
        "| mean number of events up to 4 | 0.333 | 0.500 |",
        "| mean number of events up to 6 | 1.333 | 0.500 |",
        "| mean number of events up to 8 | 1.333 | 1.000 |",
        "| mean number of events up to 10 | 1.333 | 1.000 |",
        "| share of treatment no | 0.333 | 0.500 |",
        "| share of treatment yes | 0.667 | 0.500 |",
    ]


def test_methods_of_the_linear_scan(run_script):
    ended = run_script("linear_scan", "--repeats=1", "--lengths=5,9", "--sizes=1x3")
    assert ended.status == 0, ended.err
    rows = [line.split("|")[1].strip() for line in ended.out.splitlines() if line[:1] == "|"]
    assert rows[0] == "B 1, H 3: ms"
    assert rows[2:] == ["scan", "sequential", "chunked", "parallel"]


def test_sitewise_step_compares_equal_losses_on_one_and_two_devices(run_script, tmp_path):
    output = tmp_path / "sitewise_step.json"
    done = run_script(
        "sitewise_step",
        "--cells=sitewise_gru",
        "--layers=2",
        "--units=2",
        "--batch_size=4",
        "--length=3",
        "--remat_chunk=0",
        "--repeats=2",
        f"--output={output}",
    )
    assert done.status == 0, done.err
    assert "Warning" not in done.err
    record = json.loads(output.read_text())
    names = [f"sitewise_gru 2 x 2, bfloat16, {devices} device(s)" for devices in (1, 2)]
    assert list(record["results"]) == names and record["reference"] == names[0]
    for timed in record["results"].values():
        assert timed["frames_per_second"] == pytest.approx(12_000 / timed["median_ms"])


def test_a_tree_beside_itself(run_script, tmp_path):
    output = tmp_path / "two_trees.json"
    done = run_script(
        "two_trees", f"--before={ROOT}", "--cells=lstm", "--sizes=3",
        "--inputs=tokens", "--batch_size=2", "--length=3", "--repeats=2", f"--output={output}",
    )  # fmt: skip
    assert done.status == 0, done.err
    (result,) = json.loads(output.read_text())["results"]
    assert result["loss_difference"] == 0 and result["timing"]["before"]["ratio"] == 1
    assert done.out.splitlines()[-1].startswith("| lstm, tokens, float32")
