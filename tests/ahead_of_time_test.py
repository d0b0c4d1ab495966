"""What benchmarks/ahead_of_time.py counts in texts known by heart, and a small run on the CPU."""

import importlib
import json
import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"

MODULE = """\
HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%body (arg.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %arg.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  %h.1 = f32[4,8]{1,0} get-tuple-element(%arg.1), index=1
  %gemm_fusion_dot.1 = f32[4,8]{1,0} fusion(%h.1), kind=kCustom, calls=%product
  %add.1 = s32[] fusion(%i.1), kind=kLoop, calls=%count
  ROOT %tuple.1 = (s32[], f32[4,8]{1,0}) tuple(%add.1, %gemm_fusion_dot.1)
}

%until (arg.2: (s32[], f32[4,8])) -> pred[] {
  %arg.2 = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%arg.2), index=0
  %bound = s32[] constant(BOUND)
  ROOT %less = pred[] compare(%i.2, %bound), direction=LT
}

%copied (p.0: f32[4,8]) -> f32[4,8] {
  %p.0 = f32[4,8]{1,0} parameter(0)
  ROOT %copy.0 = f32[4,8]{1,0} copy(%p.0), backend_config={"estimated_cycles":"70"}
}

%sliced (p.1: f32[16,8], p.2: s32[]) -> f32[4,8] {
  %p.1 = f32[16,8]{1,0} parameter(0)
  %p.2 = s32[] parameter(1)
  %zero.2 = s32[] constant(0)
  %rows.1 = f32[4,8]{1,0} dynamic-slice(%p.1, %p.2, %zero.2), dynamic_slice_sizes={4,8}
  ROOT %double = f32[4,8]{1,0} add(%rows.1, %rows.1)
}

ENTRY %main (x: f32[16,8], n: s32[]) -> f32[4,8] {
  %x = f32[16,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  %rows = f32[4,8]{1,0} fusion(%x, %n), kind=kLoop, calls=%sliced, config={"estimated_cycles":"30"}
  %start = (s32[], f32[4,8]{1,0}) tuple(%zero, %rows)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%until, body=%body
  %last = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %sum-start = (f32[4,8]{1,0}, f32[4,8]{1,0}) all-reduce-start(%last), to_apply=%plus
  %sum-done = f32[4,8]{1,0} all-reduce-done(%sum-start)
  ROOT %called = f32[4,8]{1,0} call(%sum-done), to_apply=%copied
}
"""


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return importlib.import_module


def test_counts_of_a_module(load):
    hlo_counts = load("hlo_counts")
    counts = hlo_counts.count(MODULE.replace("BOUND", "5"))
    assert counts.kinds == {"fusion": 1, "all-reduce": 1, "copy": 1}
    assert counts.cycles == 100
    assert counts.collectives == {"all-reduce": 4 * 8 * 4}
    ((trips, body),) = counts.loops
    assert trips == 5 and body.kinds == {"product": 1, "fusion": 1} and not body.loops
    assert counts.total("kernels") == 3 + 5 * 2
    assert hlo_counts.aliased_outputs(MODULE) == 1
    with pytest.raises(ValueError, match="ENTRY"):
        hlo_counts.count("HloModule nothing")


def test_a_loop_that_depends_on_data_has_no_number_of_iterations(load):
    text = MODULE.replace("%bound = s32[] constant(BOUND)", "%bound = s32[] copy(%i.2)")
    counts = load("hlo_counts").count(text)
    assert counts.loops[0].trips is None
    assert counts.total("kernels") == 3 + 2 and counts.total("kernels", unknown=7) == 3 + 7 * 2


def test_bytes_of_a_kernel_are_those_that_it_touches(load):
    module = load("hlo_text").parse(MODULE)
    kernel_bytes = load("hlo_bytes").kernel_bytes
    array = 4 * 8 * 4
    # Of four times as many rows it reads a slice, and a number that says which.
    assert kernel_bytes(module, "ENTRY", module["ENTRY"]["rows"]) == array + 4 + array
    assert kernel_bytes(module, "copied", module["copied"]["copy.0"]) == 2 * array


def test_a_graph_is_one_launch_of_the_host(load):
    text = """\
000: kCommandBuffer [source       | next=003 (1)]
    001: kCopy         [source | sink] kCopy
    002: kWhile        [source | sink] kWhile
    condition:
        003: kKernel   [source | sink] less
      body:
        004: kKernel   [source | sink] product
005: kWhile         [prev=000 (1) | sink        ]
condition:
    006: kKernel       [source | sink] less
  body:
    007: kKernel       [source | sink] product
    008: kCommandBuffer [source | sink] graph
        009: kKernel   [source | sink] add
        010: kKernel   [source | sink] multiply
011: kCopyDone      [prev=005 (1) | sink        ]
012: kKernel        [prev=005 (1) | sink        ]
"""
    expected = {"graphs": 2, "outside": 2, "loops": [2]}
    assert load("thunks").count_launches(text) == expected


def test_a_small_run_on_the_cpu(load, tmp_path, capsys):
    output = tmp_path / "counts.json"
    main = load("ahead_of_time").main
    flags = "--what=recurrence,linear --cells=elman --engines=scan --dtypes=float32"
    flags += f" --inputs=dense --passes=forward --sizes=2x6x3 --output={output}"
    assert main(flags.split()) == 0
    found = json.loads(output.read_text())["results"]
    elman, chunked, parallel = found
    assert [elman["cell"], chunked["method"], parallel["method"]] == [
        "elman",
        "chunked",
        "parallel",
    ]
    assert [loop["trips"] for loop in elman["loops"]] == [6] and elman["loops"][0]["kernels"] > 1
    # A chunk is of √T steps; the parallel method has no loop.
    assert [loop["trips"] for loop in chunked["loops"]] == [2] and not parallel["loops"]
    assert all(row["temporary_bytes"] >= 0 and row["totals"]["kernels"] > 1 for row in found)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| 2x6x3 |") for line in lines) == 3


def test_whole_training_steps_take_the_place_of_their_state(load, capsys):
    main = load("ahead_of_time").main
    flags = "--what=train_step --engines=auto --dtypes=float32 --sizes=2x4x3"
    assert main(flags.split()) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line[:7] == "| 2x4x3"]
    assert "failed" not in line and "Error" not in line


@pytest.mark.parametrize(
    ("platform", "package"), [("cuda", "jax-cuda13-plugin"), ("tpu", "jax[tpu]")]
)
def test_a_missing_compiler_is_told_with_what_installs_it(
    load, monkeypatch, capsys, platform, package
):
    targets, main = load("ahead_of_time_targets"), load("ahead_of_time").main
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    assert main([f"--platform={platform}"]) == 1
    error = capsys.readouterr().err
    assert f"--platform={platform}" in error and "pip install" in error and package in error


@pytest.mark.parametrize(
    "flag", ["--cells=cnn", "--sizes=3x4", "--dtypes=int8", "--platform=abacus"]
)
def test_a_bad_flag_is_named(load, capsys, flag):
    main = load("ahead_of_time").main
    with pytest.raises(SystemExit):
        main([flag])
    assert f"argument {flag.split('=')[0]}" in capsys.readouterr().err
