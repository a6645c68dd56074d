"""What the page computes and refuses, without a browser."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from page.uploads import FRAMES, Uploads
from semkey.errors import ConfigError, InputError, SemkeyError
from semkey.ui.clips import ClipView
from semkey.ui.config import PageConfig
from semkey.ui.desk import Desk
from semkey.ui.images import OpenImages, show_similarity
from semkey.ui.similarity import SeenImage, best, similarity
from semkey.ui.uploads import read_upload, sort_files

CONFIG = PageConfig()
PATCH = 16


def show(desk: Desk, files: list[Path], **changes: object) -> object:
    given = {"features": "orb", "keypoints": 300, "matcher": "mnn", "refined": False, "camera": "", "view_degrees": 65}
    return desk.show(files, **{"progress": lambda done, total: None, **given, **changes})  # ty: ignore


def png_that_claims(path: Path, width: int, height: int) -> Path:
    """A file of a hundred bytes that would take gigabytes to decode."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


# -- uploads -------------------------------------------------------------------------------------------------------


def test_what_is_dropped_is_sorted_by_its_name(uploads: Uploads) -> None:
    assert sort_files(uploads.images, CONFIG).images == uploads.images
    assert sort_files([uploads.clip], CONFIG).clip == uploads.clip


def test_what_is_not_taken_is_told_in_one_line(tmp_path: Path, uploads: Uploads) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    first, second = uploads.images
    cases = [
        ([], "drop one or two images"),
        ([tmp_path / "gone.png"], "gone.png is not here any more"),
        ([tmp_path / "notes.txt"], "notes.txt is neither an image nor a video"),
        ([first, uploads.clip], "one clip, or one or two images"),
        ([first, second, first], "3 images are too many"),
    ]
    for files, expected in cases:
        with pytest.raises(InputError, match=expected) as told:
            sort_files(files, CONFIG)
        assert "\n" not in str(told.value)
    (tmp_path / "big.png").write_bytes(bytes(2_000_000))
    with pytest.raises(InputError, match=r"big\.png has 2 MB, more than the 1 MB"):
        sort_files([tmp_path / "big.png"], PageConfig(max_megabytes=1))


def test_images_are_measured_before_they_are_decoded(tmp_path: Path) -> None:
    bomb = png_that_claims(tmp_path / "bomb.png", 60_000, 60_000)
    with pytest.raises(InputError, match=r"bomb\.png has 60000x60000 pixels \(3600\.0 megapixels\)"):
        read_upload(bomb, CONFIG)
    cv2.imwrite(str(tmp_path / "scan.tif"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(InputError, match=r"scan\.tif does not say how large it is"):
        read_upload(tmp_path / "scan.tif", CONFIG)


def test_messages_do_not_tell_where_the_page_keeps_files(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png_that_claims(tmp_path / "whole.png", 30, 30).read_bytes()[:-20])
    with pytest.raises(InputError, match=r"^cut\.png is a truncated PNG"):
        read_upload(tmp_path / "cut.png", CONFIG)


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"port": 70_000}, {"max_megabytes": 0}, {"max_seconds": -1.0}, {"max_frames": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            PageConfig(**wrong)  # ty: ignore


# -- two images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refined", [False, True])
def test_two_views_of_a_room_are_matched(uploads: Uploads, refined: bool) -> None:
    opened, view = show(Desk(CONFIG), list(uploads.images), refined=refined)  # ty: ignore
    assert [image.shape for image in opened.images] == [(240, 320, 3)] * 2
    assert [picture.shape for picture in view.keypoints] == [(240, 320, 3)] * 2
    assert all((picture != image).any() for picture, image in zip(view.keypoints, opened.images, strict=True))
    assert view.matches.shape[1] > 600 or view.matches.shape[0] > 450
    lines = view.text.splitlines()
    assert lines[0].startswith(f"{uploads.images[0].name}: ")
    found = re.match(r"(\d+) matches, (\d+) ", lines[2])
    assert found
    matches, inliers = int(found[1]), int(found[2])
    assert 300 >= matches >= inliers > 50


def test_one_image_has_keypoints_only(uploads: Uploads) -> None:
    opened, view = show(Desk(CONFIG), [uploads.images[0]])  # ty: ignore
    assert len(opened.images) == len(view.keypoints) == 1
    assert view.matches is None


def test_the_page_makes_only_what_it_offers(uploads: Uploads) -> None:
    for wrong in ({"features": "os:system"}, {"features": "/etc/passwd"}, {"matcher": "own.safetensors"}):
        with pytest.raises(ConfigError, match="this page has no"):
            show(Desk(CONFIG), list(uploads.images), **wrong)
    with pytest.raises(InputError, match="keypoints are 1 to 4096"):
        show(Desk(CONFIG), list(uploads.images), keypoints=10**6)


# -- similarity ----------------------------------------------------------------------------------------------------


def seen(cells: dict[tuple[int, int], int], size: tuple[int, int]) -> SeenImage:
    """An image of which the backbone sees kind k (an axis of its own) in some cells (row, column), kind 0 elsewhere."""
    width, height = size
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    tokens = torch.zeros(3, rows, columns)
    tokens[0] = 1
    for (row, column), kind in cells.items():
        tokens[:, row, column] = torch.eye(3)[kind]
    return SeenImage(image=np.zeros((height, width, 3), np.uint8), tokens=tokens, patch=PATCH)


def test_what_looks_alike_is_found_where_it_is() -> None:
    # Sizes that are no multiples of the patch: cells lie at their true places, not stretched over the image.
    clicked, other = seen({(1, 2): 1, (4, 4): 2}, (100, 90)), seen({(3, 5): 1}, (119, 75))
    centre = (2 * PATCH + (PATCH - 1) / 2, 1 * PATCH + (PATCH - 1) / 2)
    found = similarity(clicked, centre, other)
    assert found.shape == (75, 119)
    x, y = best(found)
    assert abs(x - (5 * PATCH + 7.5)) <= 1
    assert abs(y - (3 * PATCH + 7.5)) <= 1
    assert found[int(y), int(x)] > 0.9  # bilinear between cells: the middle of one lies between two pixels
    assert found[5, 5] == pytest.approx(0, abs=1e-6)
    itself = similarity(clicked, centre, clicked)
    assert np.hypot(*(np.array(best(itself)) - centre)) < 1


def test_a_click_is_told_in_pixels_of_the_image_as_dropped() -> None:
    small, dropped = seen({(1, 2): 1}, (100, 90)), np.zeros((180, 200, 3), np.uint8)
    opened = OpenImages(names=["a.png", "b.png"], images=[dropped, dropped], seen={"fake": [small, small]})
    drawn, text = show_similarity(opened, 0, (39.5, 23.5), "fake", None)  # ty: ignore
    assert text.startswith("a.png at (80, 48)")  # (39.5 + 0.5) * 2 - 0.5, rounded
    assert [picture.shape for picture in drawn] == [(90, 100, 3)] * 2
    # The clicked cell is red in both, the rest blue: red and blue channels say so away from the marks.
    for picture in drawn:
        assert int(picture[28, 35, 0]) > int(picture[28, 35, 2])
        assert int(picture[70, 70, 2]) > int(picture[70, 70, 0])


def test_clicks_before_images_and_unknown_backbones() -> None:
    desk = Desk(CONFIG)
    with pytest.raises(InputError, match="drop one or two images first"):
        desk.compare(None, 0, (1.0, 1.0), "vit-tiny")
    opened = OpenImages(names=["a.png"], images=[np.zeros((50, 50, 3), np.uint8)])
    with pytest.raises(InputError, match="drop one or two images first"):
        desk.compare(opened, 1, (1.0, 1.0), "vit-tiny")
    with pytest.raises(ConfigError, match="no backbone 'owner/name'"):
        desk.compare(opened, 0, (1.0, 1.0), "owner/name")


# -- clips ---------------------------------------------------------------------------------------------------------


def test_a_clip_becomes_a_map(uploads: Uploads) -> None:
    steps: list[tuple[int, int]] = []
    view = show(
        Desk(CONFIG),
        [uploads.clip],
        camera=uploads.camera,
        features="nano",  # twelve frames do not tell which way the camera went by ORB's keypoints
        keypoints=600,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert isinstance(view, ClipView)
    assert view.text.startswith(f"{FRAMES} of {FRAMES} frames tracked"), view.text
    assert "no metres" in view.text
    assert "camera not given" not in view.text
    assert "<canvas" in view.html
    assert view.picture.startswith(b"\x89PNG")
    assert steps[-1] == (FRAMES, FRAMES)


def test_a_long_clip_is_thinned_and_said(uploads: Uploads) -> None:
    steps: list[tuple[int, int]] = []
    view = show(
        Desk(PageConfig(max_frames=5)), [uploads.clip], progress=lambda done, total: steps.append((done, total))
    )
    assert isinstance(view, ClipView)
    assert steps[-1] == (4, 4)  # every third of twelve
    assert "every 3. frame is tracked" in view.text
    assert "camera not given: focal length 251 px" in view.text  # 160 / tan(32.5 degrees)


def test_clips_beyond_the_limits(tmp_path: Path, uploads: Uploads) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    cases: list[tuple[PageConfig, Path, dict[str, object], str]] = [
        (PageConfig(max_seconds=1.0), uploads.clip, {}, r"clip\.avi is 1 s long, more than the 1 s"),
        (PageConfig(max_megapixels=0.05), uploads.clip, {}, r"clip\.avi has 320x240 pixels"),
        (CONFIG, tmp_path / "broken.mp4", {}, r"^broken\.mp4"),
        (CONFIG, uploads.clip, {"camera": "/etc/passwd"}, "expected fx,fy,cx,cy"),
        (CONFIG, uploads.clip, {"camera": "1,2,3,x"}, "expected fx,fy,cx,cy"),
        (CONFIG, uploads.clip, {"view_degrees": 180}, "10 to 150 degrees"),
    ]
    for config, file, changes, expected in cases:
        with pytest.raises(SemkeyError, match=expected) as told:
            show(Desk(config), [file], **changes)
        assert "\n" not in str(told.value)
        assert str(tmp_path) not in str(told.value)


def test_a_clip_can_be_stopped(uploads: Uploads) -> None:
    desk = Desk(CONFIG)

    def stop_at_the_fifth(done: int, _: int) -> None:
        if done == 5:
            desk.stop()

    view = show(desk, [uploads.clip], camera=uploads.camera, features="nano", keypoints=600, progress=stop_at_the_fifth)
    assert isinstance(view, ClipView)
    assert view.text.splitlines()[0] == "6 of 6 frames tracked, stopped"
