"""From anything a user calls an image to the network's input, and back to original pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from semkey.errors import InputError
from semkey.model.layers import is_traced

ImageLike = str | Path | np.ndarray | torch.Tensor

PAD_MULTIPLE = 32
FRAME = 4
"""Most lines at an edge of an image that count as a frame around the picture, pixels."""
_FRAME_STEP = 0.03  # of the grey range
_FRAME_RATIO = 4.0
_FRAME_SHARE = 0.5  # a frame is darker, or brighter, nearly all along: a pattern is both
# ITU-R BT.601 luma, as cv2.COLOR_RGB2GRAY
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """A normalised, padded network input.

    Attributes:
        tensor: (1, 1, H, W) float32, zero mean and unit variance over the valid part; H and W multiples of 32.
        valid_size: (width, height) of the part that is image; the rest, right and below, is padding.
        original_size: (width, height) of the image as given.
        contrast: grey levels, of 255, that 1 in ``tensor`` stands for.
    """

    tensor: torch.Tensor
    valid_size: tuple[int, int]
    original_size: tuple[int, int]
    contrast: float = 255.0


def to_gray(image: ImageLike) -> torch.Tensor:
    """Grey values in [0, 1] of a path, uint8 (H, W, 3) RGB, uint8 (H, W), or float tensor (3, H, W) or (1, H, W).

    Returns:
        (H, W) float32.

    Raises:
        InputError: unreadable file, another shape or dtype, an empty image, NaN or infinite values, values off [0, 1].
    """
    pixels = _checked(image)
    if isinstance(pixels, np.ndarray):
        if pixels.ndim == 3:
            import cv2

            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255.0
    if pixels.shape[0] == 1:
        return pixels[0]
    weights = torch.tensor(LUMA, device=pixels.device)
    return (pixels * weights[:, None, None]).sum(dim=0)


def to_rgb(image: ImageLike) -> torch.Tensor:
    """Colours in [0, 1] of anything :func:`to_gray` takes; grey is repeated into three channels.

    Returns:
        (3, H, W) float32.

    Raises:
        InputError: as :func:`to_gray`.
    """
    pixels = _checked(image)
    if isinstance(pixels, np.ndarray):
        channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        pixels = torch.from_numpy(np.ascontiguousarray(channels)).float() / 255.0
    return pixels.expand(3, -1, -1)


def load_pixels(image: ImageLike) -> np.ndarray | torch.Tensor:
    """Anything :func:`to_gray` takes, read and checked once, as something that it and :func:`to_rgb` take.

    Raises:
        InputError: as :func:`to_gray`.
    """
    return _checked(image)


def _checked(image: ImageLike) -> np.ndarray | torch.Tensor:
    """The image as uint8 (H, W, 3) or (H, W), or as a float32 tensor (3, H, W) or (1, H, W)."""
    if isinstance(image, str | Path):
        from semkey.images.reading import read_image

        image = read_image(image)
    if isinstance(image, np.ndarray):
        return _checked_array(image)
    if isinstance(image, torch.Tensor):
        return _checked_tensor(image)
    if hasattr(image, "__array_interface__"):  # Pillow
        return _checked_array(np.asarray(image))
    raise InputError(f"cannot use {type(image).__name__} as an image: pass a path, a uint8 array or a float tensor")


def _checked_array(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise InputError(
            f"image array has dtype {image.dtype}: pass uint8, or a float torch tensor (3, H, W) in [0, 1]"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        hint = _shape_hint(image.shape, channels_at=-1)
        raise InputError(f"image array has shape {image.shape}{hint}: pass (H, W, 3) RGB or (H, W), at least 1 x 1")
    return image


def _shape_hint(shape: tuple[int, ...], *, channels_at: int) -> str:
    """What a wrong shape probably is, in brackets."""
    if 0 in shape:
        return ""
    if len(shape) == 4:
        return " (a batch: pass one image at a time)"
    if len(shape) != 3:
        return ""
    if shape[channels_at] == 4:
        return " (RGBA: drop the alpha channel)"
    if shape[-1 - channels_at] in (1, 3):
        return " (arrays have their channels last)" if channels_at == -1 else " (tensors have their channels first)"
    return ""


def _checked_tensor(image: torch.Tensor) -> torch.Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        shape = tuple(image.shape)
        hint = _shape_hint(shape, channels_at=0)
        raise InputError(f"image tensor has shape {shape}{hint}: pass (3, H, W) or (1, H, W), at least 1 x 1")
    if not image.is_floating_point():
        raise InputError(f"image tensor has dtype {image.dtype}: pass float in [0, 1], or a uint8 numpy array")
    image = image.detach().float()
    if not bool(torch.isfinite(image).all()):
        raise InputError("image tensor holds NaN or infinite values")
    low, high = float(image.min()), float(image.max())
    if low < -1e-3 or high > 1.0 + 1e-3:
        raise InputError(f"image tensor has values in [{low:.3g}, {high:.3g}]: scale it to [0, 1]")
    return image


def with_unit_variance(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of any shape with zero mean and unit variance, and the contrast that it was divided by.

    Unit variance makes exposure and contrast irrelevant; the floor keeps the sensor noise of a blank image small.
    """
    contrast = image.std(correction=0).clamp(min=0.02)
    return (image - image.mean()) / contrast, contrast


def without_frame(gray: torch.Tensor) -> torch.Tensor:
    """An image whose outermost lines, where they are a frame around the picture, repeat the first line inside.

    Rectified images end in a line that is partly black (those of TUM RGB-D do, right and below). A network sees an edge
    there that stands still while the camera moves, and finds keypoints along it: some 60 of 1024 in a room with little
    else, which all match. A frame is where the step between two of the four outermost lines and the next ones is, in
    the mean along the line, over 3 % of the grey range and four times the step that follows, and goes one way.

    Args:
        gray: (..., H, W) in [0, 1]; less than 16 pixels high or wide it stays as it is.

    Returns:
        The same shape; the image itself where it has no frame.
    """
    traced = is_traced()
    if not traced and min(gray.shape[-2:]) < 4 * FRAME:
        return gray
    for axis in (-2, -1):
        for at_end in (False, True):
            edge = gray.narrow(axis, gray.shape[axis] - FRAME - 2 if at_end else 0, FRAME + 2)
            lines = edge if axis == -2 else edge.transpose(-1, -2)
            mended = _mended(lines.flip(-2) if at_end else lines, always=traced)
            if mended is None:
                continue
            mended = mended.flip(-2) if at_end else mended
            mended = mended if axis == -2 else mended.transpose(-1, -2)
            rest = gray.narrow(axis, 0 if at_end else FRAME, gray.shape[axis] - FRAME)
            gray = torch.cat([rest, mended] if at_end else [mended, rest], dim=axis)
    return gray


def _mended(lines: torch.Tensor, *, always: bool) -> torch.Tensor | None:
    """The outer lines (..., FRAME, L) of an edge (..., FRAME + 2, L), outermost first; None where they stay."""
    change = lines[..., 1:, :] - lines[..., :-1, :]
    steps, way = change.abs().mean(dim=-1, keepdim=True), change.mean(dim=-1, keepdim=True).abs()
    outer = steps[..., :FRAME, :]
    framed = (outer > _FRAME_STEP) & (outer > _FRAME_RATIO * steps[..., 1:, :])
    framed = framed & (way[..., :FRAME, :] > _FRAME_SHARE * outer)
    if not always and not bool(framed.any()):
        return None
    rows = []
    for row in range(FRAME):
        value = lines[..., row : row + 1, :]
        for step in range(row, FRAME):
            value = torch.where(framed[..., step : step + 1, :], lines[..., step + 1 : step + 2, :], value)
        rows.append(value)
    return torch.cat(rows, dim=-2)


def prepare(gray: torch.Tensor, max_side: int) -> PreparedImage:
    """Take off a frame, scale down to ``max_side`` if larger, normalise, and pad right and below to multiples of 32.

    Args:
        gray: (H, W) float32 in [0, 1].
        max_side: longest side the network sees, pixels.
    """
    height, width = gray.shape
    scale = min(1.0, max_side / max(height, width))
    valid_height, valid_width = max(1, round(height * scale)), max(1, round(width * scale))
    image = without_frame(gray)[None, None]
    if (valid_height, valid_width) != (height, width):
        # antialias=True averages over the pixels a target pixel covers, with the half-pixel convention
        image = F.interpolate(image, (valid_height, valid_width), mode="bilinear", align_corners=False, antialias=True)
    image, contrast = with_unit_variance(image)
    pad = ((-valid_width) % PAD_MULTIPLE, (-valid_height) % PAD_MULTIPLE)
    image = F.pad(image, (0, pad[0], 0, pad[1]), mode="replicate")
    return PreparedImage(
        tensor=image,
        valid_size=(valid_width, valid_height),
        original_size=(width, height),
        contrast=255.0 * float(contrast),
    )


def prepare_colors(rgb: torch.Tensor, prepared: PreparedImage) -> torch.Tensor:
    """The same image in colour, on the same pixels as ``prepared.tensor``.

    Args:
        rgb: (3, H, W) float32 in [0, 1].
        prepared: what :func:`prepare` made of its grey values.

    Returns:
        (1, 3, H, W) float32 in [0, 1]; not normalised, each backbone has colours of its own.
    """
    image, (width, height) = rgb[None], prepared.valid_size
    if image.shape[-2:] != (height, width):
        image = F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)
    below, right = prepared.tensor.shape[-2] - height, prepared.tensor.shape[-1] - width
    return F.pad(image, (0, right, 0, below), mode="replicate").clamp(0.0, 1.0)


def to_original_pixels(keypoints: torch.Tensor, prepared: PreparedImage) -> torch.Tensor:
    """Keypoints (N, 2) of the network's input in pixels of the original image (half-pixel convention)."""
    original = torch.tensor(prepared.original_size, dtype=keypoints.dtype, device=keypoints.device)
    valid = torch.tensor(prepared.valid_size, dtype=keypoints.dtype, device=keypoints.device)
    moved = (keypoints + 0.5) * (original / valid) - 0.5
    return torch.minimum(moved.clamp(min=0.0), original - 1.0)


def to_network_pixels(points: torch.Tensor, prepared: PreparedImage) -> torch.Tensor:
    """Points (N, 2) of the original image in pixels of the network's input (half-pixel convention)."""
    original = torch.tensor(prepared.original_size, dtype=points.dtype, device=points.device)
    valid = torch.tensor(prepared.valid_size, dtype=points.dtype, device=points.device)
    moved = (points + 0.5) * (valid / original) - 0.5
    return torch.minimum(moved.clamp(min=0.0), valid - 1.0)


def image_size(pixels: np.ndarray | torch.Tensor) -> tuple[int, int]:
    """(width, height) of what :func:`load_pixels` gives."""
    height, width = pixels.shape[:2] if isinstance(pixels, np.ndarray) else pixels.shape[-2:]
    return width, height


def inside_mask(keypoints: torch.Tensor, pixels: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Keypoints that refinement moved onto a masked pixel, back on the pixel where they were found.

    Args:
        keypoints: (N, 2) float32 pixels.
        pixels: (N, 2) int64 usable pixels that they were refined from.
        usable: (H, W) bool.
    """
    limit = torch.tensor([usable.shape[1] - 1, usable.shape[0] - 1], device=keypoints.device)
    nearest = torch.minimum((keypoints + 0.5).floor().long().clamp(min=0), limit)
    return torch.where(usable[nearest[:, 1], nearest[:, 0], None], keypoints, pixels.to(keypoints.dtype))
