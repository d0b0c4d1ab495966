"""What --stop, --regex and --template say about text, as automata over the tokens of a run."""

from typing import Any

import numpy as np

from grnn_jax import sampling
from grnn_jax.data.unseen import unknown_symbols
from grnn_jax.errors import InputError
from grnn_jax.model import Model
from grnn_jax.sampling.regex import unmatched_parts

MAX_CELLS = 2**28
"""Most pairs of a length and a state of an automaton."""
BLANK = "_"
"""What stands for a token to be filled in, in a template."""


def spellings(codec: Any) -> list[str]:
    """The text of each token; bytes as the characters of the same number."""
    if codec.is_bytes:
        return [chr(byte) for byte in range(256)] + [""] * (codec.size - 256)
    return [codec.decode([token]) for token in range(codec.size)]


def stop_automaton(codec: Any, stops: list[str]) -> sampling.Automaton:
    """The automaton over tokens that accepts after any of some texts."""
    texts = spellings(codec)
    alphabet = sorted(set("".join(texts)))
    index = {symbol: number for number, symbol in enumerate(alphabet)}
    words = []
    for stop in stops:
        text = stop.lower() if codec.lowercase else stop
        if codec.is_bytes:
            text = text.encode("utf-8", "surrogateescape").decode("latin-1")
        if not text:
            raise InputError("--stop must not be empty")
        if unknown := [symbol for symbol in text if symbol not in index]:
            raise InputError(f"--stop: {unknown[0]!r} is no symbol of this run, got {stop!r}")
        words.append([index[symbol] for symbol in text])
    automaton = sampling.stop_sequences(words, len(alphabet))
    return sampling.automaton_over_tokens(
        automaton, [[index[symbol] for symbol in text] for text in texts]
    )


def make_constraint(
    model: Model, codec: Any, regex: str, template: str, length: int | None, default_length: int
) -> sampling.Constraint:
    """The constraint of a regular expression, or of a template.

    Raises:
        InputError: it is not valid, or nothing satisfies it.
    """
    name = "regex" if regex else "template"
    ends = int(codec.end is not None)
    try:
        if name == "regex":
            automaton = regex_automaton(codec, regex)
            _check_size(automaton, length or default_length)
            try:
                return sampling.make_constraint(model, automaton, length or default_length)
            except ValueError:
                _say_why(automaton, codec, regex, length or default_length)
                raise
        tokens = template_tokens(codec, template)
        if length is not None and length != len(tokens) + ends:
            raise InputError(
                f"--length of this template is {len(tokens) + ends}, got {length}: leave it out"
            )
        automaton = sampling.template(tokens, codec.size)
        return sampling.make_constraint(model, automaton, len(tokens) + ends)
    except ValueError as error:
        raise (
            error if isinstance(error, InputError) else InputError(f"--{name}: {error}")
        ) from error


def _check_size(automaton: sampling.Automaton, length: int) -> None:
    """Raises InputError where the table of what is possible, at each length, is too large."""
    most = MAX_CELLS // len(automaton.table)
    if length > most:
        raise InputError(f"--length must be at most {most} with this --regex, got {length}")


def regex_automaton(codec: Any, pattern: str) -> sampling.Automaton:
    """The automaton over tokens of a regular expression over their text."""
    if codec.is_bytes and not pattern.isascii():
        raise InputError(f"--regex of a run of bytes must be ASCII, got {pattern!r}")
    texts: list[str | None] = list(spellings(codec))
    if codec.unknown is not None:
        texts[codec.unknown] = None  # What is unknown has no text.
    alphabet = sorted({symbol for text in texts for symbol in text or ""})
    index = {symbol: number for number, symbol in enumerate(alphabet)}
    # The end has no text; how an automaton moves on it is ignored.
    spelled = [None if text is None else [index[symbol] for symbol in text] for text in texts]
    return sampling.automaton_over_tokens(sampling.compile_regex(pattern, alphabet), spelled)


def _say_why(automaton: sampling.Automaton, codec: Any, pattern: str, length: int) -> None:
    """Raises InputError where no text of the length matches: for a symbol, or for its length."""
    table, accepting = np.asarray(automaton.table), np.asarray(automaton.accepting)
    tokens = np.delete(table, [] if codec.end is None else codec.end, axis=1)
    reached, lengths = np.arange(len(table)) == 0, []
    for num_tokens in range(max(length, len(table)) + 1):
        if (reached & accepting).any():
            lengths.append(num_tokens)
            if codec.end is not None:
                break  # A text may be shorter than the length.
        reached = np.isin(np.arange(len(table)), tokens[reached])
    ends = int(codec.end is not None)
    if not lengths:
        alphabet = "".join(spellings(codec))
        parts = unmatched_parts(pattern, sorted(set(alphabet)))
        why = (
            f"no symbol of this run matches {', '.join(map(repr, parts))}"
            if parts
            else ("its tokens spell no text that matches")
        )
        raise InputError(f"--regex: {why}, got {pattern!r}")
    if ends and lengths[0] + ends > length:
        raise InputError(
            f"--regex: the shortest text that matches has {lengths[0]} tokens and the end; "
            f"--length must be at least {lengths[0] + ends}, got {length}"
        )
    if not ends and length not in lengths:
        near = min(lengths, key=lambda each: abs(each - length))
        raise InputError(
            f"--regex: no text of exactly {length} tokens matches, one of {near} does; "
            "give another --length"
        )


def template_tokens(codec: Any, template: str) -> np.ndarray:
    """The tokens of a template, `sampling.FREE` for blanks."""
    pieces = template.replace("\\" + BLANK, "\0").split(BLANK)
    tokens: list[int] = []
    for number, piece in enumerate(pieces):
        text = piece.replace("\0", BLANK)
        ids = codec.encode(text, "--template").tolist() if text else []
        if codec.unknown in ids:
            _check_known(codec, text)
        tokens += ([sampling.FREE] if number else []) + ids
    return np.array(tokens, np.int32)


def _check_known(codec: Any, text: str) -> None:
    """Raises InputError for a word outside the vocabulary, other than the unknown one itself."""
    unknown = unknown_symbols(codec, codec.split(text.lower() if codec.lowercase else text))
    if unknown:
        raise InputError(
            f"--template: {unknown[0]!r} is not among the {codec.num_symbols} words of this run, "
            f"which would take it for {codec.decode([codec.unknown])}"
        )
