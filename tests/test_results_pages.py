"""The tables of README and docs/results.md say what benchmarks/results holds."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

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


def test_results_are_of_the_shipped_weights(collect: ModuleType) -> None:
    manifest = json.loads((ROOT / "src" / "semkey" / "weights" / "manifest.json").read_text())
    for source in sorted(collect.RESULTS.glob("*.json")):
        if source.stem.endswith("-odometry"):
            continue  # made from trajectory files
        methods = json.loads(source.read_text())["methods"]
        for name, shipped in manifest.items():
            assert shipped["sha256"] in json.dumps(methods[name]), f"{source.name} was measured with other {name}"


def test_results_name_no_folders_of_a_machine(collect: ModuleType, tmp_path: Path) -> None:
    text = f'"semkey eval trajectory {tmp_path}/a.txt {ROOT}/b.txt ../shared/c --out runs/d"'
    expected = '"semkey eval trajectory runs/benchmarks/a.txt ./b.txt ../shared/c --out runs/d"'
    assert collect.without_folders(text, tmp_path) == expected
    for source in sorted(collect.RESULTS.glob("*.json")):
        assert not re.search(r'[\s"]/\w+/', source.read_text(encoding="utf-8")), source.name


def test_every_table_is_filled() -> None:
    for page in ("README.md", "docs/results.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        tables = re.findall(r"<!-- table: [\w-]+ -->\n(.*?)<!-- end of table -->", text, re.DOTALL)
        assert tables
        assert all(table.count("\n") >= 4 for table in tables)
