"""Any value of any setting is refused in one line, or survives `settings.yaml` and `--config` unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import ccop_eval.settings
import ccop_pretrain.settings
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ccop_hub.settings
from ccop_hub.console.config import read_config
from ccop_hub.errors import UserError
from ccop_hub.saved_settings import differences, read_settings, save_settings
from ccop_hub.validation import SettingError, Validated, choices, field_types, flag, without_bounds

CLASSES = sorted(
    {
        kind
        for module in (ccop_hub.settings, ccop_pretrain.settings, ccop_eval.settings)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Validated) and dataclasses.is_dataclass(kind)
    },
    key=lambda kind: (kind.__module__, kind.__name__),
)

HOSTILE = [
    "[/red]x",
    "$\\x{",
    "a\x85b",
    "\u2028",
    "\u202e",
    "caf\udce9",
    "null",
    "~",
    "1e3",
    "yes",
    "0x1f",
    "a: b",
    "#",
    "- x",
]
NUMBERS = st.integers(-(10**25), 10**25) | st.integers(-2, 5) | st.floats() | st.sampled_from([1e308, 5e-324, -0.0])
WORDS = st.text(max_size=6) | st.sampled_from(HOSTILE)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def fitting(kind: Any) -> st.SearchStrategy[Any]:
    """Values that have a chance of being allowed."""
    plain, _ = without_bounds(kind)
    words = choices(kind)
    if words:
        return st.sampled_from(words)
    parts = [part for part in get_args(plain) if part is not type(None)]
    if get_origin(plain) is tuple:
        return st.lists(fitting(parts[0]), min_size=len(parts), max_size=len(parts))
    if get_origin(plain) is list:
        return st.lists(fitting(parts[0]), min_size=1, max_size=3)
    if parts and get_origin(plain) is not Literal:
        return st.one_of(*map(fitting, parts))
    simple = {
        bool: st.booleans(),
        int: st.integers(0, 9),
        float: st.floats(0, 2),
        str: WORDS,
        Path: WORDS,
    }
    return simple.get(plain, ANYTHING)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_values_are_refused_in_one_line_or_come_back_from_disk(
    kind: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    types = field_types(kind)
    required = [field.name for field in dataclasses.fields(kind) if _is_required(field)]
    others = data.draw(st.lists(st.sampled_from(sorted(types)), max_size=4, unique=True)) if types else []
    values = {name: data.draw(fitting(types[name])) for name in {*required, *others}}
    odd = data.draw(st.sampled_from([None, *values]))
    if odd is not None:
        values[odd] = data.draw(ANYTHING)
    try:
        made = kind(**values)
    except UserError as error:
        refusal = error
    else:
        _check_saved(kind, made, tmp_path_factory.mktemp("settings") / "settings.yaml")
        return
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 2000
    if isinstance(refusal, SettingError):
        assert str(refusal).startswith(flag(refusal.field))


def _check_saved(kind: Any, made: Any, path: Path) -> None:
    save_settings(made, path)
    found, _ = read_config("program", path, list(field_types(kind)))
    assert kind(**found) == made
    assert differences(read_settings(path), made, ()) == []


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
