"""A world of points with unique descriptors, seen by a moving RGB-D camera: the truth of everything is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.datasets import Frame, FrameSequence
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.trajectories import Trajectory
from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike
from semkey.slam.frames.depth import depth_sigma
from semkey.slam.frames.frame import ObservedFrame, observe_frame

CAMERA = PinholeCamera(fx=260.0, fy=260.0, cx=159.5, cy=119.5, width=320, height=240)
WIDTH, HEIGHT = CAMERA.width, CAMERA.height


def walk(
    count: int, step: Sequence[float] = (0.02, 0.005, 0.01, 0.004, 0.01, 0.003), *, unsteadiness: float = 0.3
) -> list[NDArray[np.float64]]:
    """Poses T_world_cam that bend slowly; unless ``unsteadiness`` is 0, constant velocity is never quite right."""
    poses = [np.eye(4)]
    for k in range(count - 1):
        poses.append(compose(poses[-1], se3_exp(np.asarray(step) * (1 + unsteadiness * np.sin(0.5 * k)))))
    return poses


class PointWorld(FrameSequence):
    """Points all around, and the frames that a camera on given poses takes of them at 10 Hz.

    Every frame's image holds its index, by which :class:`PointExtractor` finds what is to be seen.

    Args:
        poses: T_world_cam of every frame.
        pixel_noise: standard deviation of keypoints, pixels.
        depth_noise: multiple of the sensor's standard deviation.
        outlier_share: share of keypoints that carry the descriptor of another point.
        blank: frames in which nothing is to be seen.
        without_depth: frames whose depth is all holes.
        elsewhere: frames that show another world.
        shared_poster: radius in radians, as seen from the origin, of a picture on the z-axis that is richer in points
            than all around it, and hangs in both worlds.
        copies: x-coordinates in metres at which the world stands, descriptors and all.
        points: how many there are; about one in twelve is in view.
    """

    def __init__(
        self,
        poses: Sequence[NDArray[np.float64]],
        *,
        pixel_noise: float = 0.0,
        depth_noise: float = 0.0,
        outlier_share: float = 0.0,
        blank: Sequence[int] = (),
        without_depth: Sequence[int] = (),
        elsewhere: Sequence[int] = (),
        shared_poster: float = 0.0,
        copies: Sequence[float] = (0.0,),
        points: int = 3000,
        seed: int = 0,
    ) -> None:
        stamps = np.arange(len(poses), dtype=np.float64) * 0.1
        super().__init__(
            name="points", format="tum", camera=CAMERA, has_depth=True, timestamps=stamps, ground_truth=poses
        )
        rng = np.random.default_rng(seed)
        self.pixel_noise, self.depth_noise, self.outlier_share = pixel_noise, depth_noise, outlier_share
        self.blank, self.without_depth = set(blank), set(without_depth)
        self.seed = seed
        here = _points(rng, points)
        other = _points(rng, points)
        if shared_poster > 0:
            poster = _poster(rng, shared_poster)
            here, other = (
                (np.concatenate([points, poster[0]]), np.concatenate([descriptors, poster[1]]))
                for points, descriptors in (here, other)
            )
        here = (
            np.concatenate([here[0] + np.array([x, 0.0, 0.0]) for x in copies]),
            np.concatenate([here[1]] * len(copies)),
        )
        self._worlds = [other if index in set(elsewhere) else here for index in range(len(poses))]

    def _load(self, index: int) -> Frame:
        _, _, depth = self.observe(index)
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=np.full((HEIGHT, WIDTH, 3), (index % 256, index // 256, 0), dtype=np.uint8),
            depth=depth,
            T_world_cam=self.ground_truth[index],
        )

    def observe(self, index: int) -> tuple[NDArray, NDArray, NDArray]:
        """Keypoints (N, 2), descriptors (N, 64) and depth (H, W) of a frame."""
        rng = np.random.default_rng((self.seed, index))
        points, descriptors = self._worlds[index]
        pose = self.ground_truth[index]
        assert pose is not None
        points_cam = transform_points(inverse(pose), points)
        pixels = CAMERA.project(points_cam)
        in_view = np.flatnonzero(CAMERA.contains(pixels, margin=3.0) & (points_cam[:, 2] > 0.5))
        if index in self.blank:
            in_view = in_view[:0]
        # Nearest first, and nothing within 4 px of a nearer point: every kept point owns its four pixels.
        kept: list[int] = []
        taken = np.zeros((HEIGHT, WIDTH), dtype=bool)
        for k in in_view[np.argsort(points_cam[in_view, 2])]:
            x, y = int(pixels[k, 0]), int(pixels[k, 1])
            if not taken[y : y + 2, x : x + 2].any():
                taken[max(y - 3, 0) : y + 5, max(x - 3, 0) : x + 5] = True
                kept.append(int(k))
        z = points_cam[kept, 2]
        z = z + rng.normal(0, 1, len(z)) * depth_sigma(z) * self.depth_noise
        depth = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
        corners = pixels[kept].astype(int)
        for dy in (-1, 0, 1, 2):
            for dx in (-1, 0, 1, 2):
                depth[corners[:, 1] + dy, corners[:, 0] + dx] = z
        if index in self.without_depth:
            depth[:] = 0
        keypoints = pixels[kept] + rng.normal(0, 1, (len(kept), 2)) * self.pixel_noise
        described = descriptors[kept]
        wrong = rng.random(len(kept)) < self.outlier_share
        described[wrong] = described[rng.permutation(len(kept))[wrong]]
        return keypoints, described, depth


class FrameList(FrameSequence):
    """Frames that are there already, as a sequence at 10 Hz in their order."""

    def __init__(self, frames: Sequence[Frame], camera: PinholeCamera) -> None:
        stamps = np.arange(len(frames), dtype=np.float64) * 0.1
        truth = [frame.T_world_cam for frame in frames]
        super().__init__(
            name="frames", format="tum", camera=camera, has_depth=True, timestamps=stamps, ground_truth=truth
        )
        self._frames = list(frames)

    def _load(self, index: int) -> Frame:
        return replace(self._frames[index], index=index, timestamp=float(self.timestamps[index]))


class PointExtractor:
    """Reads the features of a frame of a :class:`PointWorld` from the index in its image."""

    name = "points"

    def __init__(self, world: PointWorld, before: Callable[[int], None] | None = None) -> None:
        self._world = world
        self._before = before

    def extract(self, image: ImageLike) -> Features:
        low, high, _ = np.asarray(image)[0, 0].tolist()
        index = low + 256 * high
        if self._before is not None:
            self._before(index)
        keypoints, descriptors, _ = self._world.observe(index)
        count = len(keypoints)
        return Features(
            keypoints=torch.from_numpy(keypoints).float(),
            scores=torch.ones(count),
            reliability=torch.ones(count),
            descriptors=torch.from_numpy(descriptors).float(),
            global_descriptor=torch.zeros(0),
            image_size=(WIDTH, HEIGHT),
        )


def _points(rng: np.random.Generator, count: int) -> tuple[NDArray, NDArray]:
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    descriptors = rng.normal(size=(count, 64))
    return directions * rng.uniform(1.5, 4.0, (count, 1)), descriptors / np.linalg.norm(
        descriptors, axis=1, keepdims=True
    )


def _poster(rng: np.random.Generator, radius: float, count: int = 1000) -> tuple[NDArray, NDArray]:
    """Points on the plane z = 1.4 m, nearer than anything else."""
    angle, distance = rng.uniform(0, 2 * np.pi, count), np.tan(radius) * np.sqrt(rng.uniform(0, 1, count))
    points = 1.4 * np.stack([distance * np.cos(angle), distance * np.sin(angle), np.ones(count)], axis=1)
    descriptors = rng.normal(size=(count, 64))
    return points, descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def random_trajectory(rng: np.random.Generator, count: int = 30, step: float = 0.1) -> Trajectory:
    """A random walk whose frames are 0.1 s apart."""
    pose = se3_exp(rng.normal(size=6))
    poses = []
    for _ in range(count):
        poses.append(pose)
        pose = pose @ se3_exp(rng.normal(size=6) * step)
    return Trajectory(np.linspace(1000.0, 1000.0 + 0.1 * (count - 1), count), np.stack(poses))


def observed_frame(world: PointWorld, index: int) -> ObservedFrame:
    """A frame of a world, its keypoints uncertain by a pixel, as tracking sees it."""
    taken = world[index]
    assert taken.depth is not None
    features = PointExtractor(world).extract(taken.image)
    covariances = isotropic_covariances(len(features), 1.0)
    return observe_frame(index, 0.1 * index, features, taken.depth, covariances, min_depth=0.3, max_depth=8.0)
