"""Options of commands made from configuration classes: every field is an option with the class's default and text."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from typing import Any

import typer

from semkey.errors import ConfigError
from semkey.settings import Settings

_NAMES, _METAVAR = "names", "metavar"


def option(default: Any, *names: str, metavar: str | None = None) -> Any:
    """A field of a class of options with names of its own on the command line.

    Args:
        default: of the field; ``MISSING`` where there is none.
        names: such as ``--features`` and ``-f``; without any, the field's name is the option's.
        metavar: what stands for the value in the help.
    """
    return field(default=default, metadata={_NAMES: names, _METAVAR: metavar})


def field_option(kind: type[Settings], name: str, **changes: Any) -> Any:
    """The option of one field: its default, and its description in the class's docstring as help.

    Args:
        kind: the configuration class.
        name: of the field.
        changes: other arguments of :func:`typer.Option`, ``default`` among them.
    """
    described = next(one for one in fields(kind) if one.name == name)
    default = changes.pop("default", ... if described.default is MISSING else described.default)
    arguments: dict[str, Any] = {
        "help": _help(kind.descriptions().get(name, "")),
        "metavar": described.metadata.get(_METAVAR),
    }
    return typer.Option(default, *described.metadata.get(_NAMES, ()), **(arguments | changes))


def changes_option(kind: str, example: str) -> Any:
    """``--set NAME=VALUE``, for :meth:`Settings.with_changes`, with a valid change as example."""
    return typer.Option(
        [],
        "--set",
        metavar="NAME=VALUE",
        help=f"Change any setting of {kind}, e.g. {example}; may be given several times.",
    )


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose parameters of a configuration class become options, one per field.

    The command gets the configuration that the options make; a value out of range is told by the option's name. What
    has to be given comes first in the help.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        kind = parameter.annotation
        if not (isinstance(kind, type) and issubclass(kind, Settings)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        hints = typing.get_type_hints(kind)
        parameters += [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field_option(kind, one.name),
                annotation=hints[one.name],
            )
            for one in fields(kind)
        ]

    parameters.sort(key=lambda parameter: getattr(parameter.default, "default", None) is not ...)

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        made = {name: _make(kind, given) for name, kind in groups.items()}
        return command(**given, **made)

    changed: Any = run
    changed.__signature__ = signature.replace(parameters=parameters)
    changed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _make(kind: type[Settings], given: dict[str, Any]) -> Settings:
    """A configuration of its values among those given, which are taken from there."""
    values = {one.name: given.pop(one.name) for one in fields(kind)}
    try:
        return kind(**values)
    except ConfigError as error:
        first, space, rest = str(error).partition(" ")
        named = next((one for one in fields(kind) if one.name == first), None)
        raise ConfigError(str(error) if named is None else f"--{first.replace('_', '-')}{space}{rest}") from None


def _help(description: str) -> str:
    """A description as a sentence: names in bold, roles of the documentation as plain names."""
    text = re.sub(r"\[(?=[a-z/])", r"\\[", description)
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    text = re.sub(r"``([^`]*)``", r"[bold]\1[/]", text)
    return f"{text[:1].upper()}{text[1:]}"
