"""What is known of sequences: what it is taken for, where it is read, and what it stays with."""

import dataclasses
import json

import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import load_file, load_splits
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.condition_columns import conditions_by_line
from grnn_jax.data.conditions import ConditionCodec, asked, fit_conditions, parse_given
from grnn_jax.data.corpus import Corpus
from grnn_jax.data.midi import write_midi
from grnn_jax.data.pipeline import Windows
from grnn_jax.errors import InputError

flags.FLAGS.mark_as_parsed()
nan = np.nan


def fit(text, rows):
    return fit_conditions(asked({"condition_on": text}), rows)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n3\n5,6\n", "line 3: expected 2 cells as in the header, got 1"),
        ("a.tsv", 'x\ty\n1\t2\n"3"4\t5\n6\t7\n', "line 3: not valid CSV"),
        ("a.jsonl", '{"x": 1}\n\n{"x": \n{"x": 3}\n', "line 3: not JSON"),
        ("a.jsonl", '{"x": 1}\n[2]\n{"x": 3}\n', "line 2: expected a JSON object, got \\[2\\]"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_or_told(tmp_path, name, text, message):
    """Nothing is left out of a file that nobody else reads."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=f"{name}, {message}"):
        conditions_by_line(path, ("x",))
    bad = BadRecords(skip=False)
    assert len([values for values in conditions_by_line(path, ("x",), bad=bad) if values]) == 2
    with pytest.raises(InputError, match=message):
        bad.finish("rows")


def test_kinds_are_what_the_values_look_like_unless_they_are_given():
    rows = [("b", 1, 0.5, "7", True), ("a", 2, None, "", False), ("b", 1, 2.5, "9.5", True)]
    codec = fit("word, whole, real, cell, flag", rows)
    kinds = {each.name: (each.kind, each.size) for each in codec.conditions}
    assert kinds == {
        "word": ("class", 2), "whole": ("class", 2), "real": ("number", 0), "cell": ("number", 0),
        "flag": ("class", 2),
    }  # fmt: skip
    np.testing.assert_allclose(codec.encode(rows[0], "row"), [1, 0, -1, -1, 1])
    np.testing.assert_allclose(codec.encode(rows[1], "row"), [0, 1, nan, nan, 0])
    numbers = fit("whole:number", [(1,), (2,), (6,)]).conditions[0]
    assert (numbers.kind, numbers.mean) == ("number", 3)
    np.testing.assert_allclose(numbers.scale, np.std([1, 2, 6]))
    assert fit("real:class", [(0.5,), (2.0,)]).conditions[0].classes == ("2", "0.5")
    many = fit("age", [(age,) for age in range(30)]).conditions[0]
    assert many.kind == "number"
    assert fit("k", [(k,) for k in (10, 9, 1)]).conditions[0].classes == ("1", "9", "10")
    again = ConditionCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert again == codec and asked(codec.options).names == codec.names


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("c", 1.0),
            r"file, row 3, 'word': expected one of the classes of train, 'a', 'b', got",
        ),
        (("", 1.0), "file, row 3, 'word': expected a value, as all sequences of train have one"),
        (("a", "x"), "file, row 3, 'real': expected a finite number, got 'x'"),
        (("a", np.inf), "file, row 3, 'real': expected a finite number, got inf"),
    ],
)
def test_what_train_never_had_is_named(row, message):
    codec = fit("word,real", [("a", 0.5), ("b", None)])
    with pytest.raises(InputError, match=message):
        codec.encode(row, "file, row 3")


def test_what_cannot_be_asked_for():
    with pytest.raises(InputError, match="condition_on must be names parted by commas"):
        asked({"condition_on": "a,,b"})
    with pytest.raises(InputError, match="the condition 'a' stands there twice"):
        asked({"condition_on": "a,a:number"})
    with pytest.raises(InputError, match="expected numbers in 'a', got 'x'; a:class takes"):
        fit("a:number", [("x",), ("1",)])
    with pytest.raises(InputError, match="'a' has no value in any sequence of train"):
        fit("a", [(None,), ("",)])
    assert parse_given("a=x,,y, b=") == {"a": "x,y", "b": ""}
    for text in ("a", "=2", "a=1,a=2"):
        with pytest.raises(InputError, match="condition must"):
            parse_given(text)


ROWS = [
    ("".join("abc"[(i * j) % 3] for j in range(i % 4 + 1)), ["Irish", "Greek"][i % 2], i + 0.25)
    for i in range(40)
]


def write_lines(path):
    """The same rows as every kind of file; every eighth has no age, and a quoted cell two lines."""
    kind = path.suffix
    rows = [(w, n, "" if i % 8 == 5 else a) for i, (w, n, a) in enumerate(ROWS)]
    if kind == ".jsonl":
        records = [{"word": w, "nation": n} | ({"age": a} if a else {}) for w, n, a in rows]
        path.write_text("\n\n".join(map(json.dumps, records)))
    elif kind == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        words, nations, ages = zip(*((w, n, a or None) for w, n, a in rows), strict=True)
        table = pyarrow.table({"word": words, "nation": nations, "age": ages})
        parquet.write_table(table, path)
    elif kind == ".smi":
        path.write_text("word nation age\n" + "".join(f"{w} {n} {a}\n" for w, n, a in rows))
    else:
        sep = "\t" if kind == ".tsv" else ","
        lines = [sep.join(["word", "nation", "note", "age"])]
        lines += [sep.join([w, n, '"two\nlines"' * (i == 3), str(a)]) for i, (w, n, a) in
                  enumerate(rows)]  # fmt: skip
        path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "smi"])
def test_lines_keep_what_stands_beside_them(kind, tmp_path):
    path = write_lines(tmp_path / f"a.{kind}")
    splits = load_splits(
        data=path, format="lines", column="word", valid_fraction=0.2, test_fraction=0.1,
        options={"condition_on": "nation,age"}, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    conditions = splits.codec.conditions
    assert conditions.conditions[0].classes == ("Greek", "Irish")
    assert "given nation (2 classes: Greek, Irish); age (a number" in splits.description
    found = []
    for corpus in (splits.train, splits.valid, splits.test):
        assert corpus.conditions.shape == (corpus.num_sequences, 2)
        ages = corpus.conditions[:, 1] * conditions.conditions[1].scale
        for i in range(corpus.num_sequences):
            word = splits.codec.decode(corpus.events[corpus.offsets[i] : corpus.offsets[i + 1] - 1])
            nation = conditions.conditions[0].classes[int(corpus.conditions[i, 0])]
            found.append((word, nation, ages[i] + conditions.conditions[1].mean))
    # .smi has no cell where it is empty.
    rows = [(w, n, nan if i % 8 == 5 else a) for i, (w, n, a) in enumerate(ROWS)]
    expected = sorted(rows, key=lambda row: (row[0], row[1], np.nan_to_num(row[2], nan=-1)))
    found.sort(key=lambda row: (row[0], row[1], np.nan_to_num(row[2], nan=-1)))
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-4)
    # The standardised numbers of train have mean 0 and variance 1.
    train = splits.train.conditions[:, 1]
    np.testing.assert_allclose([np.nanmean(train), np.nanstd(train)], [0, 1], atol=1e-5)
    again = load_file(path, "lines", splits.codec, column="word")
    assert again.num_sequences == len(ROWS)
    np.testing.assert_array_equal(again.conditions[:, 0], [1 - i % 2 for i in range(len(ROWS))])


def test_damaged_conditions_are_noticed(tmp_path):
    path = write_lines(tmp_path / "a.csv")
    arguments = {
        "data": path, "format": "lines", "column": "word", "options": {"condition_on": "nation"},
        "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    first = load_splits(**arguments)
    file = first.folder / "train.conditions"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\0\0\0@")
    again = load_splits(**arguments, codec_object=first.codec, folder=first.folder)
    assert (again.folder / "train.conditions").read_bytes() == whole
    assert again.contents == first.contents
    plain = load_splits(**arguments | {"options": {}})
    assert plain.contents["train"] != first.contents["train"] and plain.train.conditions is None


def test_a_class_that_only_other_splits_have_is_bad_and_may_be_skipped(tmp_path):
    path = write_lines(tmp_path / "a.csv")
    other = tmp_path / "other.csv"
    other.write_text("word,nation\nab,Greek\nba,Norse\n")
    arguments = {"data": path, "format": "lines", "column": "word", "valid_data": str(other)}
    options = {"condition_on": "nation"}
    message = r"other.csv.*, line 3, 'nation': expected one of the classes of train, .* got 'Norse'"
    with pytest.raises(InputError, match=message):
        load_splits(**arguments, options=options)
    splits = load_splits(**arguments, options=options | {"skip_bad": True})
    assert splits.valid.num_sequences == 1 and splits.valid.conditions.tolist() == [[0]]


def test_lines_without_columns_and_columns_that_are_not_there(tmp_path):
    plain = tmp_path / "a.txt"
    plain.write_text("ab\nba\n")
    with pytest.raises(InputError, match="condition_on=b needs column=NAME of a"):
        load_splits(data=str(plain), format="lines", options={"condition_on": "b"})
    for kind, message in (("csv", "no column 'b'"), ("jsonl", "no key 'b'")):
        path = write_lines(tmp_path / f"a.{kind}")
        with pytest.raises(InputError, match=message):
            load_splits(data=path, format="lines", column="word", options={"condition_on": "b"})


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 2, (count, 3, 2)).astype(np.uint8)


def test_arrays_beside_images(tmp_path):
    path = str(tmp_path / "a.npz")
    labels = [np.arange(4) % 3, np.array([2, 0])]
    np.savez(path, train=images(4, 0), valid=images(2, 1), train_label=labels[0],
             valid_label=labels[1], train_size=np.linspace(0, 1, 4), valid_size=np.ones((2, 1)),
             other=np.arange(3))  # fmt: skip
    options = {"condition_on": "label,size"}
    splits = load_splits(data=path, format="images", test_fraction=0, options=options)
    assert [each.size for each in splits.codec.conditions.conditions] == [3, 0]
    np.testing.assert_array_equal(splits.train.conditions[:, 0], labels[0])
    np.testing.assert_array_equal(splits.valid.conditions[:, 0], labels[1])
    # One array, which is split by fractions.
    path = str(tmp_path / "b.npz")
    pixels = images(30, 2)
    np.savez(path, digits=pixels, label=np.array(["odd", "even"])[pixels.sum((1, 2)) % 2])
    splits = load_splits(data=path, format="images", options={"condition_on": "label"})
    for corpus in (splits.train, splits.valid, splits.test):
        parity = np.asarray(corpus.events).reshape(-1, 6).sum(1) % 2
        np.testing.assert_array_equal(corpus.conditions[:, 0], 1 - parity)


def test_arrays_that_do_not_fit_are_named(tmp_path):
    path = str(tmp_path / "a.npz")
    options = {"condition_on": "label"}
    np.savez(path, train=images(4, 0), train_label=np.arange(3))
    with pytest.raises(InputError, match="train: expected 4 values of each condition.* got 3"):
        load_splits(data=path, format="images", options=options)
    np.savez(path, train=images(4, 0), valid=images(2, 1), label=np.arange(4))
    with pytest.raises(InputError, match="condition_on=label needs an array train_label, got none"):
        load_splits(data=path, format="images", options=options)
    np.savez(path, train=images(4, 0), train_label=np.ones(4, complex))
    with pytest.raises(InputError, match="train_label: expected text or numbers, got complex128"):
        load_splits(data=path, format="images", options=options)


def test_columns_of_events_and_series(tmp_path):
    events, series = tmp_path / "events.csv", tmp_path / "series.csv"
    lines = [f"s{i % 20},{i},{'ab'[i % 2]},{i % 20 % 3},{i % 20 / 7}" for i in range(100)]
    events.write_text("sequence,time,mark,group,weight\n" + "\n".join(lines))
    values = [f"s{i % 20},{np.sin(i)},{i % 20 % 3},{i % 20 / 7}" for i in range(100)]
    series.write_text("sequence,x,group,weight\n" + "\n".join(values))
    options = {"condition_on": "group,weight"}
    for path, format, more in (
        (events, "events", {}),
        (series, "series", {"value_columns": "x"}),
    ):
        splits = load_splits(data=str(path), format=format, options=options | more)
        group, weight = splits.codec.conditions.conditions
        assert (group.classes, weight.kind) == (("0", "1", "2"), "number")
        corpus = load_file(str(path), format, splits.codec)
        np.testing.assert_array_equal(corpus.conditions[:, 0], np.arange(20) % 3)
        weights = corpus.conditions[:, 1] * weight.scale + weight.mean
        np.testing.assert_allclose(weights, np.arange(20) / 7, atol=1e-6)
    lines[25] = "s5,25,b,0,0.5"
    events.write_text("sequence,time,mark,group,weight\n" + "\n".join(lines))
    message = r"events.csv, line 27, column 'group': expected one value in all rows of a sequence"
    with pytest.raises(InputError, match=message):
        load_splits(data=str(events), format="events", options=options)


def test_keys_of_drawings_and_folders_of_midi(tmp_path):
    path = tmp_path / "a.ndjson"
    drawing = [[[0, 3, 5], [1, 2, 9]]]
    records = [{"word": ["cat", "dog"][i % 2], "drawing": drawing} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, records)))
    splits = load_splits(data=str(path), format="strokes", options={"condition_on": "word"})
    assert splits.codec.conditions.conditions[0].classes == ("cat", "dog")
    for i in range(8):
        roll = np.zeros((4, 88), np.uint8)
        roll[i % 4, 30 + i] = 1
        folder = tmp_path / "music" / ["bach", "bartok"][i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_midi(folder / f"{i}.mid", [roll], 2)
    for format in ("pianoroll", "voices"):
        splits = load_splits(
            data=str(tmp_path / "music"), format=format, valid_fraction=0, test_fraction=0,
            options={"label_from": "folder"},
        )  # fmt: skip
        assert splits.codec.conditions.names == ("label",)
        assert splits.train.conditions[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert type(splits.codec).from_dict(splits.codec.to_dict()) == splits.codec
    tunes = tmp_path / "tunes.json"
    tunes.write_text("[[[60], [62]], [[60], [61]]]")
    with pytest.raises(InputError, match="says nothing of its sequences: label_from=folder"):
        load_splits(data=str(tunes), format="voices", options={"label_from": "folder"})


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    rows=st.integers(1, 4),
    length=st.integers(1, 12),
    seed=st.none() | st.integers(0, 3),
    cut_few=st.booleans(),
    window=st.integers(0, 40),
)
def test_windows_give_every_event_the_condition_of_its_sequence(
    lengths, rows, length, seed, cut_few, window
):
    offsets = np.cumsum([0, *lengths])
    numbers = np.arange(len(lengths), dtype=np.float32)
    corpus = Corpus(np.arange(offsets[-1]), offsets, conditions=np.stack([numbers, -numbers], 1))
    windows = Windows(corpus, rows, length, shuffle_seed=seed, cut_few=cut_few)
    batch = windows[window]
    of_segment = np.cumsum(batch.reset, 1)
    row = np.arange(rows)[:, None]
    found = batch.conditions[row, of_segment]
    sequence = np.searchsorted(offsets, batch.events, "right") - 1
    np.testing.assert_array_equal(found[batch.mask][:, 0], sequence[batch.mask])
    np.testing.assert_array_equal(found[batch.mask][:, 1], -sequence[batch.mask])
    assert windows[window + 1].conditions.shape == batch.conditions.shape
    plain = Windows(
        corpus._replace(conditions=None), rows, length, shuffle_seed=seed, cut_few=cut_few
    )[window]
    assert plain.conditions is None
    np.testing.assert_array_equal(plain.events, batch.events)


def test_an_unconditional_codec_is_written_as_before():
    from grnn_jax.data.images import ImagesCodec

    codec = ImagesCodec()
    assert "conditions" not in codec.to_dict() and ImagesCodec.from_dict(codec.to_dict()) == codec
    given = dataclasses.replace(codec, conditions=fit("a", [("x",), ("y",)]))
    assert ImagesCodec.from_dict(json.loads(json.dumps(given.to_dict()))) == given


def test_lines_of_text_files_are_given_their_folder(tmp_path):
    words = {"irish": ["aba", "ab", "bab", "b"], "greek": ["cbc", "cc", "bc"]}
    for folder, lines in words.items():
        (tmp_path / "names" / folder).mkdir(parents=True)
        (tmp_path / "names" / folder / "a.txt").write_text("\n".join(lines[:2]) + "\n\n")
        (tmp_path / "names" / folder / "b.txt").write_text("\n".join(lines[2:]))
    (tmp_path / "names" / "about.md").write_text("no name")
    path = str(tmp_path / "names")
    options = {"label_from": "folder"}
    splits = load_splits(
        data=path, format="lines", valid_fraction=0.3, test_fraction=0, options=options
    )
    assert splits.codec.conditions.conditions[0].classes == ("greek", "irish")
    found = {folder: set() for folder in words}
    for corpus in (splits.train, splits.valid):
        for i, (index,) in enumerate(corpus.conditions.astype(int)):
            word = splits.codec.decode(corpus.events[corpus.offsets[i] : corpus.offsets[i + 1] - 1])
            found[("greek", "irish")[index]].add(word)
    assert found == {folder: set(lines) for folder, lines in words.items()}
    one = load_file(str(tmp_path / "names" / "irish" / "a.txt"), "lines", splits.codec)
    assert one.conditions.tolist() == [[1], [1]]
    table = write_lines(tmp_path / "a.csv")
    with pytest.raises(InputError, match="condition_on=age label_from=folder needs a folder"):
        load_splits(
            data=table, format="lines", column="word", options=options | {"condition_on": "age"}
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no text files"):
        load_splits(data=str(tmp_path / "empty"), format="lines", options=options)
