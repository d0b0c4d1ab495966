"""Names of files."""

SAMPLE = "sample_"
"""How the name of a file with one sample begins."""


def numbered(suffix: str, count: int) -> list[str]:
    """Names of `count` files, whose alphabetical order is that of the samples."""
    digits = len(str(max(count - 1, 0)))
    return [f"{SAMPLE}{index:0{digits}d}.{suffix}" for index in range(count)]
