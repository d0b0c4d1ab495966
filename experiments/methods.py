"""What sample.py can do with text beside drawing from the model: searches, constraints, stops."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flags as experiment_flags
import jax
import numpy as np
from absl import logging

from grnn_jax import sampling
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run

FLAGS = experiment_flags.FLAGS
BLANK = "_"
"""What stands for a token to be filled in, in a template."""
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "bias")
"""Flags that are options of the family's `sample`."""
BATCH_SIZE = 256
ENUMERATED_BATCH_SIZE = 4096
FEW = 10_000
"""Most beginnings of samples that are enumerated without being asked for."""


class Method(NamedTuple):
    """A method of drawing text.

    Attributes:
        draw: (run, prefix, key, num_samples, length, default_length) -> an iterator of (events,
            nats of each, extras); None for the one that sample.py has itself.
        flags: flags that not all methods have.
        constrained: whether it draws under --regex or --template.
    """

    draw: Callable[..., Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]] | None
    flags: tuple[str, ...] = ()
    constrained: bool = False


def define_flags() -> None:
    """Defines the flags of this file."""
    define = experiment_flags.define
    help = "Keep events of at least this share of the largest probability; 0 keeps all."
    define("float", "min_p", 0.0, help)
    help = "Keep the locally typical events up to this probability; 1 keeps all."
    define("float", "typical_p", 1.0, help)
    help = "Exponent of the probability of symbols that have occurred; above 1: fewer repetitions."
    define("float", "repetition_penalty", 1.0, help)
    help = "Text after which a sample ends, itself included"
    define("multi_string", "stop", None, help)
    help = (
        "ancestral: draw from the model. beam: the most probable samples. stochastic_beam: "
        "different samples, drawn without replacement. Under --regex or --template: enumerate: "
        "exactly the model given the constraint, if few beginnings decide it; particles: nearly "
        "so, whatever their number; masked: allowed symbols only, with weights. Empty: ancestral, "
        "under a constraint enumerate or else particles."
    )
    define("enum", "method", None, help, enum_values=list(METHODS))
    define("integer", "beam_width", 8, "Beams of --method=beam.")
    define("float", "length_penalty", 0.0, "Beams: above 0 prefers longer samples.")
    define("integer", "beam_groups", 1, "Beams: groups that are kept apart by --diversity.")
    define("float", "diversity", 0.0, "Beams: penalty of what groups before have chosen.")
    define("integer", "num_particles", 64, "Particles of each sample of --method=particles.")
    help = (
        "Regular expression (a subset of Python's, see grnn_jax/sampling/regex.py) that every "
        "sample matches as a whole, the prefix apart: in --length events at most, the end "
        "included, in exactly so many where a sample has no end."
    )
    define("string", "regex", "", help)
    help = f"Text with {BLANK} for each symbol to be filled in; \\{BLANK} is {BLANK} itself."
    define("string", "template", "", help)


def is_given(name: str) -> bool:
    """Whether a flag differs from its default."""
    return FLAGS[name].value != FLAGS[name].default


def asked_method() -> str:
    """The method that the flags ask for.

    Raises:
        InputError: flags that do not go together, or a number outside its range.
    """
    constraints = [name for name in ("regex", "template") if FLAGS[name].value]
    if len(constraints) > 1:
        raise InputError("--regex and --template do not go together: give one of them")
    name = FLAGS.method or ("particles" if constraints else "ancestral")
    method = METHODS[name]
    if method.constrained and not constraints:
        raise InputError(f"--method={name} needs --regex or --template")
    if constraints and not method.constrained:
        able = ", ".join(n for n, m in METHODS.items() if m.constrained)
        raise InputError(f"--{constraints[0]} needs a --method of {able}, got {name}")
    for other in sorted({flag for m in METHODS.values() for flag in m.flags}):
        if experiment_flags.is_typed(other) and other not in method.flags:
            able = ", ".join(n for n, m in METHODS.items() if other in m.flags)
            raise InputError(f"--{other} is for --method={able}, and has no effect on {name}")
    for flag in ("beam_width", "beam_groups", "num_particles"):
        if FLAGS[flag].value < 1:
            raise InputError(f"--{flag} must be at least 1, got {FLAGS[flag].value}")
    for flag in ("length_penalty", "diversity"):
        if not FLAGS[flag].value >= 0:
            raise InputError(f"--{flag} must be at least 0, got {FLAGS[flag].value}")
    if not 0 <= FLAGS.min_p <= 1:
        raise InputError(f"--min_p must be from 0 to 1, got {FLAGS.min_p}")
    if not 0 < FLAGS.typical_p <= 1:
        raise InputError(f"--typical_p must be greater than 0 and at most 1, got {FLAGS.typical_p}")
    if not FLAGS.repetition_penalty > 0:
        raise InputError(f"--repetition_penalty must be positive, got {FLAGS.repetition_penalty}")
    if name == "masked" and not FLAGS.temperature > 0:
        raise InputError("--temperature of --method=masked must be positive, got 0")
    if name == "beam" and FLAGS.beam_width < FLAGS.num_samples:
        raise InputError(
            f"--beam_width={FLAGS.beam_width} must be at least --num_samples={FLAGS.num_samples}"
        )
    if name == "beam" and FLAGS.beam_width % FLAGS.beam_groups:
        raise InputError(
            f"--beam_groups={FLAGS.beam_groups} must divide --beam_width={FLAGS.beam_width}"
        )
    if name == "beam" and (FLAGS.beam_groups > 1) != (FLAGS.diversity > 0):
        raise InputError(
            "--beam_groups above 1 and --diversity above 0 have an effect together only, got "
            f"--beam_groups={FLAGS.beam_groups} --diversity={FLAGS.diversity:g}"
        )
    return name


def token_options(run: Run) -> dict[str, Any]:
    """The options of ancestral sampling that only tokens have: a penalty, stops.

    Raises:
        InputError: the run has no such tokens, or a stop cannot occur.
    """
    asked = [name for name in ("repetition_penalty", "stop") if is_given(name)]
    if not asked:
        return {}
    if not run.codec.is_text:
        raise InputError(f"--{asked[0]} is for text, and samples of this run are {run.codec.name}")
    options: dict[str, Any] = {}
    if "repetition_penalty" in asked:
        options["repetition_penalty"] = FLAGS.repetition_penalty
    if "stop" in asked:
        options["stop"] = stop_automaton(run.codec, FLAGS.stop)
    return options


def spellings(codec: Any) -> list[str]:
    """The text of each token; bytes as the characters of the same number."""
    if codec.name == "bytes":
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
        if codec.name == "bytes":
            text = text.encode("utf-8", "surrogateescape").decode("latin-1")
        if not text:
            raise InputError("--stop must not be empty")
        if unknown := [symbol for symbol in text if symbol not in index]:
            raise InputError(f"--stop: {unknown[0]!r} is no symbol of this run, got {stop!r}")
        words.append([index[symbol] for symbol in text])
    automaton = sampling.stop_sequences(words, len(alphabet))
    return sampling.lift(automaton, [[index[symbol] for symbol in text] for text in texts])


def constraint(run: Run, length: int | None, default_length: int) -> sampling.Constraint:
    """The constraint of --regex or --template.

    Raises:
        InputError: it is not valid, or nothing satisfies it.
    """
    codec, name = run.codec, "regex" if FLAGS.regex else "template"
    ends = int(codec.end is not None)
    try:
        if name == "regex":
            automaton = regex_automaton(codec, FLAGS.regex)
            return sampling.make_constraint(run.model, automaton, length or default_length)
        tokens = template_tokens(codec, FLAGS.template)
        if length is not None and length != len(tokens) + ends:
            raise InputError(
                f"--length of this template is {len(tokens) + ends}, got {length}: leave it out"
            )
        automaton = sampling.template(tokens, codec.size)
        return sampling.make_constraint(run.model, automaton, len(tokens) + ends)
    except ValueError as error:
        raise (
            error if isinstance(error, InputError) else InputError(f"--{name}: {error}")
        ) from error


def regex_automaton(codec: Any, pattern: str) -> sampling.Automaton:
    """The automaton over tokens of a regular expression over their text."""
    if codec.name == "bytes" and not pattern.isascii():
        raise InputError(f"--regex of a run of bytes must be ASCII, got {pattern!r}")
    texts: list[str | None] = list(spellings(codec))
    if codec.name == "words":
        texts[0] = None  # What is unknown has no text.
    alphabet = sorted({symbol for text in texts for symbol in text or ""})
    index = {symbol: number for number, symbol in enumerate(alphabet)}
    # The end has no text; how an automaton moves on it is ignored.
    spelled = [None if text is None else [index[symbol] for symbol in text] for text in texts]
    return sampling.lift(sampling.compile_regex(pattern, alphabet), spelled)


def template_tokens(codec: Any, template: str) -> np.ndarray:
    """The tokens of a template, `sampling.FREE` for blanks."""
    pieces = template.replace("\\" + BLANK, "\0").split(BLANK)
    tokens: list[int] = []
    for number, piece in enumerate(pieces):
        text = piece.replace("\0", BLANK)
        tokens += ([sampling.FREE] if number else []) + (
            codec.encode(text, "--template").tolist() if text else []
        )
    return np.array(tokens, np.int32)


def _rows(samples: Any, extras: dict[str, Any]) -> Iterator[tuple]:
    """Events, nats and extras of each sequence of arrays [N, ...]."""
    arrays = [np.asarray(leaf) for leaf in (samples.events, samples.mask, samples.log_probs)]
    values = {name: np.asarray(value, np.float64) for name, value in extras.items()}
    for row, (events, mask, nats) in enumerate(zip(*arrays, strict=True)):
        yield events[mask], nats[mask], {name: float(v[row]) for name, v in values.items()}


def _beam(run, prefix, key, num_samples, length, default_length) -> Iterator[tuple]:
    beams = sampling.beam_search(
        run.model, run.params, FLAGS.beam_width, length or default_length,
        num_groups=FLAGS.beam_groups, diversity=FLAGS.diversity,
        length_penalty=FLAGS.length_penalty, prefix=prefix,
    )  # fmt: skip
    beams = jax.tree.map(lambda leaf: leaf[0], beams)
    # Groups one after another: the best of all of them first, what several found once.
    best = np.argsort(-np.asarray(beams.scores), kind="stable")
    best = best[np.asarray(beams.scores)[best] > -np.inf]
    events, mask = np.asarray(beams.events)[best], np.asarray(beams.mask)[best]
    _, first = np.unique(np.where(mask, events, -1), axis=0, return_index=True)
    best = best[np.sort(first)][:num_samples]
    beams = jax.tree.map(lambda leaf: leaf[best], beams)
    return _rows(beams, {"score": beams.scores})


def _stochastic_beam(run, prefix, key, num_samples, length, default_length) -> Iterator[tuple]:
    beams = sampling.stochastic_beam_search(
        run.model, run.params, key, num_samples, length or default_length, prefix=prefix
    )
    found = np.flatnonzero(np.asarray(beams.perturbed[0]) > -np.inf)
    extras = {"log_inclusion": beams.log_inclusion, "log_weight": beams.log_weights}
    extras = {name: values[0][found] for name, values in extras.items()}
    whole = beams._replace(threshold=beams.perturbed)
    return _rows(jax.tree.map(lambda leaf: leaf[0][found], whole), extras)


def _constrained(run, prefix, key, num_samples, length, default_length) -> Iterator[tuple]:
    allowed = constraint(run, length, default_length)
    name = asked_method()
    if not FLAGS.method and not experiment_flags.is_typed("num_particles"):
        name = "enumerate" if sampling.count_good_prefixes(allowed) <= FEW else name
    # Every batch enumerates anew.
    batch_size = ENUMERATED_BATCH_SIZE if name == "enumerate" else BATCH_SIZE
    for first in range(0, num_samples, batch_size):
        size = min(batch_size, num_samples - first)
        arguments = (run.model, run.params, key, size, allowed)
        settings = {"prefix": prefix, "first_index": first}
        if name == "masked":
            samples = sampling.sample_masked(*arguments, **settings, temperature=FLAGS.temperature)
            yield from _rows(samples, {"log_weight": samples.log_weights})
            continue
        if name == "enumerate":
            try:
                samples = sampling.sample_enumerated(*arguments, **settings)
            except ValueError as error:
                hint = "--method=particles has no such limit"
                raise InputError(f"--method=enumerate: {error}; {hint}") from error
        else:
            particles = sampling.sample_particles(
                *arguments, **settings, num_particles=FLAGS.num_particles
            )
            samples = particles.choice()
        yield from _rows(samples, {"log_evidence": samples.log_evidence})


def texts_by_method(run: Run, *, prefix: str, length: int | None, default_length: int) -> list[str]:
    """Draws text as --method says, in the form in which `write_samples` writes it.

    With --log_probs each JSON object has what belongs to the method too, natural logarithms all of
    them: score (beam); log_inclusion and log_weight (stochastic_beam); log_weight (masked);
    log_evidence (particles, enumerate).

    Args:
        run: a trained model of text.
        prefix: text that every sample begins with; constraints are about what follows it.
        length: most events of a sample; None where the flag was not given.
        default_length: what length is then, but for templates.

    Returns:
        The pieces to be written one after another, one for each sample.

    Raises:
        InputError: flags do not fit the run.
    """
    codec, method = run.codec, asked_method()
    if codec.end is None and experiment_flags.is_typed("length_penalty"):
        raise InputError("--length_penalty is for samples that end, and those of this run do not")
    start = codec.encode(prefix, "--prefix") if prefix else np.zeros(0, np.int32)
    draw = METHODS[method].draw
    assert draw is not None
    pieces, lengths = [], []
    key = jax.random.key(FLAGS.seed)
    drawn = draw(run, start if prefix else None, key, FLAGS.num_samples, length, default_length)
    for number, (events, nats, extras) in enumerate(drawn):
        text = codec.decode(np.concatenate([start, events]))
        lengths.append(len(events))
        if FLAGS.log_probs:
            total = float(-nats.sum(dtype=np.float64))
            record = {"text": text, "nats": total, "num_events": len(events)}
            pieces.append(json.dumps(record | extras, ensure_ascii=False) + "\n")
        elif codec.end is not None:
            pieces.append(text + "\n")
        else:
            pieces.append(("\n\n" if number else "") + text)
    if len(lengths) < FLAGS.num_samples:
        logging.warning("there are only %d such samples", len(lengths))
    log_lengths(lengths)
    return pieces


def log_lengths(lengths: Sequence[int], which: str = "") -> None:
    """Tells how long several samples are."""
    if len(lengths) > 1:
        logging.info(
            "%s%d samples of %d to %d events, on average %.1f",
            which, len(lengths), min(lengths), max(lengths), np.mean(lengths),
        )  # fmt: skip


METHODS = {
    "ancestral": Method(None, (*OPTIONS, "repetition_penalty", "stop", "seed")),
    "beam": Method(_beam, ("beam_width", "length_penalty", "beam_groups", "diversity")),
    "stochastic_beam": Method(_stochastic_beam, ("seed",)),
    "masked": Method(_constrained, ("temperature", "seed"), constrained=True),
    "particles": Method(_constrained, ("num_particles", "seed"), constrained=True),
    "enumerate": Method(_constrained, ("seed",), constrained=True),
}
"""By the value of --method."""
