"""Tables, marks, curves, pictures and the page made of them."""

from __future__ import annotations

import html.parser
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval_fakes import features, matches, pair
from semkey.errors import InputError
from semkey.evaluation.data.pairs import ImagePair, PairSet, PoseTruth
from semkey.evaluation.report.curves import curve_figure, curve_names, interval_figure, line_styles
from semkey.evaluation.report.page import report_html, write_report
from semkey.evaluation.report.pair_pictures import _choose, judge_matches
from semkey.evaluation.report.pictures import ReportPicture, read_pictures, write_pictures
from semkey.evaluation.report.tables import format_interval, format_value, headline_table, known_metrics, mark_best
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.results import Curve, Evaluation, Metric, SetResult
from semkey.geometry.camera import PinholeCamera

UP = Metric(name="up", label="accuracy, %", percent=True, headline=True)
DOWN = Metric(name="down", label="error, px", higher_is_better=False, digits=2, headline=True)
COUNT = Metric(name="count", label="keypoints", higher_is_better=None, digits=0)

JPEG = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


def make_evaluation(methods: tuple[str, ...] = ("first", "second<b>"), sets: tuple[str, ...] = ("one", "two")):
    results = {}
    for index, method in enumerate(methods):
        result = SetResult(
            count=5,
            failures=index,
            metrics={"up": 0.5 + 0.1 * index, "down": 2.0 - index, "count": 100.0},
            intervals={"up": (0.45 + 0.1 * index, 0.56 + 0.1 * index)},
            groups={"viewpoint": {"up": 0.1, "down": math.inf}},
            curves={"mma": Curve(x=[1, 2, 3], y=[0.1, 0.2, 0.3 + 0.1 * index])},
            rows=[{"name": "p", "error": 1.0}],
        )
        results[method] = dict.fromkeys(sets, result)
    return Evaluation(
        kind="planar",
        options={"keypoints": 512, "seed": 3, "estimator": "poselib"},
        environment={"semkey": "1", "command": "semkey eval planar 'a b'", "cpu": "x"},
        methods={method: {"weights": f"sha of {method}"} for method in methods},
        sets={name: {"description": f"about {name}", "pairs": 5} for name in sets},
        metrics=[UP, DOWN, COUNT],
        results=results,
        curve_labels={"mma": ("threshold, px", "accuracy")},
    )


class Page(html.parser.HTMLParser):
    """Text of marked cells, sources of pictures, and everything that would be loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.best: list[str] = []
        self.near: list[str] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._mark = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "span":
            self._mark = values.get("class") or ""
        if tag == "img":
            self.pictures.append(values.get("src") or "")
        assert "href" not in values
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._mark in ("best", "close"):
            (self.best if self._mark == "best" else self.near).append(data)
        self._mark = ""


# -- numbers as text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (UP, 0.4567, "45.7"),
        (UP, math.nan, "-"),
        (UP, None, "-"),
        (DOWN, 1.005, "1.00"),
        (DOWN, math.inf, "inf"),
        (DOWN, -math.inf, "-inf"),
        (DOWN, -0.001, "0.00"),
        (DOWN, -0.01, "-0.01"),
        (COUNT, 1023.6, "1024"),
    ],
)
def test_format_value(metric: Metric, value: float | None, text: str) -> None:
    assert format_value(metric, value) == text


def test_format_interval() -> None:
    assert format_interval(UP, (0.1, 0.25)) == "10.0 to 25.0"
    assert format_interval(UP, None) == ""
    assert format_interval(UP, (math.nan, 0.2)) == ""


def test_the_best_is_marked_by_the_direction_of_the_metric() -> None:
    assert mark_best(UP, [0.1, 0.3, 0.2]) == ["", "best", ""]
    assert mark_best(DOWN, [0.1, 0.3, 0.2]) == ["best", "", ""]
    assert mark_best(COUNT, [0.1, 0.3, 0.2]) == ["", "", ""]


def test_marks_of_ties_failures_and_unknown_values() -> None:
    assert mark_best(UP, [0.30001, 0.3, 0.2]) == ["best", "best", ""]  # they print the same
    assert mark_best(UP, [0.3, 0.3]) == ["", ""]  # nothing to tell apart
    assert mark_best(UP, [0.3, math.nan, None]) == ["", "", ""]
    assert mark_best(UP, [math.nan, 0.1, 0.3]) == ["", "", "best"]
    assert mark_best(DOWN, [math.inf, 2.0]) == ["", "best"]
    assert mark_best(DOWN, [math.inf, math.inf]) == ["", ""]
    assert mark_best(UP, []) == []


def test_overlapping_intervals_are_close() -> None:
    intervals = [(0.1, 0.2), (0.3, 0.5), (0.2, 0.3), None]
    assert mark_best(UP, [0.15, 0.4, 0.25, 0.35], intervals) == ["", "best", "close", ""]


def test_headline_table() -> None:
    header, rows, marks = headline_table(make_evaluation())
    assert header == ["set", "method", "accuracy, %", "error, px", "failed"]
    assert rows == [
        ["one", "first", "50.0", "2.00", "0 of 5"],
        ["one", "second<b>", "60.0", "1.00", "1 of 5"],
        ["two", "first", "50.0", "2.00", "0 of 5"],
        ["two", "second<b>", "60.0", "1.00", "1 of 5"],
    ]
    assert marks[0] == ["", "", "close", "", ""]
    assert marks[1] == ["", "", "best", "best", ""]


def test_metrics_that_nobody_has_are_left_out() -> None:
    assert known_metrics([UP, DOWN, COUNT], [{"up": 1.0, "down": math.nan}, {"up": math.nan}]) == [UP]


# -- curves --------------------------------------------------------------------------------------------------------


def decode(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1].astype(int)


def test_21_methods_look_different_and_keep_their_colour() -> None:
    names = [f"m{i}" for i in range(21)]
    styles = line_styles(names)
    assert len(set(styles.values())) == 21
    assert line_styles(names[:3]) == {name: styles[name] for name in names[:3]}


def test_curve_figure_has_a_panel_per_set_and_a_line_per_method() -> None:
    evaluation = make_evaluation(sets=("one", "two", "three", "four"))
    assert curve_names(evaluation) == ["mma"]
    few, many = decode(curve_figure(make_evaluation(), "mma")), decode(curve_figure(evaluation, "mma"))
    assert few.shape[1] == many.shape[1] == 1188
    assert many.shape[0] > 1.5 * few.shape[0]  # a second row of panels
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(few - colour).sum(axis=2) < 30).sum() > 200


def test_the_diagonal_is_drawn_where_it_is_what_is_right() -> None:
    def greys(name: str) -> int:
        evaluation = make_evaluation(sets=("one",))
        for sets in evaluation.results.values():
            sets["one"] = replace(sets["one"], curves={name: Curve(x=[0.0, 0.5, 1.0], y=[0.0, 0.9, 1.0])})
        picture = decode(curve_figure(evaluation, name))
        return int((np.abs(picture - 140).sum(axis=2) < 30).sum())

    assert greys("calibration") > greys("error") + 100


def test_interval_figure_needs_intervals() -> None:
    evaluation = make_evaluation()
    picture = interval_figure(evaluation, "one", [UP, DOWN])
    assert picture is not None
    assert decode(picture).shape[1] == 1188
    assert interval_figure(evaluation, "one", [DOWN]) is None


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_has_tables_curves_pictures_and_setup() -> None:
    pictures = [ReportPicture(section="Worst pairs", caption="a & b", data=JPEG)]
    page = Page(report_html(make_evaluation(), pictures))
    assert "60.0" in page.best
    assert "50.0" in page.near
    assert "1.00" in page.best
    # one curve, an interval figure per set, one pair
    assert len(page.pictures) == 4
    assert all(source.startswith("data:image/") for source in page.pictures)
    for text in ("Planar pairs", "about one", "Worst pairs", "a & b", "semkey eval planar 'a b'", "poselib", "512"):
        assert text in page.text
    for text in ("sha of second<b>", "Group viewpoint", "0 of 5", "1 of 5", "45.0 to 56.0"):
        assert text in page.text
    assert "b" not in page.tags  # the name of the method was escaped


def test_one_method_is_not_marked() -> None:
    page = Page(report_html(make_evaluation(methods=("only",))))
    assert page.best == page.near == []
    assert "bold on green" not in page.text


def test_a_set_that_a_method_has_no_result_for() -> None:
    evaluation = make_evaluation()
    results = {method: dict(sets) for method, sets in evaluation.results.items()}
    del results["first"]["two"]
    partial = replace(evaluation, results=results)
    assert "60.0" in Page(report_html(partial)).text
    assert len(headline_table(partial)[1]) == 3


def test_the_page_from_results_json_is_the_same(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    evaluation.write(tmp_path / "results.json")
    again = Evaluation.read(tmp_path / "results.json")
    assert report_html(again) == report_html(evaluation)
    assert write_report(again, tmp_path) == tmp_path / "report.html"


def test_pictures_are_read_back_and_old_ones_removed(tmp_path: Path) -> None:
    many = [ReportPicture(section=f"s{i}", caption=f"c{i}", data=JPEG) for i in range(3)]
    write_pictures(tmp_path, many)
    write_pictures(tmp_path, many[:1])
    assert read_pictures(tmp_path) == many[:1]
    assert [file.name for file in sorted((tmp_path / "pictures").iterdir())] == ["00.jpg", "index.json"]
    assert read_pictures(tmp_path / "nothing") == []
    (tmp_path / "pictures" / "00.jpg").unlink()
    with pytest.raises(InputError, match=r"index\.json: cannot be used"):
        read_pictures(tmp_path)


# -- which pairs are drawn, and how matches are judged ---------------------------------------------------------------


def test_matches_are_judged_by_a_homography() -> None:
    shift = pair(np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]]))
    features0, features1 = features([[10, 10], [20, 20], [30, 30]]), features([[112.9, 10], [120, 23.1], [130, 30]])
    known, correct = judge_matches(shift, features0, features1, matches([[0, 0], [1, 1], [2, 2]]))
    assert known.tolist() == [True, True, True]
    assert correct.tolist() == [True, False, True]


def test_matches_are_judged_by_epipolar_lines_where_there_is_no_depth() -> None:
    """A camera that moves to the right by 1: epipolar lines are rows, so any shift along x is fine."""
    camera = PinholeCamera(fx=500, fy=500, cx=320, cy=240, width=640, height=480)
    T = np.eye(4)
    T[0, 3] = -1.0
    posed = pair(PoseTruth(T_cam1_cam0=T, camera0=camera, camera1=camera))
    features0, features1 = features([[10, 10], [20, 20], [30, 30]]), features([[500, 12.9], [5, 23.1], [30, 30]])
    known, correct = judge_matches(posed, features0, features1, matches([[0, 0], [1, 1], [2, 2]]))
    assert known.all()
    assert correct.tolist() == [True, False, True]


def chosen(errors: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    names = list(next(iter(errors.values())))
    results = {
        method: {"s": SetResult(count=len(rows), rows=[{"name": n, "error": e} for n, e in rows.items()])}
        for method, rows in errors.items()
    }
    evaluation = replace(make_evaluation(methods=tuple(errors), sets=("s",)), results=results)
    pairs: list[ImagePair] = [pair(np.eye(3), name=name) for name in names]
    peer = list(errors)[1] if len(errors) > 1 else None
    sections: dict[str, list[str]] = {}
    for one in _choose(evaluation, [PairSet(name="s", pairs=pairs, description="")], next(iter(errors)), peer):
        sections.setdefault(one.section, []).append(one.pair.name)
    return sections


def test_worst_best_and_lost_pairs_are_chosen_once() -> None:
    mine = {"a": 1.0, "b": math.inf, "c": 5.0, "d": 0.1, "e": 50.0, "f": 60.0, "g": 0.2}
    peer = {"a": 1.0, "b": 2.0, "c": 0.01, "d": 9.0, "e": 49.0, "f": math.inf, "g": 9.0}
    assert chosen({"me": mine, "peer": peer}) == {
        "Worst pairs of me, beside peer": ["f", "e"],
        "Pairs where peer is furthest ahead of me": ["b", "c"],
        "Best pairs of me, beside peer": ["d", "g"],
    }


def test_pairs_of_a_single_method_and_of_few_pairs() -> None:
    assert chosen({"me": {"a": 1.0, "b": 2.0, "c": math.nan}}) == {"Worst pairs of me": ["b", "a"]}


def test_environment_names_machine_versions_and_command() -> None:
    found = describe_environment("cpu", command=["semkey", "eval", "planar", "my photos"])
    assert found["device"] == "cpu"
    assert found["command"] == "semkey eval planar 'my photos'"
    assert int(found["cores"]) >= 1
    assert {"numpy", "torch", "opencv-python-headless", "poselib", "cpu", "threads", "python"} <= found.keys()
    assert "command" not in describe_environment("cpu")
