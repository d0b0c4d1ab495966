"""A trained run in Python: it scores strings, arrays and files, draws samples, shows its states."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from grnn_jax.array_types import AnyArray, Bool, Float
from grnn_jax.data import Corpus, TextCodec
from grnn_jax.drawing import Drawn, default_length, iterate_samples
from grnn_jax.scoring import make_score_events, records, score_file, sum_sequences
from grnn_jax.scoring.events import Read, read_hidden
from grnn_jax.scoring.memory import corpus_in_memory, encode_text
from grnn_jax.sharding import make_mesh
from grnn_jax.workdir import Run, load_run


class TrainedRun(Run):
    """A trained run: model, params, codec, config and step, and what can be asked of them.

    Sequences are given as a string, as arrays of events [T, ...] (tokens; for events with fields a
    dict of arrays), as a list of such, or as a batch [B, T, ...] with a mask. Strings are encoded
    by the codec of the run, which adds the end of the sequence where that is an event; in arrays it
    must stand to be counted. Every sequence is taken whole, from its first event on.
    """

    def log_prob(
        self, data: Any, mask: Bool[AnyArray, "B T"] | None = None
    ) -> float | Float[np.ndarray, " S"]:
        r"""Exact log-probability of each sequence, $\sum_t \log p(x_{t+1} \mid x_{\le t})$.

        Args:
            data: one sequence, or several, see the class.
            mask: of a batch, True for events, then False for padding; None where there is none.

        Returns:
            Nats: one number for one sequence, float64 [S] for several.

        Raises:
            InputError: a string has a symbol that the codec does not know, or arrays are no events
                of this model.
        """
        corpus, is_one = corpus_in_memory(self, data, mask)
        log_probs = np.zeros(corpus.num_sequences)
        if corpus.num_events:
            nats = self._score(corpus)["nats"]
            log_probs = -sum_sequences(nats, corpus.offsets)
        return float(log_probs[0]) if is_one else log_probs

    def hidden(
        self, data: Any, mask: Bool[AnyArray, "B T"] | None = None, *, after: bool = False
    ) -> Float[np.ndarray, "T H"] | list[Float[np.ndarray, "T H"]]:
        """The hidden state at each event.

        Args:
            data: as `log_prob`.
            mask: as `log_prob`.
            after: False, row t is the state that has read the events before event t: the one that
                its log-probability is read from. True, row t has read event t too, so that the
                last row has read the whole sequence.

        Returns:
            float32 [T, H] for one sequence, a list of them for several.

        Raises:
            InputError: as `log_prob`.
        """
        corpus, is_one = corpus_in_memory(self, data, mask, repeat_last=after)
        hidden = np.zeros((0, self.model.cell.hidden_size), np.float32)
        if corpus.num_events:
            hidden = self._score(corpus, read_hidden(self.model))["hidden"]
        # The state after event t is the one that the event after it is predicted from.
        bounds = zip(corpus.offsets, corpus.offsets[1:], strict=False)
        states = [hidden[start + after : stop] for start, stop in bounds]
        return states[0] if is_one else states

    def score_file(
        self,
        path: str | os.PathLike[str],
        *,
        each_line: bool = False,
        per_event: bool = False,
        rank: str = "",
    ) -> list[dict[str, Any]]:
        """The records that score.py writes for a file in the format of the run.

        A text is scored as score.py and evaluate.py do, in streams that each read 256 events of
        context; `log_prob` scores it as one.

        Args:
            path: the file.
            each_line: of a run on text, every line with its line end is a sequence of its own.
            per_event: a record for each event, not for each sequence.
            rank: the order, "nats" or "nats_per_event"; "" for that of the file.

        Returns:
            Of each sequence its number, num_events, nats, bits, nats_per_event, bits_per_event,
            perplexity, of lines their text; see `scoring.records`.

        Raises:
            InputError: the file cannot be used.
        """
        path = os.path.expanduser(path)
        with tempfile.TemporaryDirectory(prefix="grnn_jax-") as folder:
            scored = score_file(self, path, folder, each_line=each_line)
            return list(records(scored, rank=rank, per_event=per_event))

    def draw(
        self,
        num_samples: int = 1,
        *,
        length: int | None = None,
        prefix: Any = None,
        temperature: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> list[Drawn]:
        """Draws sequences, those of sample.py for the same seed.

        Args:
            num_samples: how many.
            length: most events of each, its prefix not counted; None for 600, of images all pixels.
            prefix: what every sequence begins with: a string, or events [P, ...].
            temperature: divides the logits; 0 takes the most probable event.
            seed: sequence i of a seed is the same whatever `num_samples` is.
            **options: of `sampling.sample`: top_k, top_p, stop, ….

        Returns:
            Of each sequence its events as NumPy arrays [T, ...] without the prefix, their nats
            (untempered) and their number.

        Raises:
            ValueError: a setting is outside its range, or unknown to the output distribution.
        """
        if isinstance(prefix, str):
            prefix = encode_text(self, prefix, "prefix") if prefix else None
        options = options | {"temperature": temperature, "prefix": prefix}
        return list(
            iterate_samples(
                self,
                num_samples=num_samples,
                length=default_length(self.codec) if length is None else length,
                seed=seed,
                options=options,
            )
        )

    def sample(
        self, num_samples: int = 1, *, prefix: Any = None, **settings: Any
    ) -> list[str] | list[Drawn]:
        """Draws samples, those of sample.py for the same seed.

        Args:
            num_samples: how many.
            prefix: what every sample begins with.
            **settings: of `draw`: length, temperature, seed, top_k, ….

        Returns:
            Of a run on text the text of each sample, its prefix included; else what `draw` returns.

        Raises:
            ValueError: as `draw`.
        """
        if isinstance(prefix, str):
            prefix = encode_text(self, prefix, "prefix") if prefix else None
        drawn = self.draw(num_samples, prefix=prefix, **settings)
        codec = self.codec
        if not isinstance(codec, TextCodec):
            return drawn
        start = np.zeros(0, np.int32) if prefix is None else np.asarray(prefix)
        # Decoded together: the last bytes of the prefix may begin a character.
        return [codec.decode(np.concatenate([start, one.events])) for one in drawn]

    def _score(self, corpus: Corpus, read: Read | None = None) -> dict[str, np.ndarray]:
        """What is read at each event of a corpus that is not empty."""
        # Few programs for sequences of whatever number: 1, 2, 4, … rows.
        rows = min(1 << (corpus.num_sequences - 1).bit_length(), self.config.eval_batch_size)
        program = rows, read is not None
        if program not in self._programs:
            mesh = make_mesh()
            size = -(-rows // mesh.size) * mesh.size
            config = dataclasses.replace(self.config, eval_batch_size=size)
            self._programs[program] = make_score_events(self.model, config, mesh, read)
        return self._programs[program](self.params, corpus)

    @functools.cached_property
    def _programs(self) -> dict[tuple[int, bool], Callable[..., dict[str, np.ndarray]]]:
        return {}


def load(workdir: str | os.PathLike[str], checkpoint: str = "best") -> TrainedRun:
    """Rebuilds a trained run from its workdir alone.

    Args:
        workdir: directory of the run.
        checkpoint: "best" (the latest where there is no best one) or "latest".

    Returns:
        The run: its model, parameters, codec and settings, and methods that score and sample.

    Raises:
        InputError: there is no run, or no readable checkpoint.

    Example:
        >>> import grnn_jax
        >>> run = grnn_jax.load("runs/mine")
        >>> run.log_prob("an old cat") < run.log_prob("an old") < 0  # nats
        True
        >>> [len(text) for text in run.sample(3, length=20, temperature=0.8, seed=1)]
        [20, 20, 20]
        >>> run.hidden("an old cat").shape  # [T, H]
        (10, 8)
        >>> sorted(run.score_file("mine.txt")[0])[:2]
        ['bits', 'bits_per_event']
    """
    return TrainedRun(*load_run(os.path.expanduser(workdir), checkpoint))
