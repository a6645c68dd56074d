"""What README and the tutorials show, made again with the shipped weights: ``python scripts/docs_pictures.py``.

Run it when weights or drawings change, then look at the pictures. It renders a room, and its frames 0 and 5 stand for
README's a.jpg and b.jpg (``scripts/release_check.py`` takes the same). It writes README's printed lines,
``docs/tutorials/matches.jpg`` (``semkey match``), ``docs/overview.jpg`` (``semkey demo``) and the outputs of
``docs/tutorials/room.ipynb``. The pictures of docs/matching.md are those of ``scripts/matching_pictures.py``.

    python scripts/docs_pictures.py --only readme,notebook
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "tutorials" / "room.ipynb"
FRAMES = {"a": 0, "b": 5}
_PHOTO, _PAGE = 95, 88


def main() -> None:
    """Make all, or what is asked for."""
    makers = {"readme": readme, "matches": matches, "overview": overview, "notebook": notebook}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(makers), help=f"some of {', '.join(makers)}")
    chosen = parser.parse_args().only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        semkey("render-room", "--out", "room", "--frames", "20", place=place)
        images = sorted((place / "room" / "rgb").glob("*.png"))
        for name, frame in FRAMES.items():
            save(images[frame], place / f"{name}.jpg", _PHOTO)
        for name in chosen:
            print(f"{name}: {makers[name](place)}", flush=True)


def semkey(*arguments: str, place: Path) -> None:
    """A command, with what it prints only if it fails."""
    run([sys.executable, "-m", "semkey", *arguments], place)


def run(command: list[str], place: Path) -> str:
    """What a command prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}docs_pictures: error: {command} ended with {done.returncode}")
    return done.stdout


def readme(place: Path) -> str:
    """Run README's Python block, and put what it prints under it."""
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```\n", text, re.DOTALL)
    assert found is not None, "README has no Python block with its output behind"
    printed = run([sys.executable, "-c", found[1]], place)
    file.write_text(text[: found.start(2)] + printed + text[found.end(2) :], encoding="utf-8")
    return "as it was" if printed == found[2] else printed


def matches(place: Path) -> str:
    """The picture of the tutorial on matching."""
    semkey("match", "a.jpg", "b.jpg", "-o", "matches.png", place=place)
    return save(place / "matches.png", DOCS / "tutorials" / "matches.jpg", _PAGE)


def overview(place: Path) -> str:
    """README's picture."""
    semkey("demo", "--out", "demo", place=place)
    picture = (place / "demo" / "overview.jpg").read_bytes()
    (DOCS / "overview.jpg").write_bytes(picture)
    return f"{len(picture)} bytes"


def save(source: Path, target: Path, quality: int) -> str:
    """A PNG as a JPEG."""
    image = cv2.imread(str(source))
    assert image is not None, source
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"{target.stat().st_size} bytes"


def notebook(place: Path) -> str:
    """Run the notebook's cells one after the other, and keep what each shows."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    tempfile.tempdir = str(place)
    shown = []
    for number, cell in enumerate(one for one in content["cells"] if one["cell_type"] == "code"):
        source = "".join(cell["source"])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = run_cell(source, names)
        cell["outputs"] = outputs(printed.getvalue(), value, number + 1)
        cell["execution_count"] = number + 1
        shown += printed.getvalue().splitlines()
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return "\n  ".join(shown)


def run_cell(source: str, names: dict[str, Any]) -> object:
    """Execute a cell; the value of its last line where that is an expression."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def outputs(printed: str, value: Any, number: int) -> list[dict[str, Any]]:
    """A cell's outputs as notebooks keep them."""
    found: list[dict[str, Any]] = []
    if printed:
        found.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value)]}
        picture = getattr(value, "_repr_png_", None)
        if picture is not None:
            data["image/png"] = base64.b64encode(picture()).decode()
        found.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return found


if __name__ == "__main__":
    main()
