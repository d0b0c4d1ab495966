"""Shape checks on every annotated function of the package, and flags that tests can read."""

from absl import flags
from jaxtyping import install_import_hook

install_import_hook("grnn_jax", "beartype.beartype")

flags.FLAGS.mark_as_parsed()
