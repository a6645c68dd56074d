"""Checks of configurations' values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from semkey.errors import ConfigError
from semkey.settings import Settings, require_within


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
