"""Guided nearest neighbours: candidates by what a backbone sees at the keypoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import semkey
from command_line import Run
from semkey.errors import ConfigError, InputError
from semkey.evaluation.running.methods import create_method
from semkey.images import write_image
from semkey.matching import create_matcher, match
from semkey.matching.semantic import match_semantic
from semkey.model.features import Features


def features_of(descriptors: torch.Tensor, semantics: torch.Tensor | None) -> Features:
    count = len(descriptors)
    return Features(
        keypoints=torch.rand(count, 2) * 99,
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=descriptors,
        global_descriptor=torch.zeros(0),
        image_size=(100, 100),
        semantics=semantics,
    )


def twins() -> tuple[Features, Features]:
    """Eight descriptors that occur twice, on two kinds of things: only semantics tell the twins apart."""
    descriptors = torch.eye(8)
    kinds = torch.cat([torch.tensor([[1.0, 0.0]]).expand(8, 2), torch.tensor([[0.0, 1.0]]).expand(8, 2)])
    both = torch.cat([descriptors, descriptors])
    return features_of(both, kinds), features_of(both.flip(0), kinds.flip(0))


def test_twins_are_told_apart_by_what_they_are_on() -> None:
    features0, features1 = twins()
    guided = match(features0, features1)
    expected = {(i, 15 - i) for i in range(16)}
    assert {tuple(pair) for pair in guided.indices.tolist()} == expected
    plain = match(replace(features0, semantics=None), replace(features1, semantics=None))
    assert len({tuple(pair) for pair in plain.indices.tolist()} & expected) < 16


def test_the_share_that_is_kept() -> None:
    features0, features1 = twins()
    everything = match_semantic(features0, features1, kept_share=1.0)
    plain = match(replace(features0, semantics=None), replace(features1, semantics=None))
    assert torch.equal(everything.indices, plain.indices)
    with pytest.raises(InputError, match="kept_share lies in"):
        match_semantic(features0, features1, kept_share=0.0)


def test_points_without_semantics_are_matched_without_and_other_guides_are_refused() -> None:
    features0, features1 = twins()
    one_sided = match(replace(features0, semantics=None), features1)
    assert len(one_sided) > 0
    assert features1.semantics is not None
    with pytest.raises(InputError, match="widths 2 and 1 are of different guides"):
        match(features0, replace(features1, semantics=features1.semantics[:, :1]))
    with pytest.raises(InputError, match="have no semantics"):
        match_semantic(features0, replace(features1, semantics=None))
    with pytest.raises(InputError, match=r"semantics have shape \(3, 2\)"):
        replace(features0, semantics=torch.zeros(3, 2))
    none = features0.select(torch.zeros(0, dtype=torch.int64))
    assert len(create_matcher().match(none, features1)) == 0
    assert len(create_matcher().match(features1, none)) == 0


def test_a_guide_reads_its_tokens_at_the_keypoints(shared: Path) -> None:
    pytest.importorskip("transformers", reason="backbones run through transformers, extra 'backbones'")
    image = np.zeros((160, 320, 3), np.uint8)
    image[:, :160] = data.astronaut()[:160, :160]
    image[:, 160:] = data.coffee()[100:260, 200:360]
    detector = semkey.load("orb", max_keypoints=200, weights=[shared / "weights"], guide="vit-tiny")
    features = detector.extract(image)
    assert features.semantics is not None
    assert features.semantics.shape == (len(features), 192)
    torch.testing.assert_close(features.semantics.norm(dim=1), torch.ones(len(features)), rtol=0, atol=1e-4)
    alike = features.semantics @ features.semantics.T
    left = features.keypoints[:, 0] < 150
    right = features.keypoints[:, 0] > 170
    assert alike[left][:, left].mean() > alike[left][:, right].mean() + 0.05
    assert detector.settings["guide"]["name"] == "vit-tiny"
    assert detector.describe(image, [[10.0, 10.0]]).semantics is not None
    method = create_method("orb+guided+refine", keypoints=50, device="cpu", weights=[shared / "weights"])
    assert method.fingerprint["extraction"]["guide"]["name"] == "vit-tiny"


def test_a_guide_is_for_nearest_neighbours(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ConfigError, match="the guide is for nearest neighbours, not for dual-softmax"):
        create_method("orb+dual-softmax+guided")
    with pytest.raises(ConfigError, match="vit-tny"):
        semkey.load("orb", guide="vit-tny")
    write_image(tmp_path / "a.png", data.camera())
    done = run("match", tmp_path / "a.png", tmp_path / "a.png", "--matcher", "dual-softmax", "--guide", "vit-tiny")
    assert done.code == 2
    assert "--guide is for nearest neighbours" in done.err
