import json
import pathlib
import random

import numpy as np
import pytest

from grnn_jax.config import SPLITS
from grnn_jax.data.formats import codec_from_dict, load_file, load_splits
from grnn_jax.data.sequences import SequenceCodec, SequenceFormat
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.errors import InputError


def lines_of(corpus, codec):
    assert (np.asarray(corpus.events)[corpus.offsets[1:] - 1] == codec.end).all()
    return [
        codec.decode(corpus.events[a:b])
        for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    ]


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def test_counts_are_those_of_nanogpt(tmp_path):
    n = 1_115_394
    path = write(tmp_path / "t.txt", ("0123456789" * (n // 10 + 1))[:n])
    splits = load_splits(data=path, valid_fraction=0.1, test_fraction=0.0, cache_dir=tmp_path / "c")
    assert splits.train.num_events == int(n * 0.9) == 1_003_854
    assert splits.valid.num_events == 111_540
    assert splits.test is None
    assert splits.codec.size == 10
    assert isinstance(splits.valid.events, np.memmap)
    assert "train 1003854 events" in splits.description and "end" not in splits.description


@pytest.mark.parametrize(
    ("n", "valid", "test", "expected"),
    [(1000, 0.05, 0.05, (900, 50, 50)), (10, 0.1, 0.2, (7, 1, 2)), (1000, 0.43, 0, (570, 430, 0))],
)
def test_fractions_are_exact(tmp_path, n, valid, test, expected):
    path = write(tmp_path / "t.txt", "".join(random.Random(0).choices("ab\n", k=n)))
    splits = load_splits(data=path, valid_fraction=valid, test_fraction=test)
    assert tuple(c.num_events if c else 0 for c in splits[:3]) == expected
    text = "".join(splits.codec.decode(c.events) for c in splits[:3] if c)
    assert text == pathlib.Path(path).read_text()


@pytest.mark.parametrize("codec", ["chars", "bytes", "words", "smiles"])
def test_lines_are_all_there_and_shuffled(tmp_path, codec):
    lines = [f"line {i:03d}, é" for i in range(100)]
    if codec == "smiles":  # A SMILES has no blank.
        lines = [line.replace(",", "").replace(" ", "") for line in lines]
    path = write(tmp_path / "t.txt", "\r\n".join(lines) + "\n\n")
    splits = load_splits(data=path, format="lines", codec=codec, valid_fraction=0.2)
    parts = [lines_of(c, splits.codec) for c in splits[:3]]
    assert [len(p) for p in parts] == [75, 20, 5]
    if codec == "words":  # Numbers that only held-out lines have are unknown words.
        assert parts[0] == sorted(parts[0]) and all("<unk>" in x for x in parts[1] + parts[2])
        return
    assert sorted(sum(parts, [])) == lines
    assert parts[0] == sorted(parts[0])  # The order of the file is kept inside a split.
    assert parts[1] != lines[75:95] and min(parts[1]) < lines[30] < lines[70] < max(parts[1])


def test_duplicates_between_splits_are_counted(tmp_path):
    train = write(tmp_path / "a.txt", "x\ny\nz\n")
    valid = write(tmp_path / "b.txt", "x\nxy\nz\nx")
    splits = load_splits(
        data=train, valid_data=valid, format="lines", test_fraction=0.0, cache_dir=tmp_path / "c"
    )
    assert "also in train: 3 of valid, 0 of test" in splits.description
    assert ", the end of each included; " in splits.description


@pytest.mark.parametrize("format", ["text", "lines"])
def test_split_files(tmp_path, format):
    names = {s: write(tmp_path / f"{s}.txt", f"{s}\nfile of {s}\n") for s in SPLITS}
    splits = load_splits(
        data=names["train"], valid_data=names["valid"], test_data=names["test"], format=format
    )
    for name, corpus in zip(SPLITS, splits[:3], strict=True):
        if format == "text":
            assert splits.codec.decode(corpus.events) == f"{name}\nfile of {name}\n"
        else:
            assert lines_of(corpus, splits.codec) == [name, f"file of {name}"]
    # The characters of all splits are known: "v" and "d" occur in validation alone.
    assert {"v", "d"} <= set(splits.codec.characters)


def test_a_file_for_one_split_leaves_the_fraction_of_the_other(tmp_path):
    data = write(tmp_path / "t.txt", "ab" * 50)
    valid = write(tmp_path / "v.txt", "ba")
    splits = load_splits(data=data, valid_data=valid, valid_fraction=0.5, test_fraction=0.1)
    assert [c.num_events for c in splits[:3]] == [90, 2, 10]


def test_words_come_from_train_alone(tmp_path):
    path = write(tmp_path / "t.txt", "one two " * 9 + "three four ")
    splits = load_splits(data=path, codec="words", valid_fraction=0.1, test_fraction=0.0)
    assert splits.train.num_events == 36 and splits.valid.num_events == 4
    assert splits.codec.vocabulary == (" ", "one", "two")
    assert splits.codec.decode(splits.valid.events) == "<unk> <unk> "


def test_another_file_with_the_codec_of_the_run(tmp_path):
    path = write(tmp_path / "t.txt", "abcab\n" * 20)
    splits = load_splits(data=path, format="lines")
    codec = codec_from_dict(splits.codec.to_dict())
    again = load_splits(data=path, format="lines", codec_object=codec)
    np.testing.assert_array_equal(again.train.events, splits.train.events)
    other = load_file(write(tmp_path / "o.txt", "cba\n\nbb\n"), "lines", codec, tmp_path / "c")
    assert lines_of(other, codec) == ["cba", "bb"]
    with pytest.raises(InputError, match=r"n\.txt, line 3, column 2: character 'N'"):
        load_file(write(tmp_path / "n.txt", "a\n\naNb\n"), "lines", codec)


def test_bytes_of_any_file(tmp_path):
    path = tmp_path / "t.bin"
    path.write_bytes(bytes(range(256)) * 4)
    splits = load_splits(data=str(path), codec="bytes", valid_fraction=0.25, test_fraction=0.0)
    assert splits.codec.size == 256
    assert np.asarray(splits.valid.events).tobytes() == bytes(range(256))


@pytest.mark.parametrize(("format", "is_stream"), [("text", True), ("lines", False)])
def test_the_corpora_of_text_are_streams(tmp_path, format, is_stream):
    path = write(tmp_path / "t.txt", "some\nlines\nof\ntext\n" * 10)
    splits = load_splits(data=path, format=format, valid_fraction=0.2, test_fraction=0.2)
    corpora = [*splits[:3], splits.train.part(2, 7), load_file(path, format, splits.codec)]
    assert [corpus.is_stream for corpus in corpora] == [is_stream] * 5


def test_a_format_names_settings_that_there_are():
    class Odd(SequenceCodec):
        name = "odd"
        options = ("levels", "depth")

    with pytest.raises(InputError, match="options of Odd must be settings of Config, got 'depth'"):
        SequenceFormat(Odd)


def test_events_are_json_where_a_format_says_nothing_else():
    drawing = np.array([[0.5, -1, 0], [2, 0, 1]])
    codec = StrokesCodec()
    assert json.loads(json.dumps(codec.decode(codec.encode(drawing, "drawing")))) == {
        "offset": [[0.5, -1], [2, 0], [0, 0]],
        "pen": [0, 1, 2],
    }


def test_lowercase(tmp_path):
    path = write(tmp_path / "t.txt", "AbBa" * 10)
    for codec, symbols in (("chars", 2), ("bytes", 256), ("words", 2)):
        splits = load_splits(
            data=path, codec=codec, lowercase=True, valid_fraction=0.0, test_fraction=0.0
        )
        assert splits.codec.size == symbols
        assert splits.codec.decode(splits.train.events) == "abba" * 10


def test_without_a_cache_the_result_is_the_same(tmp_path):
    path = write(tmp_path / "t.txt", "some\nlines\nof\ntext\n" * 10)
    for format in ("text", "lines"):
        a = load_splits(data=path, format=format)
        b = load_splits(data=path, format=format, cache_dir=tmp_path / "cache")
        c = load_splits(data=path, format=format, cache_dir=tmp_path / "cache")
        assert a.description == b.description == c.description
        for x, y, z in zip(a[:3], b[:3], c[:3], strict=True):
            np.testing.assert_array_equal(x.events, y.events)
            np.testing.assert_array_equal(x.offsets, z.offsets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tekst"}, "format must be one of text, lines, .*, got 'tekst'"),
        ({"codec": "x"}, "codec must be one of chars, bytes, words, smiles, got 'x'"),
        ({"valid_fraction": -0.1}, "valid_fraction must be at least 0 and less than 1, got -0.1"),
        ({"test_fraction": 1.0}, "test_fraction must be at least 0 and less than 1, got 1.0"),
        ({"valid_fraction": 0.6, "test_fraction": 0.4}, "must add up to less than 1"),
        ({"max_vocabulary": 0}, "max_vocabulary must be at least 2, got 0"),
        ({"valid_data": "no.txt"}, "valid_data: there is no file no.txt"),
        ({"data": "no.txt"}, "data: there is no file no.txt"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    path = write(tmp_path / "t.txt", "text")
    with pytest.raises(InputError, match=message):
        load_splits(**({"data": path} | arguments))


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(InputError, match="nothing of .* is left for training"):
        load_splits(data=write(tmp_path / "t.txt", "a"), valid_fraction=0.5)
    with pytest.raises(InputError, match="train: the data has no line that is not empty"):
        load_splits(data=write(tmp_path / "u.txt", "\n\r\n\n"), format="lines")
    codec = load_splits(data=write(tmp_path / "v.txt", "abcd" * 9)).codec
    with pytest.raises(InputError, match="needs a codec with an end token"):
        load_file(str(tmp_path / "v.txt"), "lines", codec)
    with pytest.raises(InputError, match="format must be one of"):
        load_file(str(tmp_path / "v.txt"), "rows", codec)
