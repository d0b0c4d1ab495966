"""Requests for many samples: stopped anywhere, they end as if nothing was; few samples are held."""

import functools
import gc
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from grnn_jax.cli import large_request, targets
from grnn_jax.errors import InputError

NUM_SAMPLES = 1000


def sample(number):
    """A series of 1 to 8 steps of two numbers; several are alike."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 3, (int(rng.integers(1, 9)), 2), dtype=np.int16)


def record(number):
    return large_request.Record(sample(number), sample(number).tobytes())


def records(first, stop=NUM_SAMPLES):
    return (record(number) for number in range(first, stop))


def lines(number, series):
    return "".join(f"{number},{a},ü{b}\n" for a, b in series)


def pictured(folder):
    """A target whose picture says how many samples it was given."""
    target = targets.numbered_files(
        folder / "out", "bin", NUM_SAMPLES, lambda path, series: path.write_bytes(series.tobytes())
    )

    def picture(samples):
        with open(folder / "out" / "picture", "a") as file:
            file.write(f"{len(samples)} {samples[-1].tolist()}\n")

    return target._replace(picture=picture)


def files_and_array(folder):
    """An array of all samples, and a file of each beside it."""
    files = targets.numbered_files(
        folder / "out", "bin", NUM_SAMPLES, lambda path, series: path.write_bytes(series.tobytes())
    )
    array = targets.array_file(folder / "out" / "a.npz", np.int16, (None, 2), lambda series: series)
    return targets.with_files_beside(array, files, folder / "out")


TARGETS = {
    "list": lambda folder: targets.json_list_file(
        folder / "a.json", lambda series: json.dumps(series.tolist())
    ),
    "beside": files_and_array,
    "text": lambda folder: targets.text_file(folder / "a.txt", "head ü\n", lines),
    "files": pictured,
    "array": lambda folder: targets.array_file(
        folder / "a.npz", np.float32, (2,), lambda series: series[-1]
    ),
    "ragged": lambda folder: targets.array_file(
        folder / "a.npz", np.int16, (None, 2), lambda series: series
    ),
    "parquet": lambda folder: targets.parquet_file(
        folder / "a.parquet", "n,a,b\n", lines, {"n": "int64", "a": "float32", "b": "string"}
    ),
}


@pytest.fixture
def told(monkeypatch):
    found = []
    monkeypatch.setattr(
        large_request.logging, "info", lambda text, *values: found.append(text % values)
    )
    return found


def contents(folder):
    """The files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopping_at(target, stop):
    """A target that fails after it has written a sample, as if killed in the middle of a batch."""

    def write(number, series):
        pieces = target.write(number, series)
        if number == stop:
            raise RuntimeError("killed")
        return pieces

    return target._replace(write=write)


@pytest.mark.parametrize("name", TARGETS)
def test_a_request_goes_on_where_it_was_stopped(tmp_path, told, name):
    (tmp_path / "a").mkdir()
    target, settings = TARGETS[name](tmp_path / "a"), {"seed": 1, "options": {"top_k": None}}
    large_request.write_request(target, NUM_SAMPLES, settings, records)
    expected = contents(tmp_path / "a")
    for path in expected:
        path.unlink()
    for stop, begun in ((0, 0), (100, 0), (600, 0), (600, 512), (999, 512)):
        starts = []

        def generate(first, starts=starts):
            starts.append(first)
            return records(first)

        with pytest.raises(RuntimeError, match="killed"):
            large_request.write_request(stopping_at(target, stop), NUM_SAMPLES, settings, generate)
        # What was complete counts, whatever else reached the disk before the end.
        assert starts == [begun]
        for path in (*target.files, targets.beside(target.path, ".hashes")):
            with open(path, "ab") as file:
                file.write(b"half a reco")
        if name in ("files", "beside"):
            path = tmp_path / "a" / "out" / f"sample_{stop:03d}.bin"
            path.write_bytes(path.read_bytes()[:1])

    def finish():
        target.finish()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        large_request.write_request(target._replace(finish=finish), NUM_SAMPLES, settings, records)
    large_request.write_request(target, NUM_SAMPLES, settings, records)
    assert contents(tmp_path / "a") == expected
    different = len({sample(number).tobytes() for number in range(NUM_SAMPLES)})
    counts = f"1,000 samples, {different} different ones, {1000 - different} duplicates"
    assert told[-1] == counts and told.count(counts) == 2 and different < NUM_SAMPLES
    assert any("going on after 768 samples" in line for line in told)


def test_what_the_files_hold(tmp_path, told):
    for name, make in TARGETS.items():
        (tmp_path / name).mkdir()
        large_request.write_request(make(tmp_path / name), NUM_SAMPLES, {}, records)
    series = [sample(number) for number in range(NUM_SAMPLES)]
    text = "head ü\n" + "".join(lines(number, each) for number, each in enumerate(series))
    assert (tmp_path / "text" / "a.txt").read_text("utf-8") == text
    out = tmp_path / "files" / "out"
    assert (out / "picture").read_text() == f"256 {series[255].tolist()}\n"
    paths = sorted(path for path in out.iterdir() if path.name != "picture")
    assert [path.read_bytes() for path in paths] == [each.tobytes() for each in series]
    assert paths[0].name == "sample_000.bin"
    listed = json.loads((tmp_path / "list" / "a.json").read_text())
    assert listed == [each.tolist() for each in series]
    beside = tmp_path / "beside" / "out"
    assert [path.name for path in sorted(beside.iterdir())][:2] == ["a.npz", "sample_000.bin"]
    assert (beside / "sample_999.bin").read_bytes() == series[999].tobytes()
    with np.load(beside / "a.npz") as arrays:
        assert arrays["lengths"].tolist() == [len(each) for each in series]
    with np.load(tmp_path / "array" / "a.npz") as arrays:
        assert arrays.files == ["samples"] and arrays["samples"].dtype == np.float32
        np.testing.assert_array_equal(arrays["samples"], [each[-1] for each in series])
    with np.load(tmp_path / "ragged" / "a.npz") as arrays:
        assert arrays["samples"].shape == (NUM_SAMPLES, 8, 2)
        for row, length, each in zip(arrays["samples"], arrays["lengths"], series, strict=True):
            np.testing.assert_array_equal(row[:length], each)
            assert not row[length:].any()
    table = parquet.read_table(tmp_path / "parquet" / "a.parquet")
    assert [str(kind) for kind in table.schema.types] == ["int64", "float", "string"]
    rows = [f"{row['n']},{row['a']:g},{row['b']}" for row in table.to_pylist()]
    assert rows == text.splitlines()[1:]


def test_another_request_does_not_go_on(tmp_path, told):
    target = TARGETS["text"](tmp_path)
    with pytest.raises(RuntimeError):
        large_request.write_request(stopping_at(target, 300), NUM_SAMPLES, {"seed": 1}, records)
    before = target.path.read_bytes()
    with pytest.raises(InputError, match=r"other settings \(seed was 1; is 2\).*a.txt.progress"):
        large_request.write_request(target, NUM_SAMPLES, {"seed": 2}, records)
    with pytest.raises(InputError, match="num_samples was 1000; is 999"):
        large_request.write_request(target, 999, {"seed": 1}, records)
    assert target.path.read_bytes() == before
    target.path.write_bytes(before[:100])
    with pytest.raises(InputError, match=r"a\.txt is shorter than .*a\.txt\.progress says"):
        large_request.write_request(target, NUM_SAMPLES, {"seed": 1}, records)
    # A version that writes other files beside has noted other sizes.
    progress = json.loads((tmp_path / "a.txt.progress").read_text())
    for damaged in ([1], progress | {"bytes": [0]}):
        (tmp_path / "a.txt.progress").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=r"a\.txt\.progress is damaged"):
            large_request.write_request(target, NUM_SAMPLES, {"seed": 1}, records)
    (tmp_path / "a.txt.progress").unlink()
    large_request.write_request(target, 1, {"seed": 1}, lambda first: records(first, 1))
    assert target.path.read_text("utf-8") == "head ü\n" + lines(0, sample(0))
    with pytest.raises(InputError, match=r"--output: cannot write .*no/a\.txt: No such file"):
        large_request.write_request(TARGETS["text"](tmp_path / "no"), 1, {}, records)


def test_fewer_samples_than_were_asked_for(tmp_path, told):
    target = TARGETS["text"](tmp_path)
    large_request.write_request(target, 999, {}, lambda first: records(first, 300))
    assert target.path.read_text("utf-8").endswith(lines(299, sample(299)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert told[-1].startswith("300 samples, ")


def test_files_of_an_earlier_request_are_told_of(tmp_path, told, monkeypatch):
    warned = []
    monkeypatch.setattr(
        targets.logging, "warning", lambda text, *values: warned.append(text % values)
    )
    for count in (3, 3, 20, 12):
        target = targets.numbered_files(
            tmp_path, "bin", count, lambda path, series: path.write_bytes(b"")
        )
        large_request.write_request(target, count, {}, lambda first, n=count: records(first, n))
    # sample_0 … sample_2 beside sample_00 …, and then sample_12 … sample_19 too.
    assert [line.split(" also holds ")[1].split()[0] for line in warned] == ["3", "11"]


def peak_memory(write):
    """Bytes that Python and NumPy hold at most while a function runs, garbage left out."""
    thresholds = gc.get_threshold()
    gc.set_threshold(100, 10, 10)
    tracemalloc.start()
    try:
        write()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*thresholds)


def large(first, stop):
    """Samples of 4 kB each."""
    for number in range(first, stop):
        series = np.full((512, 4), number, np.int16)
        yield large_request.Record(series, series.tobytes())


LARGE_TARGETS = {
    "text": lambda folder: targets.text_file(
        folder / "a.txt", "", lambda number, series: f"{number:4000d}"
    ),
    "files": lambda folder: targets.numbered_files(
        folder / "out", "bin", 10**6, lambda path, series: path.write_bytes(series.tobytes())
    ),
    "array": lambda folder: targets.array_file(
        folder / "a.npz", np.int16, (512, 4), lambda series: series
    ),
    "ragged": lambda folder: targets.array_file(
        folder / "a.npz", np.int16, (None, 4), lambda series: series
    ),
}


@pytest.mark.parametrize("name", [*LARGE_TARGETS, "standard output"])
def test_memory_does_not_grow_with_the_samples(tmp_path, told, monkeypatch, name):
    monkeypatch.setattr(targets, "BLOCK_BYTES", 1 << 16)

    def write(count):
        if name == "standard output":
            with open(tmp_path / "shown", "w") as file:
                target = LARGE_TARGETS["text"](tmp_path)
                large_request.write_stream(target, file, large(0, count), True)
            return
        target = LARGE_TARGETS[name](tmp_path)
        large_request.write_request(target, count, {}, lambda first: large(first, count))

    write(300)  # What is made once is made.
    few, many = (peak_memory(functools.partial(write, count)) for count in (512, 4096))
    assert many < few + 2**19  # 3,584 samples of 4 kB are 14 MB.


def test_nothing_lies_beside_a_device(told):
    records = [large_request.Record("a", b"a")] * 3
    before = set(Path("/dev").iterdir())
    null = targets.text_file(Path("/dev/null"))
    large_request.write_request(null, 3, {}, lambda first: iter(records[first:]))
    assert set(Path("/dev").iterdir()) == before
    for target, words in (
        (targets.text_file(Path("/dev/full")), "--output: cannot write /dev/full: No space left"),
        (null._replace(folder=Path("/dev/null"), files=()), "--output must be a file"),
    ):
        with pytest.raises(InputError, match=words):
            large_request.write_request(target, 3, {}, lambda first: iter(records[first:]))
    assert set(Path("/dev").iterdir()) == before


def test_different_ones_are_counted_in_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(large_request, "COUNTED_AT_ONCE", 10_000)
    rng = np.random.default_rng(0)
    peaks = []
    for count in (20_000, 160_000):
        numbers = rng.integers(0, 2**64, count, np.uint64)[rng.integers(0, count, count)]
        path = tmp_path / str(count)
        path.write_bytes(numbers.tobytes())
        with path.open("rb") as file:
            peaks.append(peak_memory(functools.partial(large_request.count_different, file)))
            expected = (count, len(set(numbers.tolist())))
            assert large_request.count_different(file) == expected
    assert peaks[1] < 1.5 * peaks[0] and peaks[1] < 8 * 160_000
    (tmp_path / "empty").write_bytes(b"")
    with (tmp_path / "empty").open("rb") as file:
        assert large_request.count_different(file) == (0, 0)
