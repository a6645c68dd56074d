"""Options made from configuration classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from command_line import Run
from semkey.cli.inputs import FeatureOptions
from semkey.cli.options import configured, field_option, option
from semkey.errors import ConfigError
from semkey.rendering.config import RoomConfig
from semkey.settings import Settings, require_within
from semkey.slam.config import SlamConfig
from tum_folder import FOCAL, HEIGHT, WIDTH, write_tum

CAMERA = f"{FOCAL},{FOCAL},{(WIDTH - 1) / 2},{(HEIGHT - 1) / 2}"


@dataclass(frozen=True, kw_only=True)
class PaintOptions(Settings):
    """What to paint.

    Attributes:
        colour: of the wall, one of ``red`` and
            ``[blue]``.
        coats: how many, at least 1.
        gloss: whether it shines.
        tin: where the paint is.

    Raises:
        ConfigError: no coat.
    """

    colour: Literal["red", "blue"] = "red"
    coats: int = option(2, "--coats", "-c", metavar="N")
    gloss: bool = False
    tin: Path | None = None

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "coats")


def paint(**typed: str) -> tuple[PaintOptions, int]:
    seen: list[tuple[PaintOptions, int]] = []

    app = typer.Typer()

    @app.command()
    @configured
    def walls(*, paint: PaintOptions, rooms: int = typer.Option(..., "--rooms")) -> None:
        seen.append((paint, rooms))

    arguments = [word for name, value in typed.items() for word in (f"--{name}", value) if word]
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return seen[0]


def test_every_field_is_an_option_with_the_default_of_the_class() -> None:
    assert paint(rooms="3") == (PaintOptions(), 3)
    made, _ = paint(rooms="1", colour="blue", coats="4", gloss="", tin="shed/tin")
    assert made == PaintOptions(colour="blue", coats=4, gloss=True, tin=Path("shed/tin"))


def test_a_value_out_of_range_is_told_by_the_options_name() -> None:
    with pytest.raises(ConfigError, match=r"^--coats is 0, must be in \[1, inf\)$"):
        paint(rooms="1", coats="0")


def test_the_help_is_what_the_docstring_says() -> None:
    assert PaintOptions.descriptions() == {
        "colour": "of the wall, one of ``red`` and ``[blue]``.",
        "coats": "how many, at least 1.",
        "gloss": "whether it shines.",
        "tin": "where the paint is.",
    }
    assert field_option(PaintOptions, "colour").help == r"Of the wall, one of [bold]red[/] and [bold]\[blue][/]."


@pytest.mark.parametrize("kind", [FeatureOptions, RoomConfig, SlamConfig])
def test_every_option_is_described(kind: type[Settings]) -> None:
    assert kind.descriptions().keys() == kind.__dataclass_fields__.keys()


def test_set_reaches_every_setting_of_slam(tmp_path: Path, run: Run) -> None:
    folder = write_tum(tmp_path / "wall", frames=4)
    arguments = ("slam", folder, "--camera", CAMERA, "--features", "orb", "--out", tmp_path / "out")
    wrong = run(*arguments, "--set", "tracking.min_inlier=20")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "unknown key 'tracking.min_inlier', did you mean 'min_inliers'?" in wrong.err
    # The wall is farther away: no keypoint has a depth that counts.
    done = run(*arguments, "--set", "tracking.min_depth=0", "--set", "tracking.max_depth=0.5")
    assert "tracked\t0 (0.0 %)" in done.out
