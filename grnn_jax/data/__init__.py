"""Data: codecs, corpora on disk, and the pipeline that yields batches. NumPy and grain only."""

from grnn_jax.array_types import Batch
from grnn_jax.data.augmentation import make_augmentation
from grnn_jax.data.codec import Codec, EventType
from grnn_jax.data.corpus import Corpus
from grnn_jax.data.format_base import Format
from grnn_jax.data.formats import FORMATS, Splits, codec_from_dict, load_file, load_splits
from grnn_jax.data.pipeline import eval_batches, eval_windows, train_iterator, windows_per_epoch
from grnn_jax.data.sequences import SequenceCodec, SequenceFormat, Sequences
from grnn_jax.data.text_codec import CODECS, IncrementalDecoder, TextCodec, build_codec
from grnn_jax.data.vocabulary import VocabularyCodec

__all__ = [
    "CODECS",
    "FORMATS",
    "Batch",
    "Codec",
    "Corpus",
    "EventType",
    "Format",
    "IncrementalDecoder",
    "SequenceCodec",
    "SequenceFormat",
    "Sequences",
    "Splits",
    "TextCodec",
    "VocabularyCodec",
    "build_codec",
    "codec_from_dict",
    "eval_batches",
    "eval_windows",
    "load_file",
    "load_splits",
    "make_augmentation",
    "train_iterator",
    "windows_per_epoch",
]
