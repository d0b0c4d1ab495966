"""JSON objects that carry a digest of themselves, so that a damaged file is noticed.

    {"learning_rate": 0.1, "sha256": "…"}

The digest is that of the values, not of the text: another layout of the same values is the same.
"""

import hashlib
import json
from typing import Any

KEY = "sha256"


def parse(text: str) -> Any:
    """Reads JSON.

    Args:
        text: of a file.

    Returns:
        Its values.

    Raises:
        ValueError: it is no JSON, or nested too deeply.

    Example:
        >>> parse("[" * 100_000)
        Traceback (most recent call last):
        ...
        ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def digest(values: Any) -> str:
    """The SHA-256 of JSON values, in hexadecimal; the order of keys does not matter.

    Args:
        values: JSON values.

    Returns:
        64 digits.

    Example:
        >>> digest({"a": 1, "b": (2.5, None)}) == digest({"b": [2.5, None], "a": 1})
        True
    """
    as_read = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def with_digest(values: dict[str, Any]) -> dict[str, Any]:
    """An object and, last, the digest of the rest of it.

    Args:
        values: JSON values by name.

    Returns:
        The same with the name "sha256" more.
    """
    return values | {KEY: digest(values)}


def without_digest(values: Any) -> dict[str, Any]:
    """An object that is as it was written; one without a digest is taken as it is.

    Args:
        values: what was read.

    Returns:
        The object without its digest.

    Raises:
        ValueError: it is no object, or another one than was written.

    Example:
        >>> without_digest(with_digest({"a": 1}))
        {'a': 1}
        >>> without_digest(with_digest({"a": 1}) | {"a": 2})
        Traceback (most recent call last):
        ...
        ValueError: its contents are not those that its sha256 was taken of
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    rest = {name: value for name, value in values.items() if name != KEY}
    if KEY in values and values[KEY] != digest(rest):
        raise ValueError(f"its contents are not those that its {KEY} was taken of")
    return rest
