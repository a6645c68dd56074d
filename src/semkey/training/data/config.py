"""Configuration of the training data: the part ``data:`` of a training configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semkey.settings import Settings, require, require_within
from semkey.training.data.depthless_config import ClipsConfig, PosedConfig


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Settings):
    """Ranges of the random homographies between the views of a picture.

    Attributes:
        scale: relative scale of the two views is drawn log-uniformly from [1 / scale, scale].
        rotation_deg: relative rotation is drawn from a triangular distribution within +- this.
        roll_deg: common rotation of both views, likewise.
        perspective: largest corner displacement as a share of the view's size, in [0, 0.4].
        quarter_turns: share of pairs whose views are both turned by 90, 180 or 270 degrees.
        flips: share of pairs that show the picture mirrored.
        mirrored_border: share of pairs with the picture's mirror image beyond its borders instead of black.
        shifted: share of pairs whose views differ by a shift alone, of up to ``shift_px`` and by fractions of a pixel:
            keypoints and descriptors must follow it exactly.
        shift_px: largest shift of those, pixels, in x and in y.
        plain: share of photo pairs whose view 0 is the middle of the photo as it is, scaled to the view's size: what a
            backbone makes of it is computed once (``semkey cache-features``).
    """

    scale: float = 2.0
    rotation_deg: float = 60.0
    roll_deg: float = 30.0
    perspective: float = 0.25
    quarter_turns: float = 0.1
    flips: float = 0.5
    mirrored_border: float = 0.5
    shifted: float = 0.0
    shift_px: float = 8.0
    plain: float = 0.0

    def __post_init__(self) -> None:
        require_within(self, "[1, 8]", "scale")
        require_within(self, "[0, 180]", "rotation_deg", "roll_deg")
        require_within(self, "[0, 0.4]", "perspective")
        require_within(self, "[0, 1]", "quarter_turns", "flips", "mirrored_border", "plain", "shifted")
        require_within(self, "[0, 64]", "shift_px")


@dataclass(frozen=True, kw_only=True)
class LightConfig(Settings):
    """Photometric change of each view on its own; values of pixels are in [0, 1].

    Attributes:
        shadow: share of views with a soft polygon that is darker or brighter.
        gradient: share of views with light that changes linearly across them.
        gamma: the exponent of the tone curve is drawn log-uniformly from exp(+- this).
        contrast: range of the factor about mid-grey.
        level: largest change of brightness, either way.
        blur: share of views with a Gaussian blur.
        blur_px: range of its sigma.
        motion_blur: share of views with motion blur (none has both).
        motion_px: range of its length.
        noise: share of views with Gaussian noise.
        noise_level: largest standard deviation of the noise.
        jpeg: share of views that are compressed.
        jpeg_quality: range of the quality.
    """

    shadow: float = 0.3
    gradient: float = 0.3
    gamma: float = 0.7
    contrast: tuple[float, float] = (0.4, 1.3)
    level: float = 0.2
    blur: float = 0.2
    blur_px: tuple[float, float] = (0.5, 1.8)
    motion_blur: float = 0.15
    motion_px: tuple[float, float] = (2.0, 8.0)
    noise: float = 0.6
    noise_level: float = 0.05
    jpeg: float = 0.3
    jpeg_quality: tuple[int, int] = (25, 90)

    def __post_init__(self) -> None:
        require_within(
            self, "[0, 1]", "shadow", "gradient", "blur", "motion_blur", "noise", "noise_level", "jpeg", "level"
        )
        require(self.blur + self.motion_blur <= 1.0, "blur and motion_blur must not exceed 1 together")
        require_within(self, "[0, 2]", "gamma")
        for name in ("contrast", "blur_px", "motion_px", "jpeg_quality"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"{name} must be two positive numbers in order, got {low}, {high}")
        require(self.jpeg_quality[1] <= 100, f"jpeg_quality must be at most 100, got {self.jpeg_quality[1]}")

    @classmethod
    def off(cls) -> LightConfig:
        """Views as they were warped."""
        none = dict.fromkeys(
            ("shadow", "gradient", "gamma", "level", "blur", "motion_blur", "noise", "noise_level", "jpeg"), 0.0
        )
        return cls.from_mapping({**none, "contrast": [1.0, 1.0]})


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Settings):
    """Whose keypoints are the detection targets.

    Attributes:
        name: ``aliked-n16``, ``xfeat``, ``compact``, the path of a semkey checkpoint, ...; empty for none. A recipe
            never names code to run, so no ``module:function``.
        keypoints: at most this many per photo, strongest first.
        descriptors: also pass on the teacher's descriptors (key ``teacher`` of a pair).
        weights: folders where released weights are looked for first.
    """

    name: str = ""
    keypoints: int = 1500
    descriptors: bool = False
    weights: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        require_within(self, "[1, 20000]", "keypoints")
        require(bool(self.name) or not self.descriptors, "descriptors needs the name of a teacher")


@dataclass(frozen=True, kw_only=True)
class RoomsConfig(Settings):
    """Rendered rooms, made once into the cache folder; another ``seed`` gives other rooms.

    Attributes:
        count: rooms for training; a twentieth of that, at least one, is added for validation.
        seed: of the first room.
        views: rendered views per room.
        low_texture: share of rooms with plain walls and few things.
        changing_light: share of views under another exposure, tint and a lamp that is carried around.
        texel_size: edge of a texel, metres.
        min_overlap: least share of view 0 that view 1 sees.
    """

    count: int = 60
    seed: int = 0
    views: int = 30
    low_texture: float = 0.2
    changing_light: float = 0.3
    texel_size: float = 0.006
    min_overlap: float = 0.25

    def __post_init__(self) -> None:
        require_within(self, "[1, 50000]", "count")
        require_within(self, "[0, inf)", "seed")
        require_within(self, "[2, 1000]", "views")
        require_within(self, "[0, 1]", "low_texture", "changing_light")
        require_within(self, "[0.001, 0.1]", "texel_size")
        require_within(self, "(0, 0.9)", "min_overlap")


@dataclass(frozen=True, kw_only=True)
class SequencesConfig(Settings):
    """Posed RGB-D sequences.

    Attributes:
        folders: each a sequence with depth and poses (TUM RGB-D, 7-Scenes, ...).
        max_gap: frames of a pair are at most this many apart.
        overlap: range of the share of view 0 that view 1 sees; all overlaps in it are equally frequent.
        tolerance: depths agree that differ by less than this share (occlusion check).
        rotation_deg: the views are turned within +- this about the optical axis.
        refine: correct the recorded relative poses by matches between the images, and leave out pairs that do not fit:
            recorded poses are off by several pixels. Not needed where poses are exact (rendered sequences).
    """

    folders: tuple[Path, ...] = ()
    max_gap: int = 60
    overlap: tuple[float, float] = (0.3, 0.9)
    tolerance: float = 0.03
    rotation_deg: float = 20.0
    refine: bool = True

    def __post_init__(self) -> None:
        low, high = self.overlap
        require_within(self, "[1, inf)", "max_gap")
        require(0.0 < low < high <= 1.0, f"overlap must be two shares in order, got {low}, {high}")
        require_within(self, "(0, 0.5]", "tolerance")
        require_within(self, "[0, 180]", "rotation_deg")


@dataclass(frozen=True, kw_only=True)
class SharesConfig(Settings):
    """How often pairs come from each source, in relation to each other; 0 leaves a source out.

    Attributes:
        photos: homographies on photos.
        shapes: homographies on drawn shapes with exact corners.
        rooms: views of rendered rooms.
        sequences: frames of posed RGB-D sequences.
        clips: frames of recordings of which nothing is known.
        posed: photos posed by structure from motion, without depth.
    """

    photos: float = 0.6
    shapes: float = 0.1
    rooms: float = 0.3
    sequences: float = 0.0
    clips: float = 0.0
    posed: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.photos, self.shapes, self.rooms, self.sequences, self.clips, self.posed)
        require(min(shares) >= 0.0, "photos, shapes, rooms, sequences, clips and posed must be 0 or more")
        require(sum(shares) > 0.0, "photos, shapes, rooms, sequences, clips or posed must be above 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """What training sees.

    Attributes:
        photos: folder of photos, searched with its subfolders.
        cache: folder for what is made on first use (shrunk photos, targets, rooms); None is
            ``$XDG_CACHE_HOME/semkey/training``, by default under ``~/.cache``.
        width: of both views, pixels, a multiple of 32.
        height: likewise.
        points: corresponding points per pair.
        repeat: pairs come again after so many, with the same views; 0: every pair is new. With a backbone, epochs after
            the first then need not compute its features.
        val_share: share of photos, rooms and frames that is kept for validation.
        keep_features: keep a backbone's features of views that recur, in ``cache``; half precision.
        shares: how often each source is used.
        views: homographies of photos and shapes.
        light: photometric change of all views.
        teacher: detection targets on photos.
        rooms: rendered rooms.
        sequences: RGB-D sequences.
        clips: recordings without poses or depth.
        posed: photos with poses and without depth.
    """

    photos: Path | None = None
    cache: Path | None = None
    width: int = 320
    height: int = 256
    points: int = 384
    repeat: int = 0
    val_share: float = 0.05
    keep_features: bool = True
    shares: SharesConfig = field(default_factory=SharesConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    light: LightConfig = field(default_factory=LightConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    posed: PosedConfig = field(default_factory=PosedConfig)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            require(64 <= value <= 2048 and value % 32 == 0, f"{name} must be a multiple of 32 from 64, got {value}")
        require_within(self, "[8, 10000]", "points")
        require_within(self, "[0, inf)", "repeat")
        require_within(self, "(0, 0.5]", "val_share")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the views."""
        return self.width, self.height
