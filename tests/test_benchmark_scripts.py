"""benchmarks/differences.py and join_rooms.py: intervals of paired differences, and rooms as one recording."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.evaluation.kinds.position_noise import NoiseCounts
from semkey.evaluation.running.pair_runner import ROWS_FOLDER
from semkey.evaluation.running.results import Evaluation, SetResult
from semkey.evaluation.running.row_store import RowStore
from semkey.rendering import RoomConfig, write_room

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
ROOM = RoomConfig(seed=3, frames=4, width=64, height=48, texel_size=0.05, texture="low", blur=False, noise=False)


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCHMARKS / name, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def posed_pairs(out: Path, errors: dict[str, np.ndarray], noise: dict[str, float], names: str = "pair") -> Path:
    """An evaluation with pose errors (P,) by method and matches that are all ``noise`` px away from the truth."""
    count = len(next(iter(errors.values())))
    for method, values in errors.items():
        found = np.full((8, 2), 20.0)
        counts = NoiseCounts.of(np.zeros((40, 40, 3), np.uint8), found + np.array([noise[method], 0.0]), found).row()
        order = list(enumerate(values))
        with RowStore(out / ROWS_FOLDER, method, "room-gap-1", "key") as store:
            for index, value in order if method == "old" else reversed(order):  # a run that went on has another order
                store.append({"name": f"{names} {index}", "error": float(value), "inliers": 10, **counts})
    Evaluation(
        kind="posed-pairs",
        options={},
        environment={},
        methods={method: {} for method in errors},
        sets={"room-gap-1": {"description": "", "pairs": count}},
        metrics=[],
        results={method: {} for method in errors},
    ).write(out / "results.json")
    return out


def cells(text: str, method: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_what_is_hard_for_both_is_not_in_the_interval(tmp_path: Path) -> None:
    """Errors spread over 0 to 18 degrees, 1 degree less each: the area to 20 gains 5 in every draw."""
    hard = np.linspace(1.0, 19.0, 40)
    out = posed_pairs(tmp_path, {"old": hard, "new": hard - 1.0}, {"old": 0.505, "new": 0.305})
    done = script("differences.py", out, "--base", "old", "--resamples", 200)
    assert done.returncode == 0, done.stderr
    assert "(40 pairs)" in done.stdout
    base, new = cells(done.stdout, "old"), cells(done.stdout, "new")
    assert base[3] == "10"
    assert new[3] == "+0 (+0 to +0)"
    value, rest = new[2].split(" ", 1)
    assert 3.5 < float(value) < 6.5
    low, high = (float(end) for end in rest.strip("()*").split(" to "))
    assert low > 2.0
    assert high - low < 3.0, "the spread of the pairs, some 18 either way, must fall out"
    assert new[2].endswith("*")
    assert new[4] == "-0.200 (-0.200 to -0.200)*"


def test_equal_methods_have_no_star(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    errors = {"old": rng.uniform(0, 20, 30), "new": rng.uniform(0, 20, 30)}
    done = script("differences.py", posed_pairs(tmp_path, errors, {"old": 0.5, "new": 0.5}), "--base", "old")
    assert not any(cell.endswith("*") for cell in cells(done.stdout, "new"))


def test_other_pairs_are_not_compared(tmp_path: Path) -> None:
    errors = {"old": np.ones(6), "new": np.ones(6)}
    out = posed_pairs(tmp_path, errors, {"old": 0.5, "new": 0.5})
    rows = out / ROWS_FOLDER / "new" / "room-gap-1.jsonl"
    rows.write_text(rows.read_text().replace("pair 3", "pair 9"))
    done = script("differences.py", out, "--base", "old")
    assert done.returncode != 0
    assert done.stderr == f"error: {out}: 'new' and 'old' were measured on different pairs\n"
    assert "'older' was not measured" in script("differences.py", out, "--base", "older").stderr
    rows.write_text("\n".join(rows.read_text().splitlines()[:-1]))
    assert "5 rows of 6 pairs" in script("differences.py", out, "--base", "old").stderr


def test_files_of_one_name_are_not_taken_for_one_method(tmp_path: Path) -> None:
    errors = {"old": np.ones(6), "a/new.safetensors": np.ones(6), "b/new.safetensors": np.full(6, 9.0)}
    done = script("differences.py", posed_pairs(tmp_path, errors, dict.fromkeys(errors, 0.5)), "--base", "old")
    assert done.returncode != 0
    assert "two methods are called 'new'" in done.stderr


def test_revisits_are_compared_too(tmp_path: Path) -> None:
    """Of ten revisits one method finds eight at once, the other, which lists them in another order, six."""
    rows = {
        name: [
            {"name": f"frame {k}", "rank": 1.0 if k < right else 7.0, "elsewhere": int(k >= right), "right": 1}
            for k in range(10)
        ]
        for name, right in (("old", 6), ("new", 8))
    }
    rows["new"].reverse()
    found = {name: SetResult(count=10, rows=part) for name, part in rows.items()}
    Evaluation(
        kind="places",
        options={},
        environment={},
        methods={"old": {}, "new": {}},
        sets={name: {"description": "", "pairs": 10} for name in ("room", "together")},
        metrics=[],
        results={name: {"room": part, "together": part} for name, part in found.items()},
    ).write(tmp_path / "results.json")
    done = script("differences.py", tmp_path, "--base", "old")
    assert done.returncode == 0, done.stderr
    assert "(10 revisits)" in done.stdout
    assert cells(done.stdout, "old") == ["60.0", "60.0", "40.0"]
    recall, _, elsewhere = cells(done.stdout, "new")
    assert recall.startswith("+20.0 (+0.0 to ")
    assert elsewhere.startswith("-20.0 (-")


def test_rooms_are_joined_far_apart(tmp_path: Path) -> None:
    rooms = [write_room(tmp_path / "one", ROOM), write_room(tmp_path / "two", replace(ROOM, seed=4))]
    out = tmp_path / "both"
    done = script("join_rooms.py", out, *rooms, "--frames", 3)
    assert done.returncode == 0, done.stderr
    joined, parts = open_sequence(out), [open_sequence(room) for room in rooms]
    assert len(joined) == 6
    assert np.all(np.diff(joined.timestamps) > 0)
    assert np.isclose(np.diff(joined.timestamps).max(), 2.0)
    assert joined.camera == parts[0].camera
    for index in range(6):
        room, frame = divmod(index, 3)
        expected = parts[room][frame]
        found = joined[index]
        assert found.depth is not None
        assert expected.depth is not None
        assert np.array_equal(found.image, expected.image)
        assert np.array_equal(found.depth, expected.depth)
        pose = joined.ground_truth[index]
        assert pose is not None
        assert expected.T_world_cam is not None
        moved = expected.T_world_cam.copy()
        moved[0, 3] += 100.0 * room
        assert np.abs(pose - moved).max() < 1e-6
    assert script("join_rooms.py", out, *rooms).stderr == f"error: {out} is there already\n"
    assert "has no frames" in script("join_rooms.py", tmp_path / "none", *rooms, "--frames", 0).stderr
    (rooms[1] / "rgb.txt").unlink()
    assert "give folders of semkey render-room" in script("join_rooms.py", tmp_path / "none", *rooms).stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("wrong", ["absent", "other camera"])
def test_what_is_no_room_leaves_nothing_behind(wrong: str, tmp_path: Path) -> None:
    room = write_room(tmp_path / "one", ROOM)
    other = tmp_path / "two"
    if wrong == "other camera":
        write_room(other, replace(ROOM, width=96, frames=1))
    done = script("join_rooms.py", tmp_path / "both", room, other)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "both").exists()
