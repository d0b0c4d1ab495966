"""Regular expressions against Python's `re`, on every short text."""

import itertools
import re

import numpy as np
import pytest

from grnn_jax import sampling

SYMBOLS = "ab1 \n.-"
PATTERNS = [
    "", "a", "ab|b1|", "a*", "(ab)+", "a?b?1?", "(?:a|b)*1", "[ab]{2}", "[^a]{1,2}", ".{2,}",
    "a{,2}b", r"\d+", r"\w\W", r"\s|\S\S", r"\.\-", r"[a-b.]*\n", r"[]a]", r"[^]a\d]+",
    r"\x61\u0062?", "(a|ab)(b|1)", "((a*)b?)*1", "a{0}b", r"[\w-]+", "-{3}|(a|b1){1,2}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_automata_accept_what_re_matches(pattern):
    automaton = sampling.compile_regex(pattern, SYMBOLS)
    table, accepting = np.asarray(automaton.table), np.asarray(automaton.accepting)
    states = {"": 0}
    for length in range(5):
        for text in map("".join, itertools.product(SYMBOLS, repeat=length)):
            if text:
                states[text] = table[states[text[:-1]], SYMBOLS.index(text[-1])]
            assert accepting[states[text]] == bool(re.fullmatch(pattern, text)), repr(text)


def test_automata_are_minimal():
    automaton = sampling.compile_regex("(a|b)*a(a|b){3}", "ab")
    assert automaton.table.shape == (16, 2)
    assert sampling.compile_regex("(aa|aaa)*|a", "ab").table.shape[0] == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", r"a \( that is not closed at position 1"),
        ("a)b", r"a \) that closes nothing at position 1"),
        ("*a", "nothing to repeat at position 0"),
        ("a*?", "lazy, possessive or double repetition"),
        ("^a", "an anchor"),
        ("[ab", "a class without its ]"),
        ("[b-a]", "bad character range"),
        (r"a\b", "an escape that is not supported at position 1"),
        (r"(a)\1", "an escape that is not supported"),
        ("(?=a)", "a group other than"),
        ("a{3,2}", "m <= n"),
        ("(a{1000}){1000}", "too many states"),
    ],
)
def test_patterns_outside_the_subset_are_named(pattern, message):
    with pytest.raises(ValueError, match=message) as raised:
        sampling.compile_regex(pattern, SYMBOLS)
    assert str(raised.value).startswith("pattern")
