"""From the configuration to pairs: what is missing in the cache is made first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from semkey.errors import ConfigError
from semkey.training.data.clips.pairs import ClipPairs, clip_extras, prepare_clips
from semkey.training.data.config import DataConfig
from semkey.training.data.mixture import PairMixture
from semkey.training.data.pair import PairSource
from semkey.training.data.photos import Photo, PhotoPairs, Progress, Split, open_photos
from semkey.training.data.posed.pairs import PosedPairs, prepare_posed
from semkey.training.data.rgbd import RgbdPairs, prepare_sequences
from semkey.training.data.rooms import RoomPairs, prepare_rooms
from semkey.training.data.shapes import ShapePairs
from semkey.training.data.teacher import prepare_targets

_SPLITS = {"train": 0, "val": 1}
_STREAMS = {"mixture": 0, "photos": 1, "shapes": 2, "rooms": 3, "sequences": 4, "clips": 5, "posed": 6}


def cache_folder(config: DataConfig) -> Path:
    """Where data made on first use are kept: ``config.cache``, else ``$XDG_CACHE_HOME/semkey/training``."""
    if config.cache is not None:
        return config.cache
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semkey" / "training"


def open_data(
    config: DataConfig, *, split: Split, seed: int = 0, progress: Progress | None = None, colors: bool = False
) -> PairMixture:
    """The pairs of one side of the split as an endless data set.

    What is needed and not in the cache is made first (shrunk photos, the teacher's keypoints, rendered rooms), file by
    file, so that an interrupted run goes on where it stopped. Of several processes one should do this before the
    others; they do no harm to each other, but each would do all the work.

    Training and validation share no photo, no room and no frame, and their random numbers differ.

    Args:
        config: what to read and how to change it.
        split: ``train`` or ``val``.
        seed: >= 0; pair ``index`` depends on the configuration, the files, this and the index alone.
        progress: told what is being made.
        colors: pairs carry their views in colour as well, for a backbone.

    Returns:
        A data set of pairs (see :mod:`semkey.training.data.pair`), with ``source_of(index)``.

    Raises:
        ConfigError: a source has a share but nothing to read, or the teacher's name is unknown.
        DatasetError: a folder is missing, empty or broken.
        CheckpointError: the teacher's weights cannot be found.
    """
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, got {seed}")
    shares = config.shares
    cache = cache_folder(config)
    photos = _photos(config, split, cache, progress)
    streams = {name: (seed, _SPLITS[split], number) for name, number in _STREAMS.items()}
    sources: dict[str, PairSource] = {}
    extra: dict[str, torch.Tensor] = {}
    if shares.photos > 0:
        targets = prepare_targets(config.teacher, cache, photos, progress) if config.teacher.name else None
        sources["photos"] = PhotoPairs(photos, config, streams["photos"], targets, colors=colors)
        if targets is not None and config.teacher.descriptors:
            extra["teacher"] = torch.zeros(config.points, targets.descriptor_dim(photos))
    if shares.shapes > 0:
        sources["shapes"] = ShapePairs(config, streams["shapes"], colors=colors)
    if shares.rooms > 0:
        files = prepare_rooms(config, cache, photos, split, progress, colors=colors)
        sources["rooms"] = RoomPairs(files, config, streams["rooms"])
    if shares.sequences > 0:
        if not config.sequences.folders:
            raise ConfigError(
                "data.sequences.folders is empty: name RGB-D sequences, or set data.shares.sequences to 0"
            )
        sequences = prepare_sequences(config.sequences, cache, config.val_share, split, progress)
        sources["sequences"] = RgbdPairs(sequences, config, streams["sequences"], colors=colors)
    sources |= _without_depth(config, cache, split, streams, progress, colors=colors)
    if "clips" in sources or "posed" in sources:
        extra |= clip_extras(config, colors=colors)
    repeat = config.repeat if split == "train" else 0  # validation reads its first pairs again and again anyway
    return PairMixture(sources, shares.to_mapping(), streams["mixture"], extra, repeat)


def _without_depth(
    config: DataConfig,
    cache: Path,
    split: Split,
    streams: Mapping[str, tuple[int, ...]],
    progress: Progress | None,
    *,
    colors: bool,
) -> dict[str, PairSource]:
    """The sources ``clips`` and ``posed``, where they have a share."""
    sources: dict[str, PairSource] = {}
    if config.shares.clips > 0:
        if not config.clips.folders:
            raise ConfigError("data.clips.folders is empty: name recordings, or set data.shares.clips to 0")
        recordings = prepare_clips(config.clips, cache, config.size, config.val_share, split, progress)
        sources["clips"] = ClipPairs(recordings, config, streams["clips"], colors=colors)
    if config.shares.posed > 0:
        if not config.posed.folders:
            raise ConfigError("data.posed.folders is empty: name posed photos, or set data.shares.posed to 0")
        scenes = prepare_posed(config.posed, cache, config.val_share, split, progress)
        sources["posed"] = PosedPairs(scenes, config, streams["posed"], colors=colors)
    return sources


def _photos(config: DataConfig, split: Split, cache: Path, progress: Progress | None) -> tuple[Photo, ...]:
    if config.photos is None:
        if config.shares.photos > 0:
            raise ConfigError("data.photos is not set: name a folder of photos, or set data.shares.photos to 0")
        return ()
    folder = open_photos(config.photos, cache, config.size, progress)
    return folder.split(split, config.val_share)
