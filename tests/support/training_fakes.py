"""Small pairs, networks and runs for the tests of training; also a script that trains in a process of its own.

python training_fakes.py fit RUN [--resume]                  # trains, a checkpoint after every step
python training_fakes.py gradients OUT.pt DEVICES            # gradients of some steps, shared by DEVICES processes
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from semkey.errors import DatasetError
from semkey.matching.alignment.network import PatchNetwork, RefinerShape
from semkey.training.config import TrainConfig

SIDE, POINTS, TARGETS = 96, 48, 64
PATCH_WIDTH, PATCH_SHAPE = 8, RefinerShape(channels=8)

MODEL = {
    "stem_channels": [8, 8, 16],
    "detail_channels": 8,
    "context_channels": [16, 16],
    "grid_channels": 16,
    "descriptor_dim": 16,
    "descriptor_positions": 4,
    "global_dim": 8,
}


class ShiftedPairs(Dataset):
    """Two crops of a smooth random picture, a whole number of pixels apart; its corners are the targets.

    Args:
        seed: of all pairs.
        broken: indices whose first view is NaN.
        missing: indices that cannot be read.
    """

    def __init__(
        self, seed: int = 0, broken: frozenset[int] = frozenset(), missing: frozenset[int] = frozenset()
    ) -> None:
        self.seed, self.broken, self.missing = seed, broken, missing

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index in self.missing:
            raise DatasetError(f"photo {index}: cannot be read")
        rng = np.random.default_rng([self.seed, index])
        picture = cv2.GaussianBlur(rng.uniform(0, 255, (SIDE + 32, SIDE + 32)).astype(np.float32), (0, 0), 1.5)
        corners = cv2.goodFeaturesToTrack(picture, TARGETS, 0.01, 5)[:, 0]
        shifts = rng.integers(0, 32, (2, 2))
        pair: dict[str, torch.Tensor] = {}
        for number, (x, y) in enumerate(shifts):
            view = torch.from_numpy(picture[y : y + SIDE, x : x + SIDE].copy())
            if index in self.broken and number == 0:
                view = view * float("nan")
            pair[f"image{number}"] = ((view - view.mean()) / view.std())[None]
            targets = torch.zeros(TARGETS, 3)
            here = torch.from_numpy(corners - [x, y]).float()
            here = here[((here > 3) & (here < SIDE - 4)).all(dim=1)]
            targets[: len(here)] = torch.cat([here, torch.ones(len(here), 1)], dim=1)
            pair[f"targets{number}"] = targets
            pair[f"valid{number}"] = torch.ones(SIDE, SIDE, dtype=torch.bool)
        step = shifts[0] - shifts[1]
        low, high = np.maximum(3, 3 - step), np.minimum(SIDE - 4, SIDE - 4 - step)
        points = torch.from_numpy(rng.uniform(low, high, (POINTS, 2))).float()
        H10 = torch.eye(3, dtype=torch.float64)
        H10[:2, 2] = torch.from_numpy(step)
        return pair | {
            "H10": H10,
            "warp10": torch.zeros(SIDE, SIDE, 2),
            "is_scene": torch.tensor(1.0),
            "points0": points,
            "points1": points + torch.from_numpy(step).float(),
        }


def unit_vectors(count: int, width: int = PATCH_WIDTH) -> torch.Tensor:
    """Descriptors (N, D), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1)


def uneven_network(seed: int = 0) -> PatchNetwork:
    """A network of the learned refiner whose heat is not even."""
    torch.manual_seed(seed)
    network = PatchNetwork(PATCH_WIDTH, PATCH_SHAPE)
    for layer in (network.from_descriptor, network.from_patch):
        torch.nn.init.normal_(layer.weight)
    return network


def small_config(**changes: Any) -> TrainConfig:
    """A run of 4 steps of 4 pairs per stage on a tiny network; ``changes`` lie on top, section by section."""
    values: dict[str, Any] = {
        "name": "tiny",
        "pairs_per_epoch": 16,
        "model": MODEL,
        "stages": {
            "descriptor": {"epochs": 1, "learning_rate": 1e-3},
            "detector": {"epochs": 1, "learning_rate": 1e-3, "detected_from": 4, "detected_every": 2},
            "reliability": {"epochs": 1, "learning_rate": 1e-3},
            "finetune": {"epochs": 1, "learning_rate": 1e-4},
        },
        "optimizer": {"batch_pairs": 4, "micro_batch": 2, "warm_up": 4, "precision": "float32"},
        "validation": {"pairs": 2, "every": 8, "keypoints": 64, "pictures": 1},
        # one thread: sums over several come out in another order than in the processes that tests start
        "run": {
            "workers": 0,
            "threads": 1,
            "log_every": 1,
            "cosines_every": 2,
            "tensorboard": False,
            "device": "cpu",
        },
        "objectives": {"max_keypoints": 64},
    }
    for section, part in changes.items():
        values[section] = {**values.get(section, {}), **part} if isinstance(part, dict) else part
    return TrainConfig.from_mapping(values)


def only(stage: str, **settings: Any) -> dict[str, Any]:
    """``stages`` with epochs for one stage alone."""
    stages: dict[str, Any] = {name: {"epochs": 0} for name in ("descriptor", "detector", "reliability", "finetune")}
    stages[stage] = {"epochs": 1, "learning_rate": 1e-3, **settings}
    return stages


def step_gradients(devices: int) -> dict[str, list[torch.Tensor]]:
    """Gradients and then batch-norm statistics after each of 3 steps, by how gradients are combined; in process 0."""
    from semkey.training.processes import launch

    fabric = launch(small_config(run={"devices": devices, "threads": 1}))
    found = {mode: _joint_stage(fabric, mode) for mode in ("sum", "pcgrad")}
    return found if fabric.is_global_zero else {}


def _joint_stage(fabric: Any, gradients: str) -> list[torch.Tensor]:
    from semkey.model.semantic_detector import SemanticKeypointDetector
    from semkey.training.checkpointing import CheckpointFolder
    from semkey.training.loop import StageLoop
    from semkey.training.stage_events import StageEvents
    from semkey.training.stages import plan_stage

    losses = {"match_dual_softmax": 1, "place": 0.1, "heat": 1, "reliability_bce": 0.5}
    stage = only("detector", mode="joint", gradients=gradients, losses=losses, epochs=0.75, detected_from=0)
    config = small_config(stages=stage, run={"cosines_every": 0}, validation={"every": 1000})
    torch.manual_seed(0)
    model = SemanticKeypointDetector(config.model)
    found: list[torch.Tensor] = []

    def remember(step: int, steps: int, means: dict[str, float]) -> None:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in loop.learned]
        found.append(torch.cat([g.reshape(-1) for g in grads]))
        found.append(torch.cat([b.reshape(-1) for n, b in model.named_buffers() if "running" in n]))

    events = StageEvents(stepped=remember)
    loop = StageLoop(
        fabric, model, plan_stage(config, "detector"), config, CheckpointFolder(Path("unused"), 1), list, events
    )
    loop.save = lambda: None
    loop.run(ShiftedPairs())
    return [tensor.clone() for tensor in found]


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "fit":
        from semkey.training import fit

        config = small_config(run={"save_every": 0, "threads": 1})
        fit(config, sys.argv[2], resume="--resume" in sys.argv, train_pairs=ShiftedPairs(), val_pairs=ShiftedPairs(1))
    else:
        found = step_gradients(int(sys.argv[3]))
        if found:
            torch.save(found, sys.argv[2])


if __name__ == "__main__":
    main()
