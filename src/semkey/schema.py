"""Values that were read from a file against the types that code expects of them."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from semkey.errors import InputError
from semkey.untrusted import one_line, shown

_MOST_BITS = 1000  # of a whole number that becomes a float


def check_type(value: object, kind: Any, where: str) -> None:
    """Refuse a value that is not of a type, all the way down.

    Whole numbers count as numbers, true and false do not; lists and tuples are both sequences, text is none.

    Args:
        value: what was read; dataclasses are looked into by their annotations.
        kind: a type as annotations write it: a class, a union, ``Literal``, ``Mapping[str, T]``, ``Sequence[T]``,
            ``tuple[...]``, ``Any``.
        where: what it is, for the message.

    Raises:
        InputError: another type, or a whole number that no float can hold.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return
    if origin in (typing.Union, types.UnionType):
        _check_union(value, arguments, where)
    elif origin is Literal:
        _require(any(value == one and type(value) is type(one) for one in arguments), value, where, "another word")
    elif origin is tuple:
        _check_tuple(value, arguments, where)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        _require(isinstance(value, Mapping), value, where, "keys with values")
        for key, item in typing.cast("Mapping[object, object]", value).items():
            check_type(key, arguments[0], where)
            check_type(item, arguments[1], f"{where}.{key if isinstance(key, str) else shown(key)}")
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        _require(isinstance(value, list | tuple), value, where, "a list")
        for item in typing.cast("Sequence[object]", value):
            check_type(item, arguments[0], where)
    elif is_dataclass(kind):
        _require(isinstance(value, typing.cast("type", kind)), value, where, "keys with values")
        hints = typing.get_type_hints(kind)
        for one in fields(kind):
            check_type(getattr(value, one.name), hints[one.name], f"{where}.{one.name}")
    else:
        _check_scalar(value, kind, where)


def _check_union(value: object, arguments: tuple[Any, ...], where: str) -> None:
    problem: InputError | None = None
    for option in arguments:
        try:
            check_type(value, option, where)
        except InputError as error:
            problem = problem or error
        else:
            return
    assert problem is not None
    raise problem


def _check_tuple(value: object, arguments: tuple[Any, ...], where: str) -> None:
    _require(isinstance(value, list | tuple), value, where, "a list")
    items = typing.cast("Sequence[object]", value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(items)
    _require(len(items) == len(arguments), value, where, f"{len(arguments)} entries")
    for item, kind in zip(items, arguments, strict=True):
        check_type(item, kind, where)


def _check_scalar(value: object, kind: Any, where: str) -> None:
    if kind is None or kind is type(None):
        _require(value is None, value, where, "nothing")
    elif kind in (int, float):
        fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        _require(fits, value, where, "a whole number" if kind is int else "a number")
        _require(not isinstance(value, int) or value.bit_length() < _MOST_BITS, value, where, "a smaller number")
    else:
        _require(isinstance(value, kind), value, where, {str: "text", bool: "true or false"}.get(kind, str(kind)))


def _require(holds: bool, value: object, where: str, expected: str) -> None:
    if not holds:
        raise InputError(f"{one_line(where)} is {shown(value)}, expected {expected}")
