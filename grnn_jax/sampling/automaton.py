"""Finite automata over tokens, as transition tables on the device."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Bool, Int


class Automaton(NamedTuple):
    """A deterministic finite automaton over tokens; its first state is 0.

    Attributes:
        table: next state for each state and token, [S, V].
        accepting: True for the states in which a sequence may end, [S].
    """

    table: Int[AnyArray, "S V"]
    accepting: Bool[AnyArray, " S"]


def stop_sequences(sequences: Sequence[Sequence[int]], num_classes: int) -> Automaton:
    """The automaton that accepts as soon as any of some token sequences has been drawn.

    Args:
        sequences: the token sequences, none empty.
        num_classes: V.

    Returns:
        The automaton of Aho and Corasick; once it accepts it stays there.

    Raises:
        ValueError: for no sequence, an empty one, or a token outside [0, V).

    Reference: A. V. Aho, M. J. Corasick, "Efficient string matching: an aid to bibliographic
    search", Communications of the ACM 18, 1975.

    Example:
        >>> from grnn_jax import sampling
        >>> automaton = sampling.stop_sequences([[1, 2]], num_classes=3)
        >>> state = 0
        >>> for token in (1, 1, 2):
        ...     state = automaton.table[state, token]
        >>> bool(automaton.accepting[state])
        True
    """
    words = [[int(token) for token in sequence] for sequence in sequences]
    if not words or not all(words):
        raise ValueError(f"sequences must hold at least one token each, got {words}")
    if outside := [token for word in words for token in word if not 0 <= token < num_classes]:
        raise ValueError(f"sequences must hold tokens in [0, {num_classes}), got {outside[0]}")
    children: list[dict[int, int]] = [{}]
    accepting = [False]
    for word in words:
        state = 0
        for token in word:
            if token not in children[state]:
                children[state][token] = len(children)
                children.append({})
                accepting.append(False)
            state = children[state][token]
        accepting[state] = True
    table = np.zeros((len(children), num_classes), np.int32)
    failure = np.zeros(len(children), np.int32)
    queue = collections.deque([0])
    while queue:
        state = queue.popleft()
        # The longest proper suffix is shorter, so that its row is complete.
        table[state] = table[failure[state]] if state else 0
        accepting[state] |= accepting[failure[state]]
        for token, child in children[state].items():
            failure[child] = table[failure[state], token] if state else 0
            table[state, token] = child
            queue.append(child)
    states = np.flatnonzero(accepting)
    table[states] = states[:, None]
    return Automaton(jnp.asarray(table), jnp.asarray(accepting))


def automaton_over_tokens(
    automaton: Automaton, spellings: Sequence[Sequence[int] | None]
) -> Automaton:
    """The automaton over tokens, given one over the symbols that tokens are spelled with.

    Args:
        automaton: over the symbols.
        spellings: for each token its symbols, or None for a token that leads nowhere.

    Returns:
        The automaton [S + 1, V] whose last state is the one that leads nowhere. A token moves
        it as its symbols do one after another.

    Example:
        >>> from grnn_jax import sampling
        >>> letters = sampling.compile_regex("ab", "ab")
        >>> spellings = [[0], [1], [0, 1], None]  # a, b, ab, end
        >>> tokens = sampling.automaton_over_tokens(letters, spellings)
        >>> bool(tokens.accepting[tokens.table[0, 2]])  # one token spells the whole
        True
    """
    symbols, accepting = np.asarray(automaton.table), np.asarray(automaton.accepting)
    dead = len(symbols)
    table = np.full((dead + 1, len(spellings)), dead, np.int32)
    for token, spelling in enumerate(spellings):
        if spelling is not None:
            states = np.arange(dead)
            for symbol in spelling:
                states = symbols[states, symbol]
            table[:dead, token] = states
    return Automaton(jnp.asarray(table), jnp.asarray(np.append(accepting, False)))
