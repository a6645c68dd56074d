"""Structure from motion of a folder of images by COLMAP's mapper, from semkey's features and matches."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from semkey.datasets.cameras.lens import Lens
from semkey.errors import InputError
from semkey.interop.colmap import COLMAP_PIXEL_CENTRE, import_pycolmap
from semkey.interop.colmap_running import Progress, new_token, run_watched, with_token
from semkey.interop.hloc import read_features, read_matches
from semkey.interop.map_folder import new_folder
from semkey.interop.match_folder import MatchedFolder

if TYPE_CHECKING:
    from pycolmap import Reconstruction

Mapper = Literal["incremental", "global"]
_MOST_TRIALS = 3000
_LEAST_SHARE = 0.3
_PAIRS_AT_ONCE = 32
# COLMAP's names of models by ours and the number of coefficients; it has none with six radial ones and tangential.
_MODELS = {
    ("pinhole", 0): "PINHOLE",
    ("radial-tangential", 4): "OPENCV",
    ("radial-tangential", 8): "FULL_OPENCV",
    ("fisheye", 4): "OPENCV_FISHEYE",
}


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What a reconstruction has.

    Attributes:
        images: given.
        registered: of them, placed in the largest model.
        points: of that model.
        reprojection_error: mean of its points, pixels; NaN without points.
        models: how many there are: more than one where images do not hang together.
        folder: of the largest model, in COLMAP's binary format; None where nothing was reconstructed.
    """

    images: int
    registered: int
    points: int
    reprojection_error: float
    models: int
    folder: Path | None


def camera_parameters(lens: Lens) -> tuple[str, list[float]]:
    """COLMAP's name of a lens model and its parameters, with pixel centres at 0.5.

    Raises:
        InputError: COLMAP has no model of these coefficients.
    """
    coefficients = list(lens.distortion)
    if lens.model == "radial-tangential" and len(coefficients) == 5:  # k1 k2 p1 p2 k3
        coefficients += [0.0, 0.0, 0.0]
    model = _MODELS.get((lens.model, len(coefficients)))
    if model is None:
        raise InputError(f"COLMAP has no camera of model {lens.model} with {len(coefficients)} coefficients")
    fx, fy, cx, cy = lens.intrinsics
    return model, [fx, fy, cx + COLMAP_PIXEL_CENTRE, cy + COLMAP_PIXEL_CENTRE, *coefficients]


def write_database(
    path: Path,
    folder: Path,
    matched: MatchedFolder,
    pairs: Sequence[tuple[str, str]],
    *,
    lens: Lens | None,
    single: bool,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write a COLMAP database: cameras, images, keypoints, matches and their verified geometries.

    Args:
        path: of the database; a file of an earlier run is replaced when the new one is whole.
        folder: of the images.
        matched: their features and matches.
        pairs: names of the images of each pair.
        lens: camera of all images; None takes what EXIF says, and COLMAP's guess (1.2 times the longer side) where
            that says nothing.
        single: one camera took all images.
        seed: of the random numbers that pairs are verified with.
        progress: told about the pairs that are verified.

    Raises:
        InputError: an image that EXIF turns, which COLMAP reads as it is stored; a camera of another size than the
            images; an image that COLMAP cannot read.
    """
    pycolmap = import_pycolmap()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = pycolmap.ImageReaderOptions()
    if lens is not None:
        reader.camera_model, parameters = camera_parameters(lens)
        reader.camera_params = ", ".join(f"{value!r}" for value in parameters)
    mode = pycolmap.CameraMode.SINGLE if single or lens is not None else pycolmap.CameraMode.AUTO
    try:
        with _quiet(pycolmap):
            pycolmap.Database.open(temporary).close()  # makes the file
            pycolmap.import_images(temporary, folder, mode, image_names=list(matched.images), options=reader)
            with pycolmap.Database.open(temporary) as database:
                ids = _write_keypoints(database, matched, lens)
            # COLMAP verifies what has matches and is not verified yet: so in parts, to tell how far it is. Looking into
            # the file that it writes, by another copy of SQLite in this process, ends in a bus error.
            for first in range(0, len(pairs), _PAIRS_AT_ONCE):
                some = pairs[first : first + _PAIRS_AT_ONCE]
                _verify(pycolmap, temporary, matched, some, ids, seed)
                if progress is not None:
                    progress(first + len(some), len(pairs), "verifying")
        os.replace(temporary, path)
    finally:
        for suffix in ("", "-shm", "-wal"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)


def _verify(
    pycolmap: Any,
    database: Path,
    matched: MatchedFolder,
    pairs: Sequence[tuple[str, str]],
    ids: dict[str, int],
    seed: int,
) -> None:
    """Write the matches of some pairs, and their verified geometries."""
    with pycolmap.Database.open(database) as opened:
        for name0, name1 in pairs:
            matches = read_matches(matched.matches_file, name0, name1).indices.numpy()
            if len(matches):
                opened.write_matches(ids[name0], ids[name1], matches.astype(np.uint32))
    token = new_token(pycolmap)
    run_watched(
        lambda: pycolmap.geometric_verification(
            database, two_view_geometry_options=_verification(pycolmap, seed), **with_token(token)
        ),
        lambda: None,
        token,
    )


def reconstruct(
    out: Path,
    folder: Path,
    database: Path,
    images: int,
    *,
    mapper: Mapper = "incremental",
    refine_camera: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Run COLMAP's mapper on a database.

    Args:
        out: gets a folder per model (``0``, ``1``, ...), largest first; must not exist, or be empty.
        folder: of the images.
        database: with verified geometries.
        images: how many there are.
        mapper: incremental, or global (GLOMAP): quicker, and less sure of focal lengths that are not known.
        refine_camera: adjust focal lengths and distortion too.
        seed: of COLMAP's random numbers.
        progress: told about the images that the incremental mapper places; it may begin again with another pair.

    Raises:
        InputError: the folder is not empty or cannot be written.
    """
    pycolmap = import_pycolmap()
    with new_folder(out) as place, _quiet(pycolmap):
        if mapper == "global":
            options: Any = pycolmap.GlobalPipelineOptions()
            options.random_seed = seed
            models = run_watched(lambda: pycolmap.global_mapping(database, folder, place, options), lambda: None)
        else:
            options = pycolmap.IncrementalPipelineOptions()
            options.random_seed = seed
            options.ba_refine_focal_length = options.ba_refine_extra_params = refine_camera
            token, placed = new_token(pycolmap), [0]

            def begun() -> None:
                placed[0] = 2

            def one_more() -> None:
                placed[0] += 1

            models = run_watched(
                lambda: pycolmap.incremental_mapping(
                    database,
                    folder,
                    place,
                    options,
                    initial_image_pair_callback=begun,
                    next_image_callback=one_more,
                    **with_token(token),
                ),
                lambda: None if progress is None else progress(min(placed[0], images), images, "placing"),
                token,
            )
        order = sorted(models, key=lambda key: (-models[key].num_reg_images(), -models[key].num_points3D()))
        _renumber(place, order)
    if not models:
        return Reconstructed(
            images=images, registered=0, points=0, reprojection_error=float("nan"), models=0, folder=None
        )
    model: Reconstruction = models[order[0]]
    errors = [point.error for point in model.points3D.values() if point.error >= 0]
    return Reconstructed(
        images=images,
        registered=model.num_reg_images(),
        points=model.num_points3D(),
        reprojection_error=float(np.mean(errors)) if errors else float("nan"),
        models=len(models),
        folder=out / "0",
    )


def _renumber(place: Path, order: Sequence[int]) -> None:
    """Rename the models' folders: COLMAP counts them as it began them, and a failed start may come first."""
    for key in order:
        (place / str(key)).rename(place / f"model-{key}")
    for number, key in enumerate(order):
        (place / f"model-{key}").rename(place / str(number))


def _write_keypoints(database: Any, matched: MatchedFolder, lens: Lens | None) -> dict[str, int]:
    """Write the keypoints of all images; returns the images' ids by name."""
    ids = {}
    stored = {image.name: image for image in database.read_all_images()}
    for name in matched.images:
        if name not in stored:
            raise InputError(f"{name}: COLMAP cannot read this image; convert it to PNG or JPEG")
        image = stored[name]
        camera = database.read_camera(image.camera_id)
        features = read_features(matched.features_file, name)
        if (camera.width, camera.height) != features.image_size:
            turned = (camera.height, camera.width) == features.image_size
            why = "its EXIF turns it, which COLMAP does not; save it upright" if turned else "one camera has one size"
            size = "x".join(map(str, features.image_size))
            raise InputError(f"{name}: is {size} pixels, its camera {camera.width}x{camera.height}: {why}")
        if lens is not None and lens.size != features.image_size:
            raise InputError(f"{name}: is {features.image_size} pixels, the camera given is for {lens.size}")
        database.write_keypoints(image.image_id, features.keypoints.numpy() + np.float32(COLMAP_PIXEL_CENTRE))
        ids[name] = image.image_id
    return ids


def _verification(pycolmap: Any, seed: int) -> Any:
    """How pairs are verified: reproducibly, by the share of inliers, and with fewer trials than COLMAP's 10,000.

    COLMAP takes 15 inliers for a pair, which chance alone gives: photos of opposite sides of an object have 40 of 330
    nearest neighbours within 4 px of some epipolar geometry, and 90 where they share a little. A model with such pairs
    was wrong without a word (all of 24 photos registered, half of them 0.7 units or more from their places, of 7.7);
    without them 22 were, at most 0.054 units away.

    Nearest neighbours of 1024 keypoints hold many wrong matches, so that nearly all trials are made: 0.26 s of a core a
    pair. With 3000 it is a third of that, for 3 % fewer inliers (120 pairs of photos around an object).
    """
    options = pycolmap.TwoViewGeometryOptions()
    options.min_inlier_ratio = _LEAST_SHARE
    options.ransac.max_num_trials = _MOST_TRIALS
    options.ransac.random_seed = seed
    return options


@contextmanager
def _quiet(pycolmap: Any) -> Generator[None]:
    """COLMAP logs every step to stderr."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
