"""What `import grnn_jax` gives, and what it does not import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import grnn_jax

ROOT = Path(__file__).parents[1]
BLOCKED = """
import sys
for name in ("grain", "orbax", "mido", "tensorboardX"):
    sys.modules[name] = None  # Any import of it fails.
import jax, grnn_jax
from grnn_jax import cells, distributions
model = grnn_jax.make_model(cells.lstm(4), distributions.categorical(3))
params = model.init(jax.random.key(0))
samples = grnn_jax.sample(model, params, jax.random.key(1), num_samples=2, length=3)
log_probs = grnn_jax.log_prob(model, params, samples.events)
assert abs(log_probs - samples.log_probs.sum(1)).max() < 1e-5
assert grnn_jax.Config().hidden_size and grnn_jax.Batch._fields[0] == "events"
imported = {name for name in sys.modules if name.split(".")[0] in ("matplotlib", "flax")}
assert not imported, imported
try:
    grnn_jax.train
except ImportError as error:
    print("train needs", error.name)
"""


def test_the_pure_functions_need_none_of_the_libraries_of_a_run():
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("train needs")


def test_every_public_name_is_there_and_listed():
    for name in grnn_jax.__all__:
        assert getattr(grnn_jax, name) is not None
        assert name in dir(grnn_jax)
    assert list(grnn_jax.__all__) == sorted(grnn_jax.__all__)
    assert grnn_jax.load.__module__ == "grnn_jax.trained"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        grnn_jax.lod  # noqa: B018


def test_what_is_resolved_later_is_what_a_type_checker_sees():
    tree = ast.parse(Path(grnn_jax.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {node.names[0].name: node.module.split(".")[1] for node in block.body}
    assert seen == grnn_jax._RESOLVED_LATER
    assert set(seen) <= set(grnn_jax.__all__)
