"""Whether ``fx fy cx cy`` can be those of images of a size, and what was probably meant where they cannot."""

from __future__ import annotations

from collections.abc import Sequence

from semkey.errors import ConfigError

Parameters = tuple[float, float, float, float]
Size = tuple[int, int]

# Focal lengths as a share of the longest side: fisheyes of 180 degrees have a third of it, telescopes ten times it.
_FOCAL_SHARE = (0.15, 20.0)
_MAX_ANAMORPHIC = 2.0
# No lens is mounted so far from the middle; images cropped on one side have their principal point there, and then the
# size that goes with the numbers is given with them.
_MAX_OFFSET = 0.2
# Numbers of a resized image: the factor is the same along both sides, and not about 1.
_SAME_FACTOR = 0.05
_RESIZED_BY = 0.2


def check_intrinsics(parameters: Sequence[float], size: Size, *, is_sized: bool = False) -> None:
    """Raise for intrinsics that no camera of images of this size has.

    Args:
        parameters: fx, fy, cx, cy in pixels.
        size: (width, height) of the images.
        is_sized: whether the numbers were given together with this size, so that they may be those of cropped images.

    Raises:
        ConfigError: the numbers are of normalised coordinates, another size or another order, or the principal point
            is outside; says which, and what was probably meant.
    """
    fx, fy, cx, cy = (float(value) for value in parameters)
    given = (fx, fy, cx, cy)
    wrong = _what_is_wrong(given, size, is_sized=is_sized)
    if wrong is None:
        return
    meant = _what_was_meant(given, size)
    advice = "check the numbers and the size of the images" if meant is None else meant
    raise ConfigError(f"camera {_text(given)} does not fit {size[0]}x{size[1]} images: {wrong}; {advice}")


def _what_is_wrong(given: Parameters, size: Size, *, is_sized: bool = False) -> str | None:
    fx, fy, cx, cy = given
    width, height = size
    if not 1 / _MAX_ANAMORPHIC <= fx / fy <= _MAX_ANAMORPHIC:
        return f"fx = {fx:g} and fy = {fy:g} differ too much"
    share = min(fx, fy) / max(size), max(fx, fy) / max(size)
    if share[0] < _FOCAL_SHARE[0] or share[1] > _FOCAL_SHARE[1]:
        return f"no lens has focal lengths of {fx:g} and {fy:g} pixels there"
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        return f"the principal point {cx:g}, {cy:g} is outside"
    if is_sized:
        return None
    offset = max(abs(cx + 0.5 - width / 2) / width, abs(cy + 0.5 - height / 2) / height)
    if offset > _MAX_OFFSET:
        return f"the principal point {cx:g}, {cy:g} is far from the middle"
    factors = _factors(given, size)
    if _is_one(factors[0] / factors[1], _SAME_FACTOR) and not _is_one(factors[0], _RESIZED_BY):
        return f"the principal point {cx:g}, {cy:g} is that of other images"
    if _is_turned(given, size):
        return f"the principal point {cx:g}, {cy:g} is that of upright images"
    return None


def _what_was_meant(given: Parameters, size: Size) -> str | None:
    """A sentence with numbers that would fit, None where there are none."""
    fx, fy, cx, cy = given
    width, height = size
    if max(fx, fy) < 20 and max(cx, cy) <= 2:  # focal lengths of 20 pixels belong to no image
        meant = (fx * width, fy * height, cx * width - 0.5, cy * height - 0.5)
        return _proposal("the numbers look divided by width and height", meant, size)
    if _is_turned(given, size):
        return f"the numbers look like those of the images turned by 90 degrees, {height}x{width}"
    # Where fx, fy, cx, cy were given as fx, cx, fy, cy or as cx, cy, fx, fy: square pixels tell that it is so.
    for order, meant in (("fx,cx,fy,cy", (fx, cx, fy, cy)), ("cx,cy,fx,fy", (cx, cy, fx, fy))):
        proposal = _proposal(f"the numbers look like {order}", meant, size)
        if proposal is not None and _is_one(meant[0] / meant[1], 2 * _SAME_FACTOR):
            return proposal
    if min(abs(cx), abs(cy)) < 1:
        meant = (fx, fy, (width - 1) / 2, (height - 1) / 2)
        return _proposal("the numbers look like those of a principal point that nobody has filled in", meant, size)
    factor, other = _factors(given, size)
    was = f"{_side(cx):.0f}x{_side(cy):.0f}"
    if other > 0 and _is_one(factor / other, _SAME_FACTOR):  # 0 where a number overflows
        middle = (_side(cx) * factor - 1) / 2, (_side(cy) * factor - 1) / 2
        meant = (fx * factor, fy * factor, *middle)
        return _proposal(f"the numbers look like those of images of {was}", meant, size)
    return f"the numbers look like those of images of {was}" if factor > 0 and other > 0 else None


def _proposal(reason: str, meant: Parameters, size: Size) -> str | None:
    is_good = min(meant) > 0 and _what_is_wrong(meant, size) is None
    return f"{reason}; {_text(meant)} was probably meant" if is_good else None


def _factors(given: Parameters, size: Size) -> tuple[float, float]:
    """By how much width and height would have to grow for the principal point to be in the middle."""
    return size[0] / max(_side(given[2]), 1e-9), size[1] / max(_side(given[3]), 1e-9)


def _side(middle: float) -> float:
    """Of images whose middle has this coordinate; a whole one, such as 160, is half a side by other conventions."""
    return 2 * middle if middle % 1 == 0 else 2 * middle + 1


def _is_turned(given: Parameters, size: Size) -> bool:
    """Whether the principal point is in the middle of images turned by 90 degrees, which have another shape."""
    turned = _factors(given, (size[1], size[0]))
    shapes_differ = not _is_one(size[0] / size[1], _RESIZED_BY)
    return shapes_differ and all(_is_one(factor, 2 * _SAME_FACTOR) for factor in turned)


def _is_one(value: float, tolerance: float) -> bool:
    return 1 / (1 + tolerance) <= value <= 1 + tolerance


def _text(parameters: Parameters) -> str:
    return ",".join(f"{value:.6g}" for value in parameters)
