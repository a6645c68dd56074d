"""Which runtime computes the network."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import Literal, get_args

import torch

from semkey.errors import ConfigError
from semkey.model.precision import cpu_has_bfloat16
from semkey.model.semantic_detector import SemanticKeypointDetector

logger = logging.getLogger(__name__)

Runtime = Literal["torch", "onnxruntime", "openvino", "auto"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)


def choose_runtime(runtime: str, device: torch.device) -> str:
    """The runtime that stands behind a name, ``auto`` among them.

    ``auto`` goes by what was measured (docs/interop.md) rather than by a measurement of its own, so that one machine
    gives the same results every time: torch, which no other was faster than, in float32 and in bfloat16.

    Raises:
        ConfigError: unknown, not installed, or not for this device.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"unknown runtime '{runtime}': choose one of {', '.join(RUNTIMES)}")
    if runtime == "auto":
        logger.info("runtime auto: torch")
        return "torch"
    if runtime != "torch":
        if device.type != "cpu":
            raise ConfigError(f"runtime '{runtime}' computes on the CPU: pass device='cpu', or runtime='torch'")
        if not _is_installed(runtime):
            extra = "onnx" if runtime == "onnxruntime" else runtime
            raise ConfigError(f"runtime '{runtime}' is not installed: pip install 'semkey[{extra}]'")
    return runtime


def use_runtime(detector: SemanticKeypointDetector, runtime: str) -> None:
    """Let a runtime compute the dense maps of a detector from now on.

    Args:
        detector: ready to extract, its backbone's weights whole (``load_detector(reduce=False)``).
        runtime: from :func:`choose_runtime`.

    Raises:
        ConfigError: a precision that the runtime does not have.
    """
    precision = detector.extraction.precision
    if runtime == "onnxruntime":
        if precision == "bfloat16":
            raise ConfigError("runtime 'onnxruntime' computes in float32: leave precision out, or take openvino")
        from semkey.runtimes.with_onnxruntime import OnnxruntimeMaps

        # What torch computes at the keypoints as well: half in bfloat16 would be neither.
        detector.extraction = replace(detector.extraction, precision="float32")
        detector.computed_by = OnnxruntimeMaps(detector)
    elif runtime == "openvino":
        from semkey.runtimes.with_openvino import OpenvinoMaps

        reduced = precision == "bfloat16" or (precision == "auto" and cpu_has_bfloat16())
        detector.computed_by = OpenvinoMaps(detector, reduced=reduced)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
