"""The one pixel convention of semkey: pixel centres lie at integers, so an image of width w spans [-0.5, w - 0.5].

Resizing an image by a factor s therefore moves a point x to ``(x + 0.5) * s - 0.5`` (the half-pixel convention of
``cv2.resize`` and ``torch.nn.functional.interpolate(align_corners=False)``), not to ``x * s``.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

Size = tuple[int, int]


@overload
def resize_keypoints(keypoints: torch.Tensor, from_size: Size, to_size: Size) -> torch.Tensor: ...
@overload
def resize_keypoints(keypoints: NDArray[Any], from_size: Size, to_size: Size) -> NDArray[Any]: ...
def resize_keypoints(
    keypoints: NDArray[Any] | torch.Tensor, from_size: Size, to_size: Size
) -> NDArray[Any] | torch.Tensor:
    """Keypoints of an image of ``from_size`` after the image was resized to ``to_size``.

    Args:
        keypoints: (N, 2) floating-point numpy array or torch tensor, pixels ``x y``, pixel centres at integers.
        from_size: (width, height) in pixels of the image the keypoints are in.
        to_size: (width, height) in pixels of the resized image.

    Returns:
        (N, 2), same type, dtype and device as ``keypoints``; computed in float64.
    """
    scale = [to_size[0] / from_size[0], to_size[1] / from_size[1]]
    if isinstance(keypoints, torch.Tensor):
        factor = torch.tensor(scale, dtype=torch.float64, device=keypoints.device)
        return ((keypoints.double() + 0.5) * factor - 0.5).to(keypoints.dtype)
    return ((keypoints.astype(np.float64) + 0.5) * np.asarray(scale) - 0.5).astype(keypoints.dtype)
