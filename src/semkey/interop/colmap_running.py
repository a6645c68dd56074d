"""Long calls of COLMAP: how far they are, and Ctrl-C, which its C++ does not hear by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``."""

_LOOK_S = 0.5
# How long a call that was told to stop is waited for; then it is left behind, and ends with the process.
_STOP_S = 10.0


def run_watched(call: Callable[[], T], look: Callable[[], None], token: Any = None) -> T:
    """Run a call in a thread of its own, and look every half second.

    Args:
        call: what takes long, and holds no lock of Python meanwhile.
        look: tells how far it is; what it raises, or Ctrl-C, ends the wait.
        token: with ``cancel()``, which the call heeds; None where there is none.

    Raises:
        Exception: what the call raises, as :func:`call` would.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed over below
            errors.append(error)

    thread = threading.Thread(target=work, name="colmap", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK_S)
            look()
    except BaseException:
        if token is not None:
            token.cancel()
            thread.join(_STOP_S)
        raise
    if errors:
        raise errors[0]
    return results[0]


def new_token(pycolmap: Any) -> Any:
    """A token by which COLMAP can be stopped; None where this version has none."""
    return pycolmap.CancellationToken() if hasattr(pycolmap, "CancellationToken") else None


def with_token(token: Any) -> dict[str, Any]:
    """The token as an argument of COLMAP's."""
    return {} if token is None else {"cancellation_token": token}
