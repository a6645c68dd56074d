"""Detectors by name."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from semkey.errors import CheckpointError, ConfigError
from semkey.extractors.classical import ClassicalExtractor, OrbExtractor, RootSiftExtractor
from semkey.extractors.detector import Detector, Extractor
from semkey.extractors.guided import GuidedDetector
from semkey.extractors.peers import PEERS
from semkey.extractors.places import split_places, with_places
from semkey.extractors.plugins import create_from_entry_point, create_from_function, entry_point_names
from semkey.extractors.semantic import SemanticExtractor
from semkey.model.presets import preset_names, presets
from semkey.model.starting import is_backbone
from semkey.runtime import select_device
from semkey.settings import did_you_mean

CLASSICAL: dict[str, type[ClassicalExtractor]] = {"orb": OrbExtractor, "sift": RootSiftExtractor}
CHECKPOINT_SUFFIX = ".safetensors"


def extractor_names() -> list[str]:
    """Names that :func:`create_extractor` knows, besides checkpoints and ``module:function``."""
    shipped = list(presets())
    builtin = [*shipped, *CLASSICAL, *PEERS, *(name for name in preset_names() if name not in shipped)]
    return [*builtin, *(name for name in entry_point_names() if name not in builtin)]


def create_extractor(
    name: str,
    *,
    max_keypoints: int = 1024,
    device: str = "auto",
    weights: Sequence[Path] = (),
    random_weights: bool = False,
    extraction: dict[str, Any] | None = None,
    runtime: str = "torch",
) -> Detector:
    """Create a detector.

    Args:
        name: ``compact`` or another preset of semkey, ``orb``, ``sift`` (RootSIFT), a peer (``aliked-t16``,
            ``aliked-n16``, ``aliked-n16rot``, ``aliked-n32``, ``xfeat``, ``disk``: these need the extra ``peers``;
            ``clidd-n64``, ``clidd-s64``, ``clidd-m64``, ``clidd-l64``), the path of a semkey ``.safetensors``
            checkpoint, a backbone's folder, one of these with global descriptors of a backbone behind an ``@`` (see
            :mod:`semkey.extractors.places`: ``compact@vit-tiny:gem``), ``module:function`` (see
            :func:`semkey.extractors.plugins.create_from_function`), or a name that an installed package registered as
            an entry point of the group ``semkey.extractors``.
        max_keypoints: largest number of keypoints per image, >= 1.
        device: ``auto`` (for a learned extractor the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``. ORB and
            SIFT compute on the CPU and only put their results on the device.
        weights: folders where the released weights of peers and backbones are looked for first (see
            :func:`semkey.extractors.peer_weights.find_weights`, :func:`semkey.backbones.loading.load_backbone`).
        random_weights: presets of semkey get random weights: enough to measure their speed.
        extraction: other fields of :class:`semkey.model.config.ExtractionConfig`, for semkey's own.
        runtime: what computes the network of semkey's own: ``torch``, ``onnxruntime``, ``openvino`` or ``auto``.

    Returns:
        The detector.

    Raises:
        ConfigError: unknown name, unusable device, ``max_keypoints`` below 1, a package that is missing, or a
            ``module:function`` that cannot be used.
        CheckpointError: the checkpoint is missing or not one of semkey's; the weights of a peer cannot be found.
    """
    if (base := split_places(name)[0]) != name:
        inner = create_extractor(
            base,
            max_keypoints=max_keypoints,
            device=device,
            weights=weights,
            random_weights=random_weights,
            extraction=extraction,
            runtime=runtime,
        )
        return with_places(inner, name, device=device, weights=weights)
    shipped = _create_shipped(
        name,
        max_keypoints=max_keypoints,
        device=device,
        weights=weights,
        random_weights=random_weights,
        extraction=extraction or {},
        runtime=runtime,
    )
    if shipped is not None:
        return shipped
    _refuse_extraction(name, extraction or {}, runtime)
    if ":" in name:
        return create_from_function(name, max_keypoints=max_keypoints, device=str(select_device(device)))
    registered = create_from_entry_point(name, max_keypoints=max_keypoints, device=str(select_device(device)))
    if registered is not None:
        return registered
    raise _unknown(name)


def load(
    name: str | Path = "compact",
    *,
    max_keypoints: int = 1024,
    device: str | torch.device = "auto",
    weights: Sequence[str | Path] = (),
    guide: str | None = None,
    runtime: str = "torch",
    **extraction: Any,
) -> Detector:
    """A detector by name, ready to extract.

    Args:
        name: ``compact``, ``nano``, ``vit-tiny``, ``dinov2-small`` and the others over DINO (docs/backbones.md),
            ``orb``, ``sift`` (RootSIFT); a peer: ``aliked-n16``, ``xfeat``, ``clidd-s64``, ...; the path of a
            checkpoint that ``semkey train`` wrote, or of a backbone's folder; your own ``module:function``, or a name
            that an installed package registered (``docs/evaluation.md``).
        max_keypoints: at most this many keypoints per image.
        device: "auto" (the GPU where there is one, and the features compute on it), "cpu", "cuda", "cuda:1", ...
        weights: folders where the weights of peers and backbones are looked for first.
        guide: a backbone (``vit-tiny``, ``dinov2-small``, ...) whose view of each keypoint restricts what nearest
            neighbours are looked for among (``docs/matching.md``); costs its pass over every image.
        runtime: what computes the network of semkey's own, on a CPU: ``torch``; ``onnxruntime`` (extra ``onnx``) or
            ``openvino`` (extra ``openvino``), with the same features but for rounding; ``auto``, the one of these that
            was measured to be fastest (``detector.runtime`` says which).
        **extraction: for semkey's own, other fields of :class:`semkey.model.config.ExtractionConfig`, e.g.
            ``min_score=0.5``.

    Raises:
        ConfigError: unknown name, setting or device, or a package is missing.
        CheckpointError: a checkpoint that is missing, damaged or of another network; weights that are not found.

    Example:
        >>> import semkey
        >>> semkey.load("nano", max_keypoints=512, device="cpu")
        Detector(nano: at most 512 keypoints, on cpu)
        >>> semkey.load("sift", device="cpu")
        Detector(sift: at most 1024 keypoints, on cpu)
        >>> semkey.load("nanno")
        Traceback (most recent call last):
        ...
        semkey.errors.ConfigError: unknown features 'nanno': ... (did you mean 'nano'?)
    """
    if isinstance(name, Path) and not name.is_file():
        raise CheckpointError(f"{name}: no such checkpoint")
    folders = [Path(folder) for folder in weights]
    detector = create_extractor(
        str(name),
        max_keypoints=max_keypoints,
        device=str(device),
        weights=folders,
        extraction=extraction,
        runtime=runtime,
    )
    return with_guide(detector, guide, folders)


def with_guide(detector: Detector, guide: str | None, weights: Sequence[Path] = ()) -> Detector:
    """A detector with what a backbone sees at its keypoints; without a name, the detector as it is.

    Raises:
        ConfigError: unknown backbone, or transformers is not installed.
        CheckpointError: its weights cannot be had.
    """
    return detector if guide is None else GuidedDetector(detector, guide, weights)


def as_detector(detector: Extractor | str | Path) -> Extractor:
    """A detector, or the one of that name (:func:`load`).

    Raises:
        ConfigError: unknown name, or something that extracts nothing.
        CheckpointError: see :func:`load`.
    """
    if isinstance(detector, str | Path):
        return load(detector)
    if not callable(getattr(detector, "extract", None)):
        raise ConfigError(f"the detector is a {type(detector).__name__}: pass what semkey.load gives, or a name")
    return detector


def create_stored_extractor(
    name: str, *, max_keypoints: int = 1024, device: str = "auto", weights: Sequence[Path] = ()
) -> Detector:
    """Create the extractor that a file names, such as the map it was made with.

    Files come from strangers, so they never say which code is run: only what ships with semkey and checkpoints (which
    hold numbers alone) are made here. Own extractors are given by the user, and a file only checks that they match.

    Args:
        name: as written in the file.
        max_keypoints: see :func:`create_extractor`.
        device: see :func:`create_extractor`.
        weights: see :func:`create_extractor`.

    Raises:
        ConfigError: nothing of semkey's has this name; an extractor of one's own has to be given with ``--features``.
        CheckpointError: see :func:`create_extractor`.
    """
    if (base := split_places(name)[0]) != name:
        inner = create_stored_extractor(base, max_keypoints=max_keypoints, device=device, weights=weights)
        return with_places(inner, name, device=device, weights=weights)
    shipped = _create_shipped(
        name, max_keypoints=max_keypoints, device=device, weights=weights, random_weights=False, extraction={}
    )
    if shipped is not None:
        return shipped
    if ":" not in name and name not in entry_point_names():
        raise _unknown(name)
    raise ConfigError(
        f"features '{name}' do not come with semkey, and code that a file names is not run: "
        "give your own extractor with --features"
    )


def _unknown(name: str) -> ConfigError:
    known = extractor_names()
    hint = did_you_mean(name, known) or f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}"
    return ConfigError(f"unknown features '{name}': choose one of {', '.join(known)} ({hint})")


def _create_shipped(
    name: str,
    *,
    max_keypoints: int,
    device: str,
    weights: Sequence[Path],
    random_weights: bool,
    extraction: dict[str, Any],
    runtime: str = "torch",
) -> Detector | None:
    """What semkey itself has under a name, or a checkpoint; None for anything else. Runs no foreign code."""
    if not isinstance(max_keypoints, Integral):
        raise ConfigError(f"max_keypoints is {max_keypoints!r}, expected a whole number")
    if max_keypoints < 1:
        raise ConfigError(f"max_keypoints must be at least 1, got {max_keypoints}")
    if name in CLASSICAL:
        _refuse_extraction(name, extraction, runtime)
        # Their results are made on the CPU, and a copy to the GPU pays only where it is asked for.
        target = select_device("cpu" if device == "auto" else device)
        return CLASSICAL[name](max_keypoints=max_keypoints, device=target)
    if name in PEERS:
        _refuse_extraction(name, extraction, runtime)
        return PEERS[name](name, max_keypoints=max_keypoints, device=select_device(device), weights=weights)
    if is_own(name):
        return SemanticExtractor(
            name,
            max_keypoints=max_keypoints,
            device=device,
            weights=weights,
            random_weights=random_weights and name in preset_names(),
            extraction=extraction,
            runtime=runtime,
        )
    return None


def is_own(name: str) -> bool:
    """Whether a name is one of semkey's own detectors: a preset, a checkpoint, or a backbone's folder."""
    return name in preset_names() or name.endswith(CHECKPOINT_SUFFIX) or Path(name).is_file() or is_backbone(name)


def _refuse_extraction(name: str, extraction: dict[str, Any], runtime: str) -> None:
    if runtime not in ("torch", "auto"):
        raise ConfigError(f"features '{name}' have no runtime '{runtime}': only semkey's own detectors have")
    if extraction:
        raise ConfigError(
            f"features '{name}' have no setting '{next(iter(extraction))}': only semkey's own detectors have more than "
            "max_keypoints and device"
        )
