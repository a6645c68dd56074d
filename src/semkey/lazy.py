"""Names of a package that are imported when they are first used, so that importing the package stays quick."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec


def lazy_exports(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` (PEP 562) of a package whose names are imported when they are used.

    What is exported is said once, in the package's own ``if TYPE_CHECKING:`` block, which type checkers read too: every
    ``from module import name as name``. Names that the package imports or defines at once and that have no underscore
    stay what they are; those imported ``as`` themselves are exported as well, and so is ``__version__``.

    Args:
        package: its name, ``__name__`` in its ``__init__``.
    """
    spec = find_spec(package)
    source = spec.loader.get_source(package) if spec and hasattr(spec.loader, "get_source") else None  # ty: ignore
    tree = ast.parse(source or "")
    lazy: dict[str, str] = {}
    at_once: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lazy |= {name: module for line in node.body for name, module in _exports(line)}
        elif isinstance(node, ast.Assign):
            at_once += [name.id for name in node.targets if isinstance(name, ast.Name) and name.id == "__version__"]
        else:
            at_once += [name for name, _ in _exports(node)]
    names = sorted([*lazy, *at_once])

    def get(name: str) -> object:
        if name not in lazy:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(lazy[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: list(names), names


def _exports(node: ast.stmt) -> list[tuple[str, str]]:
    """Names and modules of ``from module import name as name``."""
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return []
    return [(alias.name, node.module) for alias in node.names if alias.asname == alias.name]
