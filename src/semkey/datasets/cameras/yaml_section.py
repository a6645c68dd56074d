"""Reading small YAML files with errors that name the file and the line."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import yaml

from semkey.errors import DatasetError
from semkey.settings import did_you_mean
from semkey.untrusted import YAML_LIMIT, one_line, read_text


class YamlSection:
    """A mapping of a YAML file. Values are read by name and checked; what is wrong is told with file and line.

    Numbers are taken from their text, so that ``1e-5`` is one (YAML 1.1 takes it for a string).
    """

    def __init__(self, path: Path, node: yaml.Node, where: str = "") -> None:
        self._path = path
        self._where = where
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, "expected 'name: value' rows")
        self._node = node
        self._values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in self._values:
                raise self._error(key, f"'{where}{one_line(str(name))}' is given twice")
            self._values[name] = value

    @classmethod
    def read(cls, path: Path) -> YamlSection:
        """The top of a file. The first line of OpenCV's dialect, ``%YAML:1.0``, is passed over.

        Raises:
            DatasetError: the file is missing, no YAML text, or its top is no mapping.
        """
        if not path.exists():
            raise DatasetError(f"{path}: file is missing")
        text = read_text(path, limit=YAML_LIMIT, error=DatasetError)
        if text.startswith("%YAML:"):
            text = "#" + text
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except RecursionError:
            raise DatasetError(f"{path}: no YAML (nested too deeply)") from None
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            raise DatasetError(f"{path}{line}: no YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
        if node is None:
            raise DatasetError(f"{path}: file is empty")
        return cls(path, node)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> tuple[str, ...]:
        """The keys, in the order of the file."""
        return tuple(self._values)

    def size(self, name: str) -> tuple[int, int]:
        """An image size, [width, height].

        Raises:
            DatasetError: these are not two whole numbers of at least 1.
        """
        return self._whole(name, *self.numbers(name, (2,)))

    def sides(self, width: str, height: str) -> tuple[int, int]:
        """An image size whose width and height are values of their own; errors as for :meth:`size`."""
        return self._whole(width, self.number(width), self.number(height))

    def _whole(self, name: str, width: float, height: float) -> tuple[int, int]:
        if width != int(width) or height != int(height) or min(width, height) < 1:
            raise self.error(
                name, f"'{self._where}{name}' must be two whole numbers of pixels, got {width:g}, {height:g}"
            )
        return int(width), int(height)

    def allow(self, names: Collection[str]) -> None:
        """Check that there are no other keys than ``names``.

        Raises:
            DatasetError: there is one; the message names the nearest known key.
        """
        for key, _ in self._node.value:
            if key.value not in names:
                hint = did_you_mean(key.value, names) or f"known are {', '.join(names)}"
                raise self._error(key, f"'{self._where}{one_line(str(key.value))}' is unknown; {hint}")

    def section(self, name: str) -> YamlSection:
        """The mapping called ``name``."""
        return YamlSection(self._path, self._get(name), f"{self._where}{name}.")

    def text(self, name: str) -> str:
        """The text of a single value."""
        node = self._get(name)
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"'{self._where}{name}' must be a single value")
        return str(node.value)

    def number(self, name: str) -> float:
        """A single finite number."""
        return self._number(self._get(name), name)

    def numbers(self, name: str, counts: Collection[int]) -> tuple[float, ...]:
        """A list of finite numbers, or a list of lists, flattened.

        Raises:
            DatasetError: the key is missing, a value is no number, or there are not as many as ``counts`` allows.
        """
        node = self._get(name)
        values = self._flat(node, name)
        if len(values) not in counts:
            allowed = " or ".join(str(count) for count in sorted(counts))
            raise self._error(node, f"'{self._where}{name}' has {len(values)} numbers, expected {allowed}")
        return tuple(values)

    def error(self, name: str, message: str) -> DatasetError:
        """An error at the line of ``name`` (the section's first line if it is not there), to be raised."""
        return self._error(self._values.get(name, self._node), message)

    def _flat(self, node: yaml.Node, name: str) -> list[float]:
        """The numbers of a value, a list or a list of lists; deeper ones are none (an alias can even hold itself)."""
        if not isinstance(node, yaml.SequenceNode):
            return [self._number(node, name)]
        rows = [item.value if isinstance(item, yaml.SequenceNode) else [item] for item in node.value]
        return [self._number(item, name) for row in rows for item in row]

    def _number(self, node: yaml.Node, name: str) -> float:
        try:
            value = float(node.value)
        except (TypeError, ValueError):
            raise self._error(node, f"'{self._where}{name}' must be made of numbers") from None
        if not math.isfinite(value):
            raise self._error(node, f"'{self._where}{name}' holds a number that is not finite")
        return value

    def _get(self, name: str) -> yaml.Node:
        if name not in self._values:
            raise self._error(self._node, f"'{self._where}{name}' is missing")
        return self._values[name]

    def _error(self, node: yaml.Node, message: str) -> DatasetError:
        return DatasetError(f"{self._path}:{node.start_mark.line + 1}: {message}")
