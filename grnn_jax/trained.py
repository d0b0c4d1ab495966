"""A trained run in Python: it scores strings, arrays and files, draws samples, shows its states."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from grnn_jax.array_types import AnyArray, Bool, Float
from grnn_jax.data import Corpus, TextCodec
from grnn_jax.drawing import Drawn, default_length, iterate_samples
from grnn_jax.errors import InputError
from grnn_jax.scoring import make_score_events, records, score_file, sum_sequences
from grnn_jax.scoring.events import Read, read_hidden
from grnn_jax.scoring.memory import corpus_in_memory, encode_text
from grnn_jax.sharding import make_mesh
from grnn_jax.workdir import Run, load_run

Condition = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A value of each condition by name, for all sequences or for each."""


class TrainedRun(Run):
    """A trained run: model, params, codec, config, step, dtype, and what can be asked of them.

    Sequences are given as a string, as arrays of events [T, ...] (tokens; for events with fields a
    dict of arrays), as a list of such, or as a batch [B, T, ...] with a mask. Strings are encoded
    by the codec of the run, which adds the end of the sequence where that is an event; in arrays it
    must stand to be counted. Every sequence is taken whole, from its first event on.

    A run with `condition_on` needs a `condition`: a dict with a value for each of its conditions
    (None where it is missing), the same for all sequences, or a list with a dict for each.
    """

    def log_prob(
        self,
        data: Any,
        mask: Bool[AnyArray, "B T"] | None = None,
        *,
        condition: Condition | None = None,
    ) -> float | Float[np.ndarray, " S"]:
        r"""Exact log-probability of each sequence, $\sum_t \log p(x_{t+1} \mid x_{\le t})$.

        Args:
            data: one sequence, or several, see the class.
            mask: of a batch, True for events, then False for padding; None where there is none.
            condition: what the sequences are scored given, see the class.

        Returns:
            Nats: one number for one sequence, float64 [S] for several.

        Raises:
            InputError: a string has a symbol that the codec does not know, or arrays are no events
                of this model.
        """
        corpus, is_one = corpus_in_memory(self, data, mask)
        corpus = self._given(corpus, condition)
        log_probs = np.zeros(corpus.num_sequences)
        if corpus.num_events:
            nats = self._score(corpus)["nats"]
            log_probs = -sum_sequences(nats, corpus.offsets)
        return float(log_probs[0]) if is_one else log_probs

    def hidden(
        self,
        data: Any,
        mask: Bool[AnyArray, "B T"] | None = None,
        *,
        after: bool = False,
        condition: Condition | None = None,
    ) -> Float[np.ndarray, "T H"] | list[Float[np.ndarray, "T H"]]:
        """The hidden state at each event.

        Args:
            data: as `log_prob`.
            mask: as `log_prob`.
            after: False, row t is the state that has read the events before event t: the one that
                its log-probability is read from. True, row t has read event t too, so that the
                last row has read the whole sequence.
            condition: as `log_prob`.

        Returns:
            float32 [T, H] for one sequence, a list of them for several.

        Raises:
            InputError: as `log_prob`.
        """
        corpus, is_one = corpus_in_memory(self, data, mask, repeat_last=after)
        corpus = self._given(corpus, condition)
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
        condition: Condition | None = None,
        **options: Any,
    ) -> list[Drawn]:
        """Draws sequences, those of sample.py for the same seed.

        Args:
            num_samples: how many.
            length: most events of each, its prefix not counted; None for 600, of images all pixels.
            prefix: what every sequence begins with: a string, or events [P, ...].
            temperature: divides the logits; 0 takes the most probable event.
            seed: sequence i of a seed is the same whatever `num_samples` is.
            condition: what sequences are drawn given, see the class.
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
                conditions=self._conditions(condition, num_samples),
            )
        )

    def sample(
        self, num_samples: int = 1, *, prefix: Any = None, **settings: Any
    ) -> list[str] | list[Drawn]:
        """Draws samples, those of sample.py for the same seed.

        Args:
            num_samples: how many.
            prefix: what every sample begins with.
            **settings: of `draw`: length, temperature, seed, condition, top_k, ….

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

    def _conditions(
        self, condition: Condition | None, count: int
    ) -> Float[np.ndarray, "..."] | None:
        """What sequences are given, [C] for all or [N, C]; None of a run without conditions."""
        codec = self.codec.conditions
        if codec is None:
            if condition is not None:
                raise InputError("condition must be None for a run without condition_on")
            return None
        if condition is None:
            names = ", ".join(codec.names)
            raise InputError(f"condition must have a value for each of {names}, got none")
        if isinstance(condition, Mapping):
            return codec.of_names(condition, "condition")
        if len(condition) != count:
            raise InputError(
                f"condition must be a dict, or a list of {count}, one for each sequence, "
                f"got {len(condition)}"
            )
        every = enumerate(condition)
        return np.stack([codec.of_names(one, f"condition[{number}]") for number, one in every])

    def _given(self, corpus: Corpus, condition: Condition | None) -> Corpus:
        """A corpus with what its sequences are given."""
        conditions = self._conditions(condition, corpus.num_sequences)
        if conditions is None:
            return corpus
        shape = (corpus.num_sequences, conditions.shape[-1])
        return corpus._replace(conditions=np.broadcast_to(conditions, shape))

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


def load(
    workdir: str | os.PathLike[str], checkpoint: str = "best", *, dtype: str = "float32"
) -> TrainedRun:
    """Rebuilds a trained run from its workdir alone.

    Args:
        workdir: directory of the run.
        checkpoint: "best" (the latest where there is no best one) or "latest".
        dtype: what its products are computed in, whatever it was trained in: "float32", which is
            exact on every platform, "tensorfloat32" or "bfloat16".

    Returns:
        The run: its model, parameters, codec and settings, and methods that score and sample.

    Raises:
        InputError: there is no run, no readable checkpoint, or no such dtype.

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
    return TrainedRun(*load_run(os.path.expanduser(workdir), checkpoint, dtype=dtype))
