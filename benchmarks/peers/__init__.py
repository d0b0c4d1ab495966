"""The implementations compared: one file a library, all built from the same weights.

Each module offers

    start() -> None                                    import and start the library, nothing else
    train_step(config, weights, inputs, targets) -> TrainStep
    samplers(config, weights, num_samples, length) -> {label: function of no arguments}   (some)

and `SUPPORTS_BFLOAT16`. `load` tells a missing library from a broken one.
"""

import importlib
import os
import types

# All implementations are compared on the CPU; PyTorch is not told to leave it either.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# key -> (module, label in tables, the top-level packages it needs)
PEERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "grnn_jax": ("peers.grnn", "grnn_jax", ("grnn_jax",)),
    "flax": ("peers.flax_nnx", "flax nnx.RNN", ("flax",)),
    "haiku": ("peers.haiku_unroll", "haiku dynamic_unroll", ("haiku",)),
    "equinox": ("peers.equinox_scan", "equinox + lax.scan", ("equinox",)),
    "torch": ("peers.pytorch", "PyTorch", ("torch",)),
}


class MissingPeerError(Exception):
    """The library of a peer is not installed."""


def load(key: str) -> types.ModuleType:
    """Imports the module of one implementation.

    Raises:
        MissingPeerError: its library is not installed.
    """
    module, _, packages = PEERS[key]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in packages:
            raise MissingPeerError(f"{error.name} is not installed") from error
        raise
