"""A folder of images through a backbone, once: what ``semkey cache-features`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.backbones.backbone import Backbone
from semkey.backbones.feature_cache import BackboneCache
from semkey.datasets.readers.folder import list_images_below
from semkey.errors import InputError
from semkey.images.reading import read_image
from semkey.training.data.photos import Progress, open_photos
from semkey.training.data.planar import plain_view

log = logging.getLogger(__name__)

FEATURES_FOLDER = "features"


@dataclass(frozen=True, kw_only=True)
class CachedFolder:
    """What was done.

    Attributes:
        folder: where this backbone's features are.
        computed: images whose features were not there.
        known: images whose features were.
        bad: images that cannot be used.
        megabytes: of all files of this backbone, 10^6 bytes.
    """

    folder: Path
    computed: int
    known: int
    bad: int
    megabytes: float


def cache_features(
    backbone: Backbone,
    folder: Path,
    cache: Path,
    *,
    size: tuple[int, int] | None = None,
    bfloat16: bool = False,
    progress: Progress | None = None,
) -> CachedFolder:
    """Compute and keep a backbone's features of every image of a folder and its subfolders that is not there yet.

    Several processes may do so at once. A changed image, other layers or another backbone have entries of their own;
    all others stay as they are.

    Args:
        backbone: on the device.
        folder: of images.
        cache: folder of the cache, as ``data.cache`` of training.
        size: (width, height) of training views: images are scaled and cropped as ``data.views.plain`` does it, so that
            training finds them; None takes them as they are.
        bfloat16: compute in bfloat16, as training does where ``optimizer.precision`` says so.
        progress: told after each image.

    Raises:
        DatasetError: no such folder, or no usable images.
        InputError: the cache cannot be written.
        ConfigError: the backbone has random weights.
    """
    if bfloat16:
        backbone.reduce()
    store = BackboneCache(cache / FEATURES_FOLDER, backbone, bfloat16=bfloat16)
    bad = 0
    for done, (total, image) in enumerate(_images(folder, cache, size), start=1):
        if image is None:
            bad += 1
        else:
            store.features(image)
        if progress is not None:
            progress(done, total, f"features of {backbone.identity.name}")
    megabytes = sum(path.stat().st_size for path in store.folder.rglob("*.safetensors")) / 1e6
    return CachedFolder(folder=store.folder, computed=store.misses, known=store.hits, bad=bad, megabytes=megabytes)


def _images(folder: Path, cache: Path, size: tuple[int, int] | None) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
    """Number of images in all, and each image; None for one that cannot be read."""
    if size is not None:
        photos = open_photos(folder, cache, size)  # large ones have shrunk copies, which training reads
        total = len(photos.photos) + len(photos.bad)
        for photo in photos.photos:
            yield total, plain_view(photo.read(), size)
        for _ in photos.bad:
            yield total, None
        return
    files = list_images_below(folder)
    for path in files:
        yield len(files), _read(path)


def some_images(folder: Path, count: int, progress: Progress | None = None) -> Iterator[NDArray[np.uint8]]:
    """At most ``count`` images of a folder and its subfolders, evenly chosen; those that cannot be read are left out.

    Raises:
        DatasetError: no such folder, or no images in it.
    """
    files = list_images_below(folder)
    chosen = [files[i * len(files) // min(count, len(files))] for i in range(min(count, len(files)))]
    for done, path in enumerate(chosen, start=1):
        image = _read(path)
        if image is not None:
            yield image
        if progress is not None:
            progress(done, len(chosen), "images")


def _read(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_image(path)
    except InputError as error:
        log.warning("image left out: %s", error)
        return None
