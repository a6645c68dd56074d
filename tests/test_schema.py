"""Types of values read from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from semkey.errors import InputError
from semkey.schema import check_type


@dataclass(frozen=True)
class Inner:
    name: str
    values: Sequence[float] = ()


@dataclass(frozen=True)
class Outer:
    inner: Mapping[str, Inner]
    pair: tuple[int, str]
    note: str | None = None


PAIR: Any = (1, "x")
WRONG: Any = ["x"]
INNER = {"a": Inner("n", WRONG)}

GOOD = [
    (1, int), (1, float), (1.5, float), (True, bool), ("x", str), (None, str | None), ([1, 2.0], Sequence[float]),
    ((1, "x"), tuple[int, str]), ([1, 2, 3], tuple[int, ...]), ({"a": [1]}, Mapping[str, Sequence[int]]),
    ("rgbd", Literal["rgbd", "mono"]), (object(), Any), (Outer({"a": Inner("n", [1, 2])}, (1, "x")), Outer),
]  # fmt: skip
BAD = [
    (True, int), (True, float), (1.5, int), ("1", float), (None, str), ("ab", Sequence[str]),
    ([1, "x"], Sequence[float]), ([1], Mapping[str, int]), (Outer(INNER, PAIR), Outer), (Outer({}, WRONG), Outer),
    ((1,), tuple[int, str]), ({1: 2}, Mapping[str, int]), ("other", Literal["rgbd", "mono"]), (1, Literal[True]),
    (10**400, float),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), GOOD)
def test_what_fits_passes(value: object, kind: Any) -> None:
    check_type(value, kind, "it")


@pytest.mark.parametrize(("value", "kind"), BAD)
def test_what_does_not_fit_is_named(value: object, kind: Any) -> None:
    with pytest.raises(InputError, match=r"^it") as caught:
        check_type(value, kind, "it")
    assert "expected" in str(caught.value)


def test_the_place_of_a_wrong_value_is_named() -> None:
    with pytest.raises(InputError, match=r"it\.inner\.a\.values is 'x', expected a number"):
        check_type(Outer(INNER, PAIR), Outer, "it")
