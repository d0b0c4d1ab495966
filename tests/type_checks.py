"""Shapes and types of every annotated function of the package are checked as it is called.

jaxtyping's import hook decorates each `def` where it is executed, and nested ones are executed
at every call of the function around them: to make the same checks anew each time took an eighth
of the tests' processor time. Here a nested function finds those of its last definition.
"""

import functools
import inspect
import threading
import types

import jaxtyping


def once_per_definition(jaxtyped):
    """`jaxtyping.jaxtyped`, but nested functions of one definition share what checks them."""
    shared = {}

    def decorator(*, typechecker):
        decorate = jaxtyped(typechecker=typechecker)

        def check(function):
            # What depends on the call, as defaults do, is decorated at each.
            if (
                not isinstance(function, types.FunctionType)
                or "<locals>" not in function.__qualname__
                or function.__defaults__
                or function.__kwdefaults__
            ):
                return decorate(function)
            key = function.__code__, tuple(function.__annotations__.items())
            try:
                found = shared.get(key)
            except TypeError:  # An annotation has no hash.
                return decorate(function)
            if found is None:
                found = shared[key] = _checks(decorate, function)
            return _under(function, *found)

        return check

    return decorator


def _checks(decorate, definition):
    """What checks any function of a definition: it calls the last of `running.functions`.

    It keeps nothing of the first one: tracers in its closure would be found to leak.
    """
    running = threading.local()

    def call(*args, **kwargs):
        return running.functions[-1](*args, **kwargs)

    # The names in annotations are those of the module.
    call = types.FunctionType(call.__code__, definition.__globals__, closure=call.__closure__)
    functools.update_wrapper(call, definition)
    del call.__wrapped__
    call.__signature__ = inspect.signature(definition)
    return decorate(call), running


def _under(function, checked, running):
    """A function behind checks that it shares."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        __tracebackhide__ = True
        functions = running.__dict__.setdefault("functions", [])
        functions.append(function)
        try:
            return checked(*args, **kwargs)
        finally:
            functions.pop()

    return call


def install():
    """Checks what is imported of the package from now on."""
    jaxtyping.jaxtyped = once_per_definition(jaxtyping.jaxtyped)
    jaxtyping.install_import_hook("grnn_jax", "beartype.beartype")
