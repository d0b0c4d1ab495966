"""What a trained model says of data: events, sequences, and other ways to evaluate it."""

from grnn_jax.scoring.events import make_score_events
from grnn_jax.scoring.files import (
    ScoredFile,
    compare,
    records,
    score_file,
    score_sequences,
)
from grnn_jax.scoring.posterior import PRIORS, Posterior, find_class, log_prior, posterior
from grnn_jax.scoring.reading import UNSEEN, ReadFile, read_file, read_split
from grnn_jax.scoring.sequences import RANKS, SequenceScores, sum_sequences, summary

__all__ = [
    "PRIORS",
    "RANKS",
    "UNSEEN",
    "Posterior",
    "ReadFile",
    "ScoredFile",
    "SequenceScores",
    "compare",
    "find_class",
    "log_prior",
    "make_score_events",
    "posterior",
    "read_file",
    "read_split",
    "records",
    "score_file",
    "score_sequences",
    "sum_sequences",
    "summary",
]
