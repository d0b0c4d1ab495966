"""Cheap compilation for tests, shape checks on every annotated function, flags tests can read."""

import importlib.metadata
import os

# The tests compile thousands of small programs and run each once or twice: compiling without
# optimization takes a quarter of the processor time. Scripts that tests start inherit it. Tests
# that compare bits, or look at what the compiler makes, are marked `optimized`, and are run once
# more with `XLA_FLAGS= pytest -m optimized`, that is with the code that users get.
cheap = ["--xla_backend_optimization_level=0", "--xla_cpu_opt_preset=FAST_COMPILE"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # Later ones do not know this flag.
    cheap.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(cheap))

from absl import flags  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("grnn_jax", "beartype.beartype")

flags.FLAGS.mark_as_parsed()
