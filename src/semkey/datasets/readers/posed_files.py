"""What readers of posed images share: frames of one camera of several, in the order of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.datasets.readers.file_sequence import DepthReader, FileSequence, FrameFiles
from semkey.datasets.readers.folder import FRAMES_PER_SECOND, natural_key
from semkey.datasets.readers.listing import image_size
from semkey.datasets.sequence import SequenceFault


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedImage:
    """An image of a reconstruction.

    Attributes:
        name: as the reconstruction calls it.
        file: where it lies.
        lens: its camera.
        T_world_cam: (4, 4) float64.
        depth: its depth map, or None.
    """

    name: str
    file: Path
    lens: Lens
    T_world_cam: NDArray[np.float64]
    depth: Path | None = None


def posed_sequence(
    images: Sequence[PosedImage],
    *,
    path: Path,
    format: str,
    camera: CameraArgument | None,
    strict: bool,
    depth: float | DepthReader = 1000.0,
) -> FileSequence:
    """A sequence of the images of the most used camera; time is the number of the image at 30 Hz.

    Args:
        images: at least one.
        path: the folder, for names and messages.
        format: see :class:`FileSequence`.
        camera: instead of the reconstruction's.
        strict: raise for a missing file.
        depth: how depth is stored, see :class:`FileSequence`; used where all images have it.
    """
    faults: list[SequenceFault] = []
    ordered = sorted(images, key=lambda image: (natural_key(image.name), image.name))
    lens = Counter(image.lens for image in ordered).most_common(1)[0][0]
    kept = [image for image in ordered if image.lens == lens]
    if len(kept) < len(ordered):
        message = f"{path}: {len(ordered) - len(kept)} of {len(ordered)} images have another camera and are left out"
        faults.append(SequenceFault(kind="unpaired", message=message))
    with_depth = [image for image in kept if image.depth is not None]
    if with_depth and len(with_depth) < len(kept):
        message = f"{path}: {len(kept) - len(with_depth)} of {len(kept)} images have no depth, so none is used"
        faults.append(SequenceFault(kind="unpaired", message=message))
    size = image_size(image.file for image in kept)
    return FileSequence(
        name=path.resolve().name,
        format=format,
        frames=[
            FrameFiles(
                timestamp=number / FRAMES_PER_SECOND,
                image=image.file,
                depth=image.depth if len(with_depth) == len(kept) else None,
                T_world_cam=image.T_world_cam,
            )
            for number, image in enumerate(kept)
        ],
        image_size=size,
        optics=optics_for(Calibration(left=lens) if camera is None else camera, size),
        depth=depth,
        faults=faults,
        strict=strict,
    )
