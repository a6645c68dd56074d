"""Feature files that grow: adding images to a file in hloc's layout, and parts of it that are kept until then.

The layout is that of :mod:`semkey.interop.hloc`; what the features were made with is an attribute of the file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.interop.hloc import FORMAT, require_h5py
from semkey.model.features import Features

if TYPE_CHECKING:
    import h5py

_ATTRIBUTE = "semkey"

Arrays = Mapping[str, NDArray[Any]]


def feature_arrays(features: Features) -> dict[str, NDArray[Any]]:
    """The arrays of an image's group; NumPy arrays on the CPU."""
    arrays = features.numpy()
    found: dict[str, NDArray[Any]] = {
        "keypoints": arrays.keypoints,
        "descriptors": np.ascontiguousarray(arrays.descriptors.T),
        "scores": arrays.scores,
        "image_size": np.array(arrays.image_size, dtype=np.int64),
        "reliability": arrays.reliability,
    }
    if arrays.covariances is not None:
        found["covariances"] = arrays.covariances
    if arrays.global_descriptor.size:
        found["global_descriptor"] = arrays.global_descriptor
    return found


def image_names(file: h5py.File) -> set[str]:
    """Names of all images in a file."""
    names: set[str] = set()

    def visit(name: str) -> None:
        if name.endswith("/keypoints"):
            names.add(name.removesuffix("/keypoints"))

    file.visit(visit)
    return names


def stored_job(path: Path) -> tuple[dict[str, Any], set[str]]:
    """What a file was made with, and the images in it.

    Raises:
        InputError: it is no HDF5 file.
    """
    h5py = require_h5py()
    try:
        with h5py.File(path, "r") as file:
            return json.loads(file.attrs.get(_ATTRIBUTE, "{}")), image_names(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is there, but is no HDF5 file of features ({error})") from None


def write_hloc(path: Path, entries: Iterable[tuple[str, Arrays]], job: Mapping[str, Any]) -> int:
    """Write a file, or add images to one: it appears whole, a file that is there stays until then.

    Args:
        path: the file.
        entries: names and arrays of images; a name that the file has already is left as it is.
        job: what the features were made with, kept as an attribute of the file.

    Returns:
        How many images the file holds.

    Raises:
        InputError: the file cannot be written.
    """
    h5py = require_h5py()
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.copyfile(target, temporary)
        with h5py.File(temporary, "a") as file:
            file.attrs["format"] = FORMAT
            file.attrs[_ATTRIBUTE] = json.dumps(dict(job), sort_keys=True)
            for name, arrays in entries:
                if name in file:
                    continue
                group = file.create_group(name)
                for key, value in arrays.items():
                    group.create_dataset(key, data=value)
                group["keypoints"].attrs["uncertainty"] = 1.0  # pixels; hloc asks for it
                group.attrs["method"] = str(job.get("method", ""))
            count = len(image_names(file))
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def pack(entries: Iterable[tuple[str, Arrays]]) -> bytes:
    """Several images as one NPZ, to be read by :func:`unpack`."""
    names: list[str] = []
    stored: dict[str, NDArray[Any]] = {}
    for number, (name, arrays) in enumerate(entries):
        names.append(name)
        stored |= {f"{number}.{key}": value for key, value in arrays.items()}
    stored["names"] = np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    # savez is annotated as if its arrays were options.
    np.savez(buffer, **stored)  # ty: ignore[invalid-argument-type]
    return buffer.getvalue()


def packed_names(path: Path) -> list[str]:
    """The names of the images in a file that :func:`pack` has made."""
    with np.load(path, allow_pickle=False) as stored:
        return json.loads(stored["names"].tobytes())


def unpack(path: Path) -> Iterator[tuple[str, Arrays]]:
    """The images in a file that :func:`pack` has made."""
    with np.load(path, allow_pickle=False) as stored:
        for number, name in enumerate(json.loads(stored["names"].tobytes())):
            start = f"{number}."
            yield name, {key.removeprefix(start): stored[key] for key in stored.files if key.startswith(start)}
