"""What the page takes, and where it listens."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require_within


@dataclass(frozen=True, kw_only=True)
class PageConfig(Settings):
    """The page of ``semkey ui``.

    Attributes:
        port: of 127.0.0.1; 0 takes any free one.
        max_megabytes: largest file that is taken.
        max_megapixels: largest image, or frame of a clip.
        max_seconds: longest clip.
        max_frames: of a longer clip every second frame is tracked, or every third, ..., so that there are no more.
    """

    port: int = 7860
    max_megabytes: int = 100
    max_megapixels: float = 40.0
    max_seconds: float = 60.0
    max_frames: int = 300

    def __post_init__(self) -> None:
        require_within(self, "[0, 65535]", "port")
        require_within(self, "[1, 4000]", "max_megabytes")
        require_within(self, "(0, 200]", "max_megapixels")
        require_within(self, "(0, 3600]", "max_seconds")
        require_within(self, "[2, 20000]", "max_frames")
