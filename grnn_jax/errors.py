"""The exceptions that scripts tell in one sentence, without a traceback."""


class InputError(ValueError):
    """A mistake in what the user gave: a flag, an argument, a file.

    Its message is one sentence that names the argument, or the file and line, says what came and
    what was expected. Scripts print it after `error: ` and exit with status 1, without a traceback.
    """


class RunError(RuntimeError):
    """A run that cannot go on; its last good checkpoint is kept, the message says what to do."""
