"""Images to a COLMAP reconstruction, compared with the true poses."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from command_line import Run
from saved_room import SavedRoom
from semkey.datasets.cameras.lens import Lens
from semkey.geometry.trajectories import Trajectory
from semkey.metrics.trajectory import absolute_trajectory_error

pycolmap = pytest.importorskip("pycolmap", reason="comes with the extra colmap")
pytest.importorskip("h5py", reason="comes with the extra h5")


@pytest.fixture(scope="module")
def photos(room: SavedRoom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second image of the recording."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((room.folder / "rgb").iterdir())[::2]:
        shutil.copy(path, folder / path.name)
    return folder


def test_a_recording_becomes_a_database_and_a_model(run: Run, room: SavedRoom, photos: Path, tmp_path: Path) -> None:
    fx, fy, cx, cy = map(float, (room.folder / "camera.txt").read_text().splitlines()[1].split())
    out = tmp_path / "out"
    outcome = run(
        "colmap", photos, "--out", out, "--features", "nano", "--sequential", "5", "--camera", f"{fx},{fy},{cx},{cy}"
    )
    assert outcome.code == 0, outcome.err
    model = pycolmap.Reconstruction(str(out / "sparse/0"))
    count = len(list(photos.iterdir()))
    assert f"{model.num_reg_images()} of {count}" in outcome.out
    assert model.num_reg_images() >= count - 2
    assert model.num_points3D() > 150
    assert model.compute_mean_reprojection_error() < 1.5
    (camera,) = model.cameras.values()
    assert camera.params.tolist() == pytest.approx([fx, fy, cx + 0.5, cy + 0.5]), "a given camera is kept"
    # Keypoints, matches and verified pairs are in the database for COLMAP's own programs.
    with pycolmap.Database.open(out / "database.db") as database:
        assert database.num_images() == count
        assert database.num_keypoints() > 200 * count
        assert database.num_verified_image_pairs() >= count - 2
    again = run("colmap", photos, "--out", out, "--features", "nano")
    assert again.code == 2
    assert "holds a reconstruction" in again.err


@pytest.mark.slow
def test_photos_around_an_object_are_placed_where_they_were(run: Run, shared: Path, tmp_path: Path) -> None:
    source = shared / "data/posed-photos/toy/transforms.json"
    frames = sorted(json.loads(source.read_text())["frames"], key=lambda frame: frame["file_path"])[::4]
    (tmp_path / "photos").mkdir()
    for frame in frames:
        shutil.copy(source.parent / frame["file_path"], tmp_path / "photos")
    given = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"])[:3, 3] for frame in frames}
    outcome = run(
        "colmap",
        tmp_path / "photos",
        "-o",
        tmp_path / "out",
        "--features",
        "nano",
        "--sequential",
        5,
        "--camera",
        source,
    )
    assert outcome.code == 0, outcome.err
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    # Pairs of opposite sides have enough inliers by chance for COLMAP; with them all were registered, and half of them
    # 0.7 units or more from their places.
    assert model.num_reg_images() >= 20
    names = sorted(image.name for image in model.images.values())
    centres = {image.name: image.projection_center() for image in model.images.values()}

    def as_trajectory(places: dict[str, np.ndarray]) -> Trajectory:
        poses = np.tile(np.eye(4), (len(names), 1, 1))
        poses[:, :3, 3] = [places[name] for name in names]
        return Trajectory(np.arange(len(names), dtype=float), poses)

    truth = as_trajectory(given)
    error = absolute_trajectory_error(as_trajectory(centres), truth, alignment="sim3")
    assert error.statistics.median < 0.01 * float(np.ptp(truth.positions, axis=0).max())


def test_colmap_tells_how_far_it_is_and_hears_ctrl_c(photos: Path, tmp_path: Path) -> None:
    from semkey.extractors import load
    from semkey.interop.colmap_mapping import reconstruct, write_database
    from semkey.interop.match_folder import match_folder
    from semkey.matching import create_matcher
    from semkey.matching.image_pairs import sequential_pairs

    count = len(list(photos.iterdir()))
    wanted = sequential_pairs(count, 4)
    detector = load("nano", max_keypoints=400)
    matched = match_folder(photos, tmp_path / "matches", detector, create_matcher("mnn"), lambda *_: wanted)
    pairs = [(matched.images[i], matched.images[j]) for i, j in wanted]
    told: list[tuple[int, int, str]] = []

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    database = tmp_path / "database.db"
    with pytest.raises(KeyboardInterrupt):
        write_database(database, photos, matched, pairs, lens=None, single=True, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["matches"], "nothing half-written stays"
    tell = lambda *values: told.append(values)  # noqa: E731 (as a progress bar is called)
    write_database(database, photos, matched, pairs, lens=None, single=True, progress=tell)
    assert told == [(done, len(pairs), "verifying") for done in (*range(32, len(pairs), 32), len(pairs))]
    with pytest.raises(KeyboardInterrupt):
        reconstruct(tmp_path / "stopped", photos, database, count, progress=stop)
    assert not (tmp_path / "stopped").exists()
    result = reconstruct(tmp_path / "sparse", photos, database, count, progress=tell)
    assert result.registered > 2
    assert result.registered <= told[-1][0] <= count
    assert told[-1][1:] == (count, "placing")


def test_what_a_watched_call_gives_raises_and_hears() -> None:
    from semkey.interop.colmap_running import run_watched

    class Token:
        def __init__(self) -> None:
            self.event = threading.Event()

        def cancel(self) -> None:
            self.event.set()

    def fails() -> None:
        raise ValueError("of the call")

    assert run_watched(lambda: 7, lambda: None) == 7
    with pytest.raises(ValueError, match="of the call"):
        run_watched(fails, lambda: None)
    token = Token()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_watched(lambda: token.event.wait(30), interrupted, token)
    assert token.event.is_set()


def test_verified_pairs_are_the_same_every_time(photos: Path, tmp_path: Path) -> None:
    from semkey.extractors import load
    from semkey.interop.colmap_mapping import write_database
    from semkey.interop.match_folder import match_folder
    from semkey.matching import create_matcher

    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:6:2]:
        shutil.copy(path, few / path.name)
    matcher = create_matcher("mnn", features="orb")
    wanted = [(0, 1), (0, 2), (1, 2)]
    matched = match_folder(few, tmp_path / "matches", load("orb", max_keypoints=300), matcher, lambda *_: wanted)
    pairs = [(matched.images[i], matched.images[j]) for i, j in wanted]
    found = []
    for number, seed in enumerate((0, 0, 1)):
        write_database(tmp_path / f"{number}.db", few, matched, pairs, lens=None, single=True, seed=seed)
        with pycolmap.Database.open(tmp_path / f"{number}.db") as database:
            _, geometries = database.read_two_view_geometries()
            found.append([geometry.inlier_matches.tolist() for geometry in geometries])
    assert len(found[0]) == 3
    assert min(len(inliers) for inliers in found[0]) > 15
    assert found[0] == found[1]


def test_keypoints_are_half_a_pixel_further_in_the_database(photos: Path, tmp_path: Path) -> None:
    from semkey.extractors import load
    from semkey.interop.colmap_mapping import write_database
    from semkey.interop.match_folder import match_folder
    from semkey.matching import create_matcher

    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:2]:
        shutil.copy(path, few / path.name)
    detector = load("orb", max_keypoints=150)
    matched = match_folder(
        few, tmp_path / "matches", detector, create_matcher("mnn", features="orb"), lambda *_: [(0, 1)]
    )
    database_file = tmp_path / "database.db"
    write_database(database_file, few, matched, [(matched.images[0], matched.images[1])], lens=None, single=True)
    with pycolmap.Database.open(database_file) as database:
        image = database.read_image_with_name(matched.images[0])
        stored = database.read_keypoints(image.image_id)
        matches = database.read_matches(image.image_id, database.read_image_with_name(matched.images[1]).image_id)
    expected = detector.extract(few / matched.images[0]).keypoints.numpy()
    np.testing.assert_allclose(stored[:, :2], expected + 0.5, atol=1e-5)
    assert len(matches) == matched.matches
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db", "few", "matches"]


def test_images_without_anything_in_common_end_with_a_sentence(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3)).astype(np.float32), (0, 0), 2)
        cv2.imwrite(str(folder / f"{number}.png"), np.clip((noise - 128) * 6 + 128, 0, 255).astype(np.uint8))
    outcome = run("colmap", folder, "--out", tmp_path / "out", "--features", "orb", "--exhaustive")
    assert outcome.code == 3
    assert "nothing could be reconstructed" in outcome.err
    assert (tmp_path / "out/database.db").is_file()


def test_lenses_are_colmaps_models() -> None:
    from semkey.interop.colmap_mapping import camera_parameters

    size, intrinsics = (640, 480), (500.0, 501.0, 319.5, 239.5)
    model, parameters = camera_parameters(
        Lens(model="radial-tangential", intrinsics=intrinsics, distortion=(0.1, -0.05, 1e-3, -2e-3), size=size)
    )
    lens = Lens(model="radial-tangential", intrinsics=intrinsics, distortion=(0.1, -0.05, 1e-3, -2e-3), size=size)
    camera = pycolmap.Camera(model=model, width=640, height=480, params=parameters)
    rays = np.array([[0.2, -0.1, 1.0], [-0.4, 0.3, 1.0]])
    for ray in rays:
        np.testing.assert_allclose(camera.img_from_cam(ray), lens.project(ray)[0] + 0.5, atol=1e-9)
    five = Lens(model="radial-tangential", intrinsics=intrinsics, distortion=(0.1, -0.05, 1e-3, -2e-3, 0.02), size=size)
    model, parameters = camera_parameters(five)
    camera = pycolmap.Camera(model=model, width=640, height=480, params=parameters)
    np.testing.assert_allclose(camera.img_from_cam(rays[1]), five.project(rays[1])[0] + 0.5, atol=1e-9)
    fish = Lens(model="fisheye", intrinsics=intrinsics, distortion=(0.02, -0.01, 0.003, -0.001), size=size)
    model, parameters = camera_parameters(fish)
    camera = pycolmap.Camera(model=model, width=640, height=480, params=parameters)
    np.testing.assert_allclose(camera.img_from_cam(rays[1]), fish.project(rays[1])[0] + 0.5, atol=1e-9)


def test_an_image_of_another_size_than_its_camera_is_named(photos: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(photos.iterdir())[:2]:
        shutil.copy(path, folder / path.name)
    image = cv2.imread(str(folder / sorted(path.name for path in folder.iterdir())[1]))
    assert image is not None
    cv2.imwrite(str(folder / "z.png"), image[:100])
    outcome = run("colmap", folder, "--out", tmp_path / "out", "--features", "orb", "--exhaustive", "--single-camera")
    assert outcome.code == 2
    assert "z.png" in outcome.err
    assert not (tmp_path / "out/database.db").exists()
