"""Reports as one HTML file that needs nothing else: pictures and maps inside, no links to other resources."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias

from semkey.errors import InputError

_PICTURE_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}

DENSE_COLUMNS = 7
"""A table with more columns is set smaller."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1f2933; background: #f6f7f9;
  margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
.subtitle, footer, figcaption, caption { color: #5b6773; }
.subtitle { margin: 0 0 24px; overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid #e2e6ea; border-radius: 8px; padding: 20px 24px; margin: 0 0 20px; }
section p { margin: 0 0 12px; max-width: 75ch; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; margin: 0 0 12px; }
dl div { background: #f6f7f9; border-radius: 6px; padding: 10px 12px; }
dt { font-size: 13px; color: #5b6773; }
dd { margin: 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0 0 12px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 6px; font-size: 13px; }
th, td { text-align: left; padding: 5px 20px 5px 0; border-bottom: 1px solid #e2e6ea; vertical-align: top; }
th { font-weight: 600; border-bottom-color: #9aa5b1; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.dense { font-size: 13px; }
.dense th, .dense td { padding-right: 12px; }
.best, .close { border-radius: 4px; padding: 1px 6px; margin-right: -6px; }
.best { font-weight: 700; background: #cfe8d5; }
.close { background: #eaf3e4; }
.whole { white-space: nowrap; }
.note { display: block; font-size: 12px; font-weight: 400; color: #5b6773; white-space: nowrap; }
pre { background: #f6f7f9; border-radius: 6px; padding: 10px 12px; margin: 0 0 12px; font-size: 13px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: #5b6773; margin: 0 0 8px; }
figure { margin: 0 0 16px; }
img { max-width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { font-size: 13px; margin-top: 6px; }
footer { font-size: 13px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px; margin: 0 0 12px; }
.gallery figure { margin: 0; }
.gallery img { width: 100%; }
"""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class KeyFigures:
    """Short labelled values, shown large, such as ``{"Frames": "58", "ATE RMSE": "0.021 m"}``."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command, as it is."""

    text: str


@dataclass(frozen=True)
class Cell:
    """A number in a table, already formatted.

    Attributes:
        text: the number.
        mark: ``best`` is set bold on green, ``close`` on a paler green.
        note: a small second line, such as an interval.
    """

    text: str
    mark: Literal["", "best", "close"] = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table; cells that are numbers are aligned to the right and floats are shown with four significant digits.

    Attributes:
        header: column names.
        rows: rows as long as the header; None is shown as a dash.
        caption: a line above the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int | Cell | None]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file's bytes (PNG or JPEG) with what it shows in words."""

    data: bytes = field(repr=False)
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, as many in a row as there is room for."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Embedded:
    """Lines of HTML as they are, which this package has made (:mod:`semkey.visualization.turntable`)."""

    html: str = field(repr=False)


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when the reader opens them by a click on the summary."""

    summary: str
    blocks: Sequence[Block]


Block: TypeAlias = "Paragraph | KeyFigures | Code | Table | Picture | Gallery | Folded | Embedded"


@dataclass(frozen=True)
class Section:
    """A headed part of a report."""

    heading: str
    blocks: Sequence[Block]


def html_report(title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = "") -> str:
    """One self-contained HTML page. All text is escaped; pictures become base64 data URIs.

    Args:
        title: heading and window title.
        sections: the parts, top to bottom.
        subtitle: a line under the heading.
        footer: a line at the end.

    Raises:
        InputError: a table row of another length than its header, or a picture that is neither PNG nor JPEG.
    """
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="subtitle">{escape(subtitle)}</p>',
    ]
    for section in sections:
        lines += ["<section>", f"<h2>{escape(section.heading)}</h2>"]
        lines += [_render(block) for block in section.blocks]
        lines.append("</section>")
    if footer:
        lines.append(f"<footer>{escape(footer)}</footer>")
    lines += ["</main>", "</body>", "</html>", ""]
    return "\n".join(lines)


def _render(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case KeyFigures(values):
            items = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in values.items())
            return f"<dl>{''.join(items)}</dl>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Folded(summary, blocks):
            inside = "".join(_render(item) for item in blocks)
            return f"<details><summary>{escape(summary)}</summary>{inside}</details>"
        case Embedded(html):
            return html
        case Table():
            return _render_table(block)
        case Gallery(pictures):
            return f'<div class="gallery">{"".join(_render(picture) for picture in pictures)}</div>'
        case Picture(data, caption):
            text = escape(caption)
            return (
                f'<figure><img alt="{text}" src="data:{_picture_type(data)};base64,'
                f'{base64.b64encode(data).decode("ascii")}"><figcaption>{text}</figcaption></figure>'
            )


def _render_table(table: Table) -> str:
    width = len(table.header)
    for index, row in enumerate(table.rows):
        if len(row) != width:
            raise InputError(f"row {index} of table '{table.caption}' has {len(row)} cells, its header {width}")
    # A column is set as numbers, heading included, if every cell that says something is one.
    is_number = [
        all(isinstance(row[column], int | float | Cell | None) for row in table.rows) and bool(table.rows)
        for column in range(width)
    ]
    css = [' class="number"' if number else "" for number in is_number]
    dense = ' class="dense"' if width > DENSE_COLUMNS else ""
    lines = [f'<div class="scroll"><table{dense}>']
    if table.caption:
        lines.append(f"<caption>{escape(table.caption)}</caption>")
    heads = (f"<th{style}>{_name(name)}</th>" for style, name in zip(css, table.header, strict=True))
    lines.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for row in table.rows:
        first = f"<td>{_name(row[0])}</td>" if isinstance(row[0], str) else _render_cell(row[0], is_number[0])
        cells = (_render_cell(cell, number) for number, cell in zip(is_number[1:], row[1:], strict=True))
        lines.append(f"<tr>{first}{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    return "".join(lines)


def _name(name: str) -> str:
    """The name of a column or row, to be wrapped at spaces and after a plus, but not at a hyphen (``aliked-n16``)."""
    return re.sub(r"\w+(-\w+)+", r'<span class="whole">\g<0></span>', escape(name)).replace("+", "+<wbr>")


def _render_cell(cell: str | float | int | Cell | None, in_number_column: bool) -> str:
    css = ' class="number"' if in_number_column else ""
    if not isinstance(cell, Cell):
        return f"<td{css}>{escape(_cell_text(cell))}</td>"
    text = f'<span class="{cell.mark}">{escape(cell.text)}</span>' if cell.mark else escape(cell.text)
    note = f'<span class="note">{escape(cell.note)}</span>' if cell.note else ""
    return f"<td{css}>{text}{note}</td>"


def _cell_text(cell: str | float | int | None) -> str:
    if cell is None:
        return "–"  # noqa: RUF001 (a dash, as in printed tables)
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _picture_type(data: bytes) -> str:
    for signature, media_type in _PICTURE_TYPES.items():
        if data.startswith(signature):
            return media_type
    raise InputError("a picture in a report must be the bytes of a PNG or JPEG file")
