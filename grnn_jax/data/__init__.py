"""Data: codecs, corpora on disk, and the pipeline that yields batches. NumPy and grain only."""

from grnn_jax.data.batch import Batch
from grnn_jax.data.codec import Codec, IncrementalDecoder, build_codec, codec_from_dict
from grnn_jax.data.corpus import Corpus
from grnn_jax.data.formats import Splits, load_file, load_splits
from grnn_jax.data.pipeline import eval_batches, train_iterator, windows_per_epoch

__all__ = [
    "Batch",
    "Codec",
    "Corpus",
    "IncrementalDecoder",
    "Splits",
    "build_codec",
    "codec_from_dict",
    "eval_batches",
    "load_file",
    "load_splits",
    "train_iterator",
    "windows_per_epoch",
]
