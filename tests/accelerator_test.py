"""The benchmark for a GPU or TPU, as far as a CPU can tell: what it would see, and say."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax.recurrence import ENGINES

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def load(name):
    return importlib.import_module(name)


PROFILE = """
planes { name: "/host:CPU"
  lines { name: "python" events { metadata_id: 1 offset_ps: 0 duration_ps: 900000000000 } } }
planes { name: "/device:GPU:0"
  lines { name: "Stream #13(Compute)" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 4000000 }
    events { metadata_id: 1 offset_ps: 6000000 duration_ps: 1000000 }
    events { metadata_id: 1 offset_ps: 50000000 duration_ps: 3000000 } }
  lines { name: "Stream #14(MemcpyD2H)" timestamp_ns: 3000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 1000000 } }
  lines { name: "Steps" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 90000000 } }
  event_metadata { key: 1 value { id: 1 name: "fusion" } } }
"""
"""Two calls: 1 to 5, 3 to 4 and 7 to 8 µs; 51 to 54 µs."""


def profile(text):
    data = jax.profiler.ProfileData
    return data.from_serialized_xspace(data.text_proto_to_serialized_xspace(text))


def test_device_time_is_that_of_the_streams_call_by_call():
    device_time = load("device_time")
    groups = device_time.split_calls(device_time.device_events(profile(PROFILE)), 20e3)
    first, second = map(device_time.summarize, groups)
    np.testing.assert_allclose(first, (7e-6, 5e-6, 3))
    np.testing.assert_allclose(second, (3e-6, 3e-6, 1))


def test_device_times_go_to_the_calls_in_their_order(monkeypatch):
    device_time = load("device_time")
    calls = []
    monkeypatch.setattr(device_time, "device_events", lambda profile: np.array(
        [[1e9 * n, 1e9 * n + (100 if name == "slow" else 10)] for n, name in enumerate(calls)]
    ))  # fmt: skip
    runs = {name: lambda name=name: calls.append(name) for name in ("slow", "fast")}
    times = device_time.device_times(runs, 4, pause=1e-4)
    assert {name: [t.span for t in of_name] for name, of_name in times.items()} == {
        "slow": pytest.approx([1e-7] * 4), "fast": pytest.approx([1e-8] * 4)
    }  # fmt: skip
    calls.append("another library's")
    with pytest.raises(device_time.NoDeviceTimeError, match="9 groups of device events for 4 call"):
        device_time.device_times({"silent": lambda: None}, 4, pause=1e-4)


def test_a_cpu_has_no_device_time():
    device_time = load("device_time")
    with pytest.raises(device_time.NoDeviceTimeError, match="0 groups"):
        device_time.device_times({"zeros": lambda: np.zeros(3)}, 2)


def test_what_a_kernel_leaves_unwritten_is_seen():
    checks = load("accelerator_checks")
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    spec = jax.ShapeDtypeStruct(x.shape, x.dtype)

    def found(program, expected=x):
        return checks.compare(checks.Compiled(program, spec, 100), (x,), expected, [1e-6])

    assert found(lambda memory, x: x) == (0.0, None)
    assert "unwritten" in found(lambda memory, x: memory.at[:3].set(x[:3])).wrong
    # Where NaN has no effect, the other poison has one.
    assert "different bits" in found(lambda memory, x: x + (memory > 0)).wrong
    assert found(lambda memory, x: x, x + 1).wrong.startswith("differs by 8.3e-02 from float64")
    noise = iter(range(3))
    assert "different bits" in found(lambda memory, x: x + next(noise)).wrong


def test_results_come_to_lie_in_the_memory_that_is_given():
    checks = load("accelerator_checks")
    x = jnp.arange(6.0)
    compiled = checks.compile_into(lambda x: {"sum": x.sum(), "twice": 2 * x}, x)
    memory = jax.tree.map(lambda spec: jnp.full(spec.shape, jnp.nan), compiled.shapes)
    places = jax.tree.map(lambda array: array.unsafe_buffer_pointer(), memory)
    results = compiled.program(memory, x)
    assert jax.tree.map(lambda array: array.unsafe_buffer_pointer(), results) == places
    np.testing.assert_array_equal(results["twice"], 2 * x)


@pytest.mark.parametrize("inputs", ["vectors", "tokens"])
def test_a_wrong_engine_is_found(monkeypatch, inputs):
    checks = load("accelerator_checks")
    check = checks.Check("gru", 2, 2, 3, 4, "float32", inputs)
    assert checks.engines_of(check, ["all"])[:2] == ["auto", "scan"]
    case = checks.make_case(check)
    assert checks.run_check(check, case, "scan")().wrong is None
    # An engine that takes no notice of resets.
    wrong = ENGINES["scan"]._replace(run=lambda *a: ENGINES["scan"].run(*a[:4], None, *a[5:]))
    monkeypatch.setitem(ENGINES, "careless", wrong)
    assert "careless" in checks.engines_of(check, ["all"])
    assert "from float64" in checks.run_check(check, case, "careless")().wrong


def test_floors():
    chips, rows = load("chips"), load("accelerator_rows")
    kinds = {
        "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 PCIe": "H100 PCIe", "NVIDIA H200": "H200",
        "NVIDIA A100-SXM4-40GB": "A100 40GB", "TPU v5 lite": "TPU v5e", "TPU v5": "TPU v5p",
    }  # fmt: skip
    for kind, name in kinds.items():
        assert chips.chip_of(kind).name == name
    assert chips.chip_of("cpu") is None
    chip = chips.CHIPS["H100"]
    assert chips.Work(3.35e12, 0).floor(chip, "float32") == pytest.approx(1)
    assert chips.Work(0, 989e12).floor(chip, "bfloat16") == pytest.approx(1)
    row = rows.Row("forward", "lstm", 1, 512, 64, 512, "bfloat16")
    params = 4 * 512 * (512 + 512 + 1)
    assert rows.work(row) == (4 * (64 * 512 * 1024 + params), 2 * 64 * 512 * 4 * 512 * 1024)
    heads = rows.Row("training", "gru", 12, 64, 16, 1024, "bfloat16", "projected")
    assert rows.work(heads).flops == 3 * 2 * 16 * 1024 * 12 * 64 * 3 * 64


def test_rows_cover_what_is_asked_for_and_have_targets_first():
    rows, targets = load("accelerator_rows"), load("accelerator_targets")
    every = rows.rows()
    assert len(set(every)) == len(every) == len({row.name for row in every})
    for cell in ("lstm", "gru", "slstm", "elman"):
        for dtype in rows.DTYPES:
            for kind in ("forward", "training"):
                for heads, width in ((1, 768), (12, 64), (6, 128), (3, 256)):
                    row = rows.Row(kind, cell, heads, width, 16, 1024, dtype, "projected")
                    assert row in every
                for width in (256, 512, 1024, 2048):
                    assert rows.Row(kind, cell, 1, width, 64, 512, dtype) in every
            for batch_size in (1, 64, 4096):
                assert rows.Row("sample", cell, 1, 512, batch_size, 256, dtype, "tokens") in every
    times = {"auto": 1.0, "scan": 4.0, "torch": 1.0, "torch float16": 0.8}
    with_target = [bool(targets.target(row, times, 0.9)) for row in every]
    assert all(with_target[:4]) and sum(with_target[:30]) > 20
    assert len(rows.rows(small=True)) < len(every)


def test_targets():
    rows, targets = load("accelerator_rows"), load("accelerator_targets")

    def verdict(cell, heads, width, inputs="dense", kind="forward", floor=None, **times):
        row = rows.Row(kind, cell, heads, width, 16, 1024, "bfloat16", inputs)
        return targets.target(row, times, floor)

    wide = rows.Row("forward", "gru", 1, 512, 64, 512, "bfloat16")
    times = {"auto": 1.0, "torch": 1.1, "torch float16": 0.9}
    assert targets.target(wide, times, None) == "1.11 x cuDNN's time (at most 1): missed"
    assert targets.target(wide, {"auto": 1.0, "scan": 9.0}, 0.1) == ""
    assert targets.target(wide._replace(width=1024), times, None).endswith("1.5): reached")
    assert verdict("lstm", 1, 768, auto=4.02).startswith("2.00 x cuDNN's time as published")
    assert verdict("lstm", 12, 64, "projected", auto=0.9).endswith("(at most 0.5): reached")
    assert verdict("lstm", 12, 64, "projected", "training", auto=4.33).endswith("missed")
    assert verdict("slstm", 1, 768, auto=1, scan=5).endswith("(at least 5): reached")
    assert verdict("min_gru", 1, 768, "projected", floor=0.7, auto=1).endswith("missed")
    assert verdict("min_gru", 1, 768, "projected", auto=1) == ""
    assert verdict("min_gru", 1, 768, "projected", "training", 0.6, auto=1).startswith("0.90 of")
    assert verdict("mogrifier_lstm", 1, 768, auto=1, scan=5) == ""


def test_equal_programs_are_compiled_once():
    compiler = load("accelerator_programs").Compiler()
    first = compiler(lambda x: 2 * x, jnp.ones(3))
    same = compiler(lambda x: 2 * x, jnp.full(3, 5.0))
    other = compiler(lambda x: 3 * x, jnp.ones(3))
    assert [float(run()[0]) for run in (first, same, other)] == [2, 10, 3]
    assert len(compiler._programs) == 2


def test_command_buffers_are_timed_where_there_are_any(monkeypatch):
    programs = load("accelerator_programs")
    row = load("accelerator_rows").Row("forward", "elman", 1, 2, 1, 2, "float32")
    assert list(programs.own_programs(row, ["auto"])) == ["auto"]  # On a CPU there are none.
    monkeypatch.setattr(programs.grnn_jax, "compiler_options", lambda: {"xla_unheard_of": "1"})
    found = programs.own_programs(row, ["auto", "scan"])
    assert list(found) == ["auto", "auto, buffered", "scan"] and all(map(programs.is_own, found))
    assert found["auto"]().run().shape == (1, 2, 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_unheard_of"):
        found["auto, buffered"]()


@pytest.fixture
def make_session(tmp_path):
    session = load("accelerator_session")

    def make(resume=False, budget=1000.0, share=1.0):
        settings = session.Settings(
            tmp_path / "out.json", budget, share, ["all"], 2, True, time.monotonic()
        )
        return session.Session(settings, resume)

    return make


def test_one_failure_ends_no_row_and_what_is_done_is_not_done_again(make_session, monkeypatch):
    module, report = load("accelerator_session"), load("accelerator_report")
    row = load("accelerator_rows").Row("forward", "lstm", 1, 8, 3, 5, "bfloat16")
    other = row._replace(cell="gru")
    compiled = []

    def programs(row, wanted):
        def prepare(name, value):
            compiled.append((row.cell, name))
            if name == "fused":
                raise ValueError("too little shared memory\nand a long trace")
            return module.Prepared(lambda: jnp.full(3, value), comparable=True)

        values = {"auto": 1.0, "scan": 1.0, "fused": 1.0, "newton": 2.0, "linear": np.nan}
        return {name: lambda n=name, v=value: prepare(n, v) for name, value in values.items()}

    monkeypatch.setattr(module, "own_programs", programs)
    monkeypatch.setattr(module, "peer_programs", lambda row: {})
    seen = []
    session = make_session()
    session.run_rows([row], lambda row, entry: seen.append(report.line(row, entry)))
    (entry,) = session.record["rows"].values()
    assert list(entry["programs"]) == ["auto", "scan", "newton"]
    assert entry["failed"] == {
        "fused": "ValueError: too little shared memory", "linear": "wrong: NaN"
    }  # fmt: skip
    assert entry["doubts"] == {"newton": "differs by 1.0e+00 from the scan engine"}
    assert "fused: ValueError: too little" in seen[0]

    resumed = make_session(resume=True)
    resumed.record["checks"]["gru 1x7, B 3, T 1, bfloat16, tokens, seed 0"] = {
        "scan": {"difference": 1.0, "wrong": "differs"}
    }
    resumed.run_rows([row, other], lambda row, entry: None)
    assert compiled.count(("lstm", "auto")) == 1
    assert ("gru", "auto") in compiled and ("gru", "scan") not in compiled
    text = report.markdown(resumed.record, [row, other, row._replace(length=9)], ["a check"])
    assert "- newton: differs by" in text and "? |" in text
    assert "wrong: differs" in text and "not run" in text and "Times: 2 of 3 rows" in text
    late = make_session(resume=True, budget=0.0)
    late.run_rows([row._replace(length=9)], lambda row, entry: seen.append("never"))
    late.run_checks(load("accelerator_checks").checks(0, 0, small=True))
    late.measure_ceilings()
    assert len(seen) == 1 and len(late.record["checks"]) == 1 and not late.record["ceilings"]
    figure = late.settings.path.with_suffix(".png")
    report.plot(str(figure), late.record, [row, other])
    assert figure.read_bytes().startswith(b"\x89PNG")
    record = json.loads(late.settings.path.read_text())
    late.settings.path.write_text(json.dumps(record | {"device": "TPU v4"}))
    with pytest.raises(module.StaleRecordError, match="TPU v4"):
        make_session(resume=True)
    assert make_session(resume=True, budget=0.0).record["device"] == "TPU v4"  # To be printed.


def test_times_are_the_devices_own_where_it_tells_them(make_session, monkeypatch):
    module, device_time = load("accelerator_session"), load("device_time")
    session = make_session()
    session.on_cpu = False
    programs = {name: module.Prepared(lambda: jnp.zeros(())) for name in ("auto", "scan")}
    times = [device_time.DeviceTime(span, 1e-3, 7) for span in (2e-3, 4e-3, 3e-3)]
    monkeypatch.setattr(module, "device_times", lambda runs, rounds: dict.fromkeys(runs, times))
    found = session._time(programs)["scan"]
    assert (found["clock"], found["ms"], found["busy_ms"], found["events"]) == ("device", 3, 1, 7)
    assert found["spread"] == pytest.approx(2 / 3) and 0 < found["host_ms"] < 1000

    def silent(*_):
        raise device_time.NoDeviceTimeError("0 groups")

    monkeypatch.setattr(module, "device_times", silent)
    found = session._time(programs)["auto"]
    assert found["clock"] == "host" and found["note"] == "NoDeviceTimeError: 0 groups"


def test_a_lost_device_ends_the_run_and_loses_nothing(make_session, monkeypatch):
    module = load("accelerator_session")
    row = load("accelerator_rows").Row("forward", "lstm", 1, 8, 3, 5, "bfloat16")

    def fault(*_):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(
        module, "own_programs", lambda *_: {"auto": lambda: module.Prepared(fault, True)}
    )
    monkeypatch.setattr(module, "peer_programs", lambda row: {})
    monkeypatch.setattr(module.jnp, "zeros", fault)
    session = make_session()
    with pytest.raises(module.DeviceLostError, match="--resume"):
        session.run_rows([row, row._replace(length=6)], lambda row, entry: None)
    assert list(json.loads(session.settings.path.read_text())["rows"]) == [row.name]


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"grain", "orbax", "tensorboardX", "torch"}:
            raise ModuleNotFoundError("hidden: " + name, name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_command_runs_where_much_is_absent(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    command = [
        sys.executable, "-W", "error", str(BENCHMARKS / "accelerator.py"), "--cpu",
        "--engines=auto", "--checks=^min_gru .*bfloat16", "--random=0",
        "--rows=^lstm 1x8, B 3.*bfloat16, tokens, step", f"--output={tmp_path}/out.json",
    ]  # fmt: skip
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert [list(check) for check in record["checks"].values()] == [["auto"]]
    assert all(check["auto"]["wrong"] is None for check in record["checks"].values())
    (step,) = record["rows"].values()
    assert list(step["programs"]) == ["auto"] and list(step["failed"]) == ["torch"]
    assert set(record["ceilings"]) == {"bandwidth", "bfloat16", "tensorfloat32", "float32"}
    assert "Checks: 1 of 1; not run: 0." in done.stdout
    assert (tmp_path / "out.md").read_text() in done.stdout
