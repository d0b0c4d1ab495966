r"""Which class a sequence is of, by Bayes' rule: every model of p(x | a) is a classifier.

    p(a | x, c) = p(x | a, c) p(a) / Σ_a' p(x | a', c) p(a')

c are the other conditions of the sequence, as they are given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.data import Corpus
from grnn_jax.data.conditions import Condition
from grnn_jax.errors import InputError
from grnn_jax.scoring.calibration import expected_calibration_error, reliability
from grnn_jax.scoring.events import make_score_events
from grnn_jax.scoring.sequences import sum_sequences
from grnn_jax.sharding import check_batch_size, make_mesh
from grnn_jax.workdir import Run

PRIORS = "train", "uniform"
"""What p(a) is: the share of each class in train, or the same for all."""


class Posterior(NamedTuple):
    """Which class each sequence is of.

    Attributes:
        condition: the condition; its classes are in the order of the axis K.
        log_prior: log p(a), [K].
        log_probs: log p(a | x, c), [S, K] float64.
        log_marginal: log p(x | c), the classes summed out, [S].
        labels: the class that each is of, -1 where that is not known, [S].
    """

    condition: Condition
    log_prior: Float[np.ndarray, " K"]
    log_probs: Float[np.ndarray, "S K"]
    log_marginal: Float[np.ndarray, " S"]
    labels: Integer[np.ndarray, " S"]

    def record(self, index: int) -> dict[str, Any]:
        """What is known of a sequence: its class, the most probable, the probability of each."""
        label, classes = int(self.labels[index]), self.condition.classes
        probs = np.exp(self.log_probs[index])
        return {
            "label": classes[label] if label >= 0 else None,
            "predicted": classes[int(probs.argmax())],
            "marginal_nats": -float(self.log_marginal[index]),
            **{f"p_{name}": float(p) for name, p in zip(classes, probs, strict=True)},
        }

    def summary(self) -> dict[str, Any]:
        """How good it is where the class is known.

        Returns:
            num_labelled; accuracy; log_loss, the mean -log p(own class | x) in nats;
            calibration_error, see `expected_calibration_error`; and accuracy and log_loss of the
            prior alone.
        """
        known = self.labels >= 0
        labels, log_probs = self.labels[known], self.log_probs[known]
        if not len(labels):
            return {"num_labelled": 0}
        correct = (log_probs.argmax(1) == labels).astype(np.float64)
        own = np.take_along_axis(log_probs, labels[:, None], 1)
        binned = reliability(np.exp(log_probs.max(1)), correct)
        return {
            "num_labelled": len(labels),
            "accuracy": float(correct.mean()),
            "log_loss": -float(own.mean()),
            "calibration_error": expected_calibration_error(binned),
            "prior_accuracy": float((labels == self.log_prior.argmax()).mean()),
            "prior_log_loss": -float(self.log_prior[labels].mean()),
        }


def find_class(run: Run, name: str) -> tuple[int, Condition]:
    """The condition of a name, and its number.

    Raises:
        InputError: the run has no such condition, or it is a number.
    """
    codec = run.codec.conditions
    conditions = () if codec is None else codec.conditions
    for index, condition in enumerate(conditions):
        if condition.name == name:
            if condition.kind != "class":
                raise InputError(f"posterior={name} needs a condition of classes, got a number")
            return index, condition
    known = ", ".join(each.name for each in conditions if each.kind == "class")
    raise InputError(
        f"posterior must be a condition of classes of this run ({known or 'none'}), got {name!r}"
    )


def log_prior(
    prior: str, condition: Condition, index: int, train: Corpus | None
) -> Float[np.ndarray, " K"]:
    """Log p(a).

    Args:
        prior: one of `PRIORS`.
        condition: the condition.
        index: its number.
        train: the training split, for "train".
    """
    size = condition.size
    if prior == "uniform":
        return np.full(size, -np.log(size))
    assert train is not None and train.conditions is not None
    column = np.asarray(train.conditions[:, index])
    counts = np.bincount(column[~np.isnan(column)].astype(int), minlength=size)
    return np.log(counts / counts.sum())


def posterior(
    run: Run,
    corpus: Corpus,
    name: str,
    prior: Float[np.ndarray, " K"],
    folder: str | Path | None = None,
    *,
    report: Callable[[int], None] | None = None,
) -> Posterior:
    """Scores every sequence as one of each class.

    Args:
        run: a trained model.
        corpus: the sequences, with their conditions; those of `name` may be missing.
        name: the condition, whose classes are told apart.
        prior: log p(a), of `log_prior`.
        folder: where nats lie while they are needed; None for memory.
        report: is told how many events are done, of as many times those of the corpus as there are
            classes.

    Returns:
        The posterior.

    Raises:
        InputError: as `find_class`.
    """
    index, condition = find_class(run, name)
    assert corpus.conditions is not None
    given = np.array(corpus.conditions)
    column = given[:, index]
    labels = np.where(np.isnan(column), -1, column).astype(np.int64)
    mesh = make_mesh()
    check_batch_size(run.config.eval_batch_size, mesh, "eval_batch_size")
    score = make_score_events(run.model, run.config, mesh)
    joint = np.empty((corpus.num_sequences, condition.size))
    for number in range(condition.size):
        given[:, index] = number
        done = number * corpus.num_events
        nats = score(
            run.params,
            corpus._replace(conditions=given.copy()),
            folder=folder,
            report=None if report is None else lambda count: report(done + count),  # noqa: B023
        )["nats"]
        joint[:, number] = prior[number] - sum_sequences(nats, corpus.offsets)
    marginal = np.logaddexp.reduce(joint, axis=1)
    return Posterior(condition, prior, joint - marginal[:, None], marginal, labels)
