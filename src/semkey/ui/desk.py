"""What the page computes: one thing at a time, with the detectors and backbones that were asked for last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.backbones.backbone import Backbone
from semkey.backbones.loading import load_backbone
from semkey.backbones.specs import BACKBONES
from semkey.errors import ConfigError, InputError
from semkey.extractors import Detector, load
from semkey.matching import create_matcher
from semkey.ui.clips import ClipView, track_clip
from semkey.ui.config import PageConfig
from semkey.ui.images import ImageView, OpenImages, open_images, show_images, show_similarity
from semkey.ui.uploads import sort_files

FEATURES = ("compact", "nano", "vit-tiny", "orb", "sift")
MATCHERS = ("mnn", "ratio", "dual-softmax")
MOST_KEYPOINTS = 4096


class Desk:
    """Answers of the page; may be asked from several threads.

    Args:
        config: limits of what is taken.
    """

    def __init__(self, config: PageConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the tracking of a clip after the frame that it is at; what there is, is shown."""
        self._stop.set()

    def show(
        self,
        files: Sequence[str | Path],
        *,
        features: str,
        keypoints: int,
        matcher: str,
        refined: bool,
        camera: str,
        view_degrees: float,
        progress: Callable[[int, int], None],
    ) -> tuple[OpenImages, ImageView] | ClipView:
        """What the dropped files show.

        Args:
            files: one or two images, or a clip.
            features: one of :data:`FEATURES`.
            keypoints: at most so many per image.
            matcher: one of :data:`MATCHERS`.
            refined: move matched keypoints to where the images agree.
            camera: of a clip, ``fx,fy,cx,cy``; empty for a guess.
            view_degrees: for the guess.
            progress: called with frames done and all.

        Raises:
            SemkeyError: files, or what was chosen, cannot be used.
        """
        # Whoever reaches the page asks for what it offers: a name could also be code or a file of this machine.
        for name, known in ((features, FEATURES), (matcher, MATCHERS)):
            if name not in known:
                raise ConfigError(f"this page has no '{name}': choose one of {', '.join(known)}")
        if not 1 <= keypoints <= MOST_KEYPOINTS:
            raise InputError(f"keypoints are 1 to {MOST_KEYPOINTS}, got {keypoints:g}")
        dropped = sort_files(files, self.config)
        with self._lock:
            self._stop.clear()
            detector = _detector(features, int(keypoints))
            if dropped.clip is not None:
                return track_clip(
                    dropped.clip,
                    detector,
                    self.config,
                    camera=camera,
                    view_degrees=view_degrees,
                    progress=self._stoppable(progress),
                )
            opened = open_images(dropped.images, self.config)
            return opened, show_images(opened, detector, create_matcher(matcher, features=features), refined=refined)

    def compare(
        self, opened: OpenImages | None, clicked: int, point: tuple[float, float], backbone: str
    ) -> tuple[list[NDArray[np.uint8]], str]:
        """The images under the colours of what looks like a point, see :func:`semkey.ui.images.show_similarity`.

        Raises:
            SemkeyError: there are no images, or the backbone cannot be had.
        """
        if opened is None or clicked >= len(opened.images):
            raise InputError("drop one or two images first")
        if backbone not in BACKBONES:
            raise ConfigError(f"this page has no backbone '{backbone}': choose one of {', '.join(BACKBONES)}")
        with self._lock:
            return show_similarity(opened, clicked, point, backbone, _backbone(backbone))

    def _stoppable(self, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def advance(done: int, total: int) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt  # as Ctrl-C ends a run, with its results
            progress(done, total)

        return advance


@lru_cache(maxsize=2)
def _detector(name: str, keypoints: int) -> Detector:
    return load(name, max_keypoints=keypoints)


@lru_cache(maxsize=1)
def _backbone(name: str) -> Backbone:
    return load_backbone(name)
