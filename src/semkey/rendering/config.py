"""What a rendered room looks like and how the camera moves through it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from semkey.errors import ConfigError

Texture = Literal["normal", "low"]
Motion = Literal["hand-held", "loop", "fast", "kidnapped"]
Light = Literal["steady", "changing"]

TEXTURES: tuple[str, ...] = get_args(Texture)
MOTIONS: tuple[str, ...] = get_args(Motion)
LIGHTS: tuple[str, ...] = get_args(Light)


@dataclass(frozen=True, kw_only=True)
class RoomConfig:
    """One rendered sequence; the same values give the same pixels.

    Attributes:
        seed: room, textures, trajectory and noise all follow from it.
        frames: number of frames, >= 1.
        width: image width in pixels, >= 16.
        height: image height in pixels, >= 16.
        fps: frames per second, > 0; the camera's speed in m/s does not depend on it, except that ``loop`` fits one
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
        """Raise :class:`ConfigError` for a value out of range."""
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; give an integer >= 0")
        if self.frames < 1:
            raise ConfigError(f"frames is {self.frames}; give at least 1")
        if self.width < 16 or self.height < 16:
            raise ConfigError(f"image size {self.width}x{self.height} is too small; give at least 16x16 pixels")
        if self.width > 8192 or self.height > 8192:
            raise ConfigError(f"image size {self.width}x{self.height} is too large; give at most 8192x8192 pixels")
        if not 0.0 < self.fps <= 10_000.0:
            raise ConfigError(f"fps is {self.fps}; give frames per second in (0, 10000]")
        if not 0.001 <= self.texel_size <= 0.1:
            raise ConfigError(f"texel_size is {self.texel_size}; give metres in [0.001, 0.1]")
        for name, value, allowed in (
            ("texture", self.texture, TEXTURES),
            ("motion", self.motion, MOTIONS),
            ("light", self.light, LIGHTS),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RoomConfig:
        """Build from a parsed configuration file; an unknown key raises :class:`ConfigError` naming the nearest."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
                raise ConfigError(f"unknown room option {key!r}; did you mean {nearest!r}?")
        return cls(**values)
