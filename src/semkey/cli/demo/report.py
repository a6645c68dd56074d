"""What a run of ``semkey demo`` gathers, and the page that shows it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(kw_only=True)
class DemoRun:
    """What the steps hand to the report: figures by name, pictures by file name, seconds by step."""

    out: Path
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    above: NDArray[np.uint8] | None = None

    @contextmanager
    def step(self, name: str, announcement: str) -> Generator[None]:
        """Announce a step on stderr and take its time."""
        typer.echo(announcement, err=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def keep(self, name: str, image: NDArray[np.uint8]) -> None:
        """Write a picture into the output folder and remember its bytes for the report."""
        from semkey.images import write_image

        write_image(self.out / name, image)
        self.pictures[name] = (self.out / name).read_bytes()


def write_demo_report(run: DemoRun) -> None:
    """Write trajectory.png, summary.json and report.html."""
    import json

    from semkey.files import atomic_write_bytes, atomic_write_text
    from semkey.visualization.html import KeyFigures, Paragraph, Picture, Section, Table, html_report

    figures = run.figures
    atomic_write_bytes(run.out / "trajectory.png", run.pictures["trajectory.png"])
    atomic_write_text(run.out / "summary.json", json.dumps(figures, indent=2, allow_nan=False) + "\n")

    def picture(name: str, caption: str) -> Picture:
        return Picture(run.pictures[name], caption)

    first, second = figures["frame_pair"]
    pair = f"Frames {first} and {second}, {figures['baseline_m']:.2f} m apart"
    sections = [
        Section(
            "The room",
            [
                Paragraph(
                    "Rendered on this machine with exact depth and poses: planes and boxes with procedural textures, "
                    "hand-held motion, motion blur and sensor noise. The folder room/ has it in the TUM RGB-D layout."
                ),
                picture("frames.png", "Five frames and their depth, near yellow, far blue"),
            ],
        ),
        Section("Result", [KeyFigures(readable(figures))]),
        Section("Keypoints", [picture("keypoints.png", f"Keypoints of frame {first}, coloured by score")]),
        Section("Matches", [picture("matches.png", f"{pair}: inliers of the estimated pose green, the others red")]),
        Section(
            "Trajectory",
            [
                picture("trajectory.png", "Estimate and ground truth"),
                Paragraph("slam/report.html has the details of this run."),
            ],
        ),
        Section("Time", [Table(["step", "seconds"], _time_rows(run))]),
    ]
    subtitle = (
        f"{figures['features']} features on a rendered room, seed {figures['seed']}, {figures['texture']} texture"
    )
    atomic_write_text(run.out / "report.html", html_report("semkey demo", sections, subtitle=subtitle))


def _time_rows(run: DemoRun) -> Sequence[Sequence[str | float]]:
    return [*run.seconds.items(), ("all", run.figures["seconds"])]


def readable(figures: dict[str, Any]) -> dict[str, str]:
    """Figures with their units, by a name for people."""

    def text(name: str, pattern: str) -> str:
        return "-" if figures[name] is None else pattern.format(figures[name])

    return {
        "keypoints": " and ".join(str(count) for count in figures["keypoints"]),
        "matches": text("matches", "{}"),
        "matches right by ground truth": text("right_matches_share", "{:.1%}"),
        "inliers of the pose": text("inlier_share", "{:.1%}"),
        "pose error, rotation": text("rotation_error_deg", "{:.3f} deg"),
        "pose error, direction": text("translation_error_deg", "{:.2f} deg"),
        "frames tracked": f"{figures['tracked']} of {figures['frames']} ({figures['tracked_percent']:.1f} %)",
        "trajectory error (ATE RMSE)": text("ate_rmse_m", "{:.4f} m"),
        "tracking speed": text("fps", "{:.1f} frames/s"),
        "time in all": text("seconds", "{:.0f} s"),
    }
