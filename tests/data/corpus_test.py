import gzip
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import decoding
from grnn_jax.data.corpus import Corpus, FileSource, iter_lines
from grnn_jax.data.formats import load_splits
from grnn_jax.data.store import store
from grnn_jax.data.text_codec import build_codec
from grnn_jax.data.text_writer import write_text
from grnn_jax.errors import InputError


def read(path, errors="strict"):
    return "".join(c for _, chunks in FileSource(path).documents(errors) for c in chunks)


def encode(path, codec, cache_dir=None):
    source = FileSource(path)
    stored = store(
        ["all"],
        np.empty(0, codec.dtype),
        lambda out: write_text(source, codec, out["all"]),
        cache_dir,
        source.fingerprint(),
    )
    return stored.corpora["all"]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 22])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", request.param)
    return request.param


@pytest.mark.parametrize("name", ["chars", "bytes", "words"])
def test_streaming_equals_whole(tmp_path, chunk_bytes, name):
    text = "a é€😀 don't\r\nstop,\n\n  l'été 😀😀\n\x0c end"
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    codec = build_codec(name, [text])
    corpus = encode(path, codec, tmp_path / "cache")
    np.testing.assert_array_equal(corpus.events, codec.encode(text))
    np.testing.assert_array_equal(corpus.offsets, [0, corpus.num_events])
    assert codec.decode(corpus.events) == text


def test_lines_across_chunks(tmp_path, chunk_bytes):
    path = tmp_path / "t.txt"
    path.write_bytes("é1\r\n\n\r\n two \nx\u2028y\r\n\nlast".encode())
    lines = [(number, line) for _, number, line in iter_lines(FileSource(path))]
    assert lines == [(1, "é1"), (4, " two "), (5, "x\u2028y"), (7, "last")]


@settings(max_examples=50, deadline=None)
@given(st.text("a\n\r", max_size=20))
def test_lines_equal_a_plain_split(text):
    class Source:
        def documents(self, errors="strict", bad=None):
            yield "s", (text[i : i + 3] for i in range(0, len(text), 3))

        def fingerprint(self):
            return None

    expected = [line.removesuffix("\r") for line in text.split("\n")]
    expected = [(i, line) for i, line in enumerate(expected, start=1) if line]
    assert [(number, line) for _, number, line in iter_lines(Source())] == expected


def test_tokens_are_memory_mapped_and_reused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("hello world\n")
    codec = build_codec("chars", ["helo wrd\n"])
    first = encode(path, codec, tmp_path / "cache")
    assert isinstance(first.events, np.memmap) and isinstance(first.offsets, np.memmap)
    assert first.events.dtype == np.uint8
    assert os.path.getsize(first.events.filename) == 12
    stamp = os.stat(first.events.filename).st_mtime_ns
    again = encode(path, codec, tmp_path / "cache")
    assert os.stat(again.events.filename).st_mtime_ns == stamp
    path.write_text("world hello\n\n")  # A changed file is encoded anew.
    assert codec.decode(encode(path, codec, tmp_path / "cache").events) == "world hello\n\n"
    assert not [p for p in (tmp_path / "cache").iterdir() if ".tmp-" in p.name]


def test_failed_encoding_leaves_nothing(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("ab\naXb")
    with pytest.raises(InputError, match=r"t\.txt, line 2, column 2: character 'X'"):
        encode(path, build_codec("chars", ["ab\n"]), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_location_counts_earlier_chunks(tmp_path, chunk_bytes):
    path = tmp_path / "t.txt"
    path.write_text("ab\nab\nababX")
    with pytest.raises(InputError, match=r"t\.txt, line 3, column 5: character 'X'"):
        encode(path, build_codec("chars", ["ab\n"]))


def test_byte_order_mark_is_dropped(tmp_path, chunk_bytes):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbfab")
    assert read(path) == "ab"
    assert read(path, "surrogateescape") == "\ufeffab"  # The bytes codec keeps every byte.


def test_gzip(tmp_path, chunk_bytes):
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress("grün\n".encode()))
    assert read(path) == "grün\n"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is not a complete gzip file"):
        read(path)


@pytest.mark.parametrize(
    ("raw", "line", "offset"),
    [(b"ab\nc\xffd", 2, 4), (b"\xc3", 1, 0), ("é\né".encode() + b"\xe2\x82x", 2, 5)],
)
def test_undecodable_bytes(tmp_path, chunk_bytes, raw, line, offset):
    path = tmp_path / "t.txt"
    path.write_bytes(raw)
    byte = raw[offset]
    with pytest.raises(InputError, match=rf"line {line}, byte offset {offset}: byte 0x{byte:02x}"):
        read(path)
    assert read(path, "surrogateescape").encode("utf-8", "surrogateescape") == raw


def test_unusable_files(tmp_path):
    with pytest.raises(InputError, match=r"data: there is no file .*nothing\.txt"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match="is a directory, expected a text file"):
        read(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"empty\.txt is empty, expected text"):
        read(tmp_path / "empty.txt")
    with pytest.raises(InputError, match="valid_data: there is no file"):
        FileSource(str(tmp_path / "x"), "valid_data").fingerprint()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write encoded data to .*file"):
        encode(tmp_path / "a.txt", build_codec("chars", ["a"]), tmp_path / "file")


def test_part_keeps_sequence_starts():
    corpus = Corpus(np.arange(10), np.array([0, 3, 6, 10]))
    part = corpus.part(2, 8)
    np.testing.assert_array_equal(part.events, [2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(part.offsets, [0, 1, 4, 6])
    assert (part.num_events, part.num_sequences) == (6, 3)
    whole = corpus.part(3, 6)
    np.testing.assert_array_equal(whole.offsets, [0, 3])
    nothing = corpus.part(4, 4)
    assert (nothing.num_events, nothing.num_sequences) == (0, 0)


@pytest.mark.parametrize("chunk_bytes", [1, 3, 7, 64])
@pytest.mark.parametrize("codec", ["chars", "bytes", "words"])
def test_lowercasing_does_not_depend_on_where_a_read_ends(
    tmp_path, monkeypatch, codec, chunk_bytes
):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk_bytes)
    text = "Ο ΟΔΥΣΣΕΥΣ ΕΙΝΑΙ ΣΟΦΟΣ, ΟΣ. Σ ΑΣ'Α 1Σ2 ΟΔΟΣ-ΟΣ\nΣΑΣ\u0301\tΑΣ " * 9 + "ΤΕΛΟΣ"
    (tmp_path / "t.txt").write_text(text)
    splits = load_splits(
        data=str(tmp_path / "t.txt"), codec=codec, lowercase=True, valid_fraction=0, test_fraction=0
    )
    assert splits.codec.decode(splits.train.events) == text.lower()
    assert "ς" in text.lower() and "σ" in text.lower()
