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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_extraction_works_after_a_fork() -> None:
    script = """
import os, time
import numpy as np, torch
import semkey
torch.set_num_threads(2)
detector = semkey.load("nano", max_keypoints=64, device="cpu")
image = np.kron(np.random.default_rng(0).integers(0, 255, (30, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
first = detector.extract(image)
child = os.fork()
if not child:
    again = detector.extract(image)
    os._exit(0 if len(again) == len(first) > 0 else 1)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
raise SystemExit("the child hangs")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_children_start_while_opencv_has_workers() -> None:
    script = """
import subprocess
import cv2, numpy as np
import semkey.runtime
cv2.setNumThreads(2)
image = np.random.default_rng(0).integers(0, 255, (1000, 1000), dtype=np.uint8)
cv2.SIFT_create().detect(image)
subprocess.run(["true"], preexec_fn=lambda: None, timeout=30, check=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is kept by glibc's allocator")
def test_memory_of_a_huge_image_is_given_back() -> None:
    script = """
from semkey.runtime import tune_process
tune_process()
import numpy as np
import semkey
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
detector = semkey.load("nano", max_keypoints=512, device="cpu")
detector.extract(np.zeros((480, 640, 3), np.uint8))
before = resident()
image = np.zeros((2000, 20000, 3), np.uint8)
detector.extract(image)
print((resident() - before - image.nbytes) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # megabytes; 1100 without
