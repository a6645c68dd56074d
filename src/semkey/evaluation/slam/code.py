"""Which code decides what a run of ``semkey eval slam`` finds out, as a hash: rows are kept until that changes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from semkey.evaluation.running.methods import NETWORK_SOURCES
from semkey.evaluation.slam.methods import SlamMethod

OUTPUT_ONLY = ("slam/output", "slam/tracking/localize.py")
"""Folders and files that a run of the evaluation does not use: they save and show, or place single photos."""

_MEASURING = ("datasets", "geometry", "metrics", "settings.py")
_MEASURING += ("evaluation/running/memory.py", "evaluation/slam/child.py", "evaluation/slam/measures.py")
_OPENCV = ("evaluation/slam/cv2_odometry.py",)
_BACK_END = ("matching", "slam")


def code_of(method: SlamMethod) -> str:
    """A hash (hex) of the code that a method's rows depend on, but for that of extraction, which its fingerprint has.

    It is of what Python executes: comments, docstrings and layout may change.
    """
    return code_hash((*_MEASURING, *(_OPENCV if method.is_opencv else _BACK_END)))


def code_now() -> str:
    """A hash (hex) of all code that any run of the evaluation executes, as it lies on the disk now."""
    return code_hash((*_MEASURING, *_OPENCV, *_BACK_END, *NETWORK_SOURCES))


def code_hash(sources: Sequence[str], root: Path | None = None) -> str:
    """A hash (hex) of what files and folders of the package hold; files that only save and show are left out."""
    root = root or Path(str(files("semkey")))
    paths: list[Path] = []
    for source in dict.fromkeys(sources):
        path = root / source
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        paths += [file for file in found if not file.relative_to(root).as_posix().startswith(OUTPUT_ONLY)]
    digest = hashlib.blake2b(digest_size=16)
    for path in dict.fromkeys(paths):
        state = path.stat()
        content = _file_hash(path, state.st_mtime_ns, state.st_size)
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: Path, modified: int, size: int) -> str:
    """Of one file's syntax tree without docstrings; time and size are there so that a changed file is read again."""
    tree = _WithoutTexts().visit(ast.parse(path.read_bytes()))
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    """Leaves out strings that stand alone: docstrings of modules, classes, functions and attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node
