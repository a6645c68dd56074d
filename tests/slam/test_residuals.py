"""Where depth is exact: what covariances of keypoints are worth, and whether those of poses are true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.extractors import create_extractor
from semkey.geometry.pose_covariance import relative_covariance
from semkey.geometry.transforms import compose, inverse, se3_log
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.slam import SlamConfig, SlamResult, run_slam


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, bool], SlamResult]:
    return {}


def run(
    runs: dict[tuple[str, bool], SlamResult], shared: Path, residuals: str, *, alignment: bool = True
) -> SlamResult:
    if (residuals, alignment) not in runs:
        folder = shared / "data" / "icl-nuim" / "of_kt3_start"
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there")
        config = SlamConfig.from_mapping(
            {"tracking": {"residuals": residuals, "alignment": alignment}, "map": {"adjustment": "foreground"}}
        )
        extractor = create_extractor("compact", device="cpu")
        runs[residuals, alignment] = run_slam(open_sequence(folder), extractor, config)
    return runs[residuals, alignment]


def error(result: SlamResult) -> float:
    assert result.tracked == len(result.frames)
    return absolute_trajectory_error(result.trajectory(), result.ground_truth_trajectory()).statistics.rmse


def test_sliding_along_edges_costs_little_accuracy(runs: dict[tuple[str, bool], SlamResult], shared: Path) -> None:
    """Measured 2.4 mm with isotropic residuals, 1.3 mm with anisotropic ones."""
    rough, fine = (run(runs, shared, kind, alignment=False) for kind in ("isotropic", "anisotropic"))
    assert error(fine) < 0.75 * error(rough)


def test_aligned_keypoints_cost_less(runs: dict[tuple[str, bool], SlamResult], shared: Path) -> None:
    """Measured 1.5 mm without alignment, 1.1 with it (before landmarks knew how sure poses were, 1.9 and 1.1)."""
    jittering, aligned = (run(runs, shared, "anisotropic", alignment=kind) for kind in (False, True))
    assert error(aligned) < 0.85 * error(jittering)


def test_the_covariances_hold_against_ground_truth(runs: dict[tuple[str, bool], SlamResult], shared: Path) -> None:
    """Frames as seen from their keyframe: the mean normalised error squared is within the 95 % band of chi square 6."""
    result = run(runs, shared, "anisotropic")
    keyframes = {record.reference_keyframe: record for record in result.frames if record.is_keyframe}
    normalised = []
    for record in result.frames:
        keyframe = keyframes.get(record.reference_keyframe)
        if record.is_keyframe or keyframe is None or record.T_keyframe_cam is None:
            continue
        assert record.covariance is not None
        assert keyframe.covariance is not None
        assert 0 < record.quality <= 1
        true = compose(inverse(result.ground_truth[keyframe.index]), result.ground_truth[record.index])
        covariance = relative_covariance(keyframe.covariance, record.covariance, true)
        difference = se3_log(compose(inverse(true), record.T_keyframe_cam))
        normalised.append(difference @ np.linalg.solve(covariance, difference))
    assert len(normalised) > 10
    assert 1.24 < np.mean(normalised) < 14.4
