"""The settings of a run as a file of flags, for --flagfile."""

import dataclasses

from grnn_jax.config import Config


def to_flags(config: Config) -> str:
    """Writes settings as the text of `flags.txt`: one flag a line, each setting.

    A run that was extended is written as it began.

    Args:
        config: the settings of a run.

    Returns:
        The text.

    Example:
        >>> text = to_flags(Config(hidden_size=8, learning_rate=0.1))
        >>> [line for line in text.splitlines() if "size=8" in line or "rate=" in line]
        ['--hidden_size=8', '--learning_rate=0.1']
    """
    lines = ["# train.py --flagfile=THIS_FILE --workdir=… makes a run with these settings."]
    for name, value in dataclasses.asdict(config).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if name == "extend_to":
            continue
        # absl takes blanks off the ends of a line.
        cannot = isinstance(value, str) and (value != value.rstrip() or not value.isprintable())
        lines.append(f"# --{name} cannot be written here" if cannot else f"--{name}={text}")
    return "\n".join(lines) + "\n"
