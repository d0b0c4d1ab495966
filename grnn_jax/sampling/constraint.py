"""Constraints: the set of sequences that an automaton accepts, and what it still allows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Int
from grnn_jax.model import Model
from grnn_jax.sampling.automaton import Automaton
from grnn_jax.sampling.settings import check_tokens_model

FREE = -1
"""A position of a template that any token may take."""


class Constraint(NamedTuple):
    """A set of sequences of at most L events, as tables.

    Attributes:
        table: next state for each state and token, [S, V]; the first state is 0.
        possible: [L + 1, S], True where a sequence in this state with that many steps left can
            still become one of the set.
        ended: the state after the end of a sequence, or -1 where sequences have no end.
    """

    table: Int[Array, "S V"]
    possible: Bool[Array, "L1 S"]
    ended: Int[Array, ""]

    @property
    def length(self) -> int:
        """L."""
        return self.possible.shape[0] - 1

    def allowed(self, state: Int[Array, " B"], left: Int[Array, " B"]) -> Bool[Array, "B V"]:
        """The tokens after which a sequence with `left` steps left is not yet lost."""
        return self.possible[jnp.maximum(left - 1, 0)[:, None], self.table[state]]


def make_constraint(model: Model, automaton: Automaton, length: int) -> Constraint:
    """The sequences of a model that an automaton accepts.

    Where the model's sequences end, these are the accepted sequences followed by the end, in at
    most `length` events together; else the accepted sequences of exactly `length` events.

    Args:
        model: a model of tokens; of it only its end matters.
        automaton: over all its tokens; how it moves on the end is ignored.
        length: L.

    Raises:
        ValueError: if there is no such sequence.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> list(sampling.enumerate_sequences(constraint))
        [[1, 0, 2], [1, 1, 2], [1, 2, 2]]
    """
    check_tokens_model(model, "a constraint")
    ended = -1
    table, accepting = np.asarray(automaton.table), np.asarray(automaton.accepting)
    num_states, num_classes = table.shape
    if model.distribution.is_end is not None:
        ends = np.asarray(model.distribution.is_end(jnp.arange(num_classes)))
        ended, lost = num_states, num_states + 1
        table = np.concatenate([table, [[ended] * num_classes, [lost] * num_classes]])
        table[:num_states, ends] = np.where(accepting, ended, lost)[:, None]
        accepting = np.arange(num_states + 2) == ended
    possible = [accepting]
    for _ in range(length):
        possible.append(possible[-1][table].any(1))
    if not possible[-1][0]:
        exactly = "exactly" if model.distribution.is_end is None else "at most"
        raise ValueError(f"no sequence of {exactly} {length} events satisfies the constraint")
    return Constraint(
        jnp.asarray(table, jnp.int32), jnp.asarray(np.stack(possible)), jnp.int32(ended)
    )


def check_constraint(model: Model, constraint: Constraint) -> None:
    """Raises ValueError unless the constraint is over the tokens of the model."""
    check_tokens_model(model, "a constraint")
    given, num_tokens = constraint.table.shape[1], model.distribution.num_tokens
    if given != num_tokens:
        raise ValueError(
            f"constraint must be over the {num_tokens} tokens of the model, got {given}"
        )


def step_masks(allowed: Bool[AnyArray, "T V"]) -> Automaton:
    """The automaton of the sequences of T tokens each of which is allowed at its step.

    Example:
        >>> from grnn_jax import sampling
        >>> import numpy as np
        >>> automaton = sampling.step_masks(np.array([[True, False], [True, True]]))
        >>> automaton.table.shape  # a state for each length, and one for what is not allowed
        (4, 2)
    """
    allowed = np.asarray(allowed)
    length = len(allowed)
    table = np.full((length + 2, allowed.shape[1]), length + 1, np.int32)
    table[:length] = np.where(allowed, np.arange(1, length + 1)[:, None], length + 1)
    return Automaton(jnp.asarray(table), jnp.arange(length + 2) == length)


def template(tokens: Sequence[int] | Int[AnyArray, " T"], num_classes: int) -> Automaton:
    """The automaton of the sequences with given tokens at some positions, for infilling.

    Args:
        tokens: the token of each position, `FREE` (-1) where it may be any.
        num_classes: V.

    Raises:
        ValueError: for a token outside [0, V).

    Example:
        >>> from grnn_jax import sampling
        >>> automaton = sampling.template([1, sampling.FREE], num_classes=2)
        >>> state = automaton.table[automaton.table[0, 1], 0]  # after the tokens 1, 0
        >>> bool(automaton.accepting[state])
        True
    """
    array = np.asarray(tokens, np.int64)
    outside = array[(array < FREE) | (array >= num_classes)]
    if outside.size:
        raise ValueError(f"tokens must lie in [0, {num_classes}) or be -1, got {outside[0]}")
    return step_masks((array[:, None] == FREE) | (array[:, None] == np.arange(num_classes)))


def free_states(constraint: Constraint) -> Bool[np.ndarray, "L1 S"]:
    """True where a sequence in this state, with that many steps left, is a good prefix of C.

    That is, all its continuations satisfy C, so that C has probability 1 from there on under any
    model. Where sequences end that is only after the end, as they must end in time.

    Reference: O. Kupferman, M. Y. Vardi, "Model checking of safety properties", Formal Methods in
    System Design 19, 2001 (good and bad prefixes).
    """
    table = np.asarray(constraint.table)
    free = [np.asarray(constraint.possible)[0]]
    for _ in range(constraint.length):
        free.append(free[-1][table].all(1))
    return np.stack(free)


def count_sequences(constraint: Constraint) -> float:
    """How many sequences satisfy the constraint (inf if too many for a float).

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> sampling.count_sequences(constraint)
        3.0
    """
    whole = np.asarray(constraint.possible).copy()
    whole[1:] = np.arange(whole.shape[1]) == int(constraint.ended)
    return _count(constraint, whole)


def count_good_prefixes(constraint: Constraint) -> float:
    """How many shortest good prefixes there are (see `free_states`; inf as `count_sequences`).

    A template without an end has as many as its blanks up to the last given token can be filled
    in, whatever follows.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> automaton = sampling.template([1, 2, sampling.FREE], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> sampling.count_sequences(constraint), sampling.count_good_prefixes(constraint)
        (3.0, 1.0)
    """
    return _count(constraint, free_states(constraint))


def _count(constraint: Constraint, whole: Bool[np.ndarray, "L1 S"]) -> float:
    """How many ways lead from the first state to one that is whole; none goes on after one."""
    table, paths = np.asarray(constraint.table), whole[0].astype(np.float64)
    with np.errstate(over="ignore"):
        for at in whole[1:]:
            paths = np.where(at, 1.0, paths[table].sum(1))
    return float(paths[0])


def enumerate_sequences(constraint: Constraint) -> Iterator[list[int]]:
    """Every sequence that satisfies the constraint, in lexicographic order.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> automaton = sampling.template([1, sampling.FREE, 2], 3)
        >>> constraint = sampling.make_constraint(model, automaton, length=3)
        >>> next(sampling.enumerate_sequences(constraint))
        [1, 0, 2]
    """
    table, possible = np.asarray(constraint.table), np.asarray(constraint.possible)
    final = np.arange(len(table)) == int(constraint.ended)

    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        state, word = stack.pop()
        left = constraint.length - len(word)
        if final[state] or left == 0:
            yield word
            continue
        tokens = np.flatnonzero(possible[left - 1, table[state]]).tolist()
        stack += [(int(table[state, token]), [*word, token]) for token in reversed(tokens)]
