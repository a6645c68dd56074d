"""What the fuzzer damages: how a whole file of each kind is made, changed, and used."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutations import (
    Mutation,
    mutate_arrays,
    mutate_bytes,
    mutate_json,
    mutate_safetensors,
    mutate_text,
    mutate_tree,
    mutate_yaml,
)
from semkey.errors import ConfigError
from semkey.slam.config import SlamConfig
from semkey.slam.output.map_file import MapFile, encode_map_file
from semkey.slam.output.session import Session, load_session, save_session, session_content
from semkey.slam.tracking.localize import Localizer
from semkey.training.config import TrainConfig, shipped_configs
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk
from training_fakes import MODEL, small_config


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file.

    Attributes:
        make: writes whole files into a folder.
        mutations: ways to damage one.
        use: reads a file and does with it what the commands do.
        names_file: whether a refusal names the file.
    """

    make: Callable[[Path], list[Path]]
    mutations: Sequence[Mutation]
    use: Callable[[Path], object]
    names_file: bool = True


# -- networks ------------------------------------------------------------------------------------------------------


def make_checkpoints(folder: Path) -> list[Path]:
    from semkey.model.checkpoint import save_checkpoint
    from semkey.model.config import ModelConfig
    from semkey.model.semantic_detector import SemanticKeypointDetector

    paths = []
    for name, more in (("cells", {}), ("pixels", {"detector": "pixels", "covariance": True})):
        torch.manual_seed(0)
        paths.append(folder / f"{name}.safetensors")
        save_checkpoint(SemanticKeypointDetector(ModelConfig.from_mapping({**MODEL, **more})), paths[-1])
    return paths


def use_checkpoint(path: Path) -> object:
    import semkey

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    return semkey.load(path, max_keypoints=8, device="cpu").extract(image)


def make_states(folder: Path) -> list[Path]:
    from semkey.training.checkpointing import CheckpointFolder, random_state

    state = {"model": {"a": torch.zeros(2)}, "rng": random_state(), "not_finite": 0, "best": None}
    return [CheckpointFolder(folder / "states", 2).write("descriptor", 3, state, small_config())]


def use_state(path: Path) -> object:
    from semkey.training.checkpointing import CheckpointFolder

    return CheckpointFolder(path.parent, 2).newest("descriptor", small_config(), torch.device("cpu"))


# -- settings ------------------------------------------------------------------------------------------------------


def make_configs(folder: Path) -> list[Path]:
    paths = []
    for name, path in shipped_configs().items():
        if name.startswith(("lightglue", "refiner")):  # of `semkey train-matcher` and `train-refiner`
            continue
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_bytes(path.read_bytes())
    return paths


def use_config(path: Path) -> object:
    config = TrainConfig.load(path)
    return json.dumps(config.to_mapping()), config.steps("detector")


CALIBRATION = b"""model: radial-tangential
size: [320, 240]
intrinsics: [260.0, 260.0, 159.5, 119.5]
distortion: [0.1, -0.05, 0.0, 0.0]
"""


# -- results -------------------------------------------------------------------------------------------------------


def make_results(folder: Path) -> list[Path]:
    from semkey.evaluation.running.results import Curve, Evaluation, Metric, SetResult

    row = {"name": "p0", "error": 1.5, "group": "g", "list": [1.0, float("inf")]}
    result = SetResult(
        count=1,
        metrics={"up": 0.5, "down": float("nan")},
        intervals={"up": (0.4, 0.6)},
        groups={"g": {"up": 0.5, "down": 1.0}},
        curves={"mma": Curve(x=[1, 2], y=[0.1, 0.2])},
        rows=[row],
    )
    evaluation = Evaluation(
        kind="planar",
        options={"keypoints": 512, "seed": 3},
        environment={"semkey": "1", "command": "semkey eval planar", "cpu": "x"},
        methods={"a": {"weights": "x"}, "b": {}},
        sets={"one": {"description": "about", "pairs": 1}},
        metrics=[Metric(name="up", label="accuracy, %", percent=True, headline=True), Metric(name="down", label="px")],
        results={"a": {"one": result}, "b": {"one": result}},
        curve_labels={"mma": ("threshold, px", "accuracy")},
    )
    evaluation.write(folder / "results.json")
    return [folder / "results.json"]


def use_results(path: Path) -> object:
    from semkey.evaluation.report.page import report_html
    from semkey.evaluation.report.tables import headline_table
    from semkey.evaluation.running.results import Evaluation

    evaluation = Evaluation.read(path)
    return headline_table(evaluation), report_html(evaluation, [])


ROWS: list[dict[str, Any]] = [
    {"name": f"p{i}", "group": "", "error": 0.5 * i, "values": [1.0, float("inf")]} for i in range(6)
]


def make_rows(folder: Path) -> list[Path]:
    from semkey.evaluation.running.row_store import RowStore

    with RowStore(folder, "orb", "set", "key") as store:
        for row in ROWS:
            store.append(row)
    return [store.path]


def use_rows(path: Path) -> object:
    """What is still there is what was written; the rest is measured again."""
    from semkey.evaluation.running.row_store import RowStore

    folder = path.parent / "rows"
    (folder / "orb").mkdir(parents=True, exist_ok=True)
    path.rename(folder / "orb" / "set.jsonl")
    with RowStore(folder, "orb", "set", "key") as store:
        for row in ROWS:
            if row["name"] in store:
                assert store[row["name"]] == row, "another row than was written"
            else:
                store.append(row)
    with RowStore(folder, "orb", "set", "key") as store:
        assert all(store[row["name"]] == row for row in ROWS)
    return store


# -- maps and trajectories -----------------------------------------------------------------------------------------


def make_maps(folder: Path) -> list[Path]:
    from semkey.slam import run_slam

    world = PointWorld(walk(10))
    save_session(folder / "room.semkey", Session(result=run_slam(world, PointExtractor(world))))
    return [folder / "room.semkey"]


def mutate_map(data: bytes, rng: random.Random) -> bytes:
    """A map whose checksum is right and whose content is not."""
    import struct

    from safetensors.numpy import load

    length = struct.unpack("<Q", data[:8])[0]
    stored = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["semkey_map"])
    header, arrays = json.loads(stored["header"]), load(data)
    if rng.random() < 0.4:
        header = mutate_tree(header, rng)
    else:
        arrays = mutate_arrays(arrays, rng)
    return encode_map_file(MapFile(header=header, arrays=arrays, version=stored["version"]))


def use_map(path: Path) -> object:
    session = load_session(path)
    session_content(session)
    world = PointWorld(walk(10))
    return Localizer(session.slam_map, SlamConfig()).localize(PointExtractor(world).extract(world[4].image), CAMERA)


def make_trajectories(folder: Path) -> list[Path]:
    from semkey.geometry.trajectories import Trajectory, write_tum_trajectory

    poses = walk(30)
    write_tum_trajectory(folder / "t.txt", Trajectory(np.arange(30.0) / 10 + 1e9, np.stack(poses)))
    return [folder / "t.txt"]


def use_trajectory(path: Path) -> object:
    from semkey.evaluation.data.trajectories import read_ground_truth
    from semkey.evaluation.kinds.trajectory import TrajectoryConfig, evaluate_trajectory, trajectory_pictures
    from semkey.geometry.trajectories import Trajectory, read_tum_trajectory

    truth = path.with_name("truth.txt")
    make_truth(truth)
    known, config = read_ground_truth(truth), TrajectoryConfig()
    found: dict[str, Trajectory] = {path.stem: read_tum_trajectory(path)}
    evaluation = evaluate_trajectory(found, known, config, files={path.stem: path}, environment={})
    evaluation.write(path.with_name("results.json"))
    if random.Random(path.parent.name).random() < 0.1:  # pictures take half a second
        trajectory_pictures(found, known, config)
    return read_ground_truth(path)


def make_truth(path: Path) -> None:
    from semkey.geometry.trajectories import Trajectory, write_tum_trajectory

    write_tum_trajectory(path, Trajectory(np.arange(40.0) / 10 + 1e9, np.stack(walk(40))))


# -- data of others ------------------------------------------------------------------------------------------------


def make_npz(folder: Path) -> list[Path]:
    K, pose = np.diag([500.0, 500.0, 1.0]), np.eye(4)
    columns: dict[str, list[Any]] = {
        "image_paths": ["a.png", "b.png", None],
        "intrinsics": [K, K, None],
        "poses": [pose, pose, None],
        "pair_infos": [((0, 1), 0.5, np.zeros((3, 4))), ((1, 0), 0.5, np.zeros((3, 4)))],
    }
    path = folder / "scene.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # stored, so that damage reaches the arrays
        for name, items in columns.items():
            array = np.empty(len(items), dtype=object)
            array[:] = items
            buffer = io.BytesIO()
            np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": array.shape})
            pickle.dump(array, buffer, protocol=4)
            archive.writestr(f"{name}.npy", buffer.getvalue())
        plain = io.BytesIO()
        np.lib.format.write_array(plain, np.arange(6.0).reshape(2, 3), allow_pickle=False)
        archive.writestr("overlap.npy", plain.getvalue())
    return [path]


def mutate_members(data: bytes, rng: random.Random) -> bytes:
    """An archive with one member changed, and the checksum of it right."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as changed:
        chosen = rng.choice(archive.namelist())
        for name in archive.namelist():
            member = archive.read(name)
            changed.writestr(name, mutate_bytes(member, rng) if name == chosen else member)
    return result.getvalue()


def use_npz(path: Path) -> object:
    from semkey.evaluation.data.megadepth import convert_megadepth

    return convert_megadepth(path.parent, path.parent / "list.txt")


def make_pairs(folder: Path) -> list[Path]:
    numbers = [
        *np.diag([500.0, 500.0, 1.0]).reshape(-1),
        *np.diag([500.0, 500.0, 1.0]).reshape(-1),
        *np.eye(4).reshape(-1),
    ]
    line = " ".join(["a.png", "b.png", "0", "0", *(f"{value:g}" for value in numbers)])
    (folder / "pairs.txt").write_text(f"{line}\n{line.replace('a.png', 'c.png')}\n")
    return [folder / "pairs.txt"]


def use_pairs(path: Path) -> object:
    from semkey.evaluation.data.pair_lists import read_pair_list

    return list(read_pair_list(path))


def make_calibrations(folder: Path) -> list[Path]:
    (folder / "camera.yaml").write_bytes(CALIBRATION)
    use_calibration(folder / "camera.yaml")
    return [folder / "camera.yaml"]


def use_calibration(path: Path) -> object:
    from semkey.datasets.cameras.calibration import optics_for
    from semkey.datasets.cameras.formats.reading import read_calibration

    calibration = read_calibration(path)
    try:
        return optics_for(calibration, (320, 240))
    except ConfigError as error:  # about another image size: the caller names the file
        raise ConfigError(f"{path}: {error}") from None


def make_features(folder: Path) -> list[Path]:
    from semkey.evaluation.running.feature_cache import _write
    from semkey.model.features import Features

    features = Features(
        keypoints=torch.rand(9, 2) * 50,
        scores=torch.rand(9),
        reliability=torch.rand(9),
        descriptors=torch.nn.functional.normalize(torch.rand(9, 4)),
        global_descriptor=torch.zeros(3),
        image_size=(64, 64),
    )
    _write(folder / "features.safetensors", features)
    return [folder / "features.safetensors"]


def use_features(path: Path) -> object:
    """A damaged entry is none: it is computed anew."""
    from semkey.evaluation.running.feature_cache import _read

    found = _read(path)
    assert found is None or bool(torch.isfinite(found.keypoints).all()), "a damaged entry was taken"
    return found


TARGETS = {
    "checkpoint": Target(
        make=make_checkpoints, mutations=(mutate_bytes, mutate_safetensors, mutate_safetensors), use=use_checkpoint
    ),
    "training-state": Target(
        make=make_states, mutations=(mutate_bytes, mutate_members), use=use_state, names_file=False
    ),
    "training-yaml": Target(make=make_configs, mutations=(mutate_bytes, mutate_yaml, mutate_yaml), use=use_config),
    "results": Target(make=make_results, mutations=(mutate_bytes, mutate_json, mutate_json), use=use_results),
    "rows": Target(make=make_rows, mutations=(mutate_bytes, mutate_text), use=use_rows),
    "map": Target(make=make_maps, mutations=(mutate_bytes, mutate_map, mutate_map, mutate_safetensors), use=use_map),
    "trajectory": Target(
        make=make_trajectories, mutations=(mutate_bytes, mutate_text, mutate_text), use=use_trajectory
    ),
    "npz": Target(make=make_npz, mutations=(mutate_bytes, mutate_members, mutate_members), use=use_npz),
    "pair-list": Target(make=make_pairs, mutations=(mutate_bytes, mutate_text), use=use_pairs),
    "calibration": Target(make=make_calibrations, mutations=(mutate_bytes, mutate_yaml), use=use_calibration),
    "features": Target(make=make_features, mutations=(mutate_bytes, mutate_safetensors), use=use_features),
}
