"""The tables of README and docs say what benchmarks/results holds."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

from semkey.evaluation.running.results import Evaluation, Metric, SetResult

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", ROOT / "benchmarks" / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_committed_results(collect: ModuleType) -> None:
    for page, text in collect.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is old: run python benchmarks/collect.py"


def test_another_number_in_the_results_would_be_noticed(collect: ModuleType, tmp_path: Path) -> None:
    for source in collect.RESULTS.glob("*.json"):
        (tmp_path / source.name).write_text(source.read_text())
    stored = json.loads((tmp_path / "planar.json").read_text())
    stored["results"]["compact"]["together"]["metrics"]["auc_poselib@5"] += 0.01
    (tmp_path / "planar.json").write_text(json.dumps(stored))
    readme = ROOT / "README.md"
    assert collect.pages(tmp_path)[readme] != readme.read_text(encoding="utf-8")


RELEASED = {
    "0.1.0": {
        "compact": "f194121da15e8026f6316e954912a9e1414562936f5a3f7f792d5eea9fee5229",
        "nano": "0efb9ac51805fc3353d8ddb8f4cb81f3e72bae876c7b46e1602f572174c27cd5",
    }
}
"""Weights of releases: all methods are measured together, with the data and the code of then, and new weights among
peers of then would say nothing about either. The pages say so."""

PAGES_OF_RELEASES = {"slam": ("docs/slam.md", "docs/results.md"), "lines": ("docs/lines.md",)}


def test_results_are_of_the_shipped_weights(collect: ModuleType) -> None:
    manifest = json.loads((ROOT / "src" / "semkey" / "weights" / "manifest.json").read_text())
    for source in sorted(collect.RESULTS.glob("*.json")):
        if source.stem.endswith("-odometry"):
            continue  # made from trajectory files
        stored = json.loads(source.read_text())
        release, methods = stored["environment"].get("release"), stored["methods"]
        later = stored["environment"].get("later", {})
        for method, details in methods.items():
            shipped = manifest.get(method.removesuffix("+lines"))
            if shipped is not None:
                sha256 = shipped["sha256"]
                if release and method not in later:
                    sha256 = RELEASED[release][method.removesuffix("+lines")]
                assert sha256 in json.dumps(details), f"{source.name} was measured with other {method}"
        assert "compact" in methods, source.name
        for page in PAGES_OF_RELEASES.get(source.stem, ("README.md", "docs/results.md")) if release else ():
            assert f"measured with {release}" in " ".join((ROOT / page).read_text(encoding="utf-8").split()), page


def test_one_method_is_measured_anew_and_the_others_stay(collect: ModuleType, tmp_path: Path) -> None:
    slam_results(tmp_path / "stored")
    slam_results(tmp_path / "run")
    (tmp_path / "run" / "lines").mkdir()
    (tmp_path / "run" / "lines.json").rename(tmp_path / "run" / "lines" / "results.json")
    found = json.loads((tmp_path / "run" / "lines" / "results.json").read_text())
    found["environment"] = {"command": "semkey eval slam", "started": "today", "cpu": "another"}
    for method in found["results"].values():
        method["cabinet"]["metrics"]["ate_rmse_m"] = 0.5
    del found["methods"]["compact+lines"], found["results"]["compact+lines"]
    (tmp_path / "run" / "lines" / "results.json").write_text(json.dumps(found))
    collect.collect(tmp_path / "run", ["compact"], tmp_path / "stored")
    before = json.loads((tmp_path / "stored" / "slam.json").read_text())
    after = json.loads((tmp_path / "stored" / "lines.json").read_text())
    assert "later" not in before["environment"]
    assert after["results"]["compact"]["cabinet"]["metrics"]["ate_rmse_m"] == 0.5
    assert after["results"]["compact+lines"]["cabinet"]["metrics"]["ate_rmse_m"] == 0.03
    assert after["environment"]["later"]["compact"] == {"started": "today", "command": "semkey eval slam"}
    assert "cpu" not in after["environment"]
    found["sets"]["cabinet"]["pairs"] = 16
    (tmp_path / "run" / "lines" / "results.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="other sets or numbers of pairs"):
        collect.collect(tmp_path / "run", ["compact"], tmp_path / "stored")
    stored = tmp_path / "stored" / "lines.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "options": {"runs": 3}}))
    found["options"] = {"runs": 1}
    (tmp_path / "run" / "lines" / "results.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="not measured as what is stored"):
        collect.collect(tmp_path / "run", ["compact"], tmp_path / "stored")


def test_results_name_no_folders_of_a_machine(collect: ModuleType, tmp_path: Path) -> None:
    text = f'"semkey eval trajectory {tmp_path}/a.txt {ROOT}/b.txt ../shared/c --out runs/d"'
    expected = '"semkey eval trajectory runs/benchmarks/a.txt ./b.txt ../shared/c --out runs/d"'
    assert collect.without_folders(text, tmp_path) == expected
    for source in sorted(collect.RESULTS.glob("*.json")):
        assert not re.search(r'[\s"]/\w+/', source.read_text(encoding="utf-8")), source.name


def slam_results(folder: Path) -> None:
    """Results of three methods on three sequences, one of them without OpenCV's odometry."""

    def result(ate: float, tracked: float = 1.0) -> SetResult:
        metrics = {"ate_rmse_m": ate, "ate_live_rmse_m": 2 * ate, "tracked": tracked, "fps": 12.34, "peak_mb": 400.0}
        metrics |= {"ate_lowest_m": 0.9 * ate, "ate_highest_m": 1.1 * ate, "rpe_trans_m": 0.001, "rpe_rot_deg": 0.1}
        return SetResult(count=3, metrics=metrics)

    results = {
        "orb": {"cabinet": result(0.03), "kitchen": result(0.06, 0.9), "kitti/07": result(0.1)},
        "compact": {"cabinet": result(0.02), "kitchen": result(0.04), "kitti/07": result(0.15)},
        "cv2-odometry": {"cabinet": result(0.02001), "kitchen": result(math.inf)},
    }
    metrics = [Metric(name="ate_rmse_m", label="ATE, m", higher_is_better=False, digits=4)]
    Evaluation(
        kind="slam",
        options={},
        environment={},
        methods={name: {} for name in results},
        sets={name: {} for name in ("cabinet", "kitchen", "kitti/07")},
        metrics=metrics,
        results=results,
    ).write(folder / "slam.json")
    lines = {name: {"cabinet": values["cabinet"]} for name, values in results.items() if name != "cv2-odometry"}
    lines = {"compact": lines["compact"], "compact+lines": lines["orb"]}
    Evaluation(
        kind="slam",
        options={},
        environment={},
        methods={name: {} for name in lines},
        sets={"cabinet": {}},
        metrics=metrics,
        results=lines,
    ).write(folder / "lines.json")


def test_tables_of_slam(collect: ModuleType, tmp_path: Path) -> None:
    slam_results(tmp_path)
    tables = collect.Tables(tmp_path)
    assert tables.make("slam").splitlines() == [
        "| ATE, m | semkey compact | ORB | cv2.Odometry |",
        "| --- | --- | --- | --- |",
        "| cabinet | **0.0200** | 0.0300 | **0.0200** |",
        "| kitchen | **0.0400** | 0.0600, 90.0 % tracked | inf |",
        "| KITTI 07, mono | 0.1500 | **0.1000** | - |",
        "| best of 3 | 2 | 1 | 1 |",
        "| farthest behind the best, % | 50 | 50 | inf |",
    ]
    runs = tables.make("slam_runs").splitlines()
    assert len(runs) == 2 + 8
    assert runs[3] == ("| cabinet | ORB | 100.0 % | 0.0300 | 0.0270 to 0.0330 | 0.0010 | 0.100 | - | 12.3 | 400 |")
    assert tables.make("lines").splitlines()[-1] == "| cabinet | 2.00 / 4.00 | 3.00 / 6.00 |"


def test_a_table_without_results_stays(collect: ModuleType, tmp_path: Path) -> None:
    tables = collect.Tables(tmp_path)
    text = "<!-- table: slam_runs -->\n| old |\n<!-- end of table -->"
    assert collect.fill(text, tables.make) == text
    slam_results(tmp_path)
    assert "| old |" not in collect.fill(text, collect.Tables(tmp_path).make)


def test_every_table_is_filled() -> None:
    for page in ("README.md", "docs/results.md", "docs/slam.md", "docs/lines.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        tables = re.findall(r"<!-- table: [\w-]+ -->\n(.*?)<!-- end of table -->", text, re.DOTALL)
        assert tables
        assert all(table.count("\n") >= 4 for table in tables)


def test_tables_of_shifts_and_noise(collect: ModuleType, tmp_path: Path) -> None:
    """Sets that a run lacks are dashes or no column at all."""

    def write(kind: str, sets: dict[str, dict[str, float]]) -> None:
        Evaluation(
            kind=kind,
            options={},
            environment={},
            methods={"compact": {}},
            sets={name: {} for name in sets},
            metrics=[],
            results={"compact": {name: SetResult(count=1, metrics=values) for name, values in sets.items()}},
        ).write(tmp_path / f"{kind}.json")

    shift = {"median_px": 0.3, "within": 0.5, "worst_median_px": 1.0, "worst_within": 0.25, "cosine": 0.97}
    write("shift", {"whole-pixels": shift})
    write(
        "noise", {"redkitchen-gap-1": {"noise_px": 1, "noise_p90_px": 2, "noise_along_px": 0.9, "noise_across_px": 0.2}}
    )
    tables = collect.Tables(tmp_path)
    row = "| **semkey compact** | 0.30 / 50 | 1.00 / 25 | 0.970 | - / - | - / - | - |"
    assert tables.make("shift").splitlines()[2] == row
    assert tables.make("noise").splitlines()[0] == "| method | redkitchen: median / 90 %, along / across, px |"
    assert tables.make("noise").splitlines()[2] == "| **semkey compact** | 1.00 / 2.00, 0.90 / 0.20 |"
    assert tables.make("photos") is None
