"""The kind ``shift``: whether a method finds the same keypoints when the picture moves by pixels or parts of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Curve, Evaluation, Metric, Row, SetResult
from semkey.extractors.semantic import SemanticExtractor
from semkey.images.reading import read_image
from semkey.metrics.shift import WITHIN_PX, ShiftErrors, band_limited, shift_errors, shifted_crop
from semkey.model.features import Features
from semkey.settings import Settings

KIND = "shift"
WHOLE, FRACTIONS = "whole-pixels", "fractions"

METRICS = (
    Metric(name="median_px", label="median shift error, px", higher_is_better=False, digits=2, headline=True),
    Metric(name="within", label=f"within {WITHIN_PX:g} px, %", percent=True, headline=True),
    Metric(name="worst_median_px", label="at the worst shift, px", higher_is_better=False, digits=2, headline=True),
    Metric(name="worst_within", label=f"within {WITHIN_PX:g} px at the worst, %", percent=True, headline=True),
    Metric(name="cosine", label="cosine of the same point's descriptors, median", digits=3, headline=True),
    Metric(name="cosine_p10", label="cosine, 10th percentile", digits=3),
    Metric(name="keypoints", label="keypoints compared per photo", higher_is_better=None),
)
CURVE_LABELS = {
    "median": ("shift, px", "median distance, px"),
    "within": ("shift, px", f"share within {WITHIN_PX:g} px"),
}

# Networks that halve an image five times neither resize nor pad such a crop.
_SIDE_STEP = 32
_MARGIN_PX = 16.0


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(Settings):
    """What is compared.

    Attributes:
        whole: shifts in pixels, whole numbers above 0.
        fractions: shifts in pixels, not whole, above 0.
        max_side: crops are not larger than this on either side, pixels.

    Raises:
        ConfigError: a value is out of range, or there are no shifts.
    """

    whole: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    fractions: tuple[float, ...] = (0.25, 0.5, 0.75, 1.5)
    max_side: int = 640

    def __post_init__(self) -> None:
        if not self.whole and not self.fractions:
            raise ConfigError("there are no shifts to measure")
        for shift in (*self.whole, *self.fractions):
            if not 0 < shift <= 64:
                raise ConfigError(f"shifts lie in (0, 64] pixels, got {shift:g}")
        if any(shift % 1 for shift in self.whole) or not all(shift % 1 for shift in self.fractions):
            raise ConfigError("'whole' takes whole numbers of pixels, 'fractions' all others")
        if self.max_side < 2 * _SIDE_STEP:
            raise ConfigError(f"max_side must be {2 * _SIDE_STEP} pixels or more, got {self.max_side}")

    @classmethod
    def of(cls, shifts: Sequence[float]) -> ShiftConfig:
        """Shifts of both kinds, in the order of their length."""
        ordered = sorted(set(shifts))
        return cls(
            whole=tuple(shift for shift in ordered if shift % 1 == 0),
            fractions=tuple(shift for shift in ordered if shift % 1),
        )

    @property
    def reach(self) -> int:
        """How many pixels of a photo the largest shift needs beside the crop."""
        return int(np.ceil(max((*self.whole, *self.fractions)))) + 1


@dataclass(kw_only=True, eq=False)
class _Compared:
    """One shift of all photos."""

    errors: list[ShiftErrors] = field(default_factory=list)
    cosines: list[NDArray[np.float64]] = field(default_factory=list)


def run_shift(
    methods: Sequence[Method],
    photos: Sequence[Path],
    config: ShiftConfig | None = None,
    *,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure every method on crops of the same photos, moved right and down by the same number of pixels.

    Crops have sides of multiples of 32, so that no method pads or resizes them. For fractions of a pixel photos are
    blurred with sigma 0.8 px first, and so is the crop that they are compared with; the shift itself is exact (a turn
    of the phases of the Fourier transform). Distances are :class:`semkey.metrics.shift.ShiftErrors`; keypoints within
    16 px of the edges of what both crops show are left out.

    Descriptors: semkey's own networks describe the very same points in both crops, of all other methods those of the
    nearest keypoints within 0.5 px are compared.

    Args:
        methods: with unique names.
        photos: image files.
        config: default :class:`ShiftConfig`.
        environment: default :func:`describe_environment`.
        progress: told about every photo.

    Returns:
        The sets ``whole-pixels`` and ``fractions`` with a group per shift; a row per photo and shift whose ``error`` is
        its median distance.

    Raises:
        ConfigError: no methods, or two of one name.
        DatasetError: there are no photos, or one is too small for a crop of 64 pixels and the largest shift.
        InputError: a photo cannot be read, or a method broke its promises.
    """
    config = config or ShiftConfig()
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods must be given once each, got {', '.join(names) or 'none'}")
    if not photos:
        raise DatasetError("there are no photos to shift")
    sets = {name: shifts for name, shifts in ((WHOLE, config.whole), (FRACTIONS, config.fractions)) if shifts}
    total, done = len(methods) * len(photos) * len(sets), 0
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {}
    for method in methods:
        results[method.name] = {}
        for name, shifts in sets.items():
            compared = {shift: _Compared() for shift in shifts}
            for path in photos:
                picture = read_image(path)
                size = _crop_size(path, picture, config)
                _compare(method, band_limited(picture) if name == FRACTIONS else picture, size, compared)
                done += 1
                if progress is not None:
                    progress(done, total, f"{method.name}, {name}")
            results[method.name][name] = _summarise(compared, [path.name for path in photos])
    return Evaluation(
        kind=KIND,
        options=asdict(config),
        environment=describe_environment() if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={name: _describe(name, shifts, len(photos)) for name, shifts in sets.items()},
        metrics=METRICS,
        results=results,
        curve_labels=CURVE_LABELS,
    )


def _crop_size(path: Path, picture: NDArray[np.uint8], config: ShiftConfig) -> tuple[int, int]:
    height, width = picture.shape[:2]
    sides = [min(side - config.reach, config.max_side) // _SIDE_STEP * _SIDE_STEP for side in (width, height)]
    if min(sides) < 2 * _SIDE_STEP:
        raise DatasetError(f"{path}: {width}x{height} is too small for a crop shifted by {config.reach - 1} px")
    return sides[0], sides[1]


def _compare(
    method: Method, picture: NDArray[np.uint8], size: tuple[int, int], compared: Mapping[float, _Compared]
) -> None:
    """All shifts of one photo."""
    first = method.extract(shifted_crop(picture, (0.0, 0.0), size))
    for shift, found in compared.items():
        crop = shifted_crop(picture, (shift, shift), size)
        if isinstance(method.extractor, SemanticExtractor):
            places = first.keypoints - shift
            second, described = method.extractor.extract_and_describe(crop, places)
            second, described = second.to("cpu"), described.to("cpu")
            # Clear of the edge that content has left by, as keypoints are that count.
            inner = (places >= _MARGIN_PX).all(dim=1) & (first.keypoints <= torch.tensor(size) - 1 - _MARGIN_PX).all(
                dim=1
            )
            cosines = (first.descriptors * described).sum(dim=1)[inner]
        else:
            second = method.extract(crop)
            cosines = _nearest_cosines(first, second, shift)
        found.errors.append(
            shift_errors(first.keypoints.numpy(), second.keypoints.numpy(), (shift, shift), size, _MARGIN_PX)
        )
        found.cosines.append(cosines.double().numpy())


def _nearest_cosines(first: Features, second: Features, shift: float) -> torch.Tensor:
    """Of the descriptors of each keypoint and the nearest one of the shifted crop, where that is within 0.5 px."""
    if len(first) == 0 or len(second) == 0:
        return torch.zeros(0)
    distances, nearest = torch.cdist(first.keypoints.double(), second.keypoints.double() + shift).min(dim=1)
    same = distances <= WITHIN_PX
    return (first.descriptors[same] * second.descriptors[nearest[same]]).sum(dim=1)


def _summarise(compared: Mapping[float, _Compared], names: Sequence[str]) -> SetResult:
    groups = {f"{shift:g} px": _metrics([found]) for shift, found in compared.items()}
    medians = [group["median_px"] for group in groups.values()]
    shares = [group["within"] for group in groups.values()]
    rows: list[Row] = [
        {
            "name": f"{name}, {shift:g} px",
            "group": f"{shift:g} px",
            "error": errors.median_px if len(errors.distances) else float("inf"),
            "within": errors.share_within(),
            "keypoints": len(errors.distances),
        }
        for shift, found in compared.items()
        for name, errors in zip(names, found.errors, strict=True)
    ]
    worst = {"worst_median_px": _worst(medians, np.max), "worst_within": _worst(shares, np.min)}
    return SetResult(
        count=len(rows),
        failures=sum(row["keypoints"] == 0 for row in rows),
        metrics={**_metrics(list(compared.values())), **worst},
        groups=groups,
        curves={"median": Curve(x=list(compared), y=medians), "within": Curve(x=list(compared), y=shares)},
        rows=rows,
    )


def _metrics(parts: Sequence[_Compared]) -> dict[str, float]:
    errors = [error for part in parts for error in part.errors]
    joined = ShiftErrors.joined(errors)
    cosines = np.concatenate([np.zeros(0), *(cosine for part in parts for cosine in part.cosines)])
    return {
        "median_px": joined.median_px,
        "within": joined.share_within(),
        "cosine": float(np.median(cosines)) if len(cosines) else float("nan"),
        "cosine_p10": float(np.quantile(cosines, 0.1)) if len(cosines) else float("nan"),
        "keypoints": len(joined.distances) / len(errors),
    }


def _worst(values: Sequence[float], choose: Any) -> float:
    """Of the shifts that a keypoint was found at."""
    known = [value for value in values if not np.isnan(value)]
    return float(choose(known)) if known else float("nan")


def _describe(name: str, shifts: Sequence[float], photos: int) -> dict[str, Any]:
    blur = ", photos blurred with sigma 0.8 px" if name == FRACTIONS else ""
    text = f"crops of {photos} photos moved right and down by {', '.join(f'{shift:g}' for shift in shifts)} px{blur}"
    return {"description": text, "pairs": photos * len(shifts)}
