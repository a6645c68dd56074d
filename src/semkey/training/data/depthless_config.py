"""Configuration of the training data that have no depth: ``data.clips`` and ``data.posed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semkey.settings import Settings, require, require_within

MEGADEPTH_TEST_SCENES = ("0008", "0015", "0019", "0021", "0022", "0024", "0025", "0032", "0063", "1589")
"""Scenes of MegaDepth that others test on: 0015 and 0022 are MegaDepth-1500 (Sun et al. 2021), the rest shows places of
the Image Matching Challenge."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(Settings):
    """Recordings of which nothing is known but that their frames follow each other.

    Attributes:
        folders: each a video, a folder of the images of one recording, or any other sequence that ``semkey slam``
            takes; depth and poses are not used.
        frames: of a clip; the losses over tracks see all of them, those over pairs the first and the last.
        max_gap: frames of a clip are 1 to this many frames of the recording apart.
        rotation_deg: all frames of a clip are turned by one angle within +- this.
        tolerance_px: a point is tracked where the flow to the next frame and back ends closer than this to where it
            began, pixels of the view.
        min_tracks: points that must be tracked through all frames, or another clip is drawn.
    """

    folders: tuple[Path, ...] = ()
    frames: int = 5
    max_gap: int = 4
    rotation_deg: float = 20.0
    tolerance_px: float = 0.7
    min_tracks: int = 48

    def __post_init__(self) -> None:
        require_within(self, "[2, 16]", "frames")
        require_within(self, "[1, 1000]", "max_gap")
        require_within(self, "[0, 180]", "rotation_deg")
        require_within(self, "(0, inf)", "tolerance_px")
        require_within(self, "[8, 10000]", "min_tracks")


@dataclass(frozen=True, kw_only=True)
class PosedConfig(Settings):
    """Photos posed by structure from motion; tracks of its points are correspondences and detection targets.

    Attributes:
        folders: each a COLMAP model with its images (the tracks are those of its points), a nerfstudio
            ``transforms.json`` (tracks are made from SIFT matches that fit the poses), or a folder of scenes of either
            kind, as MegaDepth is published (``SCENE/sparse`` or ``SCENE/sparse/manhattan/0`` with ``SCENE/images``).
        scenes: of folders of scenes only these; empty for all.
        scene_list: text file with one more of these a line (``0022`` or ``0022_0.1_0.3``, as the lists of others have
            it).
        leave_out: scenes of such folders that are never used; naming one in ``scenes`` or the list is an error.
        min_views: a track counts that so many photos see.
        max_error_px: ... and whose point lies this close to where each of them sees it, pixels.
        min_shared: points that two photos must share to be a pair.
        neighbours: where tracks are made, each photo is matched to so many others that look at the same place.
        rotation_deg: the views are turned within +- this.
    """

    folders: tuple[Path, ...] = ()
    scenes: tuple[str, ...] = ()
    scene_list: Path | None = None
    leave_out: tuple[str, ...] = MEGADEPTH_TEST_SCENES
    min_views: int = 3
    max_error_px: float = 2.0
    min_shared: int = 48
    neighbours: int = 10
    rotation_deg: float = 20.0

    def __post_init__(self) -> None:
        require_within(self, "[2, 100]", "min_views", "neighbours")
        require_within(self, "(0, 20]", "max_error_px")
        require_within(self, "[8, 10000]", "min_shared")
        require_within(self, "[0, 180]", "rotation_deg")
        for name in self.scenes:
            require(bool(name), "scenes holds an empty name")
