"""The settings that cells and families read are their keyword arguments of the same name.

What is renamed on one side alone would silently kill a flag: here it fails.
"""

import inspect

import pytest

from grnn_jax.cells import CELLS
from grnn_jax.config import FIELDS
from grnn_jax.distributions import DISTRIBUTIONS

SETTINGS = {name for name, field in FIELDS.items() if field.metadata["section"] == "model"}

OF_THE_MODEL = {
    "cell", "num_layers", "residual", "layer_norm", "dropout", "dropout_per", "recurrent_dropout",
    "zoneout", "distribution", "skip_input", "tied_embeddings", "engine", "remat_chunk",
    "condition_enters",
}  # fmt: skip
"""Settings that `build_model` reads itself."""

OF_THE_DATA = {"end", "mean", "shift", "scale"}
"""Keyword arguments of families that codecs give, `EventType.options`."""

DERIVED = {"num_sites", "tied", "with_input"}
"""Keyword arguments that `build_model` gives under another name than the setting's."""

NO_SETTINGS = {
    "activations_limit", "largest_phase", "largest_radius", "logits_limit", "min_scale", "min_wait",
    "smallest_radius", "window",
}  # fmt: skip
"""Keyword arguments for Python alone: no flag sets them."""


def keywords(make):
    parameters = inspect.signature(make).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


MAKERS = {**CELLS, **{name: family.make for name, family in DISTRIBUTIONS.items()}}


@pytest.mark.parametrize("name", MAKERS)
def test_a_keyword_of_a_cell_or_family_is_a_setting_or_known_not_to_be_one(name):
    allowed = SETTINGS | DERIVED | NO_SETTINGS | (OF_THE_DATA if name in DISTRIBUTIONS else set())
    assert keywords(MAKERS[name]) <= allowed


def test_every_setting_of_the_model_is_read():
    read = set().union(*map(keywords, MAKERS.values())) | {"hidden_size"} | OF_THE_MODEL
    assert SETTINGS - read == set()
    assert OF_THE_MODEL <= SETTINGS


def test_what_is_listed_here_exists():
    used = set().union(*map(keywords, MAKERS.values()))
    assert used >= OF_THE_DATA | DERIVED | NO_SETTINGS
    assert not SETTINGS & (DERIVED | NO_SETTINGS)


@pytest.mark.parametrize("name", CELLS)
def test_cells_take_their_width_first(name):
    assert next(iter(inspect.signature(CELLS[name]).parameters)) == "hidden_size"
