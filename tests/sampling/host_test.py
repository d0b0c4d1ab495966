"""Nothing that draws or searches waits for the host between two events."""

import jax
import pytest

from grnn_jax import cells, distributions, drawing, make_model, sampling

MODEL = make_model(cells.gru(4), distributions.categorical(3, end=0))
LENGTH = 40
CONSTRAINT = sampling.make_constraint(MODEL, sampling.compile_regex("a*b", ["", "a", "b"]), LENGTH)
KEY = jax.random.key(1)
CALLS = {
    "sample": lambda params: sampling.sample(MODEL, params, KEY, 2, LENGTH, top_k=2),
    "callback": lambda params: sampling.sample(
        MODEL, params, KEY, 2, LENGTH, logits_callback=lambda logits, state: 2 * logits
    ),
    "extend": lambda params: sampling.extend(
        MODEL, params, sampling.start(MODEL, params, KEY, 2), LENGTH
    ),
    "sample_many": lambda params: sampling.sample_many(MODEL, params, KEY, 5, LENGTH, num_rows=2),
    "beam_search": lambda params: sampling.beam_search(MODEL, params, 2, LENGTH),
    "stochastic_beam_search": lambda params: sampling.stochastic_beam_search(
        MODEL, params, KEY, 2, LENGTH
    ),
    "sample_masked": lambda params: sampling.sample_masked(MODEL, params, KEY, 2, CONSTRAINT),
    "sample_particles": lambda params: sampling.sample_particles(
        MODEL, params, KEY, 2, CONSTRAINT, num_particles=3
    ),
}


def equations(jaxpr):
    """All equations of a program with the loops that each stands in."""
    todo = [(jaxpr, 0)]
    while todo:
        inner, loops = todo.pop()
        for equation in inner.eqns:
            name = equation.primitive.name
            yield name, loops
            deeper = loops + (name in ("while", "scan"))
            for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr")):
                if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
                    todo.append((getattr(value, "jaxpr", value), deeper))


@pytest.mark.parametrize("name", CALLS)
def test_the_host_is_not_asked_between_two_events(name):
    # What can be traced as a whole reads no number on the host; nor may it call back.
    shapes = jax.eval_shape(MODEL.init, KEY)
    found = list(equations(jax.make_jaxpr(CALLS[name])(shapes).jaxpr))
    assert not [each for each, _ in found if "callback" in each or "infeed" in each]
    # The network is evaluated in a loop over events, and nowhere as often as there are events.
    products = [loops for each, loops in found if each == "dot_general"]
    assert max(products) == 1 and len(products) < LENGTH / 2


def test_the_next_piece_is_on_its_way_while_one_is_read(monkeypatch):
    order = []
    draw = sampling.ancestral._draw
    monkeypatch.setattr(
        sampling.ancestral, "_draw", lambda *given: order.append("draw") or draw(*given)
    )
    endless = make_model(cells.gru(4), distributions.categorical(3))
    params = endless.init(jax.random.key(0))
    for piece in sampling.stream(endless, params, KEY, 1, 6, chunk_length=2):
        order.append(int(piece.state.position[0]))
    assert order == ["draw", "draw", 2, "draw", 4, 6]


def test_the_next_block_is_on_its_way_while_one_is_read(monkeypatch):
    order = []
    monkeypatch.setattr(drawing, "BATCH_SIZE", 2)
    monkeypatch.setattr(drawing, "BLOCK_BATCHES", 1)
    make = drawing.sampling.make_sharded_sample

    def recorded(*given, **options):
        draw = make(*given, **options)
        return lambda *each: order.append("draw") or draw(*each)

    monkeypatch.setattr(drawing.sampling, "make_sharded_sample", recorded)
    read = jax.device_get
    monkeypatch.setattr(drawing.jax, "device_get", lambda x: order.append("read") or read(x))
    params = MODEL.init(jax.random.key(0))
    run = drawing.Run(MODEL, params, None, None, 0)
    drawn = list(drawing.iterate_samples(run, num_samples=6, length=4, seed=0, options={}))
    assert len(drawn) == 6 and order == ["draw", "draw", "read", "draw", "read", "read"]
