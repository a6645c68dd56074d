"""Detection targets from a teacher: keypoints of an extractor on every photo, computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from semkey.errors import DatasetError
from semkey.files import atomic_write_bytes
from semkey.training.data.config import TeacherConfig
from semkey.training.data.photos import Photo, Progress

_FORMAT = "targets-1"
_CLEAR_PROBABILITY = 0.05  # that a detector gives the very pixel of a corner that stands out


class TeacherTargets:
    """Keypoints that a teacher finds on photos, read from the cache; for their strengths see :func:`strength`.

    Args:
        folder: of this teacher, as :func:`prepare_targets` returns it.
        with_descriptors: also read descriptors.
    """

    def __init__(self, folder: Path, *, with_descriptors: bool) -> None:
        self.folder, self._with_descriptors = folder, with_descriptors

    def descriptor_dim(self, photos: Sequence[Photo]) -> int:
        """The width of the descriptors, 0 without them or without photos."""
        if not self._with_descriptors or not photos:
            return 0
        descriptors = self(photos[0])[2]
        return 0 if descriptors is None else descriptors.shape[1]

    def __call__(self, photo: Photo) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32] | None]:
        """Keypoints (N, 2), strengths (N,) in [0, 1] and descriptors (N, D) unit norm or None of a photo.

        Raises:
            DatasetError: they are not in the cache, or damaged.
        """
        file = _file(self.folder, photo)
        try:
            stored = load(file.read_bytes())
        except (SafetensorError, OSError) as error:
            raise DatasetError(f"{file}: not readable targets of {photo.name} ({error}); delete the file") from None
        descriptors = stored["descriptors"].astype(np.float32) if self._with_descriptors else None
        return stored["keypoints"].astype(np.float64), stored["strengths"], descriptors


def strength(scores: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Strength in [0, 1] of targets from a teacher's scores (N,) in [0, 1].

    It is the square root of the score: scores of learned detectors are so uneven that the weaker half of the keypoints
    would hardly count. The scores of semkey's own detectors (kind ``semkey``) are 1 + log(p) / 10; they are turned
    back into probabilities first, in relation to that of a clear keypoint, or all keypoints would look alike.
    """
    values = np.exp(10.0 * (scores - 1.0)) / _CLEAR_PROBABILITY if kind == "semkey" else scores
    return np.sqrt(np.clip(values, 0.0, 1.0)).astype(np.float32)


def prepare_targets(
    config: TeacherConfig, cache: Path, photos: Sequence[Photo], progress: Progress | None = None
) -> TeacherTargets:
    """Run the teacher on the photos that it has not seen yet.

    Results are kept by the photo's content and everything the teacher's results depend on (weights, options): renamed
    photos are not computed again, changed ones are.

    Args:
        config: whose keypoints, and how many.
        cache: folder for the targets.
        photos: to have targets for.
        progress: told after each new photo.

    Raises:
        ConfigError: unknown teacher, or a package that it needs is missing.
        CheckpointError: its weights cannot be found.
        InputError: the cache cannot be written.
    """
    from semkey.extractors import create_stored_extractor

    extractor = create_stored_extractor(config.name, max_keypoints=config.keypoints, weights=config.weights)
    settings = {"name": config.name, "keypoints": config.keypoints, "format": _FORMAT}
    settings |= {"descriptors": config.descriptors, **getattr(extractor, "settings", {})}
    kind = str(settings.get("kind", ""))
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    folder = cache / "targets" / digest
    missing = [photo for photo in photos if not _file(folder, photo).is_file()]
    for done, photo in enumerate(missing, start=1):
        features = extractor.extract(photo.read())
        tensors = {
            "keypoints": features.keypoints.cpu().numpy(),
            "strengths": strength(features.scores.cpu().numpy(), kind),
        }
        if config.descriptors:
            tensors["descriptors"] = features.descriptors.cpu().numpy().astype(np.float16)
        atomic_write_bytes(_file(folder, photo), save(tensors))
        if progress is not None:
            progress(done, len(missing), f"keypoints of {config.name}")
    return TeacherTargets(folder, with_descriptors=config.descriptors)


def _file(folder: Path, photo: Photo) -> Path:
    return folder / f"{photo.key}-{photo.shrunk_to}.safetensors"
