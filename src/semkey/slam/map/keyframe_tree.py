"""Keyframes as a tree: which is the parent of which, and where frames lie that are known relative to a keyframe."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import compose, inverse, make_transform
from semkey.slam.map.keyframe import Keyframe

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RemovedKeyframe:
    """Where a removed keyframe lies as seen from its parent, in units and scale of the parent."""

    parent: int
    T_parent_keyframe: Array
    scale_ratio: float


class KeyframeTree:
    """Keyframes by id, the spanning tree of each submap, and the place of keyframes that were removed.

    Attributes:
        keyframes: by id, in the order in which they were made; removed ones are gone.
        removed: keyframes that were removed, by id: frames that refer to them are placed by these.
    """

    def __init__(self) -> None:
        self.keyframes: dict[int, Keyframe] = {}
        self.removed: dict[int, RemovedKeyframe] = {}

    @property
    def newest(self) -> Keyframe:
        """The keyframe made last."""
        return self.keyframes[next(reversed(self.keyframes))]

    @property
    def submaps(self) -> list[int]:
        """Numbers of the submaps that there are, in increasing order."""
        return sorted({keyframe.submap for keyframe in self.keyframes.values()})

    def relative_pose(self, reference: int, T_world_cam: ArrayLike) -> Array:
        """A pose as seen from a keyframe, in map units of when that keyframe was made: what frames keep."""
        keyframe = self.keyframes[reference]
        return scaled_transform(compose(inverse(keyframe.T_world_cam), T_world_cam), 1.0 / keyframe.scale)

    def absolute_pose(self, reference: int, T_keyframe_cam: ArrayLike) -> Array:
        """T_world_cam (4, 4) of a frame given relative to a keyframe, wherever that one lies now.

        Args:
            reference: the keyframe; it may have been removed since.
            T_keyframe_cam: (4, 4) from :meth:`relative_pose`.
        """
        T_world_keyframe, scale = self.placement(reference)
        return compose(T_world_keyframe, scaled_transform(T_keyframe_cam, scale))

    def survivor(self, keyframe_id: int) -> int:
        """The keyframe itself, or the nearest one above it in the tree that has not been removed."""
        while keyframe_id not in self.keyframes:
            keyframe_id = self.removed[keyframe_id].parent
        return keyframe_id

    def placement(self, keyframe_id: int) -> tuple[Array, float]:
        """Pose T_world_cam (4, 4) and scale of a keyframe, removed or not."""
        chain: list[RemovedKeyframe] = []
        while keyframe_id not in self.keyframes:
            chain.append(self.removed[keyframe_id])
            keyframe_id = chain[-1].parent
        pose, scale = self.keyframes[keyframe_id].T_world_cam, self.keyframes[keyframe_id].scale
        for removed in reversed(chain):
            pose = compose(pose, scaled_transform(removed.T_parent_keyframe, scale))
            scale *= removed.scale_ratio
        return pose, scale

    def remove(self, keyframe_id: int) -> None:
        """Take a keyframe out of the tree: its children become those of its parent.

        Raises:
            InputError: it is the root of its submap.
        """
        keyframe = self.keyframes[keyframe_id]
        if keyframe.parent is None:
            raise InputError(f"keyframe {keyframe_id} is the root of submap {keyframe.submap} and cannot be removed")
        parent = self.keyframes[keyframe.parent]
        self.removed[keyframe_id] = RemovedKeyframe(
            parent=parent.id,
            T_parent_keyframe=self.relative_pose(parent.id, keyframe.T_world_cam),
            scale_ratio=keyframe.scale / parent.scale,
        )
        del self.keyframes[keyframe_id]
        for other in self.keyframes.values():
            if other.parent == keyframe_id:
                other.parent = parent.id

    def attach(self, keyframe_id: int, parent: int) -> None:
        """Make a keyframe the root of its tree, by turning round the edges above it, and then a child of ``parent``."""
        path = [keyframe_id]
        while (above := self.keyframes[path[-1]].parent) is not None:
            path.append(above)
        for child, above in itertools.pairwise(path):
            self.keyframes[above].parent = child
        self.keyframes[keyframe_id].parent = parent


def scaled_transform(transform: ArrayLike, scale: float) -> Array:
    """A transform (4, 4) with its translation multiplied."""
    matrix = np.asarray(transform, dtype=np.float64)
    return make_transform(matrix[:3, :3], scale * matrix[:3, 3])
