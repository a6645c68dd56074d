"""Code of semkey as a hash: what was computed by other code is not taken for an answer."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path


def code_hash(sources: Sequence[str], root: Path | None = None, *, left_out: tuple[str, ...] = ()) -> str:
    """A hash (hex) of what Python executes of files and folders of a package: comments, texts and layout may change.

    Args:
        sources: files and folders, relative to ``root``.
        root: the folder of the package, by default that of semkey.
        left_out: how the names of files and folders begin that do not count.
    """
    root = root or Path(str(files("semkey")))
    paths: list[Path] = []
    for source in dict.fromkeys(sources):
        path = root / source
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        paths += [file for file in found if not file.relative_to(root).as_posix().startswith(left_out)]
    digest = hashlib.blake2b(digest_size=16)
    for path in dict.fromkeys(paths):
        state = path.stat()
        content = _file_hash(path, state.st_mtime_ns, state.st_size)
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: Path, _modified: int, _size: int) -> str:
    """Of one file's syntax tree without docstrings; time and size are there so that a changed file is read again."""
    tree = _WithoutTexts().visit(ast.parse(path.read_bytes()))
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    """Leaves out strings that stand alone: docstrings of modules, classes, functions and attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node
