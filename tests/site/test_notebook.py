"""The notebook runs as it is, and what it shows is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "room.ipynb"


def test_the_notebook_runs_as_it_is(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "room.ipynb", "exec"), names)
    assert names["right"].mean() > 0.6
    assert len(names["matches"]) > 100
    assert names["result"].tracked == 30
    assert names["error"].statistics.rmse < 0.02
    assert "30 of 30 frames tracked" in capsys.readouterr().out


def test_its_outputs_are_there_small_and_without_folders_of_a_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 1_000_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    kinds = [kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})]
    assert kinds.count("image/png") == 3
    assert "/tmp" not in text
    assert "Traceback" not in text
