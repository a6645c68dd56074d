"""The SDKs of depth cameras, as far as semkey calls them, playing a recording. Names are those of the SDKs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a device gives.

    Attributes:
        color: (H, W, 3) uint8 RGB each, or None where the cable lost it (librealsense only).
        depth: (H, W) uint16 in units of ``metres``.
        seconds: of each, on the device's clock.
        matrix: (3, 3) intrinsics of color.
        coefficients: k1 k2 p1 p2 k3.
        metres: a unit of depth.
    """

    color: Sequence[np.ndarray | None]
    depth: Sequence[np.ndarray]
    seconds: Sequence[float]
    matrix: np.ndarray
    coefficients: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    metres: float = 0.001

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.depth[0].shape
        return width, height


def fake_realsense(  # noqa: C901 (one closure over the recording for each call of the SDK)
    recording: Recording, serials: Sequence[str] = ("825312071234",)
) -> ModuleType:
    """``pyrealsense2`` with these cameras connected, each of which gives the recording."""
    sdk: Any = ModuleType("pyrealsense2")
    sdk.stream = SimpleNamespace(depth="depth", color="color")
    sdk.format = SimpleNamespace(z16="z16", rgb8="rgb8")
    sdk.camera_info = SimpleNamespace(serial_number="serial")
    devices = [SimpleNamespace(get_info=lambda _, serial=serial: serial) for serial in serials]
    sdk.context = lambda: SimpleNamespace(query_devices=lambda: devices)
    sdk.running = []
    width, height = recording.size
    fx, fy, ppx, ppy = (recording.matrix[place] for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    intrinsics = SimpleNamespace(
        width=width, height=height, fx=fx, fy=fy, ppx=ppx, ppy=ppy, coeffs=list(recording.coefficients),
        model="distortion.inverse_brown_conrady",
    )  # fmt: skip

    def deproject(stream: Any, pixel: Sequence[float], depth: float) -> list[float]:
        k1, k2, p1, p2, k3 = recording.coefficients
        goal = x, y = (pixel[0] - ppx) / fx, (pixel[1] - ppy) / fy
        for _ in range(200):
            square = x * x + y * y
            radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
            x, y = (
                (goal[0] - 2 * p1 * x * y - p2 * (square + 2 * x * x)) / radial,
                (goal[1] - p1 * (square + 2 * y * y) - 2 * p2 * x * y) / radial,
            )
        return [x * depth, y * depth, depth]

    sdk.rs2_deproject_pixel_to_point = deproject

    class Config:
        def __init__(self) -> None:
            self.streams: dict[str, tuple[Any, ...]] = {}
            self.serial = serials[0] if serials else ""

        def enable_device(self, serial: str) -> None:
            self.serial = serial

        def enable_stream(self, kind: str, index: int, width: int, height: int, form: str, rate: int) -> None:
            # librealsense resolves -1 to any index, and nothing else here.
            assert (index, width, height, rate) == (-1, 0, 0, 0)
            self.streams[kind] = (form,)

    class Pipeline:
        def start(self, config: Config) -> Any:
            assert config.streams == {"depth": ("z16",), "color": ("rgb8",)}
            self.position = 0
            sdk.running.append(config.serial)
            sensor = SimpleNamespace(get_depth_scale=lambda: recording.metres)
            video = SimpleNamespace(get_intrinsics=lambda: intrinsics)
            return SimpleNamespace(
                get_device=lambda: SimpleNamespace(first_depth_sensor=lambda: sensor),
                get_stream=lambda kind: SimpleNamespace(as_video_stream_profile=lambda: video),
            )

        def try_wait_for_frames(self, timeout_ms: int) -> tuple[bool, Any]:
            if self.position == len(recording.depth):
                return False, None
            self.position += 1
            return True, self.position - 1

        def stop(self) -> None:
            sdk.running.pop()

    def frame(data: np.ndarray | None, seconds: float) -> Any:
        if data is None:
            return None
        return SimpleNamespace(get_data=lambda: data, get_timestamp=lambda: 1000 * seconds)

    def align(to: str) -> Any:
        assert to == "color"

        def process(index: int) -> Any:
            stamp = recording.seconds[index]
            return SimpleNamespace(
                get_color_frame=lambda: frame(recording.color[index], stamp),
                get_depth_frame=lambda: frame(recording.depth[index], stamp),
            )

        return SimpleNamespace(process=process)

    sdk.config, sdk.pipeline, sdk.align = Config, Pipeline, align
    return sdk


def fake_depthai(  # noqa: C901 (as above)
    recording: Recording, *, platform: str = "RVC2", devices: int = 1
) -> ModuleType:
    """``depthai`` 3 with a camera of this platform connected."""
    sdk: Any = ModuleType("depthai")
    sdk.Platform = SimpleNamespace(RVC2="RVC2", RVC4="RVC4")
    sdk.CameraBoardSocket = SimpleNamespace(CAM_A="A", CAM_B="B", CAM_C="C")
    sdk.links, sdk.running = [], []

    class Device:
        def __init__(self, info: Any = None) -> None:
            if not devices:
                raise RuntimeError("No available devices\nand more lines")
            if info not in (None, "14442C10D13EABCE00"):
                raise RuntimeError("Cannot find any device with given deviceInfo")

        def getPlatform(self) -> str:  # noqa: N802
            return platform

        def close(self) -> None:
            """Nothing is open."""

    class Output:
        def __init__(self, name: str) -> None:
            self.name = name

        def link(self, to: Any) -> None:
            sdk.links.append((self.name, to.name))

        def createOutputQueue(self, maxSize: int = 16, blocking: bool = False) -> Any:  # noqa: N802
            return SimpleNamespace(get=get)

    class Camera:
        def build(self, socket: str) -> Any:
            self.socket = socket
            return self

        def requestOutput(self, size: tuple[int, int], fps: float, enableUndistortion: bool = False) -> Output:  # noqa: N802
            assert enableUndistortion == (self.socket == "A")
            return Output(f"camera {self.socket}")

    class Node:
        def __init__(self, name: str) -> None:
            self.name = name
            self.inputs = {key: Output(f"{name}.{key}") for key in ("rgb", "depth")}

        def __getattr__(self, name: str) -> Any:
            return (lambda *_: None) if name.startswith("set") else Output(f"{self.name}.{name}")

    sdk.node = SimpleNamespace(Camera=Camera, StereoDepth="stereo", Sync="sync", ImageAlign="align")
    position = iter(range(len(recording.depth)))

    def get(timeout: timedelta) -> Any:
        index = next(position, None)
        if index is None:
            raise RuntimeError("Communication exception - possible device error/misconfiguration")
        color = recording.color[index]
        assert color is not None
        transformation = SimpleNamespace(getIntrinsicMatrix=recording.matrix.tolist)
        return {
            "rgb": SimpleNamespace(
                getCvFrame=color[:, :, ::-1].copy,
                getTimestampDevice=lambda: timedelta(seconds=recording.seconds[index]),
                getTransformation=lambda: transformation,
            ),
            "depth": SimpleNamespace(getFrame=lambda: recording.depth[index]),
        }

    class Pipeline:
        def __init__(self, device: Device) -> None:
            self.device = device

        def create(self, node: Any) -> Any:
            return Node(node) if isinstance(node, str) else node()

        def start(self) -> None:
            sdk.running.append("pipeline")

        def stop(self) -> None:
            sdk.running.pop()

    sdk.Device, sdk.DeviceInfo, sdk.Pipeline = Device, (lambda name: name), Pipeline
    return sdk
