"""What a rendered room looks like and how the camera moves through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from semkey.errors import ConfigError
from semkey.settings import Settings, require_choice, require_within

Texture = Literal["normal", "low"]
Motion = Literal["hand-held", "loop", "fast", "kidnapped"]
Light = Literal["steady", "changing"]

TEXTURES: tuple[str, ...] = get_args(Texture)
MOTIONS: tuple[str, ...] = get_args(Motion)
LIGHTS: tuple[str, ...] = get_args(Light)


@dataclass(frozen=True, kw_only=True)
class RoomConfig(Settings):
    """One rendered sequence; the same values give the same pixels.

    Attributes:
        seed: room, textures, trajectory and noise all follow from it.
        layout: seed of the room alone: its size, what stands where, materials and colours; by default that is ``seed``.
            Rooms of one layout with other seeds look alike: pictures, grain, light and the camera's way are others.
        frames: number of frames, at least 1.
        width: image width in pixels, 16 to 8192.
        height: image height in pixels, 16 to 8192.
        fps: frames per second; the camera's speed in m/s does not depend on it, except that ``loop`` fits one
            closed round into ``frames``.
        texture: ``normal`` (wallpaper, bricks, pictures, much furniture) or ``low`` (plain walls, few things).
        motion: ``hand-held`` (slow walk), ``loop`` (one closed round, last pose next to the first), ``fast`` (quick
            turns) or ``kidnapped`` (hand-held, but the camera jumps to another place half-way).
        light: ``steady`` or ``changing`` (exposure and tint drift, a lamp is carried around).
        blur: motion blur over half a frame interval.
        noise: vignetting, shot noise and read noise of a small sensor.
        depth_noise: depth like a structured-light sensor's (noise, quantisation, holes) instead of exact depth.
        texel_size: edge of one texel on the textured surfaces in metres, in [0.001, 0.1].
    """

    seed: int = 0
    layout: int | None = None
    frames: int = 90
    width: int = 640
    height: int = 480
    fps: float = 15.0
    texture: Texture = "normal"
    motion: Motion = "hand-held"
    light: Light = "steady"
    blur: bool = True
    noise: bool = True
    depth_noise: bool = False
    texel_size: float = 0.003

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "seed", *(["layout"] if self.layout is not None else []))
        require_within(self, "[1, inf)", "frames")
        if self.width < 16 or self.height < 16:
            raise ConfigError(f"image size {self.width}x{self.height} is too small; give at least 16x16 pixels")
        if self.width > 8192 or self.height > 8192:
            raise ConfigError(f"image size {self.width}x{self.height} is too large; give at most 8192x8192 pixels")
        require_within(self, "(0, 10000]", "fps")
        require_within(self, "[0.001, 0.1]", "texel_size")
        require_choice(self, "texture", "motion", "light")
