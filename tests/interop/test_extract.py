"""Features of many images: hloc's layout, resuming after a kill, broken images, processes and Ray workers that die."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import bulk_fakes
import semkey
from command_line import Run
from pictures import blocks
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.images import write_image
from semkey.interop import bulk_workers
from semkey.interop.bulk import BulkConfig, extract_many, list_source
from semkey.interop.bulk_workers import ExtractionJob
from semkey.interop.hloc import read_features

h5py = pytest.importorskip("h5py", reason="h5py comes with the extra h5")

ORB = ExtractionJob(features="orb", max_keypoints=80)


def photos(folder: Path, count: int = 6) -> Path:
    for k in range(count):
        write_image(folder / (f"day/{k}.png" if k % 2 else f"{k}.png"), blocks(96, 128, seed=k, size=6))
    return folder


def content(path: Path) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, entry: (
                found.setdefault(name.rpartition("/")[0], {}).update({name.rpartition("/")[2]: entry[()]})
                if isinstance(entry, h5py.Dataset)
                else None
            )
        )
    return found


def same(first: Path, second: Path) -> None:
    a, b = content(first), content(second)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].keys() == b[name].keys()
        for key in a[name]:
            np.testing.assert_array_equal(a[name][key], b[name][key])


# -- the file ------------------------------------------------------------------------------------------------------


def test_hloc_layout(run: Run, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "features.h5"
    outcome = run("extract", folder, "--out", out, "--features", "orb", "-n", 80)
    assert (outcome.code, outcome.err) == (0, "")
    assert "6 of 6 images extracted" in outcome.out
    detector = semkey.load("orb", max_keypoints=80)
    with h5py.File(out, "r") as file:
        for name in ("0.png", "day/1.png"):
            group, features = file[name], detector.extract(folder / name)
            # As hloc reads them; it adds COLMAP's half pixel when it fills a database.
            assert group["keypoints"].dtype == np.float32
            np.testing.assert_array_equal(group["keypoints"].__array__(), features.keypoints.numpy())
            np.testing.assert_array_equal(group["descriptors"].__array__(), features.descriptors.numpy().T)
            np.testing.assert_array_equal(group["scores"].__array__(), features.scores.numpy())
            assert group["image_size"].__array__().tolist() == [128, 96]
    back = read_features(out, "day/1.png")
    assert back.method == "orb"
    np.testing.assert_array_equal(back.keypoints, features.keypoints)
    np.testing.assert_array_equal(back.descriptors, features.descriptors)
    assert sorted(content(out)) == ["0.png", "2.png", "4.png", "day/1.png", "day/3.png", "day/5.png"]
    with pytest.raises(InputError, match=r"holds no image 'day/2\.png'"):
        read_features(out, "day/2.png")


def test_a_folder_of_files_holds_the_same(tmp_path: Path) -> None:
    images = list_source(photos(tmp_path / "photos"))
    extract_many(images, tmp_path / "all.h5", ORB)
    extract_many(images, tmp_path / "each", ORB)
    for name, arrays in content(tmp_path / "all.h5").items():
        with np.load(tmp_path / f"each/{name}.npz") as stored:
            assert set(stored.files) == set(arrays)
            for key in stored.files:
                np.testing.assert_array_equal(stored[key], arrays[key])
    again = extract_many(images, tmp_path / "each", ORB)
    assert (again.kept, again.extracted) == (6, 0)


def test_pycolmap_finds_the_pose_between_two_views(tmp_path: Path, shared: Path) -> None:
    """The consumer behind hloc: keypoints with the half pixel, matches, and a two-view geometry."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap comes with the extra colmap")
    folder = shared / "data/7scenes/redkitchen/seq-01"
    sequence = semkey.open_sequence(folder)
    camera = sequence.camera
    assert camera is not None
    out = tmp_path / "features.h5"
    names = [sequence.image_name(0), sequence.image_name(8)]
    (tmp_path / "pair.txt").write_text("\n".join(names))
    images = list_source(tmp_path / "pair.txt", folder)
    extract_many(images, out, ExtractionJob(features="sift", max_keypoints=800))
    matches = semkey.match(*(read_features(out, name) for name in names)).indices.numpy()
    with h5py.File(out, "r") as file:
        points = [file[name]["keypoints"].__array__() + 0.5 for name in names]
    colmap = pycolmap.Camera(
        model="PINHOLE", width=camera.width, height=camera.height,
        params=[camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5],
    )  # fmt: skip
    geometry = pycolmap.estimate_calibrated_two_view_geometry(
        colmap, points[0].astype(np.float64), colmap, points[1].astype(np.float64), matches.astype(np.uint32)
    )
    float_points = [side.astype(np.float64) for side in points]
    assert pycolmap.estimate_two_view_geometry_pose(colmap, float_points[0], colmap, float_points[1], geometry)
    found = geometry.cam2_from_cam1.rotation.matrix()
    first, second = sequence.ground_truth[0], sequence.ground_truth[8]
    assert first is not None
    assert second is not None
    truth = (np.linalg.inv(second) @ first)[:3, :3]
    angle = np.degrees(np.arccos(np.clip((np.trace(found.T @ truth) - 1) / 2, -1, 1)))
    assert len(geometry.inlier_matches) > 100
    assert len(geometry.inlier_matches) > 0.5 * len(matches)
    assert angle < 4.0  # a short baseline: turning and moving look alike


# -- lists, broken images, other jobs ------------------------------------------------------------------------------


def test_lists_and_names(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    listing = tmp_path / "list.txt"
    listing.write_text("# query\nday/3.png\n0.png\n\n")
    assert list_source(listing, folder) == [("day/3.png", folder / "day/3.png"), ("0.png", folder / "0.png")]
    for text, message in (
        ("a.png\na.png\n", "lists a.png twice"),
        ("../a.png\n", "leaves the folder"),
        ("#\n", "no images"),
    ):
        listing.write_text(text)
        with pytest.raises(InputError, match=message):
            list_source(listing)
    assert [name for name, _ in list_source(folder)] == [
        "0.png",
        "2.png",
        "4.png",
        "day/1.png",
        "day/3.png",
        "day/5.png",
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="no images in this folder"):
        list_source(empty)


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_named_at_the_end(run: Run, tmp_path: Path, workers: int) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "features.h5"
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:100])
    (folder / "day/x.jpg").write_bytes(b"")
    outcome = run("extract", folder, "-o", out, "--features", "orb", "--workers", workers, "--chunk", 2)
    assert outcome.code == 3
    found = outcome.err.splitlines()  # slow work says between them how far it is
    lines = [line for line in found if line.startswith("broken: ") or line.endswith("cannot be used")]
    assert [line.split()[1] for line in lines[:2]] == [str(folder / "2.png"), str(folder / "day/x.jpg")]
    assert lines[2] == "2 of 7 images cannot be used"
    assert len(content(out)) == 5
    photos(folder)  # repaired
    (folder / "day/x.jpg").unlink()
    outcome = run("extract", folder, "-o", out, "--features", "orb")
    assert (outcome.code, len(content(out))) == (0, 6)
    assert "1 of 6 images extracted, 5 were there" in outcome.out


def test_another_job_is_refused(tmp_path: Path) -> None:
    images = list_source(photos(tmp_path / "photos", 2))
    for out in (tmp_path / "a.h5", tmp_path / "a"):
        extract_many(images, out, ORB)
        with pytest.raises(ConfigError, match="was made with max_keypoints 80, not 81"):
            extract_many(images, out, ORB.with_changes(["max_keypoints=81"]))
        with pytest.raises(ConfigError, match="was made with features orb, not sift"):
            extract_many(images, out, ExtractionJob(features="sift", max_keypoints=80))
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="no HDF5 file of features"):
        extract_many(images, tmp_path / "text.h5", ORB)
    assert (tmp_path / "text.h5").read_text() == "no HDF5"
    with pytest.raises(InputError, match="folder with other things in it"):
        extract_many(images, tmp_path, ORB)


# -- killed, and workers that die ----------------------------------------------------------------------------------


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos", 60), tmp_path / "features.h5"
    command = [
        sys.executable,
        "-m",
        "semkey",
        "extract",
        folder,
        "-o",
        out,
        "--features",
        "orb",
        "-n",
        "80",
        "--chunk",
        "2",
    ]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    parts = tmp_path / "features.h5.parts"
    deadline = time.monotonic() + 50
    while len(list(parts.glob("*.npz"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it was killed"
    assert not out.exists()
    images = list_source(folder)
    summary = extract_many(images, out, ORB, BulkConfig(chunk=2))
    assert summary.kept >= 6
    assert summary.kept + summary.extracted == 60
    assert not parts.exists()
    extract_many(images, tmp_path / "at-once.h5", ORB)
    same(out, tmp_path / "at-once.h5")


def deadly_photos(folder: Path) -> list[tuple[str, Path]]:
    photos(folder, 12)
    for name, value in (("4.png", bulk_fakes.ONCE), ("day/7.png", bulk_fakes.ALWAYS)):
        image = blocks(96, 128, seed=1, size=6)
        image[0, 0] = value
        write_image(folder / name, image)
    return list_source(folder)


DEADLY = ExtractionJob(features="bulk_fakes:deadly", max_keypoints=50, device="cpu")


def check_deadly(images: list[tuple[str, Path]], out: Path, config: BulkConfig) -> None:
    counted: list[int] = []
    summary = extract_many(images, out, DEADLY, config, progress=lambda done, total: counted.append(done))
    assert [name for name, _ in summary.broken] == ["day/7.png"]
    assert "ended its worker" in summary.broken[0][1]
    assert summary.extracted == 11  # nothing lost, nothing twice
    assert counted[-1] == 12
    assert counted == sorted(counted)
    assert set(content(out)) == {name for name, _ in images} - {"day/7.png"}
    whole = semkey.load("orb", max_keypoints=50)
    for name, path in images:
        if name != "day/7.png":
            np.testing.assert_array_equal(content(out)[name]["keypoints"], whole.extract(path).keypoints.numpy())


@pytest.mark.slow
def test_processes_that_die_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bulk_fakes.MARKER, str(tmp_path / "died"))
    images = deadly_photos(tmp_path / "photos")
    check_deadly(images, tmp_path / "features.h5", BulkConfig(workers=2, chunk=3))
    assert (tmp_path / "died").exists()


def test_a_pool_that_breaks_before_it_takes_a_chunk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        """Takes two chunks, and has lost a worker when it is given the third."""

        def __init__(self, workers: int) -> None:
            self.left = 2 if workers > 1 else 100
            self.is_broken = workers > 1

        def submit(self, call: Callable[..., object], *arguments: object) -> Future[object]:
            if not self.left:
                raise BrokenProcessPool
            self.left -= 1
            future: Future[object] = Future()
            if self.is_broken:
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(call(*arguments))
            return future

        def shutdown(self, **_: object) -> None:
            self.is_broken = True

    pools: list[int] = []

    def pool_of(workers: int) -> Pool:
        pools.append(workers)
        return Pool(workers if pools.count(2) < 2 else 1)

    monkeypatch.setattr(bulk_workers, "_pool", pool_of)
    images = list_source(photos(tmp_path / "photos", 6))
    chunks = [[image] for image in images]
    results = list(bulk_workers.run_in_processes(ORB, chunks, 2))
    assert sorted(name for result in results for name, _ in result.found) == sorted(name for name, _ in images)


def test_an_image_is_broken_only_when_two_workers_of_its_own_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a pool the one image's worker may end before the other image, deadly once, was begun: it is a suspect that has
    # done nothing yet, and its first death comes when it is alone.
    deaths = {"0.png": 1, "day/1.png": 2}

    class Pool:
        """Loses every worker that is given an image with deaths left."""

        def submit(self, call: Callable[..., object], job: ExtractionJob, chunk: list[tuple[str, Path]]) -> object:
            future: Future[object] = Future()
            name = chunk[0][0]
            if deaths.get(name, 0):
                deaths[name] -= 1
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(call(job, chunk))
            return future

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr(bulk_workers, "_pool", lambda workers: Pool())
    images = list_source(photos(tmp_path / "photos", 3))
    results = list(bulk_workers._one_by_one(ORB, images))
    assert sorted(name for result in results for name, _ in result.found) == ["0.png", "2.png"]
    assert [name for result in results for name, _ in result.broken] == ["day/1.png"]
    assert deaths == {"0.png": 0, "day/1.png": 0}


@pytest.mark.slow
def test_ray_workers_that_die_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk_fakes.for_ray(monkeypatch, tmp_path / "died")
    images = deadly_photos(tmp_path / "photos")
    try:
        check_deadly(images, tmp_path / "features.h5", BulkConfig(workers=2, chunk=6, ray="local"))
    except ConfigError as error:
        bulk_fakes.skip_where_ray_is_too_slow(error)
        raise
    assert (tmp_path / "died").exists()


def test_no_cluster_is_one_line(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray comes with the extra ray")
    folder = photos(tmp_path / "photos", 2)
    outcome = run("extract", folder, "-o", tmp_path / "f.h5", "--features", "orb", "--ray", "nowhere")
    assert outcome.code == 2
    assert "no Ray cluster there" in outcome.err
    assert not (tmp_path / "f.h5").exists()
