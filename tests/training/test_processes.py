"""How many processes and threads a run may ask for."""

from __future__ import annotations

import os

import pytest

from semkey.errors import ConfigError
from semkey.training.processes import launch
from training_fakes import small_config

CORES = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"devices": 1_000_000}, f"run.devices is 1000000, more than the {CORES} cores"),
        ({"devices": CORES + 1}, f"run.devices is {CORES + 1}, more than the {CORES} cores"),
        ({"workers": 1_000_000}, "run.workers makes 1000000, more than 8 for each"),
        ({"threads": 8 * CORES + 1}, f"run.threads makes {8 * CORES + 1}, more than 8 for each"),
    ],
)
def test_more_processes_than_cores_are_refused(run: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch(small_config(run=run))


def test_one_process_is_launched() -> None:
    assert launch(small_config()).world_size == 1
