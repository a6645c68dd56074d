"""Which CPUs compute convolutions in bfloat16 faster than in float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from semkey.model.config import Precision

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's name


@cache
def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16 products (from the flags Linux lists; False elsewhere)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return bool(BFLOAT16_FLAGS & set(flags.partition(":")[2].split()))


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether convolutions on ``device`` run in bfloat16 under this setting."""
    if precision == "auto":
        return device.type == "cpu" and cpu_has_bfloat16()
    return precision == "bfloat16"
