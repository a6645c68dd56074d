"""The sub-commands of ``semkey export``."""

from __future__ import annotations

import typer

from semkey.cli.export import map as export_map
from semkey.cli.export import onnx as export_onnx

app = typer.Typer(
    no_args_is_help=True,
    help="Maps, surfaces and networks in the formats of other programs (docs/interop.md).",
    rich_markup_mode="rich",
)
app.command("map")(export_map.export_map)
app.command("onnx")(export_onnx.export_onnx)
