"""match-all and eval on a local Ray of two workers, one of which is killed: nothing is lost, nothing is done twice."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import bulk_fakes
import semkey
from command_line import Run
from pictures import blocks
from semkey.cluster import Cluster, Lost
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.extractors import create_extractor
from semkey.images import write_image
from semkey.interop.match_folder import match_folder
from semkey.interop.match_workers import FolderWorkers
from semkey.matching import create_matcher
from semkey.matching.image_pairs import exhaustive_pairs

h5py = pytest.importorskip("h5py", reason="h5py comes with the extra h5")

DETECTOR = partial(create_extractor, "bulk_fakes:deadly", max_keypoints=80, device="cpu")


def everything(names, descriptors):
    return exhaustive_pairs(len(names))


def dump(path: Path) -> dict[str, list]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tolist()} if hasattr(item, "shape") else {}))
    return found


def photos(folder: Path, count: int = 12) -> Path:
    wide = blocks(120, 220, seed=2, size=6)
    for k in range(count):
        image = wide[:96, 4 * k : 4 * k + 128].copy()
        image[0, 0] = bulk_fakes.ONCE if k == 5 else 0
        write_image(folder / f"{k}.png", image)
    return folder


@pytest.mark.slow
def test_match_all_with_a_worker_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk_fakes.for_ray(monkeypatch, tmp_path / "died")
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    workers = FolderWorkers(
        cluster=Cluster(address="local", workers=2), detector=DETECTOR, matcher=bulk_fakes.deadly_matcher
    )
    told: list[tuple[int, int, str]] = []
    try:
        result = match_folder(
            folder,
            out,
            DETECTOR(),
            create_matcher("mnn"),
            everything,
            workers=workers,
            progress=lambda *t: told.append(t),
        )
    except ConfigError as error:
        bulk_fakes.skip_where_ray_is_too_slow(error)
        raise
    assert (tmp_path / "died").exists()
    assert (tmp_path / "died-matching").exists()
    assert told[:12] == [(k, 12, "extracting") for k in range(1, 13)]  # nothing lost, nothing twice
    assert told[-1] == (66, 66, "matching")
    assert result.pairs == 66
    here = tmp_path / "here"  # the marker is there: nothing dies any more
    match_folder(folder, here, DETECTOR(), create_matcher("mnn"), everything)
    for name in ("features.h5", "matches.h5"):
        assert dump(out / name) == dump(here / name)
    assert sum(len(values) for values in dump(out / "matches.h5").values()) > 500


@pytest.mark.slow
def test_eval_with_a_worker_killed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk_fakes.for_ray(monkeypatch, tmp_path / "died")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    planar = tmp_path / "planar"
    wide = blocks(140, 220, seed=2, size=6)
    for k in range(1, 7):
        image = wide[:128, 6 * k : 6 * k + 160].copy()
        image[0, 0] = bulk_fakes.ONCE if k == 4 else 0
        write_image(planar / f"img{k}.png", image)
        if k > 1:
            np.savetxt(planar / f"H1to{k}p", [[1, 0, -6.0 * (k - 1)], [0, 1, 0], [0, 0, 1]])
    command = ("eval", "planar", planar, "--methods", "bulk_fakes:deadly,orb", "--keypoints", 60, "--no-cache")
    spread = run(*command, "--out", tmp_path / "spread", "--ray", "local", "--workers", 2)
    bulk_fakes.skip_where_ray_is_too_slow(spread.err)
    assert spread.code == 0, spread.err
    assert (tmp_path / "died").exists()
    here = run(*command, "--out", tmp_path / "here")
    assert here.code == 0, here.err
    assert spread.out == here.out
    files = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here/rows").rglob("*.jsonl"))
    assert len(files) == 2
    for file in files:
        expected, found = ((tmp_path / part / file).read_text().splitlines() for part in ("here", "spread"))
        assert len(expected) == 6  # the key and five pairs
        assert sorted(found) == sorted(expected)
    again = run(*command, "--out", tmp_path / "spread")  # its rows count without Ray as well
    assert again.out == here.out


class Forgetful(Cluster):
    """Runs here, and loses what has this image in it."""

    def connected(self):
        return nullcontext()

    def run(self, call, tasks, *, send, parts):
        for work in tasks:
            for part in parts(work):
                yield part, (Lost() if "1.png" in part else call(*send(part)))


def test_what_kills_every_worker_is_named(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 4)
    (folder / "2.png").write_bytes(b"no image")
    workers = FolderWorkers(
        cluster=Forgetful(address="here"),
        detector=partial(create_extractor, "orb", max_keypoints=80),
        matcher=partial(create_matcher, "mnn"),
    )
    told: list[int] = []
    with pytest.raises(DatasetError, match=r"2 of 4 images cannot be used: ") as raised:
        match_folder(
            folder, tmp_path / "out", semkey.load("orb", max_keypoints=80), create_matcher("mnn"), everything,
            workers=workers, progress=lambda done, total, what: told.append(done),
        )  # fmt: skip
    assert f"{folder / '1.png'}: ended its worker each time" in str(raised.value)
    assert str(folder / "2.png") in str(raised.value)
    assert told == [1, 2, 3, 4]


def test_options_that_do_not_go_together(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    done = run("match-all", folder, "--exhaustive", "-f", "orb", "-o", tmp_path / "out", "--workers", 2)
    assert done.code == 2
    assert "--workers is a number from 1 on, with --ray local" in done.err
    pytest.importorskip("ray", reason="ray comes with the extra ray")
    done = run("eval", "homographies", folder, "-m", "orb", "-o", tmp_path / "eval", "--count", 1, "--ray", "nowhere")
    assert done.code == 2
    assert "no Ray cluster there" in done.err


def test_errors_of_workers_are_those_of_semkey() -> None:
    from semkey import cluster

    def fails() -> None:
        raise InputError("one line")

    error, result = cluster._guarded(fails)
    assert (str(error), result) == ("one line", None)
    assert cluster._guarded(int, "3") == (None, 3)
