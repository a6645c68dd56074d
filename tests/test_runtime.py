"""Process settings: made before torch is loaded, and never over what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from semkey.errors import ConfigError
from semkey.runtime import select_device


def settings(**environment: str) -> str:
    code = "from semkey.runtime import tune_process as t; t(); import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise() -> None:
    assert settings() == "10000"
    assert settings(GOMP_SPINCOUNT="7") == "7"
    assert settings(OMP_WAIT_POLICY="ACTIVE") == "None"


def test_importing_the_library_changes_nothing() -> None:
    code = "import os; before = dict(os.environ); import semkey, semkey.runtime; print(before == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_devices_by_name() -> None:
    assert select_device("cpu") == select_device(torch.device("cpu")) == torch.device("cpu")
    assert select_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["tpu", "warp", "cuda:99", "mps:3", "", "cpu:x", "meta"])
def test_a_device_that_is_not_here_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device '{name}' cannot be used here .*: use auto or cpu$") as raised:
        select_device(name)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 160
