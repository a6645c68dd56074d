"""The runner: what is measured once stays, what changes is measured anew, and an interruption loses nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pictures import blocks
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, ImageSource, PairSet
from semkey.evaluation.kinds.planar import PlanarProtocol
from semkey.evaluation.running.feature_cache import FeatureCache
from semkey.evaluation.running.methods import Method, create_method
from semkey.evaluation.running.pair_runner import run_pairs
from semkey.evaluation.running.results import Evaluation, Metric, Row, SetResult
from semkey.evaluation.running.row_store import RowStore, file_name, run_key
from semkey.matching.mutual import Matches
from semkey.model.features import Features

ENVIRONMENT = {"semkey": "test"}


@dataclass(frozen=True, kw_only=True)
class CountingProtocol:
    """Counts what it measures, and gives values that JSON cannot hold as they are."""

    option: float = 1.0
    kind: str = "counting"
    measured: list[str] = field(default_factory=list, compare=False)
    stop_at: str = ""

    curve_labels: ClassVar[Mapping[str, tuple[str, str]]] = {}
    metrics: ClassVar[Sequence[Metric]] = [Metric(name="mean", label="mean")]

    def measure(self, pair: ImagePair, features0: Features, features1: Features, matches: Matches) -> Row:
        if pair.name == self.stop_at:
            raise KeyboardInterrupt
        self.measured.append(pair.name)
        error = math.inf if pair.name == "p1" else np.float64(len(matches))
        return {"name": pair.name, "error": error, "list": [1.5, math.nan, -math.inf], "keypoints": len(features0)}

    def summarise(self, rows: Sequence[Row]) -> SetResult:
        finite = [row["error"] for row in rows if math.isfinite(row["error"])]
        return SetResult(count=len(rows), metrics={"mean": float(np.mean(finite))}, rows=rows)


@pytest.fixture(autouse=True)
def _options_without_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters of the fake protocol are no options."""
    import semkey.evaluation.running.pair_runner as runner

    whole = runner.protocol_options

    def options(protocol: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(protocol).items() if name not in ("measured", "stop_at")}

    monkeypatch.setattr(runner, "protocol_options", options)


def noise(seed: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def source(seed: int) -> ImageSource:
    return ImageSource(key=f"image-{seed}", read=lambda: noise(seed))


def make_set(name: str = "set", count: int = 4, shift: float = 0.0) -> PairSet:
    H = np.array([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]])
    pairs = [
        ImagePair(name=f"p{i}", image0=source(0), image1=source(i + 1), truth=HomographyTruth(H10=H))
        for i in range(count)
    ]
    return PairSet(name=name, pairs=pairs, description="noise")


@pytest.fixture(scope="module")
def orb() -> Method:
    return create_method("orb", keypoints=50)


def run(protocol: Any, sets: Sequence[PairSet], methods: Sequence[Method], out: Path, **options: Any) -> Evaluation:
    return run_pairs(protocol, sets, methods, out=out, environment=ENVIRONMENT, **options)


def test_a_second_run_measures_nothing_and_gives_the_same(orb: Method, tmp_path: Path) -> None:
    sets = [make_set("one"), make_set("two", count=2)]
    first = CountingProtocol()
    evaluation = run(first, sets, [orb], tmp_path)
    assert first.measured == ["p0", "p1", "p2", "p3", "p0", "p1"]
    second = CountingProtocol()
    again = run(second, sets, [orb], tmp_path)
    assert second.measured == []
    evaluation.write(tmp_path / "1.json")
    again.write(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    row = again.results["orb"]["one"].rows[1]
    assert row["error"] == math.inf
    assert row["list"][0] == 1.5
    assert math.isnan(row["list"][1])
    assert row["list"][2] == -math.inf
    assert again.sets == {"one": {"description": "noise", "pairs": 4}, "two": {"description": "noise", "pairs": 2}}


def test_an_interrupted_run_goes_on_where_it_stopped(orb: Method, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(CountingProtocol(stop_at="p2"), [make_set()], [orb], tmp_path / "a")
    rest = CountingProtocol()
    resumed = run(rest, [make_set()], [orb], tmp_path / "a")
    assert rest.measured == ["p2", "p3"]
    whole = run(CountingProtocol(), [make_set()], [orb], tmp_path / "b")
    resumed.write(tmp_path / "1.json")
    whole.write(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_line_cut_off_in_a_write_is_measured_again(orb: Method, tmp_path: Path, keep: int) -> None:
    run(CountingProtocol(), [make_set()], [orb], tmp_path)
    (rows,) = tmp_path.rglob("*.jsonl")
    whole = rows.read_bytes()
    lines = whole.splitlines(keepends=True)
    rows.write_bytes(b"".join(lines[:-1]) + lines[-1][:keep])
    again = CountingProtocol()
    run(again, [make_set()], [orb], tmp_path)
    assert again.measured == ["p3"]
    assert rows.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [(b"1.5", b"1.7"), (b'"name": "p1"', b'"name": "p3"'), (b"{", b"\x00\xff garbage {")]
)
def test_a_damaged_row_alone_is_measured_again(orb: Method, tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    first = run(CountingProtocol(), [make_set()], [orb], tmp_path)
    (rows,) = tmp_path.rglob("*.jsonl")
    lines = rows.read_bytes().splitlines(keepends=True)
    changed = lines[2].replace(*damage)
    assert changed != lines[2]
    rows.write_bytes(b"".join([*lines[:2], changed, *lines[3:]]))
    again = CountingProtocol()
    second = run(again, [make_set()], [orb], tmp_path)
    assert again.measured == ["p1"]
    assert str(second.results["orb"]["set"].rows) == str(first.results["orb"]["set"].rows)
    third = CountingProtocol()
    run(third, [make_set()], [orb], tmp_path)
    assert third.measured == []


CHANGES: dict[str, Callable[[Method], tuple[Any, PairSet, Method]]] = {
    "option": lambda orb: (CountingProtocol(option=2.0), make_set(), orb),
    "kind": lambda orb: (CountingProtocol(kind="other"), make_set(), orb),
    "truth": lambda orb: (CountingProtocol(), make_set(shift=1e-9), orb),
    "pairs": lambda orb: (CountingProtocol(), make_set(count=3), orb),
    "description": lambda orb: (CountingProtocol(), replace(make_set(), description="other"), orb),
    "matching": lambda orb: (CountingProtocol(), make_set(), create_method("orb", keypoints=50, ratio=0.9)),
    "keypoints": lambda orb: (CountingProtocol(), make_set(), create_method("orb", keypoints=51)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_rows_depend_on_is_in_their_key(orb: Method, tmp_path: Path, change: str) -> None:
    run(CountingProtocol(), [make_set()], [orb], tmp_path)
    protocol, pair_set, method = CHANGES[change](orb)
    run(protocol, [pair_set], [method], tmp_path)
    assert protocol.measured == [pair.name for pair in pair_set.pairs]


def test_an_unreadable_image_names_pair_and_file_and_keeps_the_rows_before(orb: Method, tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise InputError("photos/b.png is a truncated PNG: restore the file or leave it out")

    pairs = list(make_set().pairs)
    pairs[2] = replace(pairs[2], image1=ImageSource(key="image-3", read=broken))
    damaged = replace(make_set(), pairs=pairs)
    with pytest.raises(DatasetError, match=r"set, pair p2: photos/b\.png is a truncated PNG"):
        run(CountingProtocol(), [damaged], [orb], tmp_path)
    rest = CountingProtocol()
    run(rest, [make_set()], [orb], tmp_path)
    assert rest.measured == ["p2", "p3"]
    (rows,) = tmp_path.rglob("*.jsonl")
    assert [json.loads(line).get("name") for line in rows.read_text().splitlines()[1:]] == ["p0", "p1", "p2", "p3"]


def test_each_image_is_extracted_once(orb: Method, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    run(CountingProtocol(), [make_set("one"), make_set("two")], [orb], tmp_path, cache=cache)
    assert cache.misses == 5
    other = FeatureCache(tmp_path / "cache")
    run(CountingProtocol(option=3), [make_set("one")], [orb], tmp_path, cache=other)
    assert other.misses == 0


def test_progress_counts_to_the_end_on_fresh_and_stored_rows(orb: Method, tmp_path: Path) -> None:
    for _ in range(2):
        seen: list[tuple[int, int, str]] = []
        run(CountingProtocol(), [make_set()], [orb], tmp_path, progress=lambda *args, seen=seen: seen.append(args))
        assert [done for done, _, _ in seen] == [0, 1, 2, 3, 4]
        assert {total for _, total, _ in seen} == {4}
        assert seen[-1][2] == "orb, set"


def test_names_must_be_unique(orb: Method, tmp_path: Path) -> None:
    twice = replace(make_set(), pairs=[make_set().pairs[0]] * 2)
    for sets, methods, message in (
        ([make_set()], [orb, orb], "method 'orb' occurs twice"),
        ([make_set(), make_set()], [orb], "set 'set' occurs twice"),
        ([twice], [orb], "pair of set 'set' 'p0' occurs twice"),
        ([make_set()], [], "no method"),
        ([], [orb], "no set"),
        ([make_set(count=0)], [orb], "no pair of set 'set'"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(CountingProtocol(), sets, methods, tmp_path)


def test_a_file_in_place_of_the_folder_is_an_input_error(orb: Method, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("here")
    with pytest.raises(InputError, match="cannot be written"):
        run(CountingProtocol(), [make_set()], [orb], tmp_path)


def test_file_names_differ_where_names_do(tmp_path: Path) -> None:
    names = ["a+lightglue", "a/lightglue", "a lightglue", "a-lightglue", "..", "é", "x" * 300, "x" * 301, ""]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    assert files[0] == "a+lightglue"
    assert all(file and "/" not in file and not file.startswith(".") and len(file) < 100 for file in files)
    for name in names:
        with RowStore(tmp_path, "m", name, "key") as store:
            store.append({"name": "p"})


def test_the_key_sees_camera_and_pose(tmp_path: Path) -> None:
    from semkey.evaluation.data.pairs import PoseTruth
    from semkey.geometry.camera import PinholeCamera

    camera = PinholeCamera(fx=500, fy=500, cx=320, cy=240, width=640, height=480)
    T = np.eye(4)
    T[0, 3] = 1e-7
    truths = [
        PoseTruth(T_cam1_cam0=np.eye(4), camera0=camera, camera1=camera),
        PoseTruth(T_cam1_cam0=T, camera0=camera, camera1=camera),
        PoseTruth(T_cam1_cam0=np.eye(4), camera0=replace(camera, fx=500.001), camera1=camera),
        PoseTruth(T_cam1_cam0=np.eye(4), camera0=camera, camera1=camera, depth_tolerance=0.06),
    ]
    keys = set()
    for truth in truths:
        pairs = [ImagePair(name="p", image0=source(0), image1=source(1), truth=truth)]
        keys.add(run_key({}, "posed-pairs", {}, PairSet(name="s", pairs=pairs, description="")))
    assert len(keys) == len(truths)


def test_planar_protocol_through_the_runner(tmp_path: Path) -> None:
    """An image against itself: everything is repeated, matched and at its place; one has too few keypoints."""
    pictures = [blocks(96, 128, seed=i, size=8) for i in range(5)]
    pictures[0][:, 24:] = 90  # leaves a strip, whose corners are too few for a homography
    pictures[0][16:] = 90
    views = [ImageSource(key=f"image-{i}", read=picture.copy) for i, picture in enumerate(pictures)]
    pairs = [
        ImagePair(name=f"p{i}", image0=view, image1=view, truth=HomographyTruth(H10=np.eye(3)))
        for i, view in enumerate(views)
    ]
    pair_set = PairSet(name="same", pairs=pairs, description="")
    evaluation = run(PlanarProtocol(), [pair_set], [create_method("sift", keypoints=100)], tmp_path)
    metrics = evaluation.results["sift"]["same"].metrics
    assert metrics["repeatability@1"] == pytest.approx(1.0)
    assert metrics["mma@3"] == pytest.approx(1.0)
    assert [len(row["mma"]) for row in evaluation.results["sift"]["same"].rows] == [10] * 5
    assert evaluation.results["sift"]["same"].rows[0]["matches"] <= 3
    assert evaluation.results["sift"]["same"].failures == 1
    for estimator in ("poselib", "opencv", "dlt"):
        assert metrics[f"auc_{estimator}@3"] == pytest.approx(0.8)
