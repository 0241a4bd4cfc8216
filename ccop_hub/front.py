"""Python functions made from settings classes: the same fields, checks and defaults as the command line has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .validation import field_help, field_types

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


def front(name: str, settings: Callable[P, S], run: Callable[[S], R], returns: str) -> Callable[P, R]:
    """A function that takes the fields of a settings class and runs a task with them.

    Type checkers see the class's own signature; `help()` shows every field.

    Args:
        name: the function's name.
        settings: the settings class; it checks the values and raises `UserError` for a wrong one.
        run: the task.
        returns: what the task returns, for the docstring.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(settings(*args, **kwargs))

    caller = inspect.stack()[1].frame.f_globals["__name__"]
    call.__name__ = call.__qualname__ = name
    call.__module__ = caller
    assert isinstance(settings, type)
    call.__doc__ = _documentation(settings, returns)
    returned = inspect.signature(run).return_annotation
    call.__signature__ = inspect.signature(settings).replace(return_annotation=returned)  # type: ignore[attr-defined]
    return call


def _documentation(settings: type[object], returns: str) -> str:
    """A Google-style docstring: what the task does, every field, what comes back."""
    introduction = inspect.cleandoc(settings.__doc__ or "").partition("\n\nArgs:")[0]
    texts = field_help(settings)
    fields = "\n".join(f"    {field}: {texts.get(field, '')}".rstrip() for field in field_types(settings))
    errors = "    UserError: wrong settings or input; one line that says what to do."
    return f"{introduction}\n\nArgs:\n{fields}\n\nReturns:\n    {returns}\n\nRaises:\n{errors}\n"
