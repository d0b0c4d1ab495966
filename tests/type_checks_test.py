"""Nested functions that share their checks are checked each by itself."""

import gc
import weakref

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

checked = jaxtyping.jaxtyped(typechecker=beartype)


def define(offset, depth=0):
    """Executes the definition of a function, with another closure each time."""

    @checked
    def shifted(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        if depth:
            define(offset + 1, depth - 1)(a, b)
        return (a + b + offset)[: None if offset >= 0 else offset]

    return shifted


def test_each_definition_runs_its_own_function():
    ones = np.ones(3)
    first, second = define(10.0), define(20.0)
    assert (first(ones, ones)[0], second(ones, ones)[0], first(ones, ones)[0]) == (12, 22, 12)
    assert define(30.0, depth=2)(ones, ones)[0] == 32


@pytest.mark.parametrize("offset", [0, -1])
def test_each_definition_is_checked(offset):
    for _ in range(2):
        found = define(offset)
        with pytest.raises(jaxtyping.TypeCheckError, match="parameters of .*shifted"):
            found(np.ones(3), np.ones(4))
        with pytest.raises(jaxtyping.TypeCheckError, match="parameters of .*shifted"):
            found(np.ones(3), "b")
        if offset:
            with pytest.raises(jaxtyping.TypeCheckError, match="return value of .*shifted"):
                found(np.ones(3), np.ones(3))
        else:
            found(np.ones(3), np.ones(3))
            found(np.ones(2), np.ones(2))


def test_a_type_of_the_call_is_that_of_the_call():
    def define(kind):
        @checked
        def take(a: kind):
            return a

        return take

    assert (define(int)(1), define(str)("a")) == (1, "a")
    with pytest.raises(jaxtyping.TypeCheckError):
        define(int)("a")


def test_nothing_of_a_closure_is_kept():
    class Held:
        pass

    def define(held):
        @checked
        def take(a: int) -> int:
            return a if held else 0

        return take

    held = Held()
    gone = weakref.ref(held)
    assert define(held)(1) == 1
    del held
    gc.collect()
    assert gone() is None
