"""What a user gets: wheel and sdist are built, installed into an empty environment, and README's lines run there.

The wheel is built from the unpacked sdist, so that both are whole. The environment gets the CPU build of PyTorch as
``scripts/setup.sh`` finds it, and the wheel with what it requires from the package index. README's Python blocks and
its lines of ``semkey`` run in an empty folder beside a rendered room, whose images stand for README's; lines that need
an extra or data that nobody can render are named and left out. Everything lies in ``build/release``.

    python scripts/release_check.py                              # make release-check
    python scripts/release_check.py --python /path/to/python3.13 # with another one
    python scripts/release_check.py --environment VENV           # into an environment that has what semkey requires
    python scripts/release_check.py --build-only                 # make dist: into dist/, checked as an index would
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "release"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# What README names and what stands for it here.
STAND_INS = {"photos/": "room/rgb/"}
# Parts of lines that ask for data or extras that are not here.
NEEDS = {
    "hpatches": "HPatches",
    "PHOTOS": "a folder of photos and semkey[train]",
    "recording.mp4": "a recording",
    "recording.mcap": "a recording and semkey[bags]",
    "features.h5": "semkey[h5]",
    "match-all": "semkey[h5]",
    "export onnx": "semkey[onnx]",
    "--to colmap": "semkey[colmap]",
    "semkey ui": "semkey[ui]; it serves until it is stopped",
    "webcam": "a camera",
}


def main() -> None:
    """Build, install and run; ends with an error at the first thing that fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the empty environment")
    parser.add_argument("--environment", type=Path, help="install into this environment instead of an empty one")
    parser.add_argument("--build-only", action="store_true", help="build into dist/ and check the two files")
    options = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    wheel = build()
    check_files(wheel)
    if options.build_only:
        (ROOT / "dist").mkdir(exist_ok=True)
        for file in wheel.parent.iterdir():
            shutil.copy(file, ROOT / "dist")
            say(f"dist/{file.name}, {file.stat().st_size / 1e6:.1f} MB")
        return
    python = install(wheel, options.python) if options.environment is None else reinstall(wheel, options.environment)
    place = WORK / "place"
    place.mkdir()
    semkey = str(python.parent / "semkey")
    run([semkey, "render-room", "--out", "room", "--frames", "20"], place)
    for name, frame in (("a", 0), ("b", 5)):
        write_jpeg(python, sorted((place / "room" / "rgb").glob("*.png"))[frame], place / f"{name}.jpg")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    for block in (text for language, text in blocks if language == "python"):
        run([str(python), "-c", replaced(block)], place)
    lines = [line.partition("#")[0].strip() for _, text in blocks for line in text.splitlines()]
    for line in (line for line in lines if line.startswith("semkey ")):
        missing = next((what for part, what in NEEDS.items() if part in line), None)
        if missing is not None:
            say(f"left out, needs {missing}: {line}")
            continue
        if "render-room" in line:
            shutil.move(place / "room", place / "rendered before")
        run([semkey, *replaced(line).split()[1:]], place)
    run([str(python), "-m", "semkey", "--version"], place)
    run([semkey, "doctor"], place)
    say("the release is whole")


def check_files(wheel: Path) -> None:
    """What the package index would say of wheel and sdist, and whether their description leads anywhere from there.

    ``twine check`` where it is installed; what it would look at is looked at in any case.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert metadata["Description-Content-Type"] == "text/markdown", metadata["Description-Content-Type"]
    relative = re.findall(r"\]\((?!https?://)([^)]+)\)", text.decode())
    if relative:
        sys.exit(f"release-check: error: links of the description lead nowhere on an index page: {relative}")
    if subprocess.run([sys.executable, "-c", "import twine"], capture_output=True, check=False).returncode == 0:
        run([sys.executable, "-m", "twine", "check", "--strict", *map(str, wheel.parent.iterdir())], ROOT)
    else:
        say("twine is not installed: twine check is left out")


def build() -> Path:
    """The wheel, built from the sdist; both lie in ``build/release/dist``."""
    dist = WORK / "dist"
    run([sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(dist)], ROOT)
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(WORK / "unpacked", filter="data")
    (source,) = (WORK / "unpacked").iterdir()
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(dist)], source)
    (wheel,) = dist.glob("*.whl")
    return wheel


def install(wheel: Path, interpreter: str) -> Path:
    """The Python of a new environment with PyTorch and the wheel."""
    run([interpreter, "-m", "venv", str(WORK / "venv")], WORK)
    python = WORK / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    torch = re.search(r"^torch==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert torch is not None, "requirements.lock names no torch"
    version = f"torch=={torch[1]}"
    if sys.platform == "darwin":
        run([*pip, version], WORK)
    elif (
        subprocess.run(
            [*pip, f"{version}+cpu"], cwd=WORK, env=clean_environment(), capture_output=True, check=False
        ).returncode
        != 0
    ):
        run([*pip, "--index-url", CPU_INDEX, f"{version}+cpu"], WORK)
    run([*pip, str(wheel)], WORK)
    run([str(python), "-m", "pip", "--disable-pip-version-check", "check"], WORK)
    return python


def reinstall(wheel: Path, environment: Path) -> Path:
    """The Python of an environment that is there, with the wheel instead of the semkey that it had."""
    python = environment.resolve() / "bin" / "python"
    run([str(python), "-m", "pip", "install", "-qq", "--force-reinstall", "--no-deps", str(wheel)], WORK)
    run([str(python), "-m", "pip", "--disable-pip-version-check", "check"], WORK)
    return python


def write_jpeg(python: Path, source: Path, target: Path) -> None:
    """One of the room's images under README's name for it."""
    run([str(python), "-c", f"import cv2; cv2.imwrite({str(target)!r}, cv2.imread({str(source)!r}))"], WORK)


def replaced(text: str) -> str:
    """README's text with what stands for its data."""
    for name, stand_in in STAND_INS.items():
        text = text.replace(name, stand_in)
    return text


def run(command: list[str], folder: Path) -> None:
    """One command, named before and timed; an error ends everything."""
    shown = " ".join(Path(part).name if part.startswith("/") else part for part in command)
    say(shown if len(shown) < 200 else f"{shown[:200]}...")
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False)
    if done.returncode not in ((0, 3) if command[1:] == ["doctor"] else (0,)):  # 3: other programs keep the cores busy
        sys.exit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}\nrelease-check: error: exit code {done.returncode}")
    say(f"  {time.monotonic() - start:.0f} s")


def clean_environment() -> dict[str, str]:
    """The environment without what could lead to this checkout or to data beside it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEMKEY_", "VIRTUAL_"))}


def say(text: str) -> None:
    """A line of progress."""
    print(f"release-check: {text}", flush=True)


if __name__ == "__main__":
    main()
