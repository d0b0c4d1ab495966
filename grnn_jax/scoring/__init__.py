"""What a trained model says of data: events, sequences, and other ways to evaluate it."""

from grnn_jax.scoring.events import make_score_events
from grnn_jax.scoring.files import (
    ScoredFile,
    compare,
    records,
    score_file,
    score_sequences,
)
from grnn_jax.scoring.reading import UNSEEN, ReadFile, read_file
from grnn_jax.scoring.sequences import RANKS, SequenceScores, sum_sequences, summary

__all__ = [
    "RANKS",
    "UNSEEN",
    "ReadFile",
    "ScoredFile",
    "SequenceScores",
    "compare",
    "make_score_events",
    "read_file",
    "records",
    "score_file",
    "score_sequences",
    "sum_sequences",
    "summary",
]
