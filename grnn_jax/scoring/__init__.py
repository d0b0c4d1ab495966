"""What a trained model says of data: events, sequences, and other ways to evaluate it."""

from grnn_jax.scoring.events import make_score_events
from grnn_jax.scoring.files import ScoredFile, compare, records, score_file
from grnn_jax.scoring.sequences import RANKS, SequenceScores, sum_sequences, summary

__all__ = [
    "RANKS",
    "ScoredFile",
    "SequenceScores",
    "compare",
    "make_score_events",
    "records",
    "score_file",
    "sum_sequences",
    "summary",
]
