"""Regular expressions against Python's `re`, on every short text."""

import itertools
import re
import warnings

import numpy as np
import pytest

from grnn_jax import sampling

SYMBOLS = "ab1 \n.-"
PATTERNS = [
    "", "a", "ab|b1|", "a*", "(ab)+", "a?b?1?", "(?:a|b)*1", "[ab]{2}", "[^a]{1,2}", ".{2,}",
    "a{,2}b", "a{,}b", "[{,]b",
    r"\d+", r"\w\W", r"\s|\S\S", r"\.\-", r"[a-b.]*\n", r"[]a]", r"[^]a\d]+",
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


def random_pattern(rng, depth=3):
    """A pattern of the subset, or nearly."""
    kind = rng.integers(12) if depth else rng.integers(4)
    if kind < 4:
        return rng.choice(
            ["a", "b", "1", " ", ".", r"\w", r"\D", "[ab]", "[^a1]", "-", "{", "}", ","]
        )
    if kind < 6:
        return random_pattern(rng, depth - 1) + random_pattern(rng, depth - 1)
    if kind < 8:
        return f"({random_pattern(rng, depth - 1)}|{random_pattern(rng, depth - 1)})"
    part = f"(?:{random_pattern(rng, depth - 1)})" if kind % 2 else rng.choice(["a", "b", "[a-b]"])
    ends = ["*", "+", "?", "{2}", "{1,}", "{,2}", "{,}", "{0,1}", "{,0}", "{ }", "{}", "{a}", "{1"]
    return part + rng.choice(ends)


TEXTS = [
    "".join(text) for length in range(4) for text in itertools.product("ab1 -{},", repeat=length)
]


@pytest.mark.parametrize("seed", range(3))
def test_random_patterns_match_what_re_matches(seed):
    rng, num_patterns = np.random.default_rng(seed), 0
    symbols = "ab1 -{},"
    while num_patterns < 100:
        pattern = random_pattern(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            try:
                expected = re.compile(pattern)
                automaton = sampling.compile_regex(pattern, symbols)
            except (re.error, ValueError):
                continue  # Outside the subset, as the last test says.
        num_patterns += 1
        table, accepting = np.asarray(automaton.table), np.asarray(automaton.accepting)
        for text in TEXTS:
            state = 0
            for symbol in text:
                state = table[state, symbols.index(symbol)]
            assert accepting[state] == bool(expected.fullmatch(text)), (pattern, text)


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
