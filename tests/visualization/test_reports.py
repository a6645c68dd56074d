from __future__ import annotations

import base64
import html.parser
import subprocess
import sys

import cv2
import numpy as np
import pytest

from semkey.errors import InputError
from semkey.geometry.trajectories import Trajectory
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.visualization.html import KeyFigures, Paragraph, Picture, Section, Table, html_report
from semkey.visualization.panels_over_time import evidence_strip
from semkey.visualization.trajectory import _break_where_lost, _places_of_lost, choose_view, trajectory_figure


def circle(count: int = 40, *, z_up: bool = True) -> Trajectory:
    """A camera held upright that goes around a circle of 1 m by 2 m, 0.1 s per frame."""
    # Camera axes are x right, y down, z forward: with z up in the world, "down" must map to -z.
    upright = so3_exp([-np.pi / 2, 0.0, 0.0]) if z_up else np.eye(3)
    poses = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        across, along = np.cos(angle), 2 * np.sin(angle)
        poses.append(make_transform(upright, [across, along, 1.0] if z_up else [across, 1.0, along]))
    return Trajectory(0.1 * np.arange(count, dtype=np.float64), np.stack(poses))


def decode(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1].astype(int)


def count_near(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 40) -> int:
    return int((np.abs(image - colour).sum(axis=2) < tolerance).sum())


BLUE, RED, GRAY = (0x25, 0x63, 0xEB), (0xDC, 0x26, 0x26), (0x8A, 0x94, 0xA0)


def test_figure_has_a_panel_for_everything_that_is_known() -> None:
    truth = circle()
    plain = decode(trajectory_figure(truth))
    with_error = decode(trajectory_figure(truth, truth))
    full = decode(trajectory_figure(truth, truth, inlier_counts=np.full(40, 7)))
    assert plain.shape[1] == with_error.shape[1] == full.shape[1] == 1320
    assert plain.shape[0] < with_error.shape[0] < full.shape[0]
    assert count_near(plain, BLUE) > 500
    assert count_near(plain, GRAY) < count_near(with_error, GRAY)


def test_lost_frames_are_marked_red() -> None:
    truth = circle()
    lost = np.zeros(40, dtype=bool)
    lost[10:15] = True
    tracked = truth.select(~lost)
    counts = np.where(lost, 0, 100)
    picture = trajectory_figure(tracked, frame_timestamps=truth.timestamps, lost_mask=lost, inlier_counts=counts)
    assert count_near(decode(picture), RED) > 50
    assert count_near(decode(trajectory_figure(tracked, inlier_counts=counts[~lost])), RED) == 0


def test_evidence_has_a_panel_and_a_strip_of_its_own() -> None:
    truth = circle()
    lost = np.zeros(40, dtype=bool)
    lost[10:20] = True
    values = np.where(lost, np.nan, -30.0)
    values[0] = np.nan  # the first frame of a map has a pose, and nothing to compare it with
    without = decode(trajectory_figure(truth, lost_mask=lost))
    assert decode(trajectory_figure(truth, lost_mask=lost, log10_nfa=values)).shape[0] > without.shape[0]
    strip = decode(evidence_strip(truth.timestamps, values, lost, threshold=-4.0))
    assert strip.shape[1] == 1320
    light_red = (np.array(RED) + 255) // 2
    red_columns = np.flatnonzero((np.abs(strip - light_red).sum(axis=2) < 40).sum(axis=0) > 20)
    # A quarter of the time is lost, in one piece; the axes begin at about 6 % of the width.
    assert red_columns[-1] - red_columns[0] == pytest.approx(0.25 * 0.92 * 1320, rel=0.1)
    assert 0.25 < red_columns[0] / 1320 < 0.33
    everything = decode(evidence_strip(truth.timestamps, values, np.zeros(40, dtype=bool)))
    assert count_near(everything, tuple(light_red)) == 0
    assert decode(evidence_strip([], [], [])).shape[1] == 1320
    with pytest.raises(InputError, match="one value per"):
        evidence_strip(truth.timestamps, values[:3], lost)


def test_the_weaker_pose_is_drawn_lower() -> None:
    times = np.arange(10.0)
    nothing_lost = np.zeros(10, dtype=bool)

    def top(value: float) -> int:
        """The highest blue pixel left of the middle; the right half has 100 decades."""
        values = np.where(times < 5, value, -100.0)
        strip = decode(evidence_strip(times, values, nothing_lost))
        return int(np.flatnonzero((np.abs(strip - BLUE).sum(axis=2) < 40)[:, 200:500].any(axis=1))[0])

    assert top(-80.0) < top(-20.0) < top(-5.0)


def test_line_breaks_at_lost_frames_only() -> None:
    truth = circle(10)
    lost = np.array([False, False, True, True, False, False, True, False, False, False])
    line = _break_where_lost(truth.select(~lost), truth.timestamps[lost])
    assert len(line) == 7 + 2
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(line[:, 0])), [2, 5])


def test_lost_frames_lie_on_ground_truth_or_at_the_last_pose() -> None:
    truth = circle(10)
    lost = np.arange(10) == 4
    tracked = truth.select(~lost)
    np.testing.assert_array_equal(_places_of_lost(tracked, truth, truth.timestamps[lost]), truth.positions[[4]])
    np.testing.assert_array_equal(_places_of_lost(tracked, None, truth.timestamps[lost]), truth.positions[[3]])


@pytest.mark.parametrize("z_up", [True, False])
def test_view_finds_up_and_is_not_mirrored(z_up: bool) -> None:
    view = choose_view(circle(z_up=z_up))
    assert (view.vertical, view.up_is_positive) == ((2, True) if z_up else (1, False))
    assert view.right == (1 if z_up else 2)  # the longer axis of the ellipse
    right, forward, up = np.eye(3)[[view.right, view.forward, view.vertical]]
    page_up = forward if view.forward_is_up_the_page else -forward
    np.testing.assert_array_equal(np.cross(right, page_up), up if view.up_is_positive else -up)


@pytest.mark.parametrize(("count", "truth_count"), [(0, 40), (1, 0), (2, 40)])
def test_very_short_runs_still_give_a_picture(count: int, truth_count: int) -> None:
    frames = circle()
    estimated, truth = frames.select(np.arange(count)), frames.select(np.arange(truth_count))
    lost = np.arange(40) >= count
    picture = trajectory_figure(
        estimated, truth, frame_timestamps=frames.timestamps, lost_mask=lost, inlier_counts=np.zeros(40)
    )
    assert decode(picture).shape[1] == 1320


def test_nothing_at_all_still_gives_a_picture() -> None:
    assert decode(trajectory_figure(circle().select(np.arange(0)))).shape[1] == 1320


def test_figure_refuses_masks_of_another_length() -> None:
    with pytest.raises(InputError, match="one value per frame"):
        trajectory_figure(circle(), lost_mask=[True])
    with pytest.raises(InputError, match="one value per frame"):
        trajectory_figure(circle(), inlier_counts=[1, 2])


def test_matplotlib_is_loaded_late_and_without_pyplot() -> None:
    code = (
        "import sys, numpy as np, semkey.visualization.trajectory as t\n"
        "assert 'matplotlib' not in sys.modules\n"
        "t.trajectory_figure(t.Trajectory(np.zeros(0), np.zeros((0, 4, 4))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class PageReader(html.parser.HTMLParser):
    """Collects tags, sources and text, and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_report_is_whole_escaped_and_self_contained() -> None:
    png = trajectory_figure(circle())
    page = html_report(
        "A <b>run</b>",
        [
            Section("First & last", [Paragraph('He said "<script>"'), KeyFigures({"ATE": "0.02 m"})]),
            Section(
                "Frames",
                [
                    Table(["name", "error", "n"], [["a<b", 0.123456, 10], ["c", None, 2]], caption="per frame"),
                    Picture(png, 'a "circle"'),
                ],
            ),
        ],
        subtitle="sub",
        footer="end",
    )
    reader = PageReader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert "script" not in reader.seen
    assert "b" not in reader.seen
    text = [part for part in reader.text if part]
    for expected in ("A <b>run</b>", 'He said "<script>"', "ATE", "0.02 m", "a<b", "0.1235", "10", "per frame", "end"):
        assert expected in text
    assert len(reader.sources) == 1
    prefix, data = reader.sources[0].split(",", 1)
    assert prefix == "data:image/png;base64"
    assert base64.b64decode(data) == png
    assert "http" not in page.replace(data, "")


def test_number_columns_are_aligned_right() -> None:
    page = html_report("t", [Section("s", [Table(["a", "b"], [["x", 1], ["y", None]])])])
    assert '<th>a</th><th class="number">b</th>' in page
    assert '<td>x</td><td class="number">1</td>' in page


def test_report_refuses_broken_parts() -> None:
    with pytest.raises(InputError, match="row 1 of table 'errors' has 1 cells, its header 2"):
        html_report("t", [Section("s", [Table(["a", "b"], [[1, 2], [3]], caption="errors")])])
    with pytest.raises(InputError, match="PNG or JPEG"):
        html_report("t", [Section("s", [Picture(b"GIF89a", "no")])])
