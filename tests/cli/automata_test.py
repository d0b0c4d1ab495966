"""What --regex and --template say of what no text can satisfy."""

import pytest

from grnn_jax import make_model
from grnn_jax.cells import gru
from grnn_jax.cli.automata import make_constraint, template_tokens
from grnn_jax.data import build_codec
from grnn_jax.distributions import categorical
from grnn_jax.errors import InputError


def constraint(codec, regex="", template="", length=None):
    end = {} if codec.end is None else {"end": codec.end}
    model = make_model(gru(4), categorical(codec.size, **end))
    return make_constraint(model, codec, regex, template, length, 6)


CHARS = build_codec("chars", ["an old cat"], end=True)
STREAM = build_codec("chars", ["an old cat"])
WORDS = build_codec("words", ["an old cat sat"], end=True)


@pytest.mark.parametrize(
    ("codec", "regex", "length", "message"),
    [
        (CHARS, "c[aeé]tz", None, "--regex: no symbol of this run matches 'z', got"),
        (CHARS, "[A-Z]a|[xy]", None, r"no symbol of this run matches '\[A-Z\]', '\[xy\]'"),
        (CHARS, "a{6}", None, "has 6 tokens and the end; --length must be at least 7, got 6"),
        (CHARS, "a{3}|b", 2, "has 3 tokens and the end; --length must be at least 4, got 2"),
        (STREAM, "(ab?t){2}", None, "no text of exactly 6 tokens matches, one of 4 does"),
        (
            STREAM,
            "a{9}",
            5,
            "no text of exactly 5 tokens matches, one of 9 does; give another --le",
        ),
        (WORDS, "cats", None, "its tokens spell no text that matches, got 'cats'"),
    ],
)
def test_why_nothing_matches(codec, regex, length, message):
    with pytest.raises(InputError, match=message):
        constraint(codec, regex, length=length)


def test_what_matches():
    for codec, regex, length in (
        (CHARS, "a{5}", None), (CHARS, "z|cat", None), (STREAM, "a{9}", 9),
        (WORDS, "cat sat", None),
    ):  # fmt: skip
        constraint(codec, regex, length=length)


def test_a_template_of_words():
    with pytest.raises(InputError, match="--template: 'zebra' is not among the .* words of this r"):
        constraint(WORDS, template="zebra _")
    tokens = template_tokens(WORDS, "cat _")
    assert WORDS.decode(tokens[:2]) == "cat " and tokens[2] < 0
    with pytest.raises(InputError, match="--template, line 1, column 2: character 'Z'"):
        constraint(CHARS, template="cZ_")
