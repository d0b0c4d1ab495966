"""Damages bytes as disks, transfers, editors and enemies do."""

import random
import re

EXTREMES = (
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"", b"1e-300", b"99999999999999999999",
    b"2147483648", b"4294967296", b"true", b"null", b'"', b"'", b"NA", b"?", b"0x10", b"1_000",
    b"1,5", b"\xd9\xa3", b"\x00", b"\xff", b"[" * 3000, b"{", b"]", b"\r", b"\n", b"\t", b",", b" ",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"(", b"\\u0000", b"1" * 5000,
)  # fmt: skip
"""What is put in the place of a number or a word."""
_WORD = re.compile(rb"[-+.\w]+")
_LINE = re.compile(rb"[^\n]*\n?")


def _flip_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_number(data: bytearray, rng: random.Random) -> None:
    """Declares another length: 2, 4 or 8 bytes become an extreme number."""
    width = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    number = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (4 * width)))
    data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _delete(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 16, 100))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 4, 16))))


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 4, 64))] * rng.choice((1, 2, 50))


def _move(data: bytearray, rng: random.Random) -> None:
    a, b = rng.randrange(len(data)), rng.randrange(len(data))
    size = rng.choice((1, 8, 64))
    data[a : a + size] = data[b : b + size]


def _replace_word(data: bytearray, rng: random.Random) -> None:
    """Another number, or what is none, in the place of a word."""
    words = list(_WORD.finditer(data))
    if words:
        word = rng.choice(words)
        data[word.start() : word.end()] = rng.choice(EXTREMES)


def _drop_word(data: bytearray, rng: random.Random) -> None:
    words = list(_WORD.finditer(data))
    if words:
        word = rng.choice(words)
        del data[word.start() : word.end() + 1]


def _change_lines(data: bytearray, rng: random.Random) -> None:
    """A line left out, written twice, or moved."""
    lines = _LINE.findall(data)
    at = rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        del lines[at]
    else:
        lines.insert(at if kind == 1 else rng.randrange(len(lines)), lines[at])
    data[:] = b"".join(lines)


BYTES = (
    _flip_bit, _set_byte, _set_number, _truncate, _delete, _insert, _repeat, _move,
)  # fmt: skip
WORDS = (_replace_word, _replace_word, _drop_word, _change_lines)


def mutate(data: bytes, rng: random.Random, *, text: bool) -> bytes:
    """Damages a file in one to three places.

    Args:
        data: the bytes of a good file.
        rng: what is drawn comes from it.
        text: whether it has words and lines.

    Returns:
        Other bytes; those of a good file again now and then.
    """
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if damaged:
            rng.choice(BYTES + WORDS * 2 if text else BYTES)(damaged, rng)
    return bytes(damaged)
