"""Where tokens lie: grids of any size, true places of maps, and that a patch of the image lights the right cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.backbones.geometry import grid_size, pad_to_patches, resample

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import FAMILIES, tiny_backbone
from semkey.backbones.loading import load_backbone


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [((448, 448), 14, (32, 32)), ((480, 640), 16, (30, 40)), ((480, 640), 14, (35, 46)), ((1, 1), 14, (1, 1))],
)
def test_the_stated_grids(size: tuple[int, int], patch: int, grid: tuple[int, int]) -> None:
    assert grid_size(*size, patch) == grid


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 80), width=st.integers(1, 80), patch=st.sampled_from([14, 16]))
def test_padding_moves_no_pixel_and_covers_them_all(height: int, width: int, patch: int) -> None:
    image = torch.rand(1, 3, height, width)
    padded = pad_to_patches(image, patch)
    rows, columns = grid_size(height, width, patch)
    assert padded.shape[-2:] == (rows * patch, columns * patch)
    assert torch.equal(padded[..., :height, :width], image)
    assert 0 <= padded.shape[-2] - height < patch


def token_centers(rows: int, columns: int, patch: int) -> torch.Tensor:
    """Centres (rows, columns, 2) of tokens, pixels x y, pixel centres at integers."""
    x = torch.arange(columns, dtype=torch.float32) * patch + (patch - 1) / 2
    y = torch.arange(rows, dtype=torch.float32) * patch + (patch - 1) / 2
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


@pytest.mark.parametrize(("patch", "rows", "columns"), [(14, 7, 10), (16, 6, 8), (14, 8, 8)])
def test_maps_are_read_at_true_places(patch: int, rows: int, columns: int) -> None:
    """Tokens that hold their own centre give, at a cell, that cell's centre: bilinear reading is exact on a plane."""
    height, width = 96, 128 if columns > 8 or patch == 16 else 112
    centers = token_centers(rows, columns, patch).permute(2, 0, 1)[None]
    cells = resample(centers, patch, 8, (height // 8, width // 8))
    wanted = token_centers(height // 8, width // 8, 8).permute(2, 0, 1)[None]
    low, high = centers.amin(dim=(0, 2, 3)), centers.amax(dim=(0, 2, 3))
    wanted = wanted.clamp(low[:, None, None], high[:, None, None])  # beyond the outermost centres their value
    torch.testing.assert_close(cells, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bright_patch_lights_its_token_at_odd_sizes(family) -> None:
    backbone = tiny_backbone(family, layers=(1, 4))
    height, width = 131, 173
    plain = torch.full((1, 3, height, width), 0.4)
    rows, columns = backbone.grid(height, width)
    before = backbone(plain)
    assert before.maps[0].shape == (1, 32, rows, columns)
    assert before.class_token.shape == (1, 32)
    for row, column in ((0, 0), (3, 5), (rows - 1, columns - 1)):
        image = plain.clone()
        y, x = row * backbone.patch, column * backbone.patch
        image[..., y : y + backbone.patch, x : x + backbone.patch] = 1.0
        for old, new in zip(before.maps, backbone(image).maps, strict=True):
            change = (new - old).norm(dim=1)[0]
            assert divmod(int(change.argmax()), columns) == (row, column)


def test_a_bright_patch_lights_its_token_of_the_real_network(shared) -> None:
    backbone = load_backbone("vit-tiny", (3, 12))
    image = torch.full((1, 3, 139, 203), 0.5)
    before = backbone(image)
    image[..., 64:80, 112:128] = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for old, new in zip(before.maps, backbone(image).maps, strict=True):
        change = (new - old).norm(dim=1)[0]
        assert divmod(int(change.argmax()), change.shape[1]) == (4, 7)


def test_images_of_a_batch_do_not_mix() -> None:
    backbone = tiny_backbone()
    images = torch.rand(3, 3, 60, 90)
    together = backbone(images)
    for row in range(3):
        alone = backbone(images[row : row + 1])
        for one, all_of_them in zip(alone.maps, together.maps, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row], atol=1e-5, rtol=1e-5)
