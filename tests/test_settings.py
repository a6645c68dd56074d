"""Checks of configurations' values."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import semkey
from semkey.errors import ConfigError
from semkey.settings import Settings, require_choice, require_within


@dataclass(frozen=True, kw_only=True)
class Numbers(Settings):
    share: float = 0.5
    count: int = 1


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0.0, 0.5, 1.0), (-1e-9, 1 + 1e-9, math.nan)),
        ("(0, 1)", (1e-9, 1 - 1e-9), (0.0, 1.0, math.nan)),
        ("(0, 1]", (1e-9, 1.0), (0.0, 1.1)),
        ("[4, inf)", (4, 10**9), (3.999, math.inf, -math.inf, math.nan)),
    ],
)
def test_ends_of_intervals(interval: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    for value in inside:
        require_within(Numbers(share=value), interval, "share")
    for value in outside:
        with pytest.raises(ConfigError):
            require_within(Numbers(share=value), interval, "share")


def test_the_message_names_the_field_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"^count is -3, must be in \[0, inf\)$"):
        require_within(Numbers(count=-3), "[0, inf)", "share", "count")


@dataclass(frozen=True, kw_only=True)
class Nested(Settings):
    numbers: Numbers = field(default_factory=Numbers)
    mode: Literal["slow", "fast"] | None = None

    def __post_init__(self) -> None:
        require_choice(self, "mode")


def test_changes_leave_the_other_values_as_they_are() -> None:
    first = Nested(numbers=Numbers(share=0.25, count=7), mode="slow")
    assert first.with_changes(["numbers.count=3", "mode=null"]) == Nested(numbers=Numbers(share=0.25, count=3))
    assert first.with_changes([]) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("numbers.cuont=3", r"unknown key 'numbers.cuont', did you mean 'count'\?"),
        ("numbers.count=some", "numbers.count is 'some', expected a whole number"),
        ("mode=quick", "mode is 'quick', must be one of slow, fast"),
        ("numbers", "--set numbers: expected key=value"),
    ],
)
def test_a_wrong_change_is_named(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nested().with_changes([change])


def test_a_choice_is_checked_when_the_class_is_called_too() -> None:
    with pytest.raises(ConfigError, match="mode is 'quick', must be one of slow, fast"):
        Nested(mode="quick")  # ty: ignore[invalid-argument-type]


def test_counts_of_numpy_are_whole_numbers() -> None:
    assert Numbers.from_mapping({"count": np.int64(3)}) == Numbers(count=3)


def test_there_is_one_kind_of_configuration() -> None:
    folder = Path(semkey.__file__).parent
    without_base = [
        f"{path.relative_to(folder)}: {node.name}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Options")) and not node.bases
    ]
    assert not without_base
