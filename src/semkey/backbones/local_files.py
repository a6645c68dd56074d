"""Where the weights of a backbone may lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from semkey.backbones.specs import BackbonePreset
from semkey.downloads import weights_folders

WEIGHTS_FILE = "model.safetensors"


def weights_paths(preset: BackbonePreset, folders: Sequence[Path] = ()) -> Iterator[Path]:
    """Files that may hold a preset's weights, in the order in which they are looked for; none of them need exist.

    Args:
        preset: whose.
        folders: (or files) that come first; then ``$SEMKEY_WEIGHTS``, ``$SEMKEY_SHARED/weights``, the cache folder, and
            last the hub's own cache (``$HF_HOME``).
    """
    source = preset.source
    owner, repository = source.repository.split("/")
    names = (f"{preset.name}.safetensors", f"{repository}/{WEIGHTS_FILE}", *source.other_names)
    for folder in weights_folders(folders):
        if folder.is_file():
            yield folder
        else:
            yield from (folder / name for name in names)
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    yield hub / f"models--{owner}--{repository}" / "snapshots" / source.revision / WEIGHTS_FILE


def weights_on_disk(preset: BackbonePreset, folders: Sequence[Path] = ()) -> Path | None:
    """The file that would be read, not looked into; None where it would have to be fetched."""
    return next((path for path in weights_paths(preset, folders) if path.is_file()), None)
