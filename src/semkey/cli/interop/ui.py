"""``semkey ui``: a local page."""

from __future__ import annotations

import typer

from semkey.cli.options import configured
from semkey.ui.config import PageConfig


@configured
def ui(
    *,
    config: PageConfig,
    open_browser: bool = typer.Option(False, "--open", help="Open the page in the browser as well."),
) -> None:
    r"""Show keypoints, matches, what looks alike, and the map of a short clip, on a local page; needs semkey\[ui].

    Drop two images or a clip. The page answers this machine alone (127.0.0.1), sends nothing anywhere and loads nothing
    from elsewhere; what was dropped is removed when it ends. Ctrl-C ends it.

    [bold]Examples[/]

        semkey ui

        semkey ui --port 0 --open
    """
    from semkey.ui.serving import serve

    def ready(address: str) -> None:
        typer.echo(f"{address} (Ctrl-C ends it)")
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(config, ready)
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
        raise
