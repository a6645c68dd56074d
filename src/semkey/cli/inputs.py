"""Options that several commands share: which features, and what a sequence is and which camera took it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semkey.cli.options import option
from semkey.model.config import ExtractionConfig
from semkey.settings import Settings

if TYPE_CHECKING:
    from semkey.cluster import Cluster
    from semkey.datasets import FrameSequence
    from semkey.extractors import Detector
    from semkey.images.masks import MaskSource
    from semkey.matching import PairMatcher

# semkey.datasets.FORMATS and Sensor, which are not imported here so that --help stays quick.
Format = Literal[
    "auto",
    "tum",
    "euroc",
    "kitti",
    "7scenes",
    "scannet",
    "tartanair",
    "icl-nuim",
    "nerfstudio",
    "colmap",
    "record3d",
    "stray",
    "bag",
    "video",
    "folder",
    "webcam",
    "realsense",
    "oak",
]
SensorChoice = Literal["rgbd", "stereo", "mono"]
# semkey.runtimes.choosing.Runtime
RuntimeChoice = Literal["torch", "onnxruntime", "openvino", "auto"]


def expand_folders(images: list[Path]) -> list[Path]:
    """Files as they are, folders as the images in them.

    Raises:
        DatasetError: a folder holds none.
    """
    from semkey.datasets.readers.folder import require_images

    return [file for path in images for file in (require_images(path) if path.is_dir() else [path])]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Settings):
    """Which features.

    Attributes:
        features: which features: ``compact`` (learned), ``orb``, ``sift`` (RootSIFT), a semkey checkpoint
            (.safetensors), your own module:function, or a peer (aliked-t16, aliked-n16, aliked-n16rot, aliked-n32,
            xfeat, disk, clidd-n64, clidd-s64, clidd-m64, clidd-l64).
        max_keypoints: largest number of keypoints per image.
        device: where the network runs: auto (the GPU if there is one), cpu, cuda or cuda:N.
        runtime: what computes the network of semkey's own features, on a CPU.
    """

    features: str = option("compact", "--features", "-f", metavar="compact|orb|sift|NAME|FILE")
    max_keypoints: int = option(ExtractionConfig.max_keypoints, "--max-keypoints", "-n")
    device: str = option("auto", metavar="DEVICE")
    runtime: RuntimeChoice = "torch"

    def create(self, places: str | None = None) -> Detector:
        """The extractor.

        Args:
            places: global descriptors for it, see :mod:`semkey.extractors.places`; None leaves it its own.

        Raises:
            ConfigError: unknown features, places or device, no keypoints, or a runtime that these features do not
                have.
            CheckpointError: weights are missing or broken.
        """
        from semkey.extractors import create_extractor
        from semkey.extractors.places import name_with_places

        name = self.features if places is None else name_with_places(self.features, places)
        return create_extractor(name, max_keypoints=self.max_keypoints, device=self.device, runtime=self.runtime)


@dataclass(frozen=True, kw_only=True)
class MatcherOptions(Settings):
    """How features are matched.

    Attributes:
        matcher: ``mnn`` (mutual nearest neighbours), ``ratio`` (with Lowe's test), ``dual-softmax``, ``lightglue``
            (aliked-n16, disk), or a file of ``semkey train-matcher``.
        min_similarity: drop nearest neighbours of a smaller cosine similarity.
        ratio: Lowe's ratio test on nearest neighbours, for example 0.9 (default: none).
    """

    matcher: str = option("mnn", metavar="mnn|ratio|dual-softmax|lightglue|FILE")
    min_similarity: float | None = None
    ratio: float | None = option(None, metavar="0..1")

    def create(self, features: FeatureOptions) -> PairMatcher:
        """The matcher of these features.

        Raises:
            ConfigError: unknown matcher, or one without weights for the features.
            CheckpointError: the file of a matcher cannot be used.
            InputError: a threshold out of its range.
        """
        from semkey.matching import create_matcher
        from semkey.runtime import select_device

        return create_matcher(
            self.matcher,
            features=features.features,
            min_similarity=self.min_similarity,
            ratio=self.ratio,
            device=select_device(features.device),
        )


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Settings):
    """Where work is spread over.

    Attributes:
        ray: spread over a Ray cluster (HOST:6379 or auto), or over workers of this machine under Ray (local).
        workers: of this machine, with ``--ray local`` (default: a process per core).
    """

    ray: str | None = option(None, metavar="ADDRESS|local")
    workers: int | None = None

    def cluster(self, device: str) -> Cluster | None:
        """The cluster; None for work in this process.

        Raises:
            ConfigError: workers without ``--ray local``, or none of them.
        """
        from semkey.cluster import Cluster
        from semkey.errors import ConfigError

        if self.workers is not None and (self.ray != "local" or self.workers < 1):
            raise ConfigError("--workers is a number from 1 on, with --ray local")
        if self.ray is None:
            return None
        workers = self.workers or os.cpu_count() or 1
        return Cluster(address=self.ray, workers=workers, gpus=int(device.startswith("cuda")))


@dataclass(frozen=True, kw_only=True)
class MaskOptions(Settings):
    """Which pixels count.

    Attributes:
        mask: leave out where this image is black: one for all, or a folder of masks named like the images.
    """

    mask: Path | None = option(None, metavar="FILE|FOLDER")

    def open(self) -> MaskSource | None:
        """Where masks come from; None for whole images.

        Raises:
            InputError: there are no masks, or the one of all images cannot be read.
        """
        from semkey.images.masks import MaskSource

        return None if self.mask is None else MaskSource(self.mask)


@dataclass(frozen=True, kw_only=True)
class InputOptions(Settings):
    """What a sequence is, and its camera.

    Attributes:
        format: kind of input; auto looks at what is there.
        camera: camera of the images as stored, instead of the input's own: a pinhole, or a calibration file of semkey,
            ROS, Kalibr, OpenCV, COLMAP, ORB-SLAM or nerfstudio, by which images are undistorted and rectified.
        calibration: the same as ``--camera FILE``.
        topics: of a bag, which topic is what: rgb, depth, info, right, right_info, imu; the rest is found by type.
        depth_scale: stored units per metre of depth images, where the format's own is wrong: 1000 for millimetres.
    """

    format: Format = "auto"
    camera: str | None = option(None, metavar="FX,FY,CX,CY|FILE")
    calibration: Path | None = option(None, metavar="FILE.yaml")
    topics: str | None = option(None, metavar="ROLE=TOPIC,...")
    depth_scale: float | None = option(None, metavar="UNITS")

    def open(self, path: Path) -> FrameSequence:
        """The sequence; missing and broken files in mid-sequence are reported, not fatal.

        Raises:
            ConfigError: both ``--camera`` and ``--calibration`` are given, or the former is no camera.
            DatasetError: the calibration or the input is broken.
        """
        from semkey.datasets import CameraArgument, open_sequence, parse_camera, read_calibration
        from semkey.errors import ConfigError

        if self.camera is not None and self.calibration is not None:
            raise ConfigError("--camera and --calibration are two descriptions of one camera; give one of them")
        argument: CameraArgument | None = None
        if self.camera is not None:
            argument = parse_camera(self.camera)
        elif self.calibration is not None:
            argument = read_calibration(self.calibration)
        return open_sequence(
            path, format=self.format, camera=argument, topics=self.topics, depth_scale=self.depth_scale
        )
