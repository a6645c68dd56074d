"""Depth cameras behind the interface of running cameras, driven by a recording that fakes of their SDKs play.

`realsense:` was also run against librealsense itself, with its software device: see the last test.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from command_line import Run
from devices.depth_cameras import Recording, fake_depthai, fake_realsense
from semkey.datasets import Frame, FrameSequence, open_sequence
from semkey.datasets.cameras.lens import Lens
from semkey.datasets.live import camera as live
from semkey.datasets.live.camera import LiveSequence
from semkey.errors import ConfigError, DatasetError
from semkey.rendering import RoomConfig, write_room

ROOM = RoomConfig(seed=3, frames=12, width=256, height=192, fps=8.0, blur=False, noise=False, texel_size=0.008)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> FrameSequence:
    folder = tmp_path_factory.mktemp("depth-camera") / "room"
    write_room(folder, ROOM)
    return open_sequence(folder)


def recorded(room: FrameSequence, metres: float = 0.001) -> Recording:
    camera, frames = room.camera, list(room)
    assert camera is not None
    assert all(frame.depth is not None for frame in frames)
    return Recording(
        color=[frame.image for frame in frames],
        depth=[np.round(frame.depth / metres).astype(np.uint16) for frame in frames if frame.depth is not None],
        seconds=[5000.0 + frame.timestamp for frame in frames],
        matrix=np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]]),
        metres=metres,
    )


def small(count: int = 3, seconds: list[float] | None = None) -> Recording:
    return Recording(
        color=[np.full((48, 64, 3), (k, 100, 200), np.uint8) for k in range(count)],
        depth=[np.full((48, 64), 1000 + k, np.uint16) for k in range(count)],
        seconds=seconds or [3.0 + 0.1 * k for k in range(count)],
        matrix=np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]),
    )


def play(monkeypatch: pytest.MonkeyPatch, kind: str, recording: Recording, **options: Any) -> Any:
    name, fake = {"realsense": ("pyrealsense2", fake_realsense), "oak": ("depthai", fake_depthai)}[kind]
    sdk = fake(recording, **options)
    monkeypatch.setitem(sys.modules, name, sdk)
    return sdk


# -- a whole run: units, axes and the device's camera are right ----------------------------------------------------


@pytest.mark.parametrize(("kind", "metres"), [("realsense", 0.001), ("realsense", 0.00025), ("oak", 0.001)])
def test_a_room_is_tracked_in_metres(
    run: Run, tmp_path: Path, room: FrameSequence, monkeypatch: pytest.MonkeyPatch, kind: str, metres: float
) -> None:
    play(monkeypatch, kind, recorded(room, metres))
    done = run("slam", f"{kind}:", "--out", tmp_path / "run", "--features", "orb", "--autosave", "0")
    assert done.code == 0, done.err
    rows = np.loadtxt(tmp_path / "run/trajectory.txt")
    assert len(rows) >= 10  # of 12; a running camera may drop what comes while a keyframe is made
    stamps = room.timestamps - room.timestamps[0]
    truth = {round(float(stamp), 3): pose for stamp, pose in zip(stamps, room.ground_truth, strict=True)}
    start = truth[round(float(rows[0, 0]), 3)]
    assert start is not None
    for row in rows:
        pose = truth[round(float(row[0]), 3)]
        assert pose is not None
        np.testing.assert_allclose(row[1:4], (np.linalg.inv(start) @ pose)[:3, 3], atol=0.02)


@pytest.mark.parametrize("kind", ["realsense", "oak"])
def test_frames_are_in_metres_and_rgb(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = play(monkeypatch, kind, small())
    sequence = open_sequence(f"{kind}:")
    assert (sequence.format, sequence.sensor, sequence.is_live) == (kind, "rgbd", True)
    assert sequence.camera is not None
    assert (sequence.camera.fx, sequence.camera.cx, sequence.camera.width) == (60.0, 31.5, 64)
    frames = [frame for frame in sequence.frames() if isinstance(frame, Frame)]
    assert [frame.image[0, 0].tolist() for frame in frames] == [[0, 100, 200], [1, 100, 200], [2, 100, 200]]
    assert [frame.depth[5, 5] for frame in frames if frame.depth is not None] == pytest.approx([1.0, 1.001, 1.002])
    np.testing.assert_allclose([frame.timestamp for frame in frames], [0.0, 0.1, 0.2], atol=1e-9)
    assert isinstance(sequence, LiveSequence)
    sequence.close()
    sequence.close()
    assert sdk.running == []


# -- lenses --------------------------------------------------------------------------------------------------------


def test_the_lens_of_the_device_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    coefficients = (0.12, -0.2, 0.001, -0.0006, 0.05)
    recording = replace(small(), coefficients=coefficients)
    play(monkeypatch, "realsense", recording)
    sequence = open_sequence("realsense:")
    lens = cast("Any", sequence)._source.lens
    np.testing.assert_allclose(lens.distortion, coefficients, atol=1e-4)
    # Image and depth are undistorted alike, onto one pinhole camera.
    assert sequence.camera is not None
    assert sequence.camera.fx != 60.0
    given = open_sequence("realsense:", camera=(50.0, 50.0, 31.5, 23.5))
    assert given.camera is not None
    assert given.camera.fx == 50.0


def test_a_lens_that_semkey_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = play(monkeypatch, "realsense", small())
    straight = sdk.rs2_deproject_pixel_to_point

    def bent(stream: object, pixel: list[float], depth: float) -> list[float]:
        x, y, z = straight(stream, pixel, depth)
        return [x + 0.05 * np.sin(40 * y), y, z]

    sdk.rs2_deproject_pixel_to_point = bent
    with pytest.raises(DatasetError, match=r"its lens .* is none that semkey has; calibrate it"):
        open_sequence("realsense:")


# -- clocks, lost images, unplugging -------------------------------------------------------------------------------


def test_a_clock_that_begins_anew_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(0.1 * k for k in range(100))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(now))
    play(monkeypatch, "oak", small(5, [4294.8, 4294.9, 0.05, 0.15, 0.15]))
    stamps = [frame.timestamp for frame in open_sequence("oak:").frames()]
    assert len(stamps) == 4, "the image that was given twice is left out"
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-6)


def test_images_without_their_partner_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = small(4)
    play(monkeypatch, "realsense", replace(recording, color=[recording.color[0], None, *recording.color[2:]]))
    found = [frame.image[0, 0, 0] for frame in open_sequence("realsense:").frames() if isinstance(frame, Frame)]
    assert found == [0, 2, 3]


# -- what can be missing -------------------------------------------------------------------------------------------


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = play(monkeypatch, "realsense", small(), serials=("111", "222"))
    open_sequence("realsense:222")
    assert sdk.running == ["222"]
    with pytest.raises(DatasetError, match=r"no camera 333; connected: 111, 222$"):
        open_sequence("realsense:333")
    with pytest.raises(DatasetError, match=r"no\.bag: no such recording"):
        open_sequence("realsense:no.bag")
    play(monkeypatch, "realsense", small(), serials=())
    with pytest.raises(DatasetError, match="no camera is connected"):
        open_sequence("realsense:")
    play(monkeypatch, "oak", small(), devices=0)
    with pytest.raises(DatasetError, match=r"no camera is connected, .*: No available devices$"):
        open_sequence("oak:")
    play(monkeypatch, "oak", small())
    with pytest.raises(DatasetError, match="no camera abc"):
        open_sequence("oak:abc")
    assert open_sequence("oak:14442C10D13EABCE00").name == "oak-14442C10D13EABCE00"


@pytest.mark.parametrize(("kind", "module"), [("realsense", "pyrealsense2"), ("oak", "depthai")])
def test_a_missing_sdk_is_one_line(run: Run, tmp_path: Path, monkeypatch, kind: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = run("slam", f"{kind}:", "--out", tmp_path / "run")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"pip install 'semkey[{kind}]'" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["realsense", "oak"])
def test_info_takes_running_cameras(run: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It looked for a file of that name."""
    play(monkeypatch, kind, small())
    done = run("info", f"{kind}:")
    assert done.code == 0, done.err
    assert "as they come" in done.out
    assert "rgbd" in done.out
    missing = run("info", "nowhere")
    assert (missing.code, missing.err) == (2, "error: nowhere: no such file or folder\n")


def test_options_of_recordings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, "oak", small())
    with pytest.raises(ConfigError, match="this is a running camera"):
        open_sequence("oak:", depth_scale=1000)
    with pytest.raises(DatasetError, match="format 'oak' needs a camera, such as oak: or oak:DEVICE"):
        open_sequence("realsense:", format="oak")


def test_oaks_of_the_fourth_generation_align_in_a_node_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, expected in (("RVC2", ("stereo.depth", "sync.depth")), ("RVC4", ("stereo.depth", "align.input"))):
        sdk = play(monkeypatch, "oak", small(), platform=platform)
        open_sequence("oak:")
        assert expected in sdk.links
        aligned = "align.inputAlignTo" if platform == "RVC4" else "stereo.inputAlignTo"
        assert ("camera A", aligned) in sdk.links


# -- the real SDK --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("pyrealsense2") is None,
    reason="librealsense is in no lock, since it is for those who have a camera: pip install 'semkey[realsense]'",
)
def test_librealsense_itself_plays_what_its_software_device_recorded(tmp_path: Path) -> None:
    file = tmp_path / "recording.db3"
    record_software_device(file)
    sequence = open_sequence(f"realsense:{file}")
    lens = cast("Any", sequence)._source.lens
    assert lens == Lens(
        model="radial-tangential", intrinsics=lens.intrinsics, distortion=lens.distortion, size=(320, 240)
    )
    np.testing.assert_allclose(lens.intrinsics, (270.0, 270.0, 159.5, 119.5))
    np.testing.assert_allclose(lens.distortion[:3], (0.05, -0.02, 0.001), atol=1e-4)
    frames = [frame for frame in sequence.frames() if isinstance(frame, Frame)]
    assert len(frames) >= 5  # the SDK passes over the first ones
    for frame in frames:
        number = int(frame.image[120, 160, 0]) // 10
        assert frame.depth is not None
        assert frame.depth[120, 160] == pytest.approx((4000 + number) * 0.00025, abs=1e-5)
    np.testing.assert_allclose(np.diff([frame.timestamp for frame in frames]), 0.033, atol=1e-4)


def record_software_device(file: Path) -> None:
    """Eight frames: image k is 10 k, depth is 4000 + k units of a quarter of a millimetre."""
    import pyrealsense2 as rs  # ty: ignore[import-not-found]

    device = rs.software_device()
    device.register_info(rs.camera_info.name, "software")
    sensors = [device.add_sensor(name) for name in ("Depth", "Color")]
    sensors[0].add_read_only_option(rs.option.depth_units, 0.00025)
    profiles = []
    for sensor, kind, form, size in (
        (sensors[0], rs.stream.depth, rs.format.z16, 2),
        (sensors[1], rs.stream.color, rs.format.rgb8, 3),
    ):
        stream, intrinsics = rs.video_stream(), rs.intrinsics()
        intrinsics.width, intrinsics.height, intrinsics.fx, intrinsics.fy = 320, 240, 270, 270
        intrinsics.ppx, intrinsics.ppy = 159.5, 119.5
        intrinsics.model, intrinsics.coeffs = rs.distortion.brown_conrady, [0.05, -0.02, 0.001, 0, 0]
        stream.type, stream.index, stream.uid, stream.fps, stream.bpp = kind, 0, size, 30, size
        stream.width, stream.height, stream.fmt, stream.intrinsics = 320, 240, form, intrinsics
        profiles.append(sensor.add_video_stream(stream))
    same = rs.extrinsics()
    same.rotation, same.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
    profiles[0].register_extrinsics_to(profiles[1], same)
    recorder = rs.recorder(str(file), device)
    playing = recorder.query_sensors()
    queues = [rs.frame_queue(50) for _ in playing]
    for sensor, profile, queue in zip(playing, profiles, queues, strict=True):
        sensor.open(profile)
        sensor.start(queue)
    for k in range(8):
        images = np.full((240, 320), 4000 + k, np.uint16), np.full((240, 320, 3), 10 * k, np.uint8)
        for sensor, profile, image, size in zip(sensors, profiles, images, (2, 3), strict=True):
            frame = rs.software_video_frame()
            frame.stride, frame.bpp, frame.timestamp, frame.frame_number = 320 * size, size, 1000 + 33.0 * k, k + 1
            frame.domain, frame.profile = rs.timestamp_domain.hardware_clock, profile.as_video_stream_profile()
            frame.pixels = image
            sensor.on_video_frame(frame)
        time.sleep(0.04)
    for sensor in playing:
        sensor.stop()
        sensor.close()
