"""Build Python functions from settings classes, with the arguments, checks and defaults of the command line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .validation import field_help, field_types

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


def front(name: str, settings: Callable[P, S], run: Callable[[S], R], returns: str) -> Callable[P, R]:
    """Build a function that takes the fields of a settings class and runs a task with them.

    Type checkers see the signature of the class; `help()` shows every field.

    Args:
        name: name of the function.
        settings: settings class; raises `UserError` for an invalid value.
        run: the task.
        returns: description of the result, for the docstring.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run(settings(*args, **kwargs))

    call.__name__ = call.__qualname__ = name
    call.__module__ = sys._getframe(1).f_globals["__name__"]  # as namedtuple does; inspect.stack() reads source files
    assert isinstance(settings, type)
    call.__doc__ = _documentation(settings, returns)
    returned = inspect.signature(run).return_annotation
    call.__signature__ = inspect.signature(settings).replace(return_annotation=returned)  # type: ignore[attr-defined]
    return call


def _documentation(settings: type[object], returns: str) -> str:
    """Build a Google-style docstring: summary, arguments and return value."""
    introduction = inspect.cleandoc(settings.__doc__ or "").partition("\n\nArgs:")[0]
    texts = field_help(settings)
    fields = "\n".join(f"    {field}: {texts.get(field, '')}".rstrip() for field in field_types(settings))
    errors = "    UserError: wrong settings or input; one line that says what to do."
    return f"{introduction}\n\nArgs:\n{fields}\n\nReturns:\n    {returns}\n\nRaises:\n{errors}\n"
