"""Photos of a folder as training data: checked once, shrunk once, split by name, seen through random homographies."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.readers.folder import list_images_below
from semkey.errors import DatasetError, InputError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.images.reading import read_image
from semkey.training.data.config import DataConfig
from semkey.training.data.pair import Pair, good_corners, to_gray_values
from semkey.training.data.planar import Picture, planar_pair

log = logging.getLogger(__name__)

Split = Literal["train", "val"]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""

SMALLEST_SIDE_PX = 64
LARGEST_BAD_SHARE = 0.2
"""More bad photos than this are an error: something is wrong with the folder."""
_ATTEMPTS = 200
_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A usable photo.

    Attributes:
        name: path below the folder, with slashes.
        path: the file that is read: the photo, or its shrunk copy.
        key: hash of the photo's bytes.
        shrunk_to: longest allowed short side, pixels; part of what a teacher's keypoints depend on.
    """

    name: str
    path: Path
    key: str
    shrunk_to: int

    def read(self) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB."""
        return read_image(self.path)


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """The photos of a folder.

    Attributes:
        photos: usable photos in natural order of their names; of identical files only the first.
        bad: name and reason of every file that is left out because it is damaged or too small.
        duplicates: number of files left out because an earlier one has the same bytes.
    """

    photos: tuple[Photo, ...]
    bad: tuple[tuple[str, str], ...]
    duplicates: int

    def split(self, split: Split, val_share: float) -> tuple[Photo, ...]:
        """The photos of one side of the split; see :func:`split_of`."""
        return tuple(photo for photo in self.photos if split_of(photo.name, val_share) == split)


class TargetSource(Protocol):
    """Detection targets of photos."""

    def __call__(self, photo: Photo) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32] | None]:
        """Keypoints (N, 2), strengths (N,) and descriptors (N, D) or None of a photo."""
        ...


def split_of(name: str, val_share: float) -> Split:
    """Which side a file is on: a hash of its name decides, so that adding files moves none to the other side."""
    value = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2.0**64
    return "val" if value < val_share else "train"


def open_photos(folder: Path, cache: Path, size: tuple[int, int], progress: Progress | None = None) -> PhotoFolder:
    """Find and check the photos of a folder and its subfolders.

    Every file is read and decoded once; what was found is kept in ``cache`` and used again as long as a file's size
    and time of change stay the same. Photos much larger than the views get a shrunk copy there, because decoding them
    for every pair would keep training waiting. Damaged and tiny files are left out, with a warning that names them.

    Args:
        folder: where the photos are.
        cache: folder for the list and the shrunk copies.
        size: (width, height) of training views.
        progress: told about every new file.

    Raises:
        DatasetError: no such folder, no usable photos, or more than a fifth of the files are bad.
        InputError: the cache cannot be written.
    """
    files = list_images_below(folder)
    # A view shows about a view's width of the photo at scales up to 2.3: more detail than this is never seen.
    limit = 2 * max(size)
    list_file = cache / "photos" / f"{_hash(f'{folder.resolve()} {limit}'.encode())}.json"
    known = _read_list(list_file)
    entries: dict[str, dict] = {}
    for index, path in enumerate(files):
        name = path.relative_to(folder).as_posix()
        stamp = [path.stat().st_size, path.stat().st_mtime_ns]
        entry = known.get(name)
        if entry is None or entry["stamp"] != stamp or not _copy_is_there(entry, cache, limit):
            entry = {"stamp": stamp, **_check_photo(path, cache, limit)}
            if progress is not None:
                progress(index + 1, len(files), "checking photos")
        entries[name] = entry
    if entries != known:
        atomic_write_text(list_file, json.dumps(entries, indent=0) + "\n")
    return _photo_folder(folder, cache, limit, entries)


class PhotoPairs:
    """Endless pairs from photos.

    Args:
        photos: at least one.
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.
        targets: gives keypoints; None: there are none.
        colors: the views are needed in colour as well.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        config: DataConfig,
        seed: tuple[int, ...],
        targets: TargetSource | None = None,
        *,
        colors: bool = False,
    ) -> None:
        if not photos:
            raise DatasetError("no photos on this side of the split: add photos or change data.val_share")
        self._photos, self._config, self._seed, self._targets = tuple(photos), config, seed, targets
        self._colors = colors

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        for _ in range(_ATTEMPTS):
            photo = self._photos[int(rng.integers(len(self._photos)))]
            pair = planar_pair(rng, self._picture(rng, photo), self._config)
            if pair is not None:
                return pair
        raise DatasetError(
            f"no pair with {self._config.points} common points in {_ATTEMPTS} draws: lower data.points, "
            "data.views.scale or data.views.perspective"
        )

    def _picture(self, rng: np.random.Generator, photo: Photo) -> Picture:
        # A random mix of the channels: grey values of one scene differ between cameras and lights.
        mix = rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)
        image = photo.read()
        gray = to_gray_values(image, mix)
        shown = image if self._colors else gray
        if self._targets is None:
            keypoints = good_corners(gray, self._config.points)
            return Picture(image=shown, keypoints=keypoints, strengths=np.zeros(len(keypoints), np.float32), mix=mix)
        keypoints, strengths, descriptors = self._targets(photo)
        return Picture(image=shown, keypoints=keypoints, strengths=strengths, descriptors=descriptors, mix=mix)


def _photo_folder(folder: Path, cache: Path, limit: int, entries: dict[str, dict]) -> PhotoFolder:
    photos: dict[str, Photo] = {}
    bad, duplicates = [], 0
    for name, entry in entries.items():
        if "bad" in entry:
            bad.append((name, entry["bad"]))
            log.warning("photo left out: %s: %s", name, entry["bad"])
        elif entry["key"] in photos:
            duplicates += 1
        else:
            is_large = min(entry["size"]) > limit
            path = _copy_path(cache, entry["key"], limit) if is_large else folder / name
            photos[entry["key"]] = Photo(name=name, path=path, key=entry["key"], shrunk_to=limit if is_large else 0)
    if not photos:
        raise DatasetError(f"{folder}: none of {len(bad)} photos can be used; {bad[0][0]}: {bad[0][1]}")
    if len(bad) > LARGEST_BAD_SHARE * len(entries):
        raise DatasetError(
            f"{folder}: {len(bad)} of {len(entries)} photos cannot be used, the first is {bad[0][0]}: {bad[0][1]}; "
            "remove or restore them"
        )
    return PhotoFolder(photos=tuple(photos.values()), bad=tuple(bad), duplicates=duplicates)


def _check_photo(path: Path, cache: Path, limit: int) -> dict:
    """What the list says about a file: its hash and size, or what is wrong with it."""
    try:
        data = path.read_bytes()
        image = read_image(path)
    except OSError as error:
        return {"bad": str(error.strerror or error)}
    except InputError as error:
        return {"bad": str(error)}
    height, width = image.shape[:2]
    if min(width, height) < SMALLEST_SIDE_PX:
        return {"bad": f"{width}x{height} is too small, {SMALLEST_SIDE_PX} pixels are needed"}
    entry = {"key": _hash(data), "size": [width, height]}
    if min(width, height) > limit:
        scale = limit / min(width, height)
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        atomic_write_bytes(_copy_path(cache, entry["key"], limit), code.tobytes())
    return entry


def _copy_path(cache: Path, key: str, limit: int) -> Path:
    return cache / "photos" / f"{key}-{limit}.jpg"


def _copy_is_there(entry: dict, cache: Path, limit: int) -> bool:
    return "bad" in entry or min(entry["size"]) <= limit or _copy_path(cache, entry["key"], limit).is_file()


def _read_list(path: Path) -> dict[str, dict]:
    """The list of an earlier run; a missing or damaged one is made again."""
    try:
        entries = json.loads(path.read_text())
        complete = all("stamp" in entry and ("bad" in entry or "key" in entry) for entry in entries.values())
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return entries if complete else {}


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
