"""A world of points and straight wires, and an extractor that sees both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.extractors.detector import MaskLike
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike
from semkey.slam.config import LineConfig
from semkey.slam.frames.segments import FeaturesWithSegments, SegmentExtractor, Segments
from semkey.slam.frames.segments_in_space import segments_in_view
from synthetic_world import CAMERA, HEIGHT, WIDTH, PointExtractor, PointWorld

LINES = LineConfig(enabled=True)


class WireWorld(PointWorld):
    """A world of points with straight wires in it, each with a descriptor of its own."""

    def __init__(
        self, poses: Sequence[NDArray[np.float64]], *, wires: int = 500, noise: float = 0.0, **options
    ) -> None:
        super().__init__(poses, **options)
        rng = np.random.default_rng(self.seed + 7)
        directions = rng.normal(size=(wires, 3))
        middles = directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(1.5, 3.5, (wires, 1))
        self.wires = middles[:, None] + rng.uniform(-0.7, 0.7, (wires, 2, 3))
        descriptors = rng.normal(size=(wires, 64))
        self.wire_descriptors = (descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).astype(np.float32)
        self.noise = noise

    def segments(self, index: int) -> tuple[Segments, NDArray[np.int64]]:
        """Segments of a frame, with ends that are cut off at random, and which wires they are."""
        rng = np.random.default_rng((self.seed, index, 1))
        pose = self.ground_truth[index]
        assert pose is not None
        seen, pixels, _ = segments_in_view(self.wires, pose, CAMERA, nearest=0.5)
        seen &= np.linalg.norm(pixels[:, 1] - pixels[:, 0], axis=1) > 40
        kept = np.flatnonzero(seen)
        pixels = pixels[kept]
        cut = np.stack([rng.uniform(0, 0.15, len(kept)), rng.uniform(0.85, 1.0, len(kept))], axis=1)
        ends = pixels[:, :1] + cut[:, :, None] * (pixels[:, 1:] - pixels[:, :1])
        ends = ends + rng.normal(0, 1, ends.shape) * self.noise
        return Segments(endpoints=ends, descriptors=self.wire_descriptors[kept]), kept

    def observe(self, index: int) -> tuple[NDArray, NDArray, NDArray]:
        keypoints, descriptors, depth = super().observe(index)
        pose = self.ground_truth[index]
        assert pose is not None
        # Farthest first, so that nearer wires stay on top.
        seen, _, points = segments_in_view(self.wires, pose, CAMERA, nearest=0.5)
        order = np.flatnonzero(seen)
        for k in order[np.argsort(-points[order, :, 2].mean(axis=1))]:
            share = np.linspace(0, 1, 400)[:, None]
            along = points[k, :1] + share * (points[k, 1:] - points[k, :1])
            x, y = CAMERA.project(along).round().astype(int).T
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    inside = (x + dx >= 0) & (x + dx < WIDTH) & (y + dy >= 0) & (y + dy < HEIGHT)
                    depth[y[inside] + dy, x[inside] + dx] = along[inside, 2]
        return keypoints, descriptors, depth


class WireExtractor(SegmentExtractor):
    """Reads points and wires of a frame of a :class:`WireWorld` from the index in its image."""

    def __init__(self, world: WireWorld, pointless: Sequence[int] = ()) -> None:
        super().__init__(PointExtractor(world), LINES)
        self._world, self._pointless = world, set(pointless)

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> FeaturesWithSegments:
        features = PointExtractor(self._world).extract(image)
        index = int(np.asarray(image)[0, 0, 0])
        if index in self._pointless:
            features = features.select(torch.zeros(0, dtype=torch.int64))
        values = {name: getattr(features, name) for name in Features.__dataclass_fields__}
        return FeaturesWithSegments(**values, segments=self._world.segments(index)[0])
