"""What happened during a run, one JSON object per line of ``log.jsonl``: losses, validations, gradient cosines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semkey.files import atomic_write_text
from semkey.training.stage_config import STAGES

Row = dict[str, Any]


class History:
    """The rows of a run, each with ``kind`` (``train``, ``validation``, ``cosines``), ``stage`` and ``step``.

    Args:
        path: of the file; rows that it holds are read, a line cut short by a kill is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    self.rows.append(json.loads(line))
                except json.JSONDecodeError:
                    continue

    def rewind(self, stage: str, step: int) -> None:
        """Forget what lies after a step of a stage: a run that resumes there will do it again."""
        place = (STAGES.index(stage), step)
        self.rows = [row for row in self.rows if (STAGES.index(row["stage"]), row["step"]) <= place]
        atomic_write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, kind: str, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a row; numbers that are not finite become null."""
        row = {"kind": kind, "stage": stage, "step": step, **_finite(values)}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def of(self, kind: str, stage: str | None = None) -> list[Row]:
        """Rows of a kind, of one stage or of all."""
        return [row for row in self.rows if row["kind"] == kind and stage in (None, row["stage"])]

    @property
    def stages(self) -> list[str]:
        """The stages that have rows, in order."""
        present = {row["stage"] for row in self.rows}
        return [stage for stage in STAGES if stage in present]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
