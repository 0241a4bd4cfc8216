import math
from typing import Any

import pytest

from ccop_hub.coco.values import WrongValueError, flag, identifier, number


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (2.5, 2.5), ("4", 4), (" 1e2 ", 100), ("-0.5", -0.5)])
def test_numbers(value: Any, expected: float) -> None:
    assert number(value) == expected


@pytest.mark.parametrize("value", [None, True, "x", "", [], {}, math.nan, math.inf, "nan", "-inf", 10**400])
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(WrongValueError, match="number"):
        number(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        (0, False),
        (1, True),
        (0.0, False),
        (1.0, True),
        (True, True),
        (False, False),
        ("0", False),
        ("1", True),
        ("true", True),
        ("False", False),
        ("1.0", True),
        ("", False),
    ],
)
def test_flags(value: Any, expected: bool) -> None:
    assert flag(value) is expected


@pytest.mark.parametrize("value", [2, -1, 0.5, "maybe", [], {}, math.nan])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(WrongValueError, match="neither 0 nor 1"):
        flag(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (7, 7),
        (-2, -2),
        ("7", 7),
        (" 7 ", 7),
        (7.0, 7),
        ("7.0", 7),
        ("007", 7),
        ("a7", "a7"),
        (10**20, str(10**20)),
        (2**53 - 1, 2**53 - 1),
    ],
)
def test_ids(value: Any, expected: int | str) -> None:
    assert identifier(value) == expected


@pytest.mark.parametrize("value", [None, "", " ", True, 1.5, math.nan, [], {}])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(WrongValueError):
        identifier(value)
