"""Backbone features for the steps of training: computed, or read where the same view was seen before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semkey.backbones.backbone import Backbone, BackboneFeatures
from semkey.backbones.feature_cache import BackboneCache
from semkey.training.data.config import DataConfig
from semkey.training.data.opening import cache_folder


class BackboneFeed:
    """Gives the features of views in colour.

    Args:
        backbone: frozen, on the device.
        config: of the data: what of it recurs, and whether that is kept.
        bfloat16: whether the backbone computes in bfloat16.

    Attributes:
        cache: None where nothing is kept.
        note: one line on what is read from the cache, or why nothing is.
    """

    def __init__(self, backbone: Backbone, config: DataConfig, *, bfloat16: bool) -> None:
        self.backbone, self.bfloat16 = backbone.reduce() if bfloat16 else backbone, bfloat16
        self.everything_recurs = config.repeat > 0
        self.cache: BackboneCache | None = None
        if config.keep_features and backbone.identity.content:
            self.cache = BackboneCache(cache_folder(config) / "features", backbone, bfloat16=bfloat16)
        self.note = self._note(config)

    def training_views(self, batch: dict[str, torch.Tensor], clips: Sequence[int] = ()) -> BackboneFeatures:
        """Features of view 0 of each pair, then view 1, then the frames between of those pairs that are ``clips``."""
        plain = batch["plain0"].tolist()
        recur = [self.everything_recurs or value > 0 for value in plain] + [self.everything_recurs] * len(plain)
        views = [batch["color0"], batch["color1"]]
        if clips:
            views.append(batch["frame_colors"][list(clips)].flatten(0, 1))
            recur += [self.everything_recurs] * len(views[-1])
        return self(torch.cat(views), recur)

    def __call__(self, colors: torch.Tensor, recur: Sequence[bool]) -> BackboneFeatures:
        """Features of views.

        Args:
            colors: (B, 3, H, W) uint8 on the backbone's device.
            recur: of each view, whether it will be seen again; those are read from the cache, or kept in it.

        Returns:
            Of all views, float32, in their order.
        """
        new = [row for row, again in enumerate(recur) if not again or self.cache is None]
        rows: dict[int, BackboneFeatures] = {}
        if new:
            with torch.autocast(colors.device.type, torch.bfloat16, enabled=self.bfloat16):
                computed = self.backbone(colors[new].float() / 255.0).map(torch.Tensor.float)
            if len(new) == len(recur):
                return computed
            for place, row in enumerate(new):
                rows[row] = computed.map(lambda tensor, at=place: tensor[at : at + 1])
        for row in range(len(recur)):
            if row not in rows:
                assert self.cache is not None
                # One at a time: what is kept must not depend on the views beside it, or runs would not repeat.
                rows[row] = self.cache.features(colors[row].permute(1, 2, 0).cpu().numpy())
        ordered = [rows[row] for row in range(len(recur))]
        maps = zip(*(features.maps for features in ordered), strict=True)
        return BackboneFeatures(
            maps=tuple(torch.cat(parts) for parts in maps),
            class_token=torch.cat([features.class_token for features in ordered]),
            patch=self.backbone.patch,
        )

    def _note(self, config: DataConfig) -> str:
        if self.cache is None:
            why = "data.keep_features is false" if self.backbone.identity.content else "its weights are random"
            return f"backbone features are computed for every view: {why}"
        where = f"in {self.cache.folder}"
        if config.repeat > 0:
            return f"backbone features of all {config.repeat} pairs are kept {where}"
        if config.views.plain > 0 and config.shares.photos > 0:
            share = f"{config.views.plain:.0%} of the first views"
            return f"backbone features of photos as they are ({share}) are kept {where}"
        return (
            "backbone features are computed for every view: all are warped and relit at random and none comes again "
            "(data.views.plain and data.repeat change that)"
        )
