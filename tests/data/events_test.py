import csv
import datetime
import json
import random
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax.config import Config
from grnn_jax.data.codec import EventType
from grnn_jax.data.formats import codec_from_dict, load_file, load_splits
from grnn_jax.distributions.waits import weibull
from grnn_jax.errors import InputError
from grnn_jax.workdir.build import build_distribution

OPTIONS = {
    "sequence_column": "sequence",
    "time_column": "time",
    "mark_columns": "mark",
    "time_unit": "days",
    "origin": "zero",
    "end_column": "",
}
COLUMNS = ("time", "mark", "size", "sequence", "end")


def histories(count, seed=0):
    """For each sequence its times, its marks and its end."""
    rng = random.Random(seed)
    found = {}
    for i in range(count):
        times = sorted(rng.uniform(0, 10) for _ in range(rng.randrange(1, 6)))
        marks = [(rng.choice("zyx"), rng.choice("12")) for _ in times]
        found[f"s{i}"] = (times, marks, 10 + rng.random())
    return found


def write_csv(path, rows, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def write(path, found):
    """All events sorted by time, so that sequences are mixed."""
    rows = [
        (t, *m, name, end)
        for name, (ts, ms, end) in found.items()
        for t, m in zip(ts, ms, strict=True)
    ]
    return write_csv(path, sorted(rows))


def load(path, *, options=None, **settings):
    fractions = {"valid_fraction": 0, "test_fraction": 0}
    return load_splits(
        data=str(path), format="events", options=OPTIONS | (options or {}), **fractions | settings
    )


def sequences(corpus, codec):
    """For each sequence its waits, which of them are censored, and its marks."""
    events = corpus.events
    for start, stop in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True):
        marks = [
            [known[code] for code in events[column][start:stop]]
            for column, known in zip(list(codec.event_type)[1:], codec.marks, strict=True)
        ]
        yield (
            events["wait"]["wait"][start:stop].tolist(),
            events["wait"]["censored"][start:stop].tolist(),
            list(zip(*marks, strict=True)),
        )


@pytest.mark.parametrize("origin", ["zero", "first"])
@pytest.mark.parametrize("end_column", ["", "end"])
def test_waits_and_marks(tmp_path, origin, end_column):
    written = histories(40)
    options = {"mark_columns": "mark, size", "origin": origin, "end_column": end_column}
    found = load(write(tmp_path / "e.csv", written), options=options, cache_dir=tmp_path / "c")
    expected, all_waits = [], []
    # Sequences keep the order in which they first occur in the file.
    for times, marks, end in sorted(written.values()):
        now = 0.0 if origin == "zero" else times[0]
        skip = 0 if origin == "zero" else 1
        waits, kept = [], marks[skip:]
        for time in times[skip:]:
            waits.append(time - now)
            now = time
        all_waits += waits
        censored = [False] * len(waits)
        if end_column:
            waits, censored = [*waits, end - now], [*censored, True]
        if waits:
            expected.append((pytest.approx(waits, abs=1e-6), censored, kept))
    codec = codec_from_dict(json.loads(json.dumps(found.codec.to_dict())))
    assert codec == found.codec
    got = []
    for waits, censored, marks in sequences(found.train, codec):
        got.append((waits, censored, marks[: len(marks) - sum(censored)]))
    assert got == expected
    scale = statistics.median(wait for wait in all_waits if wait > 0)
    assert codec.event_type == {
        "wait": EventType("waits", (), {"scale": pytest.approx(scale)}),
        "mark": EventType("tokens", (3,)),
        "size": EventType("tokens", (2,)),
    }
    assert codec.marks == (("x", "y", "z"), ("1", "2")) and codec.unit == "days"
    again = load_file(str(tmp_path / "e.csv"), "events", codec)
    np.testing.assert_array_equal(again.events["wait"]["wait"], found.train.events["wait"]["wait"])


def test_sequences_in_which_nothing_happened(tmp_path):
    rows = [(1, "a", 0, "p", 4), ("", "", "", "q", 7), (3, "b", 0, "p", 4)]
    path = write_csv(tmp_path / "e.csv", rows)
    corpus = load(path, options={"end_column": "end"}).train
    assert corpus.offsets.tolist() == [0, 3, 4]
    assert corpus.events["wait"]["wait"].tolist() == [1, 2, 1, 7]
    assert corpus.events["wait"]["censored"].tolist() == [False, False, True, True]
    assert corpus.events["mark"].tolist() == [0, 1, 0, 0]
    with pytest.raises(InputError, match="line 3, column 'time': .* got an empty cell"):
        load(path)
    with pytest.raises(InputError, match="line 3, column 'time': .*; origin first needs an event"):
        load(path, options={"end_column": "end", "origin": "first"})


def test_without_marks(tmp_path):
    codec = load(write(tmp_path / "e.csv", histories(5)), options={"mark_columns": ""}).codec
    assert list(codec.event_type) == ["wait"] and list(codec.empty()) == ["wait"]


def test_a_censored_event_has_no_mark(tmp_path):
    path = write(tmp_path / "e.csv", histories(9))
    config = Config(
        data=path, format="events", end_column="end", hidden_size=3, distribution="wait=weibull"
    )
    codec = load(path, options={"end_column": "end"}).codec
    distribution = build_distribution(config, codec)
    params = distribution.init(jax.random.key(0), 3)
    hidden = jax.random.normal(jax.random.key(1), (3,))

    def log_probs(censored):
        wait = {"wait": np.full(3, 2, np.float32), "censored": np.full(3, censored)}
        event = jax.tree.map(jnp.asarray, {"wait": wait, "mark": np.arange(3, dtype=np.int32)})
        rows = jnp.tile(hidden, (3, 1))
        return np.asarray(distribution.log_prob(params, rows, event), np.float64)

    alone = weibull(scale=codec.scale)
    wait = {"wait": np.float32(2), "censored": np.array(True)}
    survival = alone.log_prob(params["wait"], hidden, wait)
    np.testing.assert_allclose(log_probs(True), np.full(3, survival), rtol=1e-6)
    density = alone.log_prob(params["wait"], hidden, wait | {"censored": np.array(False)})
    assert np.logaddexp.reduce(log_probs(False)) == pytest.approx(float(density), rel=1e-5)
    assert len(set(log_probs(False))) == 3


def test_the_end_as_an_event(tmp_path):
    path = write(tmp_path / "e.csv", histories(9))
    found = load(path, model_end=True)
    assert found.codec.wraps_end
    ends = np.flatnonzero(found.train.events["end"])
    assert ends.tolist() == (found.train.offsets[1:] - 1).tolist()
    with pytest.raises(InputError, match="model_end and end_column exclude each other"):
        load(path, model_end=True, options={"end_column": "end"})
    with pytest.raises(InputError, match="model_end needs several sequences"):
        load(path, model_end=True, options={"sequence_column": ""})


def test_one_sequence_is_cut_in_time(tmp_path):
    times = [1.0, 2, 4, 7, 11, 16, 22, 29, 37, 46]
    path = write_csv(
        tmp_path / "e.csv", [(t, "ab"[i % 2], 0, "p", 50) for i, t in enumerate(times)]
    )
    for options in ({"end_column": "end"}, {"end_column": "end", "sequence_column": ""}):
        found = load(path, options=options, valid_fraction=0.3, test_fraction=0.2)
        waits = [corpus.events["wait"]["wait"].tolist() for corpus in found[:3]]
        assert waits == [[1, 1, 2, 3, 4], [5, 6, 7], [8, 9, 4]]
        censored = [corpus.events["wait"]["censored"].sum() for corpus in found[:3]]
        assert censored == [0, 0, 1]
        assert found.codec.scale == 2
    found = load(path, options={"origin": "first", "end_column": "end"}, valid_fraction=0.5)
    assert found.valid.events["wait"]["wait"].tolist() == [5, 6, 7, 8, 9, 4]


def test_marks_and_scale_are_of_the_training_split(tmp_path):
    train = write_csv(tmp_path / "t.csv", [(1, "a", 0, "p", 9), (4, "b", 0, "p", 9)])
    valid = write_csv(tmp_path / "v.csv", [(100, "b", 0, "q", 9), (300, "c", 0, "q", 9)])
    with pytest.raises(InputError, match=r"v\.csv, line 3, column 'mark': the mark 'c' does not"):
        load(train, valid_data=valid)
    valid = write_csv(tmp_path / "v.csv", [(100, "b", 0, "q", 9)])
    found = load(train, valid_data=valid)
    assert found.codec.scale == 2 and found.valid.events["mark"].tolist() == [1]
    with pytest.raises(InputError, match="the sequence 'p' stands in train and in valid"):
        load(train, valid_data=train)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [(2, "a", 0, "p", 9), (1, "a", 0, "q", 9), (1, "a", 0, "p", 9)],
            {},
            "line 4, column 'time': expected times that do not decrease .* got 1 after 2",
        ),
        ([(-1, "a", 0, "p", 9)], {}, "line 2, column 'time': expected a time of at least 0"),
        ([(1, "", 0, "p", 9)], {}, "line 2, column 'mark': expected a name, got an empty cell"),
        ([(1, "a", 0, "", 9)], {}, "line 2, column 'sequence': expected a name"),
        (
            [("x", "a", 0, "p", 9)],
            {},
            "line 2, column 'time': expected a finite number or a date in ISO 8601, got 'x'",
        ),
        (
            [(1, "a", 0, "p", 9), (2, "a", 0, "p", 8)],
            {"end_column": "end"},
            "line 3, column 'end': expected one end in all rows of a sequence, 9, got 8",
        ),
        (
            [(1, "a", 0, "p", 3), (4, "a", 0, "p", 3)],
            {"end_column": "end"},
            "line 3, column 'end': expected an end not before 4, got 3",
        ),
        ([(0, "a", 0, "p", 9)], {}, "data: the training sequences have no wait that is positive"),
        ([(1, "a", 0, "p", 9)], {"origin": "first"}, "have no wait that is positive"),
        ([(1, "a", 0, "p", 9)], {"time_column": "t"}, "no column 't', which time_column names"),
        ([(1, "a", 0, "p", 9)], {"mark_columns": "m"}, "no column 'm', which mark_columns names"),
        ([(1, "a", 0, "p", 9)], {"mark_columns": "wait"}, "'wait' cannot be the name of a mark"),
        ([(1, "a", 0, "p", 9)], {"mark_columns": "a/b"}, "'a/b' cannot be the name of a mark"),
    ],
)
def test_bad_tables(tmp_path, rows, options, message):
    path = write_csv(tmp_path / "e.csv", rows)
    with pytest.raises(InputError, match=message):
        load(path, options=options)


DATES = ["2021-03-01T12:00:00", "2021-03-01 18:00", "2021-03-03", "2021-03-03T00:00:30.5"]
HOURS = [0, 6, 36, 36 + 30.5 / 3600]  # Since the first, counted by hand.


@pytest.mark.parametrize("unit", ["hours", "Hour", "days", "s", "ms", "weeks"])
@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_dates_are_read_in_the_unit_of_time(tmp_path, unit, zone):
    dates = [d + zone if ":" in d else d + "T00:00" + zone for d in DATES]
    rows = [(d, "x", "", name, "2021-03-05T12:00" + zone) for name in "ab" for d in dates]
    options = {"origin": "first", "time_unit": unit, "end_column": "end"}
    found = load(write_csv(tmp_path / "e.csv", rows), options=options)
    per_hour = {"hours": 1, "Hour": 1, "days": 1 / 24, "s": 3600, "ms": 3.6e6, "weeks": 1 / 168}
    expected = np.diff([*HOURS, 96]) * per_hour[unit]
    for waits, censored, _ in sequences(found.train, found.codec):
        np.testing.assert_allclose(waits, expected, rtol=1e-5)
        assert censored == [False] * 3 + [True]


@pytest.mark.parametrize("kind", ["timestamp", "date", "text", "zone"])
def test_dates_of_parquet(tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    days = [datetime.datetime(2021, 3, day) for day in (1, 2, 5)]
    types = {
        "timestamp": pyarrow.timestamp("ns"), "date": pyarrow.date32(), "text": pyarrow.string(),
        "zone": pyarrow.timestamp("s", "UTC"),
    }  # fmt: skip
    values = [str(day) for day in days] if kind == "text" else days
    table = {"time": pyarrow.array(values, types[kind]), "mark": list("aba")}
    parquet.write_table(pyarrow.table(table), tmp_path / "e.parquet")
    options = {"origin": "first", "sequence_column": "", "time_unit": "days"}
    found = load(tmp_path / "e.parquet", options=options)
    ((waits, _, _),) = sequences(found.train, found.codec)
    np.testing.assert_allclose(waits, [1, 3])


@pytest.mark.parametrize(
    ("cells", "unit", "message"),
    [
        (["2021-01-01", "2021-01-02"], "", "time_unit must be microseconds, .* where times are"),
        (["2021-01-01", "2021-01-02"], "years", "time_unit must be .*, got 'years'"),
        (["2021-01-01", "5"], "days", "line 3, column 'time': expected a date, .* got '5'"),
        (["5", "2021-01-01"], "days", "line 3, column 'time': expected a number, .* got '2021"),
        (["2021-01-01T00:00Z", "2021-01-01T00:00"], "days", "expected a date with its time zone"),
        (["2021-01-01", "2021-13-01"], "days", "line 3, .* a finite number or a date in ISO 8601"),
        (["2021-01-02", "2021-01-01"], "days", "expected times that do not decrease"),
    ],
)
def test_bad_dates(tmp_path, cells, unit, message):
    rows = [(cell, "x", "", "a", "") for cell in cells]
    with pytest.raises(InputError, match=message):
        load(write_csv(tmp_path / "e.csv", rows), options={"time_unit": unit})


@pytest.mark.parametrize(("origin", "start", "warned"), [
    ("zero", 1.6e9, True), ("first", 1.6e9, False), ("zero", 0, False), ("zero", 3, False),
])  # fmt: skip
def test_first_waits_that_dwarf_the_others_are_warned_of(tmp_path, caplog, origin, start, warned):
    rows = [(start + t, "x", "", name, "") for name in "ab" for t in (0.5, 1, 3, 4)]
    load(write_csv(tmp_path / "e.csv", rows), options={"origin": origin})
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == warned
    if warned:
        assert "(median 1.6e+09) dwarf the others (median 1)" in warnings[0]
        assert "; origin=first begins" in warnings[0]


def test_waits_that_32_bits_cannot_hold(tmp_path):
    rows = [(t, "x", "", "a", "") for t in (1e-300, 2e-300, 1)]
    with pytest.raises(InputError, match="'time': a wait of 1e-300 is too short for 32-bit num"):
        load(write_csv(tmp_path / "e.csv", rows))
    rows = [(t, "x", "", "a", "") for t in (-3e38, -2.9e38, 3e38)]
    with pytest.raises(InputError, match="'time': a wait of 5.9e[+]38 is too long for 32-bit num"):
        load(write_csv(tmp_path / "e.csv", rows), options={"origin": "first"})


def test_an_end_that_is_not_known_is_an_empty_cell(tmp_path):
    rows = [(1, "a", 0, "p", ""), (3, "b", 0, "p", ""), (2, "a", 0, "q", 5), (2, "a", 0, "r", "")]
    corpus = load(write_csv(tmp_path / "e.csv", rows), options={"end_column": "end"}).train
    assert corpus.offsets.tolist() == [0, 2, 4, 5]
    assert corpus.events["wait"]["censored"].tolist() == [False, False, False, True, False]
    for row, message in (
        ((4, "b", 0, "p", 9), "line 3, .* one end in all rows of a sequence, an empty cell, got 9"),
        (("", "", 0, "s", ""), "line 3, column 'time': expected a time, or an end in column 'end'"),
    ):
        path = write_csv(tmp_path / "f.csv", [rows[0], row])
        with pytest.raises(InputError, match=message):
            load(path, options={"end_column": "end"})


def test_a_first_event_that_is_given_needs_no_mark(tmp_path):
    path = write_csv(tmp_path / "e.csv", [(0, "", 0, "p", 9), (3, "b", 0, "p", 9)])
    found = load(path, options={"origin": "first"}).train
    assert found.events["wait"]["wait"].tolist() == [3]
    with pytest.raises(InputError, match="line 2, column 'mark': expected a name"):
        load(path)
