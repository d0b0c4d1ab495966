"""Settings that were tried out, a file each: `--preset=NAME`."""

from importlib import resources

from grnn_jax.errors import InputError

SUFFIX = ".flags"


def names() -> list[str]:
    """The presets that there are."""
    files = [file.name for file in resources.files(__name__).iterdir()]
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def read(name: str) -> dict[str, str]:
    """The flags that a preset sets.

    Args:
        name: of the preset.

    Returns:
        Name of a flag -> its value, as one writes it.

    Raises:
        InputError: there is no such preset.
    """
    if name not in names():
        raise InputError(f"--preset must be one of {', '.join(names())}, got {name!r}")
    text = resources.files(__name__).joinpath(name + SUFFIX).read_text(encoding="utf-8")
    lines = [line.removeprefix("--") for line in text.splitlines() if line.startswith("--")]
    pairs = [line.partition("=") for line in lines]
    return {flag: value if equals else "true" for flag, equals, value in pairs}
