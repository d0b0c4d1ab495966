r"""Regular expressions as deterministic automata over symbols.

The subset of Python's `re`, always matched against the whole sequence:

    a            a character                        .          any character but a newline
    [a-z0] [^a]  a class                            \d \w \s   a kind of character; \D \W \S not
    (x) (?:x)    a group                            \n \t \r   whitespace; \xhh, \uhhhh code points
    x|y          either                             \. \( …    a punctuation mark itself
    x* x+ x?     any number, at least one, at most one
    x{m} x{m,n} x{m,} x{,n} x{,}                    m, m to n, at least m, at most n, any number

Not anchors, back references, look-around, flags, or lazy and possessive repetition, which would
be no regular expressions or change nothing about what matches.
"""

import re
import warnings
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import Bool, Int
from grnn_jax.sampling.automaton import Automaton

MAX_STATES = 20_000
"""Most states of an automaton."""
MAX_DEPTH = 50
"""Most groups inside each other."""
MAX_REPEATS = 1000
"""Most repetitions that braces may ask for."""

_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[dDwWsSntrfv]|[^a-zA-Z0-9])", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_BRACES = re.compile(r"\{(?:(\d+)|(\d*),(\d*))\}")


class _Nfa:
    """Thompson's automaton: states with moves on sets of symbols, and moves on nothing."""

    def __init__(self, symbols: Sequence[str]):
        self.symbols = symbols
        self.empty: list[list[int]] = []
        self.moves: list[list[tuple[Bool[np.ndarray, " A"], int]]] = []
        self.unmatched: list[str] = []

    def state(self) -> int:
        """A new state."""
        self.empty.append([])
        self.moves.append([])
        if len(self.empty) > 10 * MAX_STATES:
            raise ValueError("pattern repeats too much: its automaton has too many states")
        return len(self.empty) - 1

    def one_of(self, text: str) -> tuple[int, int]:
        """The fragment that matches one symbol, as Python's `re` understands `text`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            matches = re.compile(text).fullmatch
        begin, end = self.state(), self.state()
        mask = np.array([matches(symbol) is not None for symbol in self.symbols], bool)
        self.moves[begin].append((mask, end))
        if not mask.any() and text not in self.unmatched:
            self.unmatched.append(text)
        return begin, end


Build = Callable[[_Nfa], tuple[int, int]]
"""Adds a fragment to an automaton, and says where it begins and ends."""


def _nothing(nfa: _Nfa) -> tuple[int, int]:
    state = nfa.state()
    return state, state


def _sequence(parts: Sequence[Build]) -> Build:
    def build(nfa: _Nfa) -> tuple[int, int]:
        begin, end = _nothing(nfa)
        for part in parts:
            first, last = part(nfa)
            nfa.empty[end].append(first)
            end = last
        return begin, end

    return build


def _either(parts: Sequence[Build]) -> Build:
    def build(nfa: _Nfa) -> tuple[int, int]:
        begin, end = nfa.state(), nfa.state()
        for part in parts:
            first, last = part(nfa)
            nfa.empty[begin].append(first)
            nfa.empty[last].append(end)
        return begin, end

    return build


def _any_number(part: Build) -> Build:
    def build(nfa: _Nfa) -> tuple[int, int]:
        begin, end = nfa.state(), nfa.state()
        first, last = part(nfa)
        nfa.empty[begin] += [first, end]
        nfa.empty[last] += [first, end]
        return begin, end

    return build


def _repeated(part: Build, least: int, most: int | None) -> Build:
    parts = [part] * least
    if most is None:
        return _sequence([*parts, _any_number(part)])
    return _sequence(parts + [_either([part, _nothing])] * (most - least))


class _Parser:
    """Recursive descent over the grammar either → sequence → repeated → atom."""

    def __init__(self, pattern: str):
        self.pattern = pattern
        self.at = 0
        self.depth = 0

    def fail(self, message: str) -> ValueError:
        return ValueError(f"pattern {self.pattern!r:.100}: {message} at position {self.at}")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def whole(self) -> Build:
        build = self.either()
        if self.at < len(self.pattern):
            raise self.fail("a ) that closes nothing")
        return build

    def either(self) -> Build:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else _either(parts)

    def sequence(self) -> Build:
        parts = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeated())
        return _sequence(parts)

    def repeated(self) -> Build:
        if self.peek() in ("*", "+", "?") or _BRACES.match(self.pattern, self.at):
            raise self.fail("nothing to repeat")
        part = self.atom()
        braces = _BRACES.match(self.pattern, self.at)
        if self.peek() in ("*", "+", "?") and self.peek():
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[self.peek()]
            self.at += 1
        elif braces:
            exactly, low, high = braces.groups()
            least = int(exactly or low or 0)
            most = least if exactly else (int(high) if high else None)
            if max(least, most or 0) > MAX_REPEATS or (most is not None and most < least):
                raise self.fail(f"repetition must be {{m,n}} with m <= n <= {MAX_REPEATS}")
            self.at = braces.end()
        else:
            return part
        if self.peek() in ("*", "+", "?") and self.peek():
            raise self.fail("lazy, possessive or double repetition, which is not supported,")
        return _repeated(part, least, most)

    def atom(self) -> Build:
        char = self.peek()
        if char == "(":
            return self.group()
        if char in ("^", "$"):
            raise self.fail("an anchor (the whole sequence is always matched)")
        if char == "[":
            match = _CLASS.match(self.pattern, self.at)
            if not match:
                raise self.fail("a class without its ]")
        elif char == "\\":
            match = _ESCAPE.match(self.pattern, self.at)
            if not match:
                raise self.fail("an escape that is not supported")
        else:
            match = None
        text = match.group() if match else (char if char == "." else re.escape(char))
        try:
            re.compile(text)
        except re.error as error:
            raise self.fail(f"{error.msg}") from error
        self.at += len(match.group()) if match else 1
        return lambda nfa: nfa.one_of(text)

    def group(self) -> Build:
        opening = self.at
        self.at += 1
        if self.peek() == "?":
            if not self.pattern.startswith("?:", self.at):
                raise self.fail("a group other than (…) and (?:…)")
            self.at += 2
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"more than {MAX_DEPTH} groups inside each other")
        build = self.either()
        self.depth -= 1
        if self.peek() != ")":
            self.at = opening
            raise self.fail("a ( that is not closed")
        self.at += 1
        return build


def compile_regex(pattern: str, symbols: Sequence[str]) -> Automaton:
    """The smallest automaton that accepts what a regular expression matches.

    Args:
        pattern: see above.
        symbols: the alphabet, one character each.

    Returns:
        The automaton over indices of symbols.

    Raises:
        ValueError: for a pattern outside the subset, with the place, or one whose automaton has
            more than `MAX_STATES` states.

    Reference: K. Thompson, "Regular expression search algorithm", Communications of the ACM 11,
    1968.

    Example:
        >>> from grnn_jax import sampling
        >>> automaton = sampling.compile_regex("a+b", "ab")
        >>> state = 0
        >>> for symbol in "aab":
        ...     state = automaton.table[state, "ab".index(symbol)]
        >>> bool(automaton.accepting[state])
        True
    """
    nfa, begin, end = _build(pattern, symbols)
    table, accepting = _determinise(nfa, begin, end)
    table, accepting = _minimise(table, accepting)
    return Automaton(jnp.asarray(table), jnp.asarray(accepting))


def unmatched_parts(pattern: str, symbols: Sequence[str]) -> list[str]:
    """The characters and classes of a regular expression that no symbol matches.

    Args:
        pattern: as for `compile_regex`.
        symbols: the alphabet, one character each.

    Returns:
        Them, as they stand in the pattern, each once.

    Example:
        >>> unmatched_parts(r"[ab]c|d*c", "abd")
        ['c']
    """
    return _build(pattern, symbols)[0].unmatched


def _build(pattern: str, symbols: Sequence[str]) -> tuple[_Nfa, int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        build = _Parser(pattern).whole()
    nfa = _Nfa(symbols)
    begin, end = build(nfa)
    return nfa, begin, end


def _determinise(
    nfa: _Nfa, begin: int, end: int
) -> tuple[Int[np.ndarray, "S A"], Bool[np.ndarray, " S"]]:
    """The subset construction."""

    def closure(states: set[int]) -> frozenset[int]:
        stack, seen = list(states), set(states)
        while stack:
            for following in nfa.empty[stack.pop()]:
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
        return frozenset(seen)

    # Symbols that no class of the pattern tells apart move alike.
    masks = [mask for moves in nfa.moves for mask, _ in moves]
    columns = np.stack(masks, 1) if masks else np.zeros((len(nfa.symbols), 1), bool)
    _, first, kind = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    index = {closure({begin}): 0}
    queue = list(index)
    rows: list[list[int]] = []
    for states in queue:
        moves = [move for state in states for move in nfa.moves[state]]
        row = []
        for symbol in first:
            following = closure({target for mask, target in moves if mask[symbol]})
            if following not in index:
                index[following] = len(index)
                queue.append(following)
                if len(index) > MAX_STATES:
                    raise ValueError(f"pattern needs more than {MAX_STATES} states")
            row.append(index[following])
        rows.append(row)
    accepting = np.array([end in states for states in index])
    return np.array(rows, np.int32)[:, kind.reshape(-1)], accepting


def _minimise(
    table: Int[np.ndarray, "S A"], accepting: Bool[np.ndarray, " S"]
) -> tuple[Int[np.ndarray, "M A"], Bool[np.ndarray, " M"]]:
    """Moore's partition refinement; state 0 stays the first."""
    label, count = accepting.astype(np.int64), 0
    while True:
        signature = np.concatenate([label[:, None], label[table]], 1)
        _, first, label = np.unique(signature, axis=0, return_index=True, return_inverse=True)
        label = label.reshape(-1)
        if len(first) == count:
            break
        count = len(first)
    # Number the classes by the first state of each, so that the class of state 0 is 0.
    order = np.argsort(first)
    rank = np.argsort(order)
    return rank[label[table[first[order]]]].astype(np.int32), accepting[first[order]]
