"""How losses fight: the same short training with their gradients combined in different ways, and its curves.

    python scripts/decoupling.py run PHOTOS OUT [--steps 48] [--init compact] [--only sum,pcgrad] [--seed 0]
    python scripts/decoupling.py draw OUT PICTURES

``run`` trains each variant from the same weights on the same pairs, in OUT/VARIANT, and goes on where it was
interrupted; ``draw`` writes ``cosines.png`` and ``curves.png`` and prints a table of the last validation. What came out
is in docs/decoupling.md.

Variants: ``sum``, ``kendall``, ``pcgrad``, ``cagrad`` train everything jointly on descriptors, detection and attached
reliability, and differ in how gradients are combined; ``no-judges`` is ``sum`` without reliability and covariance,
``detached`` with both on detached features, ``attached`` with both attached, ``parallel`` also keeps the detector's
gradients out of the features of descriptors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from semkey.files import atomic_write_text
from semkey.model.checkpoint import load_checkpoint, read_config
from semkey.model.precision import cpu_has_bfloat16
from semkey.model.presets import presets
from semkey.training import fit
from semkey.training.config import TrainConfig
from semkey.training.data import open_data
from semkey.training.fit import HISTORY_FILE
from semkey.training.history import History
from semkey.training.validation import validate

LOSSES = {
    "match_dual_softmax": 1.0,
    "heat": 0.5,
    "position": 0.5,
    "reprojection": 1.0,
    "anchor": 0.0,
    "success": 0.5,
    "reliability_bce": 1.0,
    "covariance_nll": 0.0,
}
WITH_COVARIANCE = {**LOSSES, "covariance_nll": 0.5}
BARE = {**LOSSES, "reliability_bce": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "sum": {"gradients": "sum", "attached": True, "losses": LOSSES},
    "kendall": {"gradients": "kendall", "attached": True, "losses": LOSSES},
    "pcgrad": {"gradients": "pcgrad", "attached": True, "losses": LOSSES},
    "cagrad": {"gradients": "cagrad", "attached": True, "losses": LOSSES},
    "no-judges": {"gradients": "sum", "attached": False, "losses": BARE},
    "detached": {"gradients": "sum", "attached": False, "losses": WITH_COVARIANCE},
    "attached": {"gradients": "sum", "attached": True, "losses": WITH_COVARIANCE},
    "parallel": {"gradients": "sum", "attached": False, "losses": WITH_COVARIANCE, "mode": "parallel"},
}
FIGURES = ("descriptor_accuracy", "matching_score", "repeatability", "error_px", "reliability_auroc", "reliability_ece")
START_FILE = "start.json"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
BATCH = 4


def stored_model(init: str) -> dict[str, Any]:
    """Shapes of the network to start from."""
    preset = presets().get(init)
    return read_config(init if preset is None else preset.path).to_mapping()


def configuration(variant: str, photos: Path, out: Path, steps: int, init: str, seed: int) -> TrainConfig:
    """The run of a variant; all see the same pairs."""
    chosen = VARIANTS[variant]
    none = {"epochs": 0}
    return TrainConfig.from_mapping(
        {
            "name": variant,
            "seed": seed,
            "init": init,
            "pairs_per_epoch": steps * BATCH,
            "model": {**stored_model(init), "reliability": "keypoint", "covariance": True},
            "data": {
                "photos": str(photos),
                "cache": str(out / "cache"),
                "width": 160,
                "height": 128,
                "points": 128,
                "shares": {"photos": 0.85, "shapes": 0.15, "rooms": 0},
                "views": {"scale": 1.5, "rotation_deg": 30, "roll_deg": 15, "perspective": 0.15, "quarter_turns": 0},
                "teacher": {"name": "compact", "keypoints": 600},
            },
            "stages": {
                "descriptor": none,
                "detector": {
                    "epochs": 1,
                    "mode": chosen.get("mode", "joint"),
                    "learning_rate": 1e-3,
                    "losses": chosen["losses"],
                    "gradients": chosen["gradients"],
                    "detected_from": 0,
                },
                "reliability": none,
                "finetune": none,
            },
            "objectives": {"max_keypoints": 128, "attached_judges": chosen["attached"], "exact_positions": True},
            "optimizer": {"batch_pairs": BATCH, "micro_batch": BATCH, "warm_up": 40, "average": 0.9},
            "validation": {"pairs": 16, "every": max(BATCH, steps * BATCH // 4), "keypoints": 160, "pictures": 0},
            "run": {"workers": 0, "threads": 1, "cosines_every": 4, "tensorboard": False, "log_every": 5},
        }
    )


def run(photos: Path, out: Path, steps: int, only: list[str], init: str, seed: int) -> None:
    """Train the variants that are not done yet; what they start from is measured first."""
    start = out / START_FILE
    if not start.is_file():
        config = configuration(only[0], photos, out, steps, init, seed)
        pairs = open_data(config.data, split="val", seed=seed)
        preset = presets().get(init)
        model = load_checkpoint(init if preset is None else preset.path)
        held_out = [pairs[index] for index in range(config.validation.pairs)]
        figures = validate(model.eval(), held_out, config.validation, bfloat16=cpu_has_bfloat16()).figures
        atomic_write_text(start, json.dumps(figures) + "\n")
    for variant in only:
        folder = out / variant
        if (folder / f"{variant}.safetensors").is_file():
            continue
        print(variant, flush=True)
        fit(configuration(variant, photos, out, steps, init, seed), folder, resume=folder.is_dir())


def draw(out: Path, pictures: Path) -> None:
    """Draw what was logged, and print the last validation of each variant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    start = json.loads((out / START_FILE).read_text())
    done = {name: History(out / name / HISTORY_FILE) for name in VARIANTS if (out / name / HISTORY_FILE).is_file()}
    pictures.mkdir(parents=True, exist_ok=True)
    figure, panels = plt.subplots(1, 3, figsize=(9.4, 3.0), constrained_layout=True)
    for axes, name in zip(panels, ("descriptor_accuracy", "matching_score", "reliability_auroc"), strict=True):
        for colour, (variant, history) in zip(COLOURS, done.items(), strict=False):
            rows = [(0, start.get(name)), *((r["step"], r["figures"].get(name)) for r in history.of("validation"))]
            rows = [(step, value) for step, value in rows if value is not None]
            axes.plot(*zip(*rows, strict=True), color=colour, label=variant, linewidth=1.2)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].legend(fontsize=6)
    figure.savefig(pictures / "curves.png", dpi=90)
    figure, axes = plt.subplots(figsize=(9.4, 3.4), constrained_layout=True)
    for colour, (label, values) in zip(COLOURS, sorted(cosines(done["sum"]).items()), strict=False):
        steps, found = zip(*values, strict=True)
        axes.plot(steps, found, color=colour, label=label, linewidth=1.2)
    axes.axhline(0.0, color="#888888", linewidth=0.6)
    axes.set_xlabel("step", fontsize=8)
    axes.set_title("cosine of each loss's gradient with that of match_dual_softmax, variant sum", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
    figure.savefig(pictures / "cosines.png", dpi=90)
    print("| variant | " + " | ".join(FIGURES) + " |")
    print("| start | " + " | ".join(f"{start[name]:.3f}" for name in FIGURES) + " |")
    for variant, history in done.items():
        last = history.of("validation")[-1]
        values = [last["figures"].get(name) for name in FIGURES]
        print(
            f"| {variant} | " + " | ".join("" if v is None else f"{v:.3f}" for v in values) + f" | step {last['step']}"
        )
    for variant, history in done.items():
        print(variant, conflicts(history))


def cosines(history: History) -> dict[str, list[tuple[int, float]]]:
    """Per loss the steps and cosines with the descriptor loss, over the weights that both train."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in history.of("cosines"):
        names, matrix = row["names"], row["matrix"]
        at = names.index("match_dual_softmax")
        for name, value in zip(names, matrix[at], strict=True):
            if name != "match_dual_softmax" and value is not None:
                found.setdefault(name, []).append((row["step"], value))
    return found


def conflicts(history: History) -> str:
    """Share of measurements in which two losses oppose each other, and the mean cosine, for each pair of losses."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in history.of("cosines"):
        for i, first in enumerate(row["names"]):
            for j, second in enumerate(row["names"][:i]):
                if row["matrix"][i][j] is not None:
                    values.setdefault((second, first), []).append(row["matrix"][i][j])
    parts = [
        f"{a}/{b} {np.mean(v):+.2f} ({100 * np.mean(np.array(v) < 0):.0f} % of {len(v)})"
        for (a, b), v in values.items()
    ]
    return "; ".join(parts)


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("photos", type=Path)
    runs.add_argument("out", type=Path)
    runs.add_argument("--steps", type=int, default=48)
    runs.add_argument("--init", default="compact")
    runs.add_argument("--only", default=",".join(VARIANTS))
    runs.add_argument("--seed", type=int, default=0)
    drawing = commands.add_parser("draw")
    drawing.add_argument("out", type=Path)
    drawing.add_argument("pictures", type=Path)
    args = parser.parse_args()
    if args.command == "run":
        run(args.photos, args.out, args.steps, args.only.split(","), args.init, args.seed)
    else:
        draw(args.out, args.pictures)


if __name__ == "__main__":
    main()
