"""Configurations as frozen dataclasses: built from nested mappings, read from YAML, changed by ``a.b=value``.

:class:`Settings` is the base of every configuration class of the project. Every problem is a
:class:`semkey.errors.ConfigError` that names the key with its whole path and, for an unknown key, the nearest one that
exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from semkey.errors import ConfigError, InputError
from semkey.untrusted import YAML_LIMIT, parse_yaml, read_text, shown

T = TypeVar("T")

_EXAMPLE = "seed=1 or a.b=0.5"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of configurations that are read from nested mappings."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, base: Self | None = None) -> Self:
        """Build from a nested mapping, as YAML and JSON give it.

        Lists become tuples, text becomes a path or a number where the field is one (YAML reads ``1e-4`` as text). A
        mapping of names to numbers, such as the weights of losses, is laid over the default: name by name.

        Args:
            values: by field name; what is absent keeps its default.
            base: the defaults; None takes those of the class.

        Raises:
            ConfigError: an unknown key, a value of another type or out of range; the message has the path of the key.
        """
        return _build(cls, values, base, "")

    def to_mapping(self) -> dict[str, Any]:
        """A nested mapping of plain values that :meth:`from_mapping` reads back; ready for JSON and YAML."""
        return _plain(self)

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """What the docstrings of the class and its bases say of each field under ``Attributes``."""
        found: dict[str, str] = {}
        for kind in reversed(cls.__mro__):
            section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
            for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
                found[name] = " ".join(text.split())
        return found

    def with_changes(self, changes: Sequence[str]) -> Self:
        """A copy with changes such as ``tracking.min_inliers=20``, see :func:`override`.

        Raises:
            ConfigError: as :func:`override` and :meth:`from_mapping`.
        """
        return self.from_mapping(override({}, changes), base=self)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping, empty for an empty file.

    Raises:
        ConfigError: no such file, not UTF-8, no valid YAML (the message has the line), too large (aliases count as
            what they stand for), or not a mapping.
    """
    path = Path(path)
    loaded = parse_yaml(read_text(path, limit=YAML_LIMIT, error=ConfigError), path, error=ConfigError)
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: holds a {type(loaded).__name__}, expected keys with values")
    return loaded


def override(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of a nested mapping with changes such as ``optimizer.batch_pairs=16`` or ``data.photos=../photos``.

    The value is read as YAML, so ``null``, ``true`` and ``[1, 2]`` mean what they mean there; text that is not
    valid YAML stays text.

    Raises:
        ConfigError: a change without ``=`` or without a key, or one that goes through a value that is no mapping.
    """
    result = _copy(values)
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {change}: expected key=value, e.g. {_EXAMPLE}")
        try:
            value = parse_yaml(text, "--set")
        except InputError:
            value = text
        place = result
        for depth, key in enumerate(keys[:-1], start=1):
            inner = place.setdefault(key, {})
            if inner is None:  # a YAML key with nothing below it
                inner = place[key] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {change}: {'.'.join(keys[:depth])} is a value, it has no keys of its own")
            place = inner
        place[keys[-1]] = value
    return result


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def require(holds: bool, message: str) -> None:
    """Raise a ConfigError with the message unless something holds."""
    if not holds:
        raise ConfigError(message)


def require_within(settings: object, interval: str, *names: str) -> None:
    """Raise a ConfigError unless fields lie in an interval.

    Args:
        settings: what has the fields.
        interval: as mathematics writes it: ``(0, 1]``, ``[0, inf)``. NaN lies in none.
        names: of the fields, which are numbers.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name in names:
        value = getattr(settings, name)
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if not (above and below):
            raise ConfigError(f"{name} is {value}, must be in {interval}")


def require_choice(settings: object, *names: str) -> None:
    """Raise a ConfigError unless fields whose type is a ``Literal``, perhaps with None, have one of its values."""
    hints = typing.get_type_hints(type(settings))
    for name in names:
        _convert(hints[name], getattr(settings, name), None, name)


def unknown_key(where: str, key: str, valid: Sequence[str]) -> ConfigError:
    """The error for a key that does not exist, with the nearest one that does."""
    hint = did_you_mean(key, valid) or f"there are: {', '.join(valid) or 'none'}"
    return ConfigError(f"unknown key '{_join(where, key)}', {hint}")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``did you mean 'NAME'?`` with the known name that is nearest to a wrong one, or nothing where none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _build(cls: type[T], values: Any, base: T | None, where: str) -> T:
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {shown(values)}, expected keys with values")
    known: dict[str, Field[Any]] = {field.name: field for field in fields(typing.cast("Any", cls)) if field.init}
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(where, key, list(known))
        default = getattr(base, key) if base is not None else _default(known[key])
        given[key] = _convert(hints[key], value, default, _join(where, key))
    try:
        return cls(**given) if base is None else dataclasses.replace(typing.cast("Any", base), **given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None
    except OverflowError:  # a number beyond what a computation with it can hold
        raise ConfigError(f"{where or 'the configuration'} holds a number that is too large") from None
    except TypeError as error:  # a field without a default is missing
        missing = [
            n for n, f in known.items() if n not in given and f.default is MISSING and f.default_factory is MISSING
        ]
        if not missing:
            raise
        raise ConfigError(f"{_join(where, missing[0])} is missing") from error


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _convert(kind: Any, value: Any, default: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        problems: list[ConfigError] = []
        for option in options:
            try:
                return _convert(option, value, default, where)
            except ConfigError as error:
                problems.append(error)
        raise problems[0]
    if isinstance(kind, type) and issubclass(kind, Settings):
        return _build(kind, value, default if isinstance(default, kind) else None, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {shown(value)}, must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {shown(value)}, expected keys with values")
        items = {str(key): _convert(arguments[1], item, None, _join(where, key)) for key, item in value.items()}
        return {**(default or {}), **items}
    return _scalar(kind, value, where)


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {shown(value)}, expected a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, None, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{where} has {len(value)} entries, expected {len(arguments)}")
    return tuple(
        _convert(kind, item, None, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if kind is int and isinstance(value, float | str) and _number(value) is not None and float(value).is_integer():
        return int(float(value))
    if kind is float and not isinstance(value, bool) and _number(value) is not None:
        return float(value)
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path", str: "text"}
    raise ConfigError(f"{where} is {shown(value)}, expected {names.get(kind, kind)}")


def _number(value: Any) -> float | None:
    """The finite number that a value is or spells, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
