"""The ways to score a corpus beside its static likelihood, each labelled as what it is."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from grnn_jax.data import Corpus
from grnn_jax.errors import InputError
from grnn_jax.likelihood import per_event
from grnn_jax.scoring.dynamic import DynamicSettings, dynamic_nats, gradient_rms
from grnn_jax.scoring.events import Report
from grnn_jax.scoring.mc_dropout import mc_dropout_nats
from grnn_jax.scoring.temperature import fit_temperature, make_tempered_sums
from grnn_jax.workdir import Run, load_run_data

METHODS = ("static", "dynamic", "mc_dropout", "temperature")


class MethodSettings(NamedTuple):
    """How a corpus is scored.

    Attributes:
        method: "static", the exact likelihood of the trained model and nothing else; "dynamic",
            the parameters learn from what was scored; "mc_dropout", the mean probability over
            draws of dropout; "temperature", the logits divided by the temperature that scores the
            validation split best.
        dynamic: settings of dynamic evaluation.
        statistics_segments: segments of training data behind the scale of its steps.
        num_draws: draws of dropout.
        seed: their seed.
    """

    method: str = "static"
    dynamic: DynamicSettings = DynamicSettings()
    statistics_segments: int = 256
    num_draws: int = 16
    seed: int = 0


STATIC = MethodSettings()


def check_method(settings: MethodSettings) -> None:
    """Raises InputError where a setting is outside its range."""
    if settings.method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {settings.method!r}")
    dynamic = settings.dynamic
    if not dynamic.learning_rate >= 0:
        got = dynamic.learning_rate
        raise InputError(f"dynamic_learning_rate must be at least 0, got {got}")
    if not 0 <= dynamic.decay <= 1:
        raise InputError(f"dynamic_decay must be from 0 to 1, got {dynamic.decay}")
    for name, value in (
        ("dynamic_segment_length", dynamic.segment_length),
        ("dynamic_statistics", settings.statistics_segments),
        ("num_draws", settings.num_draws),
    ):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def score_by_method(
    run: Run,
    workdir: str | os.PathLike[str],
    corpus: Corpus,
    mesh: Mesh,
    settings: MethodSettings,
    report: Report | None = None,
) -> dict[str, Any]:
    """Scores a corpus by another method than the static likelihood.

    Args:
        run: a trained model.
        workdir: its directory: dynamic evaluation looks at the training data, a temperature is
            fitted on the validation data.
        corpus: what to score.
        mesh: mesh with the axis "data".
        settings: the method.
        report: is told how many events are done.

    Returns:
        method, its settings, num_events, nats_per_event, bits_per_event, perplexity; nothing for
        the static method.

    Raises:
        InputError: a setting is outside its range, or the run has no such method.
    """
    check_method(settings)
    model, params, config = run.model, run.params, run.config
    if settings.method == "static":
        return {}
    score: dict[str, Any] = {"method": settings.method}
    if settings.method == "dynamic":
        dynamic, rms = settings.dynamic, None
        if dynamic.rms:
            train = load_run_data(config, Path(workdir), run.codec).train
            segments = settings.statistics_segments
            rms = gradient_rms(model, params, train, dynamic.segment_length, segments)
        nats, count = dynamic_nats(model, params, corpus, dynamic, rms=rms, report=report)
        score |= dynamic._asdict()
        if dynamic.rms:
            score["statistics_segments"] = settings.statistics_segments
    elif settings.method == "mc_dropout":
        if not (config.dropout or config.recurrent_dropout):
            raise InputError(
                "method=mc_dropout needs a run with dropout, got dropout=0 recurrent_dropout=0"
            )
        draws, seed = settings.num_draws, settings.seed
        nats, count = mc_dropout_nats(
            model, params, corpus, config, mesh, num_draws=draws, seed=seed, report=report
        )
        score |= {"num_draws": draws, "seed": seed}
    else:
        try:
            tempered = make_tempered_sums(model, config, mesh)
        except InputError as error:
            raise InputError(f"method=temperature: {error}") from error
        valid = load_run_data(config, Path(workdir), run.codec).valid
        if valid is None:
            raise InputError("method=temperature needs a validation split, the run has none")
        temperature = fit_temperature(lambda t: tempered(params, valid, t))
        sums = tempered(params, corpus, temperature, report)
        nats, count = sums["nats"], int(sums["num_events"])
        score |= {"temperature": temperature, "fitted_on": "valid"}
    if count != corpus.num_events:
        raise RuntimeError(f"{count} of {corpus.num_events} events were scored")
    return score | {"num_events": count, **per_event(nats, count)}
