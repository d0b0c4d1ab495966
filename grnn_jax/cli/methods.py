"""What sample.py can do with text beside drawing from the model: searches, constraints, stops."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from grnn_jax import sampling
from grnn_jax.array_types import PRNGKey
from grnn_jax.cli import flags
from grnn_jax.cli.automata import BLANK, make_constraint, stop_automaton
from grnn_jax.cli.text_samples import text_codec
from grnn_jax.drawing import BATCH_SIZE, Drawn
from grnn_jax.errors import InputError
from grnn_jax.ops.ahead import one_ahead
from grnn_jax.workdir import Run

FLAGS = flags.FLAGS
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "bias")
"""Flags that are options of the family's `sample`."""
MAX_WIDTH = 2**16
"""Most sequences that a search goes on with side by side."""
MAX_HELD = 2**30
"""Most events that are in memory at once."""
FEW = 10_000
"""Most beginnings of samples that are enumerated without being asked for."""

DrawFrom = Callable[[int], Iterator[Drawn]]
"""Number of a sample -> that one and all after it."""


class MakeDraw(Protocol):
    """How a method makes the function that draws."""

    def __call__(
        self,
        run: Run,
        prefix: np.ndarray | None,
        conditions: Float[np.ndarray, "..."] | None,
        key: PRNGKey,
        num_samples: int,
        length: int | None,
        default_length: int,
    ) -> DrawFrom:
        """Arguments as `draw_from`, which gives the prefix None where there is none."""


class Method(NamedTuple):
    """A method of drawing text.

    Attributes:
        draw: makes the function that draws; None for the one that `sample` has itself.
        flags: flags that not all methods have.
        constrained: whether it draws under --regex or --template.
    """

    draw: MakeDraw | None
    flags: tuple[str, ...] = ()
    constrained: bool = False


def define_flags() -> None:
    """Defines the flags of this file."""
    define = flags.define
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
    define("integer", "beam_width", 8, "Beams of --method=beam.", minimum=1, maximum=MAX_WIDTH)
    define("float", "length_penalty", 0.0, "Beams: above 0 prefers longer samples.", minimum=0)
    help = "Beams: groups that are kept apart by --diversity."
    define("integer", "beam_groups", 1, help, minimum=1, maximum=MAX_WIDTH)
    define(
        "float", "diversity", 0.0, "Beams: penalty of what groups before have chosen.", minimum=0
    )
    help = "Particles of each sample of --method=particles."
    define("integer", "num_particles", 64, help, minimum=1, maximum=MAX_WIDTH)
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
    return bool(flags.value(name) != FLAGS[name].default)


def asked_method() -> str:
    """The method that the flags ask for.

    Raises:
        InputError: flags that do not go together, or a number outside its range.
    """
    constraints = [name for name in ("regex", "template") if flags.value(name)]
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
        if flags.is_typed(other) and other not in method.flags:
            able = ", ".join(n for n, m in METHODS.items() if other in m.flags)
            raise InputError(f"--{other} is for --method={able}, and has no effect on {name}")
    if name == "masked" and not FLAGS.temperature > 0:
        raise InputError("--temperature of --method=masked must be positive, got 0")
    if name == "beam" and FLAGS.beam_width < FLAGS.num_samples:
        raise InputError(
            f"--beam_width={FLAGS.beam_width} must be at least --num_samples={FLAGS.num_samples}"
        )
    if name == "stochastic_beam" and FLAGS.num_samples > MAX_WIDTH:
        raise InputError(
            f"--num_samples of --method={name} must be at most {MAX_WIDTH}, got {FLAGS.num_samples}"
        )
    _check_held(name)
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


def _check_held(name: str) -> None:
    """Raises InputError where a method would hold more events in memory than any machine has."""
    rows = min(FLAGS.num_samples, BATCH_SIZE)
    if name == "ancestral" and FLAGS.num_samples == 1 and not FLAGS.log_probs:
        return  # A text is written while it is drawn.
    if name == "beam":
        rows = FLAGS.beam_width
    elif name == "stochastic_beam":
        rows = FLAGS.num_samples
    elif name == "particles":
        rows *= FLAGS.num_particles
    if rows * (FLAGS.length or 1) > MAX_HELD:
        raise InputError(
            f"--length must be at most {MAX_HELD // rows} where {rows} sequences are drawn side by "
            f"side, got {FLAGS.length}"
        )


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


def _rows(samples: Any, extras: dict[str, Any], first: int = 0) -> Iterator[Drawn]:
    """The sequences of arrays [N, ...] from one on, with their extras."""
    arrays = [np.asarray(leaf) for leaf in (samples.events, samples.mask, samples.log_probs)]
    values = {name: np.asarray(value, np.float64) for name, value in extras.items()}
    for row in range(first, len(arrays[0])):
        events, mask, nats = (array[row] for array in arrays)
        total = float(-nats[mask].sum(dtype=np.float64))
        own = {name: float(value[row]) for name, value in values.items()}
        yield Drawn(events[mask], total, int(mask.sum()), own)


def _all(samples: Any, extras: dict[str, Any], num_samples: int) -> DrawFrom:
    """For searches, which find all samples at once."""
    num_found = len(samples.events)
    if num_found < num_samples:
        logging.warning("there are only %d such samples", num_found)
    return lambda first: _rows(samples, extras, first)


def _beam(
    run: Run,
    prefix: np.ndarray | None,
    conditions: Float[np.ndarray, "..."] | None,
    key: PRNGKey,
    num_samples: int,
    length: int | None,
    default_length: int,
) -> DrawFrom:
    beams = sampling.beam_search(
        run.model, run.params, FLAGS.beam_width, length or default_length,
        num_groups=FLAGS.beam_groups, diversity=FLAGS.diversity,
        length_penalty=FLAGS.length_penalty, prefix=prefix, conditions=conditions,
    )  # fmt: skip
    beams = jax.tree.map(lambda leaf: leaf[0], beams)
    # Groups one after another: the best of all of them first, what several found once.
    best = np.argsort(-np.asarray(beams.scores), kind="stable")
    best = best[np.asarray(beams.scores)[best] > -np.inf]
    events, mask = np.asarray(beams.events)[best], np.asarray(beams.mask)[best]
    _, first = np.unique(np.where(mask, events, -1), axis=0, return_index=True)
    best = best[np.sort(first)][:num_samples]
    beams = jax.tree.map(lambda leaf: leaf[best], beams)
    return _all(beams, {"score": beams.scores}, num_samples)


def _stochastic_beam(
    run: Run,
    prefix: np.ndarray | None,
    conditions: Float[np.ndarray, "..."] | None,
    key: PRNGKey,
    num_samples: int,
    length: int | None,
    default_length: int,
) -> DrawFrom:
    beams = sampling.stochastic_beam_search(
        run.model, run.params, key, num_samples, length or default_length, prefix=prefix,
        conditions=conditions,
    )  # fmt: skip
    drawn = np.flatnonzero(np.asarray(beams.perturbed[0]) > -np.inf)
    extras = {"log_inclusion": beams.log_inclusion, "log_weight": beams.log_weights}
    extras = {name: values[0][drawn] for name, values in extras.items()}
    whole = beams._replace(threshold=beams.perturbed)
    return _all(jax.tree.map(lambda leaf: leaf[0][drawn], whole), extras, num_samples)


def _constrained(
    run: Run,
    prefix: np.ndarray | None,
    conditions: Float[np.ndarray, "..."] | None,
    key: PRNGKey,
    num_samples: int,
    length: int | None,
    default_length: int,
) -> DrawFrom:
    allowed = make_constraint(
        run.model, run.codec, FLAGS.regex, FLAGS.template, length, default_length
    )
    name = asked_method()
    by_row = conditions is not None and conditions.ndim == 2
    if not FLAGS.method and not flags.is_typed("num_particles") and not by_row:
        name = "enumerate" if sampling.count_good_prefixes(allowed) <= FEW else name
    # All batches have the same shape, so that a sample is the same wherever drawing begins.
    size = min(BATCH_SIZE, num_samples)
    given = (run.model, run.params)
    if name == "enumerate":
        try:
            prefixes = sampling.score_prefixes(
                *given, allowed, prefix=prefix, conditions=conditions
            )
        except ValueError as error:
            hint = "--method=particles has no such limit"
            raise InputError(f"--method=enumerate: {error}; {hint}") from error

    def batch(start: int) -> sampling.ConstrainedSamples:
        if name == "enumerate":
            return prefixes.sample(key, size, first_index=start)
        arguments = (*given, key, size, allowed)
        rows = np.minimum(np.arange(start, start + size), num_samples - 1)
        own = conditions[rows] if by_row and conditions is not None else conditions
        settings: dict[str, Any] = {"prefix": prefix, "conditions": own, "first_index": start}
        if name == "masked":
            return sampling.sample_masked(*arguments, temperature=FLAGS.temperature, **settings)
        particles = sampling.sample_particles(
            *arguments, num_particles=FLAGS.num_particles, **settings
        )
        return particles.choice()

    def draw(first: int) -> Iterator[Drawn]:
        starts = range(first // size * size, num_samples, size)
        for start, samples in zip(starts, one_ahead(map(batch, starts)), strict=True):
            extras = {"log_evidence": samples.log_evidence}
            if name == "masked":
                extras = {"log_weight": samples.log_weights}
            rows = _rows(samples, extras, max(first - start, 0))
            yield from itertools.islice(rows, num_samples - max(first, start))

    return draw


def draw_from(
    run: Run,
    *,
    prefix: np.ndarray,
    conditions: Float[np.ndarray, "..."] | None,
    length: int | None,
    default_length: int,
) -> DrawFrom:
    """Draws text as --method says.

    What belongs to the method comes with each sample, natural logarithms all of them: score (beam);
    log_inclusion and log_weight (stochastic_beam); log_weight (masked); log_evidence (particles,
    enumerate).

    Args:
        run: a trained model of text.
        prefix: tokens that every sample begins with; constraints are about what follows them.
        conditions: what samples are drawn given, [C], or [N, C] where each is drawn by itself.
        length: most events of a sample; None where the flag was not given.
        default_length: what length is then, but for templates.

    Returns:
        Number of a sample -> that one and all after it. Memory does not grow with the number of
        samples, but for searches, which hold all they find.

    Raises:
        InputError: flags do not fit the run.
    """
    method = asked_method()
    if run.model.distribution.logits is None:
        raise InputError(f"--method={method} is for output distributions of tokens")
    if text_codec(run).end is None and flags.is_typed("length_penalty"):
        raise InputError("--length_penalty is for samples that end, and those of this run do not")
    draw = METHODS[method].draw
    assert draw is not None
    start = prefix if len(prefix) else None
    key = jax.random.key(FLAGS.seed)
    return draw(run, start, conditions, key, FLAGS.num_samples, length, default_length)


METHODS = {
    "ancestral": Method(None, (*OPTIONS, "repetition_penalty", "stop", "seed")),
    "beam": Method(_beam, ("beam_width", "length_penalty", "beam_groups", "diversity")),
    "stochastic_beam": Method(_stochastic_beam, ("seed",)),
    "masked": Method(_constrained, ("temperature", "seed"), constrained=True),
    "particles": Method(_constrained, ("num_particles", "seed"), constrained=True),
    "enumerate": Method(_constrained, ("seed",), constrained=True),
}
"""By the value of --method."""
