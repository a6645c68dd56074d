"""What the site's pages hold that is made on building: README, the command line's help, and all public names.

mkdocs calls these functions (``hooks`` in mkdocs.yml). A page says with a comment of its own what belongs where:
``<!-- readme -->``, ``<!-- readme: install -->``, ``<!-- file: NAME -->``, ``<!-- commands -->``, ``<!-- names -->``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {
    "Features": ["load", "Detector", "Features"],
    "Matching": ["match", "Matches", "refine", "RefinedMatches"],
    "Pictures": ["draw_keypoints", "draw_matches", "Picture"],
    "Sequences": ["open_sequence", "FrameSequence", "Frame", "PinholeCamera"],
    "SLAM": ["run_slam", "Slam", "SlamConfig", "SlamResult", "TrackedFrame", "Trajectory"],
    "Errors": ["SemkeyError", "InputError", "DatasetError", "CheckpointError", "ConfigError"],
}
"""Every public name but the version; a new one needs its place here, or the site is not built."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text with what its comments ask for."""
    makers = {
        "readme": lambda: of_root(read("README.md")),
        "readme: install": installation,
        "commands": lambda: "\n".join(commands()),
        "names": lambda: "\n".join(names()),
    }
    for name, make in makers.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", make())
    return re.sub(r"<!-- file: (\S+) -->", lambda match: of_root(read(match[1])), markdown)


def read(name: str) -> str:
    """A text file of the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def of_root(text: str) -> str:
    """Text of a file in the repository's root with its links as a page of the site has them."""
    text = re.sub(r"(\]\(|src=\")docs/", r"\1", text)
    return text.replace("](CONTRIBUTING.md", "](contributing.md").replace("](CHANGELOG.md", "](changelog.md")


def installation() -> str:
    """README's lines of installing."""
    found = re.search(r"<!-- install -->\n(.*?)<!-- end of install -->", read("README.md"), re.DOTALL)
    if found is None:
        raise ValueError("README.md has no part between <!-- install --> and <!-- end of install -->")
    return found[1]


# -- names ---------------------------------------------------------------------------------------------------------


def names() -> Iterator[str]:
    """Mkdocstrings' directives for all that is public.

    Raises:
        ValueError: a public name has no group, or a group names what is not public.
    """
    import semkey

    grouped = {name for group in GROUPS.values() for name in group}
    public = set(dir(semkey)) - {"__version__"}
    if grouped != public:
        raise ValueError(f"scripts/site_hooks.py: GROUPS and semkey's public names differ: {sorted(grouped ^ public)}")
    for title, group in GROUPS.items():
        yield f"\n## {title}\n"
        yield from (f"::: semkey.{name}\n" for name in group)


# -- commands ------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """A section per command, with a table of its options."""
    import typer.main

    from semkey.cli.main import app

    yield from sections(typer.main.get_command(app), "semkey")


def sections(command: Any, title: str) -> Iterator[str]:
    """The commands of a group, those of groups in it too."""
    for name, inner in command.commands.items():
        if inner.hidden:
            continue
        full = f"{title} {name}"
        if hasattr(inner, "commands"):
            yield f"\n## {full}\n\n{prose(inner.help or '')}\n"
            yield from sections(inner, full)
            continue
        yield f"\n{'##' if title == 'semkey' else '###'} {full}\n\n{prose(inner.help or '')}\n"
        yield "| argument or option | default | what |\n|---|---|---|"
        yield from (row(parameter) for parameter in inner.params if not getattr(parameter, "hidden", False))


def row(parameter: Any) -> str:
    """A parameter's row of the table."""
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        shown = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = "" if parameter.default in (None, ()) or callable(parameter.default) else f"`{parameter.default}`"
    if parameter.required:
        default = "required"
    return f"| {shown} | {cell(default)} | {cell(markup(getattr(parameter, 'help', '') or ''))} |"


def prose(text: str) -> str:
    """A command's help as Markdown: paragraphs, and its examples as one block of code."""
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text.replace("\f", ""))]
    done, examples = [], []
    for paragraph in paragraphs:
        if paragraph.startswith("semkey "):
            examples.append(" ".join(paragraph.split()))
        elif paragraph and "Examples" not in paragraph:
            done.append(markup(" ".join(paragraph.split())))
    if examples:
        done.append("```sh\n" + "\n".join(examples) + "\n```")
    return "\n\n".join(done)


def markup(text: str) -> str:
    """Rich's markup as Markdown."""
    text = re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"**\1**", text)
    return html.escape(text.replace("\\[", "["), quote=False)


def cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
