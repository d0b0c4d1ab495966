"""What the system said when something could not be written or read, and what helps against it."""

import errno
import os
from typing import NamedTuple

_ADVICE = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room on the disk",
    (errno.EMFILE, errno.ENFILE): "raise the limit of open files (ulimit -n)",
    (errno.EAGAIN,): "raise the limit of processes and threads (ulimit -u)",
    (errno.ENOMEM,): "free memory",
    (errno.EACCES, errno.EPERM, errno.EROFS): "give this process the right to read and write it",
}
_WORDS = {
    "can't start new thread": errno.EAGAIN,
    "Thread creation failed": errno.EAGAIN,
    "Cannot allocate memory": errno.ENOMEM,
}


class Fault(NamedTuple):
    """What was wrong with the machine, or was not.

    Attributes:
        reason: what the system said; else what the error said, in one line.
        advice: what helps; "" where the system said nothing known.
    """

    reason: str
    advice: str


def fault(error: BaseException) -> Fault:
    r"""What stands behind an error of a library.

    Args:
        error: an exception whose text may hold what the system said, at whatever place.

    Returns:
        The reason, and what helps.

    Example:
        >>> fault(ValueError("INTERNAL: opening a: Too many open files [source locations=…]"))
        Fault(reason='Too many open files', advice='raise the limit of open files (ulimit -n)')
        >>> fault(ValueError("a\n b"))
        Fault(reason='a b', advice='')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return Fault(text, "free memory")
    for numbers, advice in _ADVICE.items():
        for number in numbers:
            words = os.strerror(number)
            if words in text or getattr(error, "errno", None) == number:
                return Fault(words, advice)
        for words, number in _WORDS.items():
            if number in numbers and words in text:
                return Fault(words, advice)
    return Fault(text[:300], "")
