"""benchmarks/compare.py: the verdict on new weights by intervals, and one table of several runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from semkey.evaluation.running.results import Evaluation, Metric, SetResult

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "compare.py"
METRICS = [
    Metric(name="auc@5", label="AUC @5", percent=True),
    Metric(name="noise_px", label="noise, px", higher_is_better=False, digits=2),
]


def write(out: Path, methods: dict[str, tuple[float, float]]) -> Path:
    """A run of posed pairs with an interval of +-0.05 about each value."""
    results = {
        name: {
            "room-gap-1": SetResult(
                count=9,
                metrics={"auc@5": auc, "noise_px": noise},
                intervals={"auc@5": (auc - 0.05, auc + 0.05), "noise_px": (noise - 0.05, noise + 0.05)},
            )
        }
        for name, (auc, noise) in methods.items()
    }
    Evaluation(
        kind="posed-pairs",
        options={},
        environment={},
        methods={name: {} for name in methods},
        sets={"room-gap-1": {"description": "", "pairs": 9}},
        metrics=METRICS,
        results=results,
    ).write(out / "rooms" / "results.json")
    return out


def compare(*arguments: object) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_verdict_needs_more_than_the_interval(tmp_path: Path) -> None:
    out = write(tmp_path / "a", {"old": (0.50, 1.00), "same": (0.46, 1.04), "mixed": (0.60, 1.20)})
    assert "0 better, 2 equal, 0 worse" in compare(out, "--decide", "same", "old")
    text = compare(out, "--decide", "mixed", "old")
    assert "1 better, 0 equal, 1 worse" in text
    assert "worse   rooms/room-gap-1, noise, px: 1.00 -> 1.20" in text


def test_tables_join_the_methods_of_several_runs(tmp_path: Path) -> None:
    before = write(tmp_path / "a", {"old": (0.50, 1.00), "peer": (0.40, 0.70)})
    after = write(tmp_path / "b", {"runs/new.safetensors": (0.60, 0.80)})
    text = compare(before, after)
    assert "| new | **60.0** |" in text
    assert "| peer | **0.70** |" in text
    only = compare(before, after, "--methods", "old")
    assert "peer" not in only


def test_different_pairs_are_not_compared(tmp_path: Path) -> None:
    before = write(tmp_path / "a", {"old": (0.50, 1.00)})
    after = write(tmp_path / "b", {"new": (0.60, 0.80)})
    results = after / "rooms" / "results.json"
    results.write_text(results.read_text().replace('"pairs": 9', '"pairs": 4'))
    command = [sys.executable, SCRIPT, before, after, "--decide", "new", "old"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "measured on different pairs" in done.stderr


def test_a_folder_without_results_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: no results in")


@pytest.mark.parametrize("name", ["planar", "shift", "negatives", "reliability"])
def test_the_script_and_the_tables_know_the_same_runs(name: str) -> None:
    script = (SCRIPT.parent / "features.sh").read_text()
    assert f"    {name})" in script
    assert f'"{name}"' in SCRIPT.read_text()
