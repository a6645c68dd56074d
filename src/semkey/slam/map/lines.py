"""The lines of the map: 3D segments that move with the keyframe that saw them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.slam.config import LineConfig, image_scale
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.frames.segments_in_space import segments_in_view
from semkey.slam.map.keyframe_tree import KeyframeTree
from semkey.slam.map.lifetimes import failed_probation, rarely_found
from semkey.slam.map.line_association import LineAssociations, VisibleLines, already_mapped
from semkey.slam.map.line_ends import line_observations, measured_information, reach
from semkey.slam.solvers.bundle_lines import BundleLines, LineSightings, bundle_lines
from semkey.slam.solvers.pose_lines import line_point_derivatives

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# A residual of more standard deviations must not drag the line along.
_LARGEST_RESIDUAL = 3.0
# A segment that reaches beyond the mapped line by this share of its length makes the line longer.
_EXTENSION = 0.1
# Segments this close to where a mapped line is expected are that line.
_DUPLICATE_PX = 4.0
# So many of the newest keyframes are local, whatever they share.
_NEWEST = 5


_STORED = {
    "serial": "_serials",
    "reference": "_references",
    "last_seen": "_last_seen",
    "birth": "_births",
    "keyframe_count": "_keyframe_counts",
    "visible": "_visible",
    "found": "_found",
    "point": "_points",
    "information": "_information",
    "descriptor": "_descriptors",
    "sighting": "_sightings",
}
"""Arrays by name; all but the sightings have a row per line."""


class LineMap:
    """Lines in arrays, held by the keyframes of a map.

    A line's ends are kept in the camera frame of its reference keyframe, so that lines follow all corrections of the
    map by themselves. Rows are numbered anew whenever a keyframe is added.

    Args:
        tree: the keyframes that hold the lines.
        camera: of all keyframes.
        config: settings.
        pixel_sigma: standard deviation of a segment's endpoint across it in this image size, pixels.
        pixel: scale factor of pixel values, which are for images 640 pixels wide.
    """

    def __init__(
        self, tree: KeyframeTree, camera: PinholeCamera, config: LineConfig, *, pixel_sigma: float, pixel: float
    ) -> None:
        self._tree = tree
        self._camera = camera
        self._config = config
        self._pixel_sigma = pixel_sigma
        self._pixel = pixel
        self._next_serial = 0
        self._serials = np.zeros(0, dtype=np.int64)
        # Who saw what with which segment: rows of (serial, keyframe id, segment).
        self._sightings = np.zeros((0, 3), dtype=np.int64)
        self._references = np.zeros(0, dtype=np.int64)
        self._last_seen = np.zeros(0, dtype=np.int64)
        self._births = np.zeros(0, dtype=np.int64)
        self._keyframe_counts = np.zeros(0, dtype=np.int64)
        self._visible = np.zeros(0, dtype=np.int64)
        self._found = np.zeros(0, dtype=np.int64)
        self._points = np.zeros((0, 2, 3))
        self._information = np.zeros((0, 2, 3, 3))
        self._descriptors = np.zeros((0, 0), dtype=np.float32)

    @classmethod
    def from_arrays(
        cls,
        tree: KeyframeTree,
        camera: PinholeCamera,
        config: LineConfig,
        arrays: Mapping[str, NDArray[Any]],
        *,
        made: int,
    ) -> LineMap:
        """The lines that :meth:`to_arrays` copied.

        Args:
            tree: the keyframes that hold them.
            camera: of all keyframes.
            config: settings.
            arrays: by name.
            made: number of the next line, :attr:`made`.
        """
        pixel = image_scale(camera)
        lines = cls(tree, camera, config, pixel_sigma=config.pixel_sigma * pixel, pixel=pixel)
        lines._next_serial = made
        for name, field in _STORED.items():
            setattr(lines, field, arrays[name].copy())
        return lines

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays by name, as ``docs/map-format.md`` describes them."""
        return {name: getattr(self, field).copy() for name, field in _STORED.items()}

    @property
    def made(self) -> int:
        """How many lines were made so far, those that are gone included: the number of the next one."""
        return self._next_serial

    def __len__(self) -> int:
        return len(self._references)

    def points_world(self, rows: Indices | None = None) -> Array:
        """Ends (M, 2, 3) of lines in the world, metres; None stands for all."""
        return self._placed(np.arange(len(self)) if rows is None else rows)[0]

    def visible_from(self, T_world_cam: Array, keyframe_ids: Indices) -> VisibleLines:
        """The lines of some keyframes, and of the newest ones, that a camera should see."""
        local = np.union1d(keyframe_ids, self._newest_keyframes(keyframe_ids))
        rows = np.flatnonzero(np.isin(self._references, local) | np.isin(self._last_seen, local))
        points, information = self._placed(rows)
        seen, pixels, points_cam = segments_in_view(points, T_world_cam, self._camera)
        # Of a line that is hardly in the picture no segment would be kept.
        seen &= np.linalg.norm(pixels[:, 1] - pixels[:, 0], axis=1) >= 0.5 * self._config.min_length * self._pixel
        return VisibleLines(
            rows=rows[seen],
            points_world=points[seen],
            covariances=np.asarray(np.linalg.inv(information[seen]), dtype=np.float64),
            pixels=pixels[seen],
            points_cam=points_cam[seen],
            descriptors=self._descriptors[rows[seen]],
        )

    def count_views(self, visible: Indices, found: Indices) -> None:
        """Keep count of which lines (rows) were in view and which were found there."""
        self._visible[visible] += 1
        self._found[found] += 1

    def add_keyframe(
        self, keyframe_id: int, observed: ObservedLines, visible: VisibleLines, found: LineAssociations
    ) -> None:
        """A keyframe sees lines: they get more certain, and other segments with depth become lines.

        Args:
            keyframe_id: already part of the map.
            observed: its segments.
            visible: what was expected from its pose.
            found: pairs of the two that agree with the pose.
        """
        if not self._descriptors.shape[1]:
            self._descriptors = np.zeros((0, observed.segments.descriptors.shape[1]), dtype=np.float32)
        self._follow_removals()
        rows = visible.rows[found.lines]
        self._fuse(rows, found.segments, observed, self._tree.keyframes[keyframe_id].T_world_cam)
        self._sight(self._serials[rows], keyframe_id, found.segments)
        self._descriptors[rows] = observed.segments.descriptors[found.segments]
        self._last_seen[rows] = keyframe_id
        self._keyframe_counts[rows] += 1
        fresh = observed.spatial.valid & ~already_mapped(
            observed, visible, self._config, radius_px=_DUPLICATE_PX * self._pixel
        )
        fresh[found.segments] = False
        self._add(keyframe_id, observed, np.flatnonzero(fresh))
        self._cull(keyframe_id)

    def bundle(self, keyframe_ids: Indices) -> BundleLines | None:
        """The lines that at least two of these keyframes (K,), sorted, see, for a bundle adjustment; None for none."""
        sightings = self._sightings[np.isin(self._sightings[:, 1], keyframe_ids)]
        serials, lines, times = np.unique(sightings[:, 0], return_inverse=True, return_counts=True)
        used = times[lines] >= 2
        if not used.any():
            return None
        sightings, serials = sightings[used], serials[times >= 2]
        frames = [self._tree.keyframes[k].frame.lines for k in sightings[:, 1].tolist()]
        planes = {id(frame): frame.spatial.range_planes() for frame in frames if frame is not None}
        at = [(frame, segment) for frame, segment in zip(frames, sightings[:, 2].tolist(), strict=True)]
        rows = np.searchsorted(self._serials, serials)
        return bundle_lines(
            serials,
            self._placed(rows)[0],
            np.stack([self._tree.keyframes[k].T_world_cam for k in keyframe_ids.tolist()]),
            LineSightings(
                keyframe_rows=np.searchsorted(keyframe_ids, sightings[:, 1]),
                line_rows=np.searchsorted(serials, sightings[:, 0]),
                segments=np.stack([frame.segments.endpoints[k] for frame, k in at if frame is not None]),
                range_planes=np.stack([planes[id(frame)][0][k] for frame, k in at]),
                range_sigma=np.stack([planes[id(frame)][1][k] for frame, k in at]),
            ),
            self._camera,
            pixel_sigma=self._pixel_sigma,
        )

    def adjust(self, serials: Indices, points_world: Array) -> None:
        """Take over ends (M, 2, 3) of lines (M,) from a bundle adjustment; lines that are gone are left out."""
        there = np.isin(serials, self._serials)
        rows = np.searchsorted(self._serials, serials[there])
        if len(rows):
            self._place(rows, points_world[there], self._placed(rows)[1])

    def _add(self, keyframe_id: int, observed: ObservedLines, segments: Indices) -> None:
        count = len(segments)
        ids = np.full(count, keyframe_id, dtype=np.int64)
        information = measured_information(observed, segments, self._camera, pixel_sigma=self._pixel_sigma)
        serials = self._next_serial + np.arange(count)
        self._next_serial += count
        self._serials = np.concatenate([self._serials, serials])
        self._sight(serials, keyframe_id, segments)
        self._references = np.concatenate([self._references, ids])
        self._last_seen = np.concatenate([self._last_seen, ids])
        self._births = np.concatenate([self._births, ids])
        self._keyframe_counts = np.concatenate([self._keyframe_counts, np.ones(count, dtype=np.int64)])
        self._visible = np.concatenate([self._visible, np.ones(count, dtype=np.int64)])
        self._found = np.concatenate([self._found, np.ones(count, dtype=np.int64)])
        self._points = np.concatenate([self._points, observed.spatial.points[segments]])
        self._information = np.concatenate([self._information, information])
        self._descriptors = np.concatenate([self._descriptors, observed.segments.descriptors[segments]])

    def _cull(self, keyframe_id: int) -> None:
        """Forget lines that are rarely found or were never seen again."""
        rarely = rarely_found(self._visible, self._found)
        once = failed_probation(self._births, self._keyframe_counts, keyframe_id)
        keep = ~(rarely | once)
        for name, field in _STORED.items():
            if name != "sighting":
                setattr(self, field, getattr(self, field)[keep])
        there = np.isin(self._sightings[:, 0], self._serials)
        there &= np.isin(self._sightings[:, 1], list(self._tree.keyframes))
        self._sightings = self._sightings[there]

    def _sight(self, serials: Indices, keyframe_id: int, segments: Indices) -> None:
        rows = np.stack([serials, np.full(len(serials), keyframe_id), segments], axis=1)
        self._sightings = np.concatenate([self._sightings, rows])

    def _fuse(self, rows: Indices, segments: Indices, observed: ObservedLines, T_world_cam: Array) -> None:
        """Move the ends of lines to where they are most likely, given one more sighting of each from a known pose."""
        if not len(rows):
            return
        world, information, ends_seen = self._lengthened(rows, segments, observed, T_world_cam)
        observations = line_observations(world, observed, segments, pixel_sigma=self._pixel_sigma)
        _, residuals, to_point = line_point_derivatives(inverse(T_world_cam), observations, self._camera)
        residuals = residuals.reshape(-1, 2, 2).transpose(0, 2, 1)
        jacobian = (to_point @ T_world_cam[:3, :3].T).reshape(-1, 2, 2, 3).transpose(0, 2, 1, 3)
        use = (np.abs(residuals) < _LARGEST_RESIDUAL) & ends_seen[:, :, None]
        residuals, jacobian = np.where(use, residuals, 0.0), np.where(use[..., None], jacobian, 0.0)
        transposed = jacobian.transpose(0, 1, 3, 2)
        information = information + transposed @ jacobian
        world = world - np.linalg.solve(information, transposed @ residuals[..., None])[..., 0]
        self._place(rows, world, information)

    def _lengthened(
        self, rows: Indices, segments: Indices, observed: ObservedLines, T_world_cam: Array
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Ends of lines, moved out along them to where segments reach; their information; and which ends are seen.

        An end beside which the segment does not lie is not seen: the segment says little about it.
        """
        world, information = self._placed(rows)
        step = world[:, 1] - world[:, 0]
        valid = observed.spatial.valid[segments][:, None]
        seen = observed.spatial.points[segments] @ T_world_cam[:3, :3].T + T_world_cam[:3, 3]
        along = np.einsum("mek,mk->me", seen - world[:, :1], step) / np.maximum((step**2).sum(axis=1), 1e-12)[:, None]
        beside, in_front = reach(world, observed.segments.endpoints[segments], T_world_cam, self._camera)
        along, valid = np.where(valid, along, beside), valid | in_front[:, None]
        ends_seen = np.stack([along[:, 0] < _EXTENSION, along[:, 1] > 1 - _EXTENSION], axis=1) & valid
        longer = np.stack([along[:, 0] < -_EXTENSION, along[:, 1] > 1 + _EXTENSION], axis=1) & valid
        share = np.where(longer, along, np.array([0.0, 1.0]))[:, :, None]
        covariance = np.linalg.inv(information)[:, None]
        extended = (1 - share[..., None]) ** 2 * covariance[:, :, 0] + share[..., None] ** 2 * covariance[:, :, 1]
        information = np.where(longer[:, :, None, None], np.linalg.inv(extended), information)
        return world[:, :1] + share * step[:, None], information, ends_seen

    def _newest_keyframes(self, keyframe_ids: Indices) -> list[int]:
        """The newest keyframes of the submap that the given ones belong to, or of the newest one's."""
        known = [self._tree.keyframes[k].submap for k in keyframe_ids.tolist() if k in self._tree.keyframes]
        submap = known[0] if known else self._tree.newest.submap
        return [k for k, keyframe in self._tree.keyframes.items() if keyframe.submap == submap][-_NEWEST:]

    def _follow_removals(self) -> None:
        """Hand the lines of removed keyframes over to those that stand in for them."""
        references = {int(k): self._tree.survivor(int(k)) for k in np.unique(self._references)}
        for gone, survivor in references.items():
            if gone == survivor:
                continue
            rows = np.flatnonzero(self._references == gone)
            points, information = self._placed(rows)
            self._references[rows] = survivor
            self._place(rows, points, information)
        for gone in np.unique(self._last_seen).tolist():
            self._last_seen[self._last_seen == gone] = self._tree.survivor(gone)

    def _frames(self, rows: Indices) -> tuple[Array, Array, Array]:
        """Rotation (M, 3, 3), translation (M, 3) and scale (M,) of the reference keyframes of lines."""
        references, positions = np.unique(self._references[rows], return_inverse=True)
        placed = [self._tree.placement(int(reference)) for reference in references]
        poses = np.array([pose for pose, _ in placed]).reshape(-1, 4, 4)[positions]
        return poses[:, :3, :3], poses[:, :3, 3], np.array([scale for _, scale in placed])[positions]

    def _placed(self, rows: Indices) -> tuple[Array, Array]:
        """Ends (M, 2, 3) and their inverse covariances (M, 2, 3, 3) in the world."""
        if not len(rows):
            return np.zeros((0, 2, 3)), np.zeros((0, 2, 3, 3))
        rotation, translation, scale = self._frames(rows)
        points = scale[:, None, None] * self._points[rows] @ rotation.transpose(0, 2, 1) + translation[:, None]
        information = rotation[:, None] @ self._information[rows] @ rotation[:, None].transpose(0, 1, 3, 2)
        return points, information / scale[:, None, None, None] ** 2

    def _place(self, rows: Indices, points_world: Array, information: Array) -> None:
        rotation, translation, scale = self._frames(rows)
        self._points[rows] = (points_world - translation[:, None]) @ rotation / scale[:, None, None]
        axes = rotation[:, None]
        self._information[rows] = axes.transpose(0, 1, 3, 2) @ information @ axes * scale[:, None, None, None] ** 2
