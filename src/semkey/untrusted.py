"""Reading files that may come from anybody: bounded in size, depth and count, with one line for what is wrong.

Whatever a file holds, reading it takes memory and time in proportion to a stated limit. Devices are refused, pipes are
read up to the limit.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from semkey.errors import InputError, SemkeyError

MEGABYTE = 1 << 20
JSON_LIMIT = 64 * MEGABYTE
"""Bytes of a JSON file: lists of lists take twenty times as much in memory."""
YAML_LIMIT = MEGABYTE // 4
"""Bytes of a YAML file, which is parsed by Python at a quarter of a megabyte per second."""
_YAML_NODES = 20_000  # with every alias counted as what it stands for
_SHOWN = 80


def read_bytes(path: str | os.PathLike[str], *, limit: int, error: type[SemkeyError] = InputError) -> bytes:
    """The bytes of a file.

    Args:
        path: a regular file, or a pipe.
        limit: bytes that it may have at most.
        error: what is raised.

    Raises:
        SemkeyError: of the kind ``error``: missing, a folder, a device, not readable, or too large.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
                raise error(f"{path}: is a device, not a file")
            # A read takes the memory that it is asked for, and a pipe does not say how much there will be.
            data = file.read(min(status.st_size, limit) + 1)
            while len(data) <= limit and (more := file.read(MEGABYTE)):
                data += more
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL character in the name
        raise error(f"{path}: cannot be read ({getattr(problem, 'strerror', None) or problem})") from None
    if len(data) > limit:
        raise error(f"{path}: has more than {limit / MEGABYTE:g} MB, which no file of this kind has")
    return data


def read_text(path: str | os.PathLike[str], *, limit: int, error: type[SemkeyError] = InputError) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark; otherwise as :func:`read_bytes`.

    Raises:
        SemkeyError: as :func:`read_bytes`, or not UTF-8.
    """
    try:
        return read_bytes(path, limit=limit, error=error).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(f"{path}: is not a text file in UTF-8") from None


def parse_json(text: str | bytes, where: str | os.PathLike[str], *, error: type[SemkeyError] = InputError) -> Any:
    """The value that JSON spells.

    Args:
        text: JSON; bytes are UTF-8.
        where: the file, for messages.
        error: what is raised.

    Raises:
        SemkeyError: of the kind ``error``: no valid JSON, NaN or infinite numbers, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise error(f"{where}: cannot be read as JSON (nested too deeply)") from None
    except ValueError as problem:
        raise error(f"{where}: cannot be read as JSON ({one_line(str(problem))})") from None


def read_json(path: str | os.PathLike[str], *, limit: int = JSON_LIMIT, error: type[SemkeyError] = InputError) -> Any:
    """The value in a JSON file; see :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, limit=limit, error=error), path, error=error)


def compose_yaml(text: str, where: str | os.PathLike[str], *, error: type[SemkeyError] = InputError) -> Any:
    """The node of a YAML text, None for an empty one, with a bound on how much its aliases stand for.

    Raises:
        SemkeyError: of the kind ``error``: no valid YAML (the message has the line), too large, nested too deeply, or
            with aliases that stand for too much (Klein's "billion laughs").
    """
    import yaml

    if len(text) > YAML_LIMIT:
        raise error(f"{where}: has more than {YAML_LIMIT / MEGABYTE:g} MB, which no YAML file of this kind has")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _count(node, {}) > _YAML_NODES:
            raise error(f"{where}: holds more than {_YAML_NODES} values, with every alias as what it stands for")
    except RecursionError:
        raise error(f"{where}: is not valid YAML (nested too deeply)") from None
    except (yaml.YAMLError, ValueError) as problem:
        raise _yaml_error(problem, where, error) from None
    return node


def parse_yaml(text: str, where: str | os.PathLike[str], *, error: type[SemkeyError] = InputError) -> Any:
    """The value that YAML spells, plain types only; otherwise as :func:`compose_yaml`."""
    import yaml

    node = compose_yaml(text, where, error=error)
    if node is None:
        return None
    try:
        return yaml.SafeLoader("").construct_document(node)
    # dates that do not exist and numbers with thousands of digits raise ValueError and OverflowError
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, LookupError, AttributeError) as problem:
        raise _yaml_error(problem, where, error) from None
    except RecursionError:
        raise error(f"{where}: is not valid YAML (nested too deeply)") from None


def shown(value: object) -> str:
    """A value as Python writes it, on one line of at most 80 characters, for messages."""
    return one_line(_repr(value))


def one_line(text: str) -> str:
    """Text on one line of at most 80 characters, for messages."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _repr(value: object) -> str:
    """``repr``, but for what would be long."""
    if isinstance(value, str | bytes) and len(value) > _SHOWN:
        return repr(value[:_SHOWN])
    if isinstance(value, list | tuple | dict | set) and len(value) > _SHOWN:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _yaml_error(problem: Exception, where: str | os.PathLike[str], error: type[SemkeyError]) -> SemkeyError:
    mark = getattr(problem, "problem_mark", None)
    place = f", line {mark.line + 1}" if mark is not None else ""
    return error(f"{where}{place}: is not valid YAML ({one_line(str(getattr(problem, 'problem', None) or problem))})")


def _count(node: Any, known: dict[int, int]) -> int:
    """Nodes under a node, aliases counted each time; a node that contains itself counts as too many."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _YAML_NODES + 1  # until it is counted, it lies within itself
    total = 1
    if not isinstance(node.value, str):
        for item in node.value:
            total += sum(_count(part, known) for part in (item if isinstance(item, tuple) else (item,)))
    known[id(node)] = min(total, _YAML_NODES + 1)
    return known[id(node)]
