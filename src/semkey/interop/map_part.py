"""The part of a saved map that lies in one world: what an export to another program is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.trajectories import Trajectory
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.output.session import Session
from semkey.slam.result import SlamResult

_GREY = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class MapPart:
    """One submap of a saved map with its run.

    Attributes:
        slam_map: the whole map.
        result: the run that made it last.
        submap: number of the submap; keyframes of another one lie in another world and are not here.
        left_out: keyframes of the map's other submaps.
        keyframes: in order of time.
        landmark_ids: (L,) rows of the map's landmarks that lie in this world.
        colors: (L, 3) uint8 RGB; grey where no image was looked at.
    """

    slam_map: SlamMap
    result: SlamResult
    submap: int
    left_out: int
    keyframes: list[Keyframe]
    landmark_ids: NDArray[np.int64]
    colors: NDArray[np.uint8]

    @property
    def camera(self) -> PinholeCamera:
        """Of all keyframes."""
        return self.slam_map.camera

    @property
    def is_metric(self) -> bool:
        """Whether lengths are metres: those of a single camera have a scale of their own, unless the part was begun
        with depth.
        """
        return self.result.sensor != "mono" or any(bool((key.frame.depth > 0).any()) for key in self.keyframes)

    @property
    def points(self) -> NDArray[np.float64]:
        """Positions (L, 3) of the landmarks in the world."""
        return self.slam_map.landmarks.positions[self.landmark_ids]

    @property
    def summary(self) -> str:
        """What is in it, and what is not, in a sentence."""
        others = f"; {self.left_out} of other submaps, whose place is not known, left out" if self.left_out else ""
        unit = "metres" if self.is_metric else "map units, not metres: the map was made by a single camera"
        return (
            f"submap {self.submap}: {len(self.keyframes)} keyframes, {len(self.landmark_ids)} points ({unit}){others}"
        )

    def trajectory(self) -> Trajectory:
        """T_world_cam of the last run's tracked frames in this world, after all corrections of the map.

        Frames whose time does not increase are left out.

        Raises:
            InputError: no frame of the run lies in this world (its keyframes come from an earlier run).
        """
        stamps: list[float] = []
        poses: list[NDArray[np.float64]] = []
        for record in self.result.frames:
            pose = self.result.pose(record)
            if pose is None or record.reference_keyframe is None:
                continue
            survivor = self.slam_map.tree.survivor(record.reference_keyframe)
            if self.slam_map.keyframes[survivor].submap == self.submap and not (
                stamps and record.timestamp <= stamps[-1]
            ):
                stamps.append(record.timestamp)
                poses.append(pose)
        if not poses:
            raise InputError(f"submap {self.submap} has no frame of the run that saved the map; choose another submap")
        return Trajectory(np.array(stamps), np.stack(poses))


def map_part(session: Session, submap: int | None = None) -> MapPart:
    """One submap of a saved map.

    Args:
        session: from :func:`semkey.slam.output.session.load_session`.
        submap: its number; None for the one with most keyframes.

    Raises:
        InputError: there is no map, or no such submap.
    """
    slam_map = session.slam_map
    sizes = Counter(keyframe.submap for keyframe in slam_map.keyframes.values())
    chosen = max(sorted(sizes), key=lambda number: sizes[number]) if submap is None else submap
    if chosen not in sizes:
        there = ", ".join(str(number) for number in sorted(sizes))
        raise InputError(f"the map has no submap {chosen}; it has {there}")
    keyframes = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.submap == chosen]
    keyframes.sort(key=lambda keyframe: (keyframe.frame.timestamp, keyframe.id))
    landmarks = slam_map.landmarks
    ids = landmarks.ids
    references = np.unique(landmarks.references[ids]).tolist()
    worlds = {reference: slam_map.tree.survivor(reference) for reference in references}
    inside = [
        slam_map.keyframes[worlds[reference]].submap == chosen for reference in landmarks.references[ids].tolist()
    ]
    ids = ids[np.array(inside, dtype=bool)]
    colors = np.full((len(ids), 3), _GREY, np.uint8) if session.colors is None else session.colors[ids]
    return MapPart(
        slam_map=slam_map,
        result=session.result,
        submap=chosen,
        left_out=len(slam_map.keyframes) - len(keyframes),
        keyframes=keyframes,
        landmark_ids=ids,
        colors=colors,
    )
