"""RGB-D odometry of several features through the same tracker.

    python benchmarks/odometry.py ../shared/data/tum/rgbd_dataset_freiburg3_cabinet_subsampled \
        ../shared/data/7scenes/redkitchen/seq-01 --features compact,orb,sift

ATE after SE(3) alignment over the tracked frames, RPE between consecutive frames, and the share of frames tracked: an
ATE without that share says little, because a tracker that gives up early looks accurate.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from semkey.runtime import tune_process

tune_process()

from semkey.datasets import open_sequence  # noqa: E402
from semkey.extractors import create_extractor  # noqa: E402
from semkey.slam import OdometryConfig, run_odometry  # noqa: E402
from semkey.slam.report import summarize  # noqa: E402

KEYS = ("frames", "tracked_percent", "lost_events", "keyframes", "ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "fps")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path, nargs="+")
    parser.add_argument("--features", default="compact,orb,sift")
    parser.add_argument("--keypoints", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, dict[str, dict]] = {}
    for path in args.sequences:
        sequence = open_sequence(path)
        rows = results.setdefault(sequence.name, {})
        for name in args.features.split(","):
            extractor = create_extractor(name, max_keypoints=args.keypoints)
            figures = summarize(run_odometry(sequence, extractor, OdometryConfig(seed=args.seed), every=args.every))
            rows[name] = {key: figures.get(key) for key in KEYS}
            print(sequence.name, name, rows[name], flush=True)
    if args.out:
        temporary = args.out.with_suffix(".tmp")
        report = {"keypoints": args.keypoints, "seed": args.seed, "every": args.every, "sequences": results}
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
