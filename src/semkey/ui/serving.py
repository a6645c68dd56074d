"""Serving the page on this machine alone, without a word to anybody else."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semkey.errors import ConfigError, InputError
from semkey.temporaries import temporary_beside
from semkey.ui.config import PageConfig

HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_SHUTDOWN_S = 1

# The browser loads nothing from elsewhere, whatever a part of the page asks for.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self'; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def serve(config: PageConfig, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted; uploads and pictures are removed at the end.

    Args:
        config: limits and port.
        ready: called with the page's address when it can be opened.

    Raises:
        ConfigError: Gradio is not installed.
        InputError: the port is in use.
        KeyboardInterrupt: of Ctrl-C, when all is removed.
    """
    with _temporary_folder() as folder, _listening(config.port) as listening:
        _silence(folder)
        application, stop = _application(config)
        import uvicorn

        ready(f"http://{HOST}:{listening.getsockname()[1]}")
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=_SHUTDOWN_S)
        logging.getLogger("uvicorn.error").addFilter(_is_no_goodbye)
        try:
            uvicorn.Server(settings).run(sockets=[listening])
        finally:
            stop()


def _is_no_goodbye(record: logging.LogRecord) -> bool:
    """Whether a message is of something else than that open pages held connections until the end, as they do."""
    cancelled = bool(record.exc_info) and record.exc_info[0] is asyncio.CancelledError
    return not cancelled and "graceful shutdown" not in record.getMessage()


def _silence(folder: Path) -> None:
    """Before Gradio is imported: where its files go, and that it tells nobody."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _application(config: PageConfig) -> tuple[Any, Callable[[], None]]:
    """The page as an application of ASGI, and what ends its work."""
    try:
        import gradio
        from fastapi import FastAPI
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError:
        raise ConfigError("the page needs Gradio: pip install 'semkey[ui]'") from None
    from semkey.ui.desk import Desk
    from semkey.ui.page import build_page

    desk = Desk(config)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        outer,
        build_page(desk),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=config.max_megabytes * 1_000_000,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    # A page of elsewhere whose name leads to this machine is not answered.
    outer.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES))
    return _with_headers(outer), desk.stop


def _with_headers(application: Any) -> Any:
    """The application with headers of its own in every answer."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await application(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return answer


@contextmanager
def _listening(port: int) -> Generator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {HOST}:{port} ({error.strerror}): give another --port, or 0 for any free one"
            ) from None
        listening.listen()
        yield listening


@contextmanager
def _temporary_folder() -> Generator[Path]:
    folder = temporary_beside(Path(tempfile.gettempdir()) / "semkey-ui")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
