"""Calibration from pictures of a board: finding its corners, fitting a lens to them, and showing what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import Lens
from semkey.errors import ConfigError, InputError
from semkey.settings import Settings, require_within

Array = NDArray[np.float64]

_LEAST_VIEWS = 5
_LEAST_CORNERS = 8
_SUBPIXEL = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-4)
# A view whose corners lie so much worse than those of the others is left out, once.
_OUTLIER_FACTOR = 4.0
_ARROW_SCALE = 40.0


@dataclass(frozen=True, kw_only=True)
class BoardConfig(Settings):
    """A calibration board and the lens to fit.

    Attributes:
        board: ``charuco`` (a chessboard with markers, which may be cut off by the image) or ``chessboard``.
        columns: squares along x for charuco; inner corners along x for a chessboard.
        rows: the same along y.
        square: side of a square, metres; it does not change the camera's numbers.
        marker: side of a marker as a share of the square's.
        dictionary: of the markers, as OpenCV names it.
        lens: ``radial-tangential`` (k1 k2 p1 p2 k3) or ``fisheye``.
    """

    board: Literal["charuco", "chessboard"] = "charuco"
    columns: int = 9
    rows: int = 6
    square: float = 0.03
    marker: float = 0.75
    dictionary: str = "DICT_5X5_100"
    lens: Literal["radial-tangential", "fisheye"] = "radial-tangential"

    def __post_init__(self) -> None:
        require_within(self, "[3, inf)", "columns", "rows")
        require_within(self, "(0, inf)", "square")
        require_within(self, "(0, 1)", "marker")
        if not hasattr(cv2.aruco, self.dictionary):
            raise ConfigError(f"dictionary '{self.dictionary}' is unknown to OpenCV; such as DICT_5X5_100")


@dataclass(frozen=True, kw_only=True, eq=False)
class BoardView:
    """The corners of the board in one picture.

    Attributes:
        points: (N, 3) on the board, metres.
        pixels: (N, 2) in the picture.
    """

    points: Array
    pixels: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class BoardCalibration:
    """A fitted lens and what is left of the corners.

    Attributes:
        lens: the camera.
        kept: numbers of the views that were used.
        pixels: by used view (N, 2) where the corners were found.
        residuals: by used view (N, 2) found minus projected, pixels.
        rms_px: root of the mean squared length of the residuals.
    """

    lens: Lens
    kept: tuple[int, ...]
    pixels: tuple[Array, ...]
    residuals: tuple[Array, ...]
    rms_px: float


def charuco_board(config: BoardConfig) -> cv2.aruco.CharucoBoard:
    """OpenCV's board of these settings; ``generateImage`` draws it for printing."""
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, config.dictionary))
    size = (config.columns, config.rows)
    return cv2.aruco.CharucoBoard(size, config.square, config.square * config.marker, dictionary)


def find_board(image: NDArray[np.uint8], config: BoardConfig) -> BoardView | None:
    """The corners in an image (H, W, 3) RGB, pixel centres at integers; None where too few are found."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if config.board == "charuco":
        board = charuco_board(config)
        corners, ids, *_ = cv2.aruco.CharucoDetector(board).detectBoard(grey)
        if ids is None or len(ids) < _LEAST_CORNERS:
            return None
        points = np.asarray(board.getChessboardCorners(), dtype=np.float64)[np.asarray(ids, dtype=np.int64).reshape(-1)]
        return BoardView(points=points, pixels=np.asarray(corners, dtype=np.float64).reshape(-1, 2))
    found, corners = cv2.findChessboardCorners(grey, (config.columns, config.rows))
    if not found:
        return None
    refined = cv2.cornerSubPix(grey, np.asarray(corners, dtype=np.float32), (5, 5), (-1, -1), _SUBPIXEL)
    x, y = np.meshgrid(np.arange(config.columns), np.arange(config.rows))
    grid = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    points = np.asarray(grid * config.square, dtype=np.float64)
    return BoardView(points=points, pixels=np.asarray(refined, dtype=np.float64).reshape(-1, 2))


def calibrate_views(views: Sequence[BoardView], size: tuple[int, int], config: BoardConfig) -> BoardCalibration:
    """Fit a lens to the corners of several pictures (Zhang 2000); a view that fits much worse is left out once.

    Args:
        views: at least five.
        size: (width, height) of the pictures.
        config: with the lens.

    Raises:
        InputError: too few views, or the board was always held alike, so that nothing can be solved for.
    """
    if len(views) < _LEAST_VIEWS:
        raise InputError(
            f"the board was found in {len(views)} pictures; at least {_LEAST_VIEWS} are needed, from different sides"
        )
    kept = list(range(len(views)))
    fitted = _fit(views, size, config)
    errors = [float(np.sqrt((residual**2).sum(axis=1).mean())) for residual in fitted.residuals]
    good = [k for k, error in zip(kept, errors, strict=True) if error <= _OUTLIER_FACTOR * float(np.median(errors))]
    if _LEAST_VIEWS <= len(good) < len(kept):
        kept, fitted = good, _fit([views[k] for k in good], size, config)
    return BoardCalibration(
        lens=fitted.lens,
        kept=tuple(kept),
        pixels=fitted.pixels,
        residuals=fitted.residuals,
        rms_px=fitted.rms_px,
    )


def _fit(views: Sequence[BoardView], size: tuple[int, int], config: BoardConfig) -> BoardCalibration:
    objects = [view.points.astype(np.float32)[:, None] for view in views]
    images = [view.pixels.astype(np.float32)[:, None] for view in views]
    try:
        if config.lens == "fisheye":
            flags = _fisheye_flag("CALIB_RECOMPUTE_EXTRINSIC") | _fisheye_flag("CALIB_FIX_SKEW")
            # (1, N, .) float64: other shapes are taken, and then found unfit.
            points = [view.points.reshape(1, -1, 3) for view in views]
            pixels = [view.pixels.reshape(1, -1, 2) for view in views]
            _, K, D, turns, shifts = cv2.fisheye.calibrate(
                points, pixels, size, np.eye(3), np.zeros((4, 1)), flags=flags
            )
        else:
            _, K, D, turns, shifts = cv2.calibrateCamera(objects, images, size, np.eye(3), np.zeros(5))
    except cv2.error:
        raise InputError(
            "no camera fits the corners; is the board's size right, and was it seen from several sides?"
        ) from None
    K, D = np.asarray(K, dtype=np.float64), np.asarray(D, dtype=np.float64).reshape(-1)
    coefficients = tuple(D[: 4 if config.lens == "fisheye" else 5].tolist())
    try:
        lens = Lens(
            model=config.lens,
            intrinsics=(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])),
            distortion=coefficients,
            size=size,
        )
    except ConfigError as error:
        raise InputError(f"no camera fits the corners ({error})") from None
    residuals = []
    for view, turn, shift in zip(views, turns, shifts, strict=True):
        rotation = cv2.Rodrigues(np.asarray(turn, dtype=np.float64))[0]
        residuals.append(view.pixels - lens.project(view.points @ rotation.T + np.asarray(shift).reshape(3)))
    rms = float(np.sqrt((np.concatenate(residuals) ** 2).sum(axis=1).mean()))
    return BoardCalibration(
        lens=lens,
        kept=tuple(range(len(views))),
        pixels=tuple(view.pixels for view in views),
        residuals=tuple(residuals),
        rms_px=rms,
    )


def _fisheye_flag(name: str) -> int:
    """A flag of the fisheye model, which OpenCV 5 keeps beside its other flags."""
    return int(getattr(cv2.fisheye, name, getattr(cv2, name, 0)))


def draw_residuals(calibration: BoardCalibration) -> NDArray[np.uint8]:
    """A picture (H, W, 3) RGB of the images' size: each corner with its residual, 40 times as long."""
    width, height = calibration.lens.size
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    for number, (pixels, residuals) in enumerate(zip(calibration.pixels, calibration.residuals, strict=True)):
        hue = np.array([[[180 * number // len(calibration.pixels), 220, 190]]], dtype=np.uint8)
        color = [int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]]
        for corner, residual in zip(pixels, residuals, strict=True):
            start, end = np.round(corner).astype(int), np.round(corner + _ARROW_SCALE * residual).astype(int)
            cv2.circle(picture, start.tolist(), 2, color, -1, cv2.LINE_AA)
            cv2.line(picture, start.tolist(), end.tolist(), color, 1, cv2.LINE_AA)
    text = f"rms {calibration.rms_px:.3f} px, {len(calibration.kept)} views; residuals x{_ARROW_SCALE:g}"
    cv2.putText(picture, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return picture
