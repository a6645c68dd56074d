"""The door: what `import semkey` offers, as documented, with every example run."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

import semkey
from semkey.images import write_image
from semkey.rendering import RoomConfig, write_room

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "Detector",
    "Features",
    "Frame",
    "FrameSequence",
    "InputError",
    "Matches",
    "Picture",
    "PinholeCamera",
    "RefinedMatches",
    "SemkeyError",
    "Slam",
    "SlamConfig",
    "SlamResult",
    "TrackedFrame",
    "Trajectory",
    "__version__",
    "draw_keypoints",
    "draw_matches",
    "load",
    "match",
    "open_sequence",
    "refine",
    "run_slam",
]
NAMED = [name for name in PUBLIC if name != "__version__"]
MEMBERS = {
    "Detector": ["extract", "describe", "network"],
    "Features": ["numpy", "select", "to", "map", "check"],
    "Matches": ["numpy"],
    "Picture": ["save", "shape"],
    "Slam": ["track", "trajectory", "points", "keyframes", "save", "load", "close", "finish"],
    "SlamResult": ["trajectory"],
}
FOLDER = "rgbd_dataset_freiburg3_cabinet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: two photos and a rendered room, under the names that they have in the documentation."""
    folder = tmp_path_factory.mktemp("door")
    write_room(folder / "room", RoomConfig(seed=3, frames=8, width=320, height=240, noise=False))
    shutil.copytree(folder / "room", folder / FOLDER)
    left, right, _ = data.stereo_motorcycle()
    write_image(folder / "a.jpg", left)
    write_image(folder / "b.jpg", right)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


# -- names ---------------------------------------------------------------------------------------------------------


def test_completion_shows_exactly_the_public_names() -> None:
    program = "import semkey; print(*dir(semkey)); print(*semkey.__all__); print(*(semkey.load and dir(semkey)))"
    lines = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in lines.splitlines()] == [PUBLIC] * 3


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    program = "import semkey, sys; dir(semkey); print(any(n in sys.modules for n in ('torch', 'cv2', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="module 'semkey' has no attribute 'lod'"):
        _ = semkey.lod  # ty: ignore[missing-attribute]


@pytest.mark.parametrize("name", NAMED)
def test_every_name_is_documented_with_an_example(name: str) -> None:
    value = getattr(semkey, name)
    assert value.__doc__
    assert value.__module__.startswith("semkey.")
    if not (inspect.isclass(value) and issubclass(value, Exception)):
        assert ">>>" in value.__doc__, f"{name} has no example"


@pytest.mark.parametrize("name", NAMED)
def test_examples_run(name: str, here: Path) -> None:
    """Those of the name itself and of its public members."""
    value = getattr(semkey, name)
    finder = doctest.DocTestFinder(recurse=False)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    report: list[str] = []
    for test in finder.find(value, name, globs={}):
        runner.run(test, out=report.append)
    assert runner.tries > 0 or name.endswith("Error")
    assert runner.failures == 0, "".join(report)


def public_callables() -> Iterator[tuple[str, Any]]:
    for name in NAMED:
        value = getattr(semkey, name)
        if not inspect.isclass(value):
            yield name, value
            continue
        if "__init__" in vars(value) and not dataclasses.is_dataclass(value):
            yield name, value.__init__
        for member in MEMBERS.get(name, []):
            found = inspect.getattr_static(value, member)
            found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
            yield f"{name}.{member}", found


@pytest.mark.parametrize(("name", "function"), public_callables())
def test_everything_public_is_annotated_and_documented(name: str, function: Any) -> None:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    assert not [p.name for p in parameters if p.annotation is p.empty]
    if not name[0].isupper() or "." in name:
        assert signature.return_annotation is not signature.empty
        assert function.__doc__
        documented = function.__doc__
        missing = [p.name for p in parameters if p.name not in documented]
        inherited = name in ("Picture.save",)
        assert inherited or len(parameters) < 2 or not missing, f"{name} does not say what {missing} are"


# -- the pages -----------------------------------------------------------------------------------------------------


def code_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_page_on_python_runs_as_written(here: Path) -> None:
    blocks = code_blocks("docs/python.md")
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    assert repr(names["features"]) == "Features(nano: 1024 keypoints of a 741x500 image, descriptors of width 64)"
    assert len(names["matches"]) > 300
    assert (here / "m.png").is_file()
    assert (here / "k.png").is_file()
    assert {"trajectory.txt", "report.json"} <= {file.name for file in (here / "run").iterdir()}
    assert names["tracked"].status == "tracking"
    assert names["result"].tracked == 8
    np.testing.assert_allclose(
        names["result"].live_trajectory().poses[:3], names["result"].trajectory().poses[:3], atol=0.05
    )
    frame = names["sequence"][0]
    with semkey.Slam(names["sequence"].camera, "orb") as slam:
        names |= {"image": frame.image, "image0": frame.image, "image1": frame.image, "depth": frame.depth, "t": 1.0}
        mask = np.full(frame.image.shape[:2], 255, np.uint8)
        mask[:, :160] = 0
        names |= {"mask": mask, "mask0": mask, "slam": slam}
        for index in range(len(names["sequence"])):
            name = Path(names["sequence"].image_name(index)).stem
            write_image(here / f"masks/{name}.png", mask)
        exec(blocks[1], names)
        assert all(
            keyframe.frame.keypoints[:, 0].min() > 159 for keyframe in names["result"].slam_map.keyframes.values()
        )
        assert names["features"].keypoints[:, 0].min() > 159
        assert slam.points().shape[0] > 50


PROMISED = """
import semkey
detector = semkey.load("nano")                     # every feature: compact, nano, orb, sift, aliked-n16
features = detector.extract("a.jpg")               # repr is one line; features.numpy() gives the same as arrays
matches = semkey.match(features0, features1)       # images or paths are accepted too, with detector=
semkey.draw_matches("a.jpg", "b.jpg", features0, features1, matches).save("m.png")
semkey.draw_keypoints("a.jpg", features)
sequence = semkey.open_sequence("rgbd_dataset_freiburg3_cabinet")
result = semkey.run_slam(sequence, detector, out="run/")        # also run_slam("folder", "nano")

slam = semkey.Slam(camera, detector, sensor="rgbd", baseline=None, config=None)          # frame by frame
frame = slam.track(image, depth=depth, timestamp=t)
slam.trajectory(); slam.points(); slam.keyframes(); slam.save("room.semkey"); slam.close()
"""


def test_what_was_promised_runs_as_written(here: Path) -> None:
    nano, first = semkey.load("nano"), semkey.open_sequence("room")[0]
    names: dict[str, Any] = {
        "features0": nano.extract("a.jpg"),
        "features1": nano.extract("b.jpg"),
        "camera": semkey.open_sequence("room").camera,
        "image": first.image,
        "depth": first.depth,
        "t": 0.5,
    }
    exec(PROMISED, names)
    frame = names["frame"]
    assert frame.status in ("tracking", "lost", "initialising", "relocalised")
    np.testing.assert_array_equal(frame.T_world_cam, np.eye(4))
    assert frame.inliers >= 0
    assert frame.is_keyframe
    assert frame.loop is None
    with semkey.Slam.load("room.semkey", nano) as again:
        assert again.track(first.image, first.depth, timestamp=0.0).status == "relocalised"
    assert names["features"].numpy().keypoints.shape == names["features"].keypoints.shape


def test_the_block_of_readme_runs_as_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = code_blocks("README.md")[:1]
    exec(block, {})
    assert capsys.readouterr().out


def test_short_forms_work(here: Path) -> None:
    matches = semkey.match("a.jpg", Path("b.jpg"), detector="orb")
    assert len(matches) > 100
    assert matches.features0 is not None
    assert matches.features0.method == "orb"
    assert len(semkey.match("a.jpg", "b.jpg", detector=semkey.load("nano", max_keypoints=64))) > 10
    result = semkey.run_slam("room", "nano", max_frames=3)
    assert result.tracked == 3


# -- what is wrong is one clear error ------------------------------------------------------------------------------


def test_matching_what_does_not_belong_together(here: Path) -> None:
    photo = data.camera()
    nano, compact, orb = (semkey.load(name, max_keypoints=50, device="cpu") for name in ("nano", "compact", "orb"))
    features = nano.extract(photo)
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        (features, compact.extract(photo), {}, "features of 'nano' and 'compact' cannot be matched"),
        (features, orb.extract(photo), {}, "features of 'nano' and 'orb' cannot be matched"),
        (
            dataclasses.replace(features, method=""),
            orb.extract(photo),
            {},
            "descriptors of widths 64 and 256 cannot be matched",
        ),
        ("a.jpg", "nowhere.jpg", {}, "image not found: nowhere.jpg"),
        (features, 3, {}, "cannot use int as an image"),
        (features, features, {"masks": (np.ones((512, 512), np.uint8), None)}, "masks are of images"),
        ("a.jpg", "b.jpg", {"masks": [None]}, "masks are two"),
        (photo, photo, {"masks": (np.ones((4, 4), np.uint8), None)}, "mask has 4x4 pixels, its image 512x512"),
        (photo, photo, {"detector": "nan0"}, "unknown features 'nan0'"),
        (features, features.to("meta"), {}, "features lie on cpu and meta"),
    ]
    for first, second, options, words in wrong:
        with pytest.raises(semkey.SemkeyError, match=words) as raised:
            semkey.match(first, second, detector=options.pop("detector", nano), **options)
        assert "\n" not in str(raised.value)


def test_masks_of_images_to_match(here: Path) -> None:
    mask = np.full((500, 741), 255, np.uint8)
    mask[:, :370] = 0
    matches = semkey.match("a.jpg", "b.jpg", detector="nano", masks=(mask, None))
    assert matches.features0 is not None
    assert matches.features1 is not None
    assert matches.features0.keypoints[:, 0].min() > 369
    assert matches.features1.keypoints[:, 0].min() < 300


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        ("semkey.load('nano', device='gpu0')", "device 'gpu0' cannot be used here"),
        ("semkey.open_sequence('nowhere')", "nowhere: no such file or folder"),
        ("semkey.run_slam('nowhere', 'nano')", "nowhere: no such file or folder"),
        ("semkey.run_slam('room', 'nan0')", "unknown features 'nan0'"),
        ("semkey.Slam('camera', 'nano')", "pass a PinholeCamera"),
        ("semkey.run_slam('room', 3)", "the detector is a int: pass what semkey.load gives"),
        ("semkey.match('a.jpg', 'b.jpg', detector=print)", "the detector is a builtin_function_or_method"),
        ("semkey.draw_keypoints('b.jpg', semkey.load('orb').extract(np.zeros((9, 9), np.uint8)))", "9x9, the image is"),
        ("semkey.draw_matches('a.jpg', 'nowhere.jpg', *[ORB] * 2, semkey.match(ORB, ORB))", "not found"),
        ("semkey.draw_matches('a.jpg', 'a.jpg', ORB, ORB, None)", "the matches: cannot use NoneType"),
        ("semkey.draw_keypoints('a.jpg', None)", "the features: cannot use NoneType"),
        ("semkey.refine(ORB, ORB, None, 'a.jpg', 'a.jpg')", "the matches: cannot use NoneType"),
        ("semkey.refine('a.jpg', ORB, None, 'a.jpg', 'a.jpg')", "the features: cannot use str"),
        ("ORB.select(np.zeros(3, bool))", "cannot select from [0-9]+ keypoints: "),
        ("ORB.to('gpu0')", "features cannot be moved to 'gpu0'"),
        ("semkey.open_sequence(None)", "the sequence: cannot use NoneType, pass the path of"),
        ("semkey.run_slam([], 'orb')", "the sequence: cannot use list, pass the path of"),
        ("semkey.run_slam('room', 'orb', config={})", "config=: cannot use dict, pass a semkey.SlamConfig"),
        ("semkey.run_slam('room', 'orb', resume='run')", "resume=: cannot use str, pass a semkey.SlamResult"),
        ("semkey.Slam(CAMERA, 'orb', config={})", "the config: cannot use dict, pass a semkey.SlamConfig"),
        ("semkey.Slam(CAMERA, 'orb', 'stereo', '0.1')", "the baseline of a stereo pair must be positive, got 0.1"),
        ("semkey.PinholeCamera(fx='1', fy=1, cx=0, cy=0, width=2, height=2)", "camera parameters must be numbers"),
        ("semkey.PinholeCamera(fx=1, fy=1, cx=0, cy=0, width=2.5, height=2)", "image size must be whole pixels"),
        ("semkey.load('nano', max_keypoints='many')", "max_keypoints is 'many', expected a whole number"),
        ("semkey.load('nano').network(torch.zeros(1, 3, 64, 96))", r"images have shape \(1, 3, 64, 96\): pass grey"),
        ("semkey.load('nano').network(torch.zeros(1, 1, 65, 96))", "height and width must be multiples of 32"),
    ],
)
def test_wrong_calls_are_one_line(attempt: str, words: str, here: Path) -> None:
    orb = semkey.load("orb", max_keypoints=20).extract("a.jpg")
    camera = semkey.PinholeCamera(fx=1, fy=1, cx=1, cy=1, width=2, height=2)
    with pytest.raises(semkey.SemkeyError, match=words) as raised:
        eval(attempt, {"semkey": semkey, "np": np, "torch": torch, "ORB": orb, "CAMERA": camera})
    assert "\n" not in str(raised.value)


def test_users_types_are_complete(tmp_path: Path) -> None:
    """A program as users write it, checked by the type checker of the project against the installed names."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import semkey
            from semkey import Features, Matches

            detector: semkey.Detector = semkey.load("nano", max_keypoints=10)
            features: Features = detector.extract("a.jpg", None)
            matches: Matches = semkey.match(features, "b.jpg", detector=detector)
            semkey.draw_matches("a.jpg", "b.jpg", features, features, matches).save("m.png")
            with semkey.Slam(semkey.PinholeCamera(fx=1, fy=1, cx=1, cy=1, width=2, height=2), detector) as slam:
                frame: semkey.TrackedFrame = slam.track("a.jpg", timestamp=1.0)
            result: semkey.SlamResult = semkey.run_slam(semkey.open_sequence("room"), "nano")
            """
        )
    )
    checker = Path(sys.executable).with_name("ty")
    if not checker.is_file():
        pytest.skip("ty is a development dependency")
    command = [str(checker), "check", "--python", sys.prefix, "--extra-search-path", str(ROOT / "src"), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    program.write_text(program.read_text() + "semkey.lod\nwrong: int = semkey.load()\n")
    assert subprocess.run(command, capture_output=True, cwd=tmp_path, check=False).returncode != 0


def test_no_type_is_left_to_be_guessed() -> None:
    """Strict checkers (pyright) count an array without the type of its elements, and an attribute without a type whose
    value is computed, as unknown, and with them everything that they are part of."""
    bare = re.compile(r"\bNDArray\b(?=[\]\), |:])")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if bare.search(line) and "import" not in line
    ]
    assert not found
    for name in NAMED:
        value = getattr(semkey, name)
        if inspect.isclass(value) and "__init__" in vars(value) and not dataclasses.is_dataclass(value):
            function = ast.parse(textwrap.dedent(inspect.getsource(value.__init__))).body[0]
            computed = [
                ast.unparse(line)
                for line in ast.walk(function)
                if isinstance(line, ast.Assign) and not isinstance(line.value, ast.Name | ast.Constant)
                for target in line.targets
                if re.match(r"self\.[a-z]\w*$", ast.unparse(target))
            ]
            assert not computed, f"{name}: {computed}"
