from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.photo_folders import find_photos
from semkey.evaluation.data.speed_images import MAX_IMAGES, fitted, speed_images, synthetic_views
from semkey.evaluation.kinds.speed import SpeedConfig, run_speed
from semkey.evaluation.running.memory import MemoryMeasurementError, MemoryUse, measure_memory
from semkey.evaluation.running.methods import Method, create_method
from semkey.evaluation.running.results import Evaluation
from semkey.images.writing import write_image
from semkey.matching.mutual import Matches
from semkey.model.features import Features


class Clock:
    """Stands still unless it is told how much time passed."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("semkey.evaluation.kinds.speed.perf_counter", clock)
    return clock


class Worker:
    """Takes ``extract_ms[i]`` for its i-th image, and notes what it was given."""

    def __init__(
        self, name: str, *, clock: Clock, log: list[str] | None = None, extract_ms: Any = (), match_ms: float = 1
    ) -> None:
        self.name, self.clock, self.log = name, clock, [] if log is None else log
        self.extract_ms, self.match_ms = list(extract_ms), match_ms
        self.images: list[np.ndarray] = []

    def extract(self, image: Any) -> Features:
        self.clock.now += self.extract_ms[len(self.images)] / 1e3 if self.extract_ms else 0.001
        self.log.append(self.name)
        self.images.append(image)
        return Features(
            keypoints=torch.full((5, 2), float(len(self.images))),
            scores=torch.ones(5),
            reliability=torch.ones(5),
            descriptors=torch.ones(5, 1),
            global_descriptor=torch.zeros(0),
            image_size=(image.shape[1], image.shape[0]),
        )

    def match(self, features0: Features, features1: Features) -> Matches:
        self.clock.now += self.match_ms / 1e3
        # The round before against this one.
        assert float(features1.keypoints[0, 0]) == float(features0.keypoints[0, 0]) + 1
        return Matches(indices=torch.zeros((0, 2), dtype=torch.int64), scores=torch.zeros(0))

    def method(self) -> Method:
        extraction = {"parameters": 2_000_000, "weights_bytes": 4_500_000}
        return Method(name=self.name, extractor=self, matcher=self.match, extraction=extraction)


def test_times_and_ratios_by_hand(tmp_path: Path, clock: Clock) -> None:
    # One image before the rounds and two rounds of warming up (900 ms each) do not count.
    fast = Worker("fast", clock=clock, extract_ms=[900, 900, 900, 1, 2, 3, 4, 50], match_ms=2)
    slow = Worker("slow", clock=clock, extract_ms=[900, 900, 900, 10, 10, 10, 10, 100], match_ms=8)
    config = SpeedConfig(sizes=((64, 48),), rounds=5, warmup=2, reference="slow")
    seen: list[tuple[int, int, str]] = []
    evaluation = run_speed(
        [fast.method(), slow.method()], config, environment={}, progress=lambda *step: seen.append(step)
    )
    result = evaluation.results["fast"]["64x48"]
    metrics = result.metrics
    assert metrics["extract_ms"] == pytest.approx(3)
    assert metrics["extract_fastest_ms"] == pytest.approx(1)
    assert metrics["extract_iqr_ms"] == pytest.approx(2)  # from 2 to 4
    # Per round 0.1, 0.2, 0.3, 0.4, 0.5: the slow last round hit both.
    assert metrics["extract_ratio"] == pytest.approx(0.3)
    assert [row["extract_ratio"] for row in result.rows] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert metrics["match_ms"] == pytest.approx(2)
    assert metrics["match_iqr_ms"] == pytest.approx(0)
    assert metrics["match_ratio"] == pytest.approx(0.25)
    assert result.intervals["match_ratio"] == pytest.approx((0.25, 0.25))
    low, high = result.intervals["extract_ratio"]
    assert 0.1 <= low < 0.3 < high <= 0.5
    assert metrics["keypoints"] == 5
    assert metrics["parameters_m"] == 2.0
    assert metrics["weights_mb"] == 4.5
    assert math.isnan(metrics["memory_mb"])
    assert result.count == len(result.rows) == 5
    assert result.curves["rounds"].y == pytest.approx([1, 2, 3, 4, 50])
    assert evaluation.results["slow"]["64x48"].metrics["extract_ratio"] == 1.0
    assert evaluation.options["reference"] == "slow"
    assert [step[:2] for step in seen] == [(done, 7) for done in range(8)]
    evaluation.write(tmp_path / "results.json")
    read = Evaluation.read(tmp_path / "results.json")
    assert read.results["fast"]["64x48"].metrics == pytest.approx(metrics, nan_ok=True)


def test_a_real_wait_is_seen() -> None:
    worker = Worker("a", clock=Clock())
    extract = worker.extract

    def slow_extract(image: Any) -> Features:
        time.sleep(0.01)
        return extract(image)

    worker.extract = slow_extract
    evaluation = run_speed([worker.method()], SpeedConfig(sizes=((64, 48),), rounds=3), environment={})
    assert evaluation.results["a"]["64x48"].metrics["extract_fastest_ms"] >= 10


def test_methods_are_interleaved_in_an_order_that_rotates(clock: Clock) -> None:
    log: list[str] = []
    methods = [Worker(name, clock=clock, log=log).method() for name in "abc"]
    run_speed(methods, SpeedConfig(sizes=((64, 48),), rounds=6, warmup=3), environment={})
    rounds = ["".join(log[3 + 3 * index : 6 + 3 * index]) for index in range(9)]  # the first three prepare matching
    assert rounds == ["abc", "bca", "cab"] * 3


def test_every_method_gets_the_same_images(tmp_path: Path, clock: Clock) -> None:
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        write_image(paths[-1], np.full((96, 128, 3), 40 * index, np.uint8))
    workers = [Worker(name, clock=clock) for name in "ab"]
    config = SpeedConfig(sizes=((64, 48),), rounds=3, warmup=3)
    evaluation = run_speed([worker.method() for worker in workers], config, images=[tmp_path], environment={})
    assert evaluation.options["images"] == ["0.png", "1.png", "2.png"]
    for worker in workers:
        assert [int(image[0, 0, 0]) for image in worker.images] == [80, *[0, 40, 80] * 2]
        assert worker.images[0].shape == (48, 64, 3)


def test_the_first_method_is_the_reference_by_default(clock: Clock) -> None:
    methods = [Worker(name, clock=clock).method() for name in "ab"]
    evaluation = run_speed(methods, SpeedConfig(sizes=((64, 48), (32, 32)), rounds=3), environment={})
    assert set(evaluation.sets) == {"64x48", "32x32"}
    for size in evaluation.sets:
        assert evaluation.results["a"][size].metrics["extract_ratio"] == 1.0
    labels = {metric.name: metric.label for metric in evaluation.metrics}
    assert labels["extract_ratio"] == "extraction to a"
    assert "device_memory_mb" not in labels


def test_threads_are_set_and_restored() -> None:
    seen = []

    class Watcher(Worker):
        def extract(self, image: Any) -> Features:
            seen.append((torch.get_num_threads(), cv2.getNumThreads()))
            return super().extract(image)

    before = torch.get_num_threads(), cv2.getNumThreads()
    config = SpeedConfig(sizes=((64, 48),), rounds=3, warmup=1, threads=2)
    evaluation = run_speed([Watcher("a", clock=Clock()).method()], config)
    assert set(seen) == {(2, 2)}
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    assert evaluation.environment["threads"] == evaluation.options["torch_threads"] == 2


def test_real_methods_find_and_match_on_the_synthetic_texture() -> None:
    methods = [create_method(name, keypoints=500, device="cpu") for name in ("compact", "orb", "sift")]
    evaluation = run_speed(methods, SpeedConfig(rounds=3, warmup=1))
    for name in evaluation.methods:
        assert evaluation.results[name]["640x480"].metrics["keypoints"] >= 490
    first, second = synthetic_views((640, 480))
    for method in methods:
        assert len(method.match(method.extract(first), method.extract(second))) > 150


# Memory


@pytest.mark.slow
def test_memory_of_a_known_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user's own extractor that holds 80 MB, and 160 MB more while it works on a large image.
    (tmp_path / "hungry_extractor.py").write_text(
        "import numpy as np\n"
        "from semkey.extractors import create_extractor\n"
        "class Hungry:\n"
        "    name = 'hungry'\n"
        "    def __init__(self):\n"
        "        self.inner = create_extractor('orb', max_keypoints=10)\n"
        "        self.kept = np.ones(10_000_000)\n"
        "    def extract(self, image):\n"
        "        if image.shape[0] > 100:\n"
        "            np.ones(20_000_000).sum()\n"
        "        return self.inner.extract(image)\n"
        "def create(*, max_keypoints, device):\n"
        "    return Hungry()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    images = [speed_images([], size) for size in ((320, 240), (80, 60))]
    arguments = {"name": "hungry_extractor:create", "keypoints": 10, "device": "cpu"}
    large, small = measure_memory(arguments, images, threads=1)
    assert 80 <= small.host_mb < 130
    assert 240 <= large.host_mb < 290
    assert math.isnan(small.device_mb)


@pytest.mark.slow
def test_memory_of_an_unknown_method_is_an_error() -> None:
    with pytest.raises(MemoryMeasurementError, match=r"'no-such-method' could not be measured: .*unknown"):
        measure_memory({"name": "no-such-method"}, [speed_images([], (64, 48))])


def test_times_survive_a_failed_memory_measurement(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(arguments: Any, images: Any, *, threads: Any) -> list[MemoryUse]:
        assert arguments["keypoints"] == 7
        assert [[image.shape for image in pair] for pair in images] == [[(48, 64, 3)] * 2, [(40, 32, 3)] * 2]
        if arguments["name"] == "b":
            raise MemoryMeasurementError("memory of 'b' could not be measured: killed")
        return [MemoryUse(host_mb=10.0, device_mb=2.0), MemoryUse(host_mb=5.0, device_mb=1.0)]

    monkeypatch.setattr("semkey.evaluation.kinds.speed.measure_memory", measure)
    config = SpeedConfig(sizes=((64, 48), (32, 40)), rounds=3, warmup=1)
    methods = [Worker(name, clock=clock).method() for name in "ab"]
    evaluation = run_speed(methods, config, memory_arguments={"keypoints": 7}, environment={})
    assert evaluation.results["a"]["64x48"].metrics["memory_mb"] == 10.0
    assert evaluation.results["a"]["32x40"].metrics["device_memory_mb"] == 1.0
    assert "device_memory_mb" in [metric.name for metric in evaluation.metrics]
    assert math.isnan(evaluation.results["b"]["64x48"].metrics["memory_mb"])
    assert evaluation.results["b"]["64x48"].metrics["extract_ms"] == pytest.approx(1)
    assert "could not be measured: killed" in caplog.text


# Images


def test_fitted_takes_the_middle_with_the_right_aspect() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    np.testing.assert_array_equal(fitted(np.ascontiguousarray(ramp), (100, 100))[0, :, 0], np.arange(50, 150))
    shrunk = fitted(np.ascontiguousarray(ramp), (50, 50))
    np.testing.assert_allclose(shrunk[0, :, 0], np.arange(50, 150, 2) + 0.5, atol=0.5)
    assert fitted(np.ascontiguousarray(ramp), (640, 480)).shape == (480, 640, 3)


def test_a_folder_gives_eight_images_evenly_spaced(tmp_path: Path) -> None:
    for index in range(15):
        write_image(tmp_path / f"{index}.png", np.zeros((40, 40, 3), np.uint8))
    assert [path.name for path in find_photos([tmp_path], MAX_IMAGES)] == [f"{index}.png" for index in range(0, 15, 2)]
    assert find_photos([tmp_path / "3.png"], MAX_IMAGES) == [tmp_path / "3.png"]


def test_missing_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.png: no such file"):
        find_photos([tmp_path / "none.png"], MAX_IMAGES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no images"):
        find_photos([tmp_path / "empty"], MAX_IMAGES)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        speed_images([tmp_path / "broken.png"], (64, 48))


def test_synthetic_views_are_reproducible() -> None:
    first, second = synthetic_views((96, 64), seed=1), synthetic_views((96, 64), seed=1)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].shape == first[1].shape == (64, 96, 3)
    assert not np.array_equal(first[0], synthetic_views((96, 64), seed=2)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": ()},
        {"sizes": ((64, 48), (64, 48))},
        {"sizes": ((16, 48),)},
        {"rounds": 2},
        {"warmup": 0},
        {"threads": 0},
        {"seed": -1},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SpeedConfig(**options)


def test_bad_methods() -> None:
    method = Worker("a", clock=Clock()).method()
    with pytest.raises(ConfigError, match="a, a"):
        run_speed([method, method])
    with pytest.raises(ConfigError, match="'b' is none of the methods: a"):
        run_speed([method], SpeedConfig(reference="b"))
