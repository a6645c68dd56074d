"""Features and matches in the HDF5 layout of hloc (Hierarchical-Localization, Sarlin et al. 2019).

``features.h5`` has a group per image, named by its path below the folder of images: ``keypoints`` (N, 2) float32 pixels
with the centre of the first pixel at 0 0, ``descriptors`` (D, N), ``scores`` (N,), ``image_size`` (width, height), and
beside hloc's own ``reliability`` (N,), ``covariances`` (N, 2, 2) and ``global_descriptor`` (G,) where there are any.
``matches.h5`` has for a pair the group ``NAME0/NAME1``, with ``-`` for the slashes in names: ``matches0`` (N0,) the
keypoint of image 1 for each of image 0, -1 for none, and ``matching_scores0`` (N0,). Keypoints are float32, never
float16: half floats lose a pixel's fraction beyond 1024.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semkey.errors import ConfigError, InputError
from semkey.matching import Matches
from semkey.model.features import Features

FORMAT = "semkey-hloc-1"


def require_h5py() -> Any:
    """The module ``h5py``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "h5py":
            raise
        raise ConfigError("HDF5 files are written through h5py: pip install 'semkey[h5]'") from None
    return h5py


def write_features(path: Path, features: Iterable[tuple[str, Features]]) -> None:
    """Write the features of images, whole or not at all; they are taken one by one.

    Args:
        path: ``features.h5``.
        features: (name, features) of each image; a name is its path below the folder of images, with slashes.

    Raises:
        InputError: the file cannot be written, or is something else than a file.
        ConfigError: h5py is not installed.
    """
    with _new_file(path) as file:
        file.attrs["format"] = FORMAT
        for name, one in features:
            group = file.create_group(name)
            arrays = one.numpy()
            keypoints = group.create_dataset("keypoints", data=arrays.keypoints.astype(np.float32))
            keypoints.attrs["uncertainty"] = 1.0
            group.create_dataset("descriptors", data=arrays.descriptors.astype(np.float32).T)
            group.create_dataset("scores", data=arrays.scores.astype(np.float32))
            group.create_dataset("image_size", data=np.array(arrays.image_size, np.int64))
            group.create_dataset("reliability", data=arrays.reliability.astype(np.float32))
            if arrays.covariances is not None:
                group.create_dataset("covariances", data=arrays.covariances.astype(np.float32))
            if len(arrays.global_descriptor):
                group.create_dataset("global_descriptor", data=arrays.global_descriptor.astype(np.float32))
            group.attrs["method"] = arrays.method


def read_features(path: Path, name: str) -> Features:
    """The features of one image of a file that semkey or hloc wrote.

    Raises:
        InputError: no such file or image, or a dataset is missing.
        ConfigError: h5py is not installed.
    """
    h5py = require_h5py()
    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise InputError(f"{path}: holds no image '{name}'")
            group = file[name]
            values = {key: torch.from_numpy(np.asarray(group[key]).astype(np.float32)) for key in group}
            method = str(group.attrs.get("method", ""))
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({' '.join(str(error).split())[:150]})") from None
    missing = {"keypoints", "descriptors", "image_size"} - values.keys()
    if missing:
        raise InputError(f"{path}: image '{name}' has no {sorted(missing)[0]}")
    count = len(values["keypoints"])
    width, height = (int(side) for side in values["image_size"].tolist())
    return Features(
        keypoints=values["keypoints"],
        scores=values.get("scores", torch.ones(count)),
        reliability=values.get("reliability", torch.ones(count)),
        descriptors=values["descriptors"].T.contiguous(),
        global_descriptor=values.get("global_descriptor", torch.zeros(0)),
        image_size=(width, height),
        covariances=values.get("covariances"),
        method=method,
    )


def write_matches(path: Path, matches: Iterable[tuple[str, str, int, Matches]]) -> None:
    """Write the matches of pairs, whole or not at all; they are taken one by one.

    Args:
        path: ``matches.h5``.
        matches: (name of image 0, name of image 1, number of keypoints of image 0, matches) of each pair.

    Raises:
        InputError: the file cannot be written, is something else than a file, or two pairs have the same group.
        ConfigError: h5py is not installed.
    """
    with _new_file(path) as file:
        file.attrs["format"] = FORMAT
        for name0, name1, count, one in matches:
            indices, scores = one.numpy()
            key = pair_key(name0, name1)
            if key in file:
                raise InputError(f"{path}: '{name0}' and '{name1}' have the same group as another pair; rename one")
            group = file.create_group(key)
            partners = np.full(count, -1, np.int32)
            confidence = np.zeros(count, np.float32)
            partners[indices[:, 0]], confidence[indices[:, 0]] = indices[:, 1], scores
            group.create_dataset("matches0", data=partners)
            group.create_dataset("matching_scores0", data=confidence)


def read_matches(path: Path, name0: str, name1: str) -> Matches:
    """The matches of a pair, in whichever order the file has it.

    Raises:
        InputError: no such file or pair.
        ConfigError: h5py is not installed.
    """
    h5py = require_h5py()
    try:
        with h5py.File(path, "r") as file:
            turned = pair_key(name0, name1) not in file
            key = pair_key(name1, name0) if turned else pair_key(name0, name1)
            if key not in file:
                raise InputError(f"{path}: holds no matches of '{name0}' and '{name1}'")
            partners = np.asarray(file[key]["matches0"]).astype(np.int64)
            confidence = np.asarray(file[key]["matching_scores0"]).astype(np.float32)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({' '.join(str(error).split())[:150]})") from None
    first = np.flatnonzero(partners >= 0)
    columns = (partners[first], first) if turned else (first, partners[first])
    order = np.argsort(columns[0], kind="stable")
    indices = np.stack(columns, axis=1)[order]
    return Matches(indices=torch.from_numpy(indices), scores=torch.from_numpy(confidence[first][order]))


def pair_key(name0: str, name1: str) -> str:
    """The group of a pair, as hloc names it."""
    return f"{name0.replace('/', '-')}/{name1.replace('/', '-')}"


@contextmanager
def _new_file(path: Path) -> Generator[Any]:
    """A new HDF5 file that takes its name when it is complete."""
    h5py = require_h5py()
    if path.exists() and not path.is_file():
        raise InputError(f"cannot write {path}: it is no regular file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            yield file
        os.replace(temporary, path.resolve())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
