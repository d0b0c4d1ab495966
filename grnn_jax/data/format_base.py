"""What every format is: how the files of a run become corpora."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from grnn_jax.data.codec import Codec
from grnn_jax.data.corpus import Corpus
from grnn_jax.data.splitting import Fractions
from grnn_jax.data.store import Stored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """Base of the formats, the entries of `formats.FORMATS`.

    Attributes:
        is_stream: whether its corpora may be cut anywhere, see `Corpus`.
        cut_few: whether training cuts sequences where there are fewer of them than rows of a
          batch, see `pipeline.Windows`.
        needs_data: whether there are no data where no file is named.
        unit: what its sequences are called in the log.
    """

    is_stream: bool = False
    cut_few: bool = True
    needs_data: bool = True
    unit: str = "sequences"

    @property
    def options(self) -> tuple[str, ...]:
        """The settings of a run that only some formats read, and this one does."""
        return ()

    @property
    def codecs(self) -> Mapping[str, type[Codec]]:
        """The codecs of such files, by their names in codec.json."""
        raise NotImplementedError

    def load(
        self,
        paths: Mapping[str, str],
        held_out: Fractions,
        settings: Mapping[str, Any],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        codec: Codec | None = None,
        folder: pathlib.Path | None = None,
    ) -> tuple[Stored, Codec]:
        """Reads, splits, encodes and stores the data of a run.

        Args:
            paths: files by split, "train" among them; empty where no file is named.
            held_out: the parts of the training file held out for splits without a file.
            settings: values by name: codec, max_vocabulary, lowercase, model_end, `options`.
            cache_dir: folder for the encoded data; None holds them in memory.
            codec: the codec of an earlier run, or None to make one.
            folder: what an earlier run encoded, used without looking at the files where it is
              whole.

        Returns:
            The stored corpora of all splits with `info` {split: sequences that also stand in
            train}, and the codec.

        Raises:
            InputError: a file cannot be used.
        """
        raise NotImplementedError

    def load_file(
        self,
        codec: Codec,
        path: str,
        settings: Mapping[str, Any],
        *,
        argument: str = "data",
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Corpus:
        """Reads one file whole, encoded by the codec of a run.

        Args:
            codec: the codec.
            path: the file.
            settings: values by name: column, as_is, skip_bad and max_file_gib.
            argument: the argument that named the file, for messages.
            cache_dir: as for `load`.

        Returns:
            The sequences of the file.

        Raises:
            InputError: the file cannot be used.
        """
        raise NotImplementedError
