"""Cheap compilation for tests, shape checks on every annotated function, tests marked slow."""

import gc
import importlib.metadata
import itertools
import os
import pathlib

# The tests compile thousands of small programs and run each once or twice: compiling without
# optimization takes a quarter of the processor time. Scripts that tests start inherit it. Tests
# that compare bits, or look at what the compiler makes, are marked `optimized`, and are run once
# more with `XLA_FLAGS= pytest -m optimized`, that is with the code that users get.
cheap = ["--xla_backend_optimization_level=0", "--xla_cpu_opt_preset=FAST_COMPILE"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # Later ones do not know this flag.
    cheap.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(cheap))

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("grnn_jax", "beartype.beartype")


def pytest_addoption(parser):
    """What is marked slow runs where it is asked for, beside any -m."""
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow too")


def pytest_collection_modifyitems(config, items):
    """Skips what is marked slow."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="marked slow: --slow runs it"))


MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 20_000
_number = itertools.count(1)


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Forgets what was compiled before it takes more memory maps than Linux allows, 65,530.

    Every compiled program holds some for good; where one more is refused XLA crashes.
    """
    yield
    if next(_number) % 10 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compilation_cache(tmp_path_factory):
    """Runs of one shape compile once."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    old = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, old, strict=True):
        jax.config.update(name, value)
