"""The text of `--help`."""

import os
import re
import textwrap

from grnn_jax.cli import flags
from grnn_jax.cli.messages import dashed
from grnn_jax.config import SECTIONS
from grnn_jax.distributions import DISTRIBUTIONS

INDENT = " " * 8


def help_text(description: str, program: str) -> str:
    """The text of `--help`.

    Args:
        description: what the command does, with examples of the installed command.
        program: how it was called here; the examples are called so too.

    Returns:
        Description, then the flags by section, each with its default and its choices.
    """
    called = f"python {program}" if program.endswith(".py") else os.path.basename(program)
    lines = [re.sub(r"\bgrnn-\w+", lambda _: called, description).strip(), ""]
    for section in (flags.OWN, flags.MACHINE, *SECTIONS):
        names = flags.section(section)
        if names:
            lines.append(f"{section}:")
        for name in names:
            flag = flags.FLAGS[name]
            kind = {"int": "integer", "float": "number"}.get(flag.flag_type(), "")
            values = "|".join(getattr(flag.parser, "enum_values", None) or []) or kind
            head = f"  --[no]{name}" if flag.boolean else f"  --{name}={values or '…'}"
            left = textwrap.wrap(head.replace("|", "| "), 100, subsequent_indent=INDENT)
            default = flag.default if flag.default not in ("", None, []) else "empty"
            default = str(default).lower() if flag.boolean else default
            sentence = flag.help.split(">: ", 1)[-1] if flag.help.startswith("<") else flag.help
            sentence = dashed(sentence, flags.names())
            if name == "distribution":
                sentence += f" Families: {', '.join(DISTRIBUTIONS)}."
            text = " ".join(f"{sentence} (default: {default})".split())
            lines += [
                *(line.replace("| ", "|") for line in left),
                *textwrap.wrap(text, 100, initial_indent=INDENT, subsequent_indent=INDENT),
            ]
        lines += [""] if names else []
    lines += ["  --flagfile=FILE", "        Read flags from a file, one a line.", ""]
    lines.append("--helpfull shows the flags of the libraries too.")
    return "\n".join(lines)
