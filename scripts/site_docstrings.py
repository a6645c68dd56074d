"""semkey's docstrings as the site's generator reads them (an extension of griffe, named in mkdocs.yml)."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """``Example:`` begins a section of code, as ``Examples:`` does for griffe."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section in the docstring of an object that has just been read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
