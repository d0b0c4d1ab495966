"""Cheap compilation for tests, shape checks on every annotated function, tests marked slow."""

import gc
import importlib.metadata
import itertools
import os
import pathlib
import signal
import tempfile

# The tests compile thousands of small programs and run each once or twice: compiling without
# optimization takes a quarter of the processor time. Scripts that tests start inherit it. Tests
# that compare bits, or look at what the compiler makes, are marked `optimized`, and are run once
# more with `XLA_FLAGS= pytest -m optimized`, that is with the code that users get.
cheap = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_opt_preset=FAST_COMPILE",
    "--xla_cpu_parallel_codegen_split_count=1",  # A fifth less: threads do not pay for so little.
]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # Later ones do not know this flag.
    cheap.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(cheap))
# The Python stack of every operation need not stand in what is compiled.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax  # noqa: E402
import pytest  # noqa: E402
import type_checks  # noqa: E402

type_checks.install()


def pytest_addoption(parser):
    """What is marked slow runs where it is asked for, beside any -m."""
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow too")


def pytest_configure():
    """Takes interrupts, also in the background of a shell, which starts what ignores them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Skips what is marked slow."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="marked slow: --slow runs it"))


def pytest_collection_finish():
    """Collects garbage less often: a seventh of the time goes into looking at what is not any."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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


@pytest.fixture(scope="session", autouse=True)
def compilation_cache():
    """Compiles once what several tests of this process make anew, or make after `clear_caches`.

    No other process shares the folder: JAX's files are not written at once, so that others might
    read the half of one. A folder that the environment names is kept, for those who run the same
    tests many times.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)
