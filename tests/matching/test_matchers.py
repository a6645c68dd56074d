"""Matchers by name, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import semkey
from semkey.errors import CheckpointError, ConfigError, InputError, SemkeyError
from semkey.evaluation.running.methods import create_method
from semkey.matching import create_matcher, match
from semkey.matching.dual_softmax import match_dual_softmax
from semkey.model.features import Features


def features_of(descriptors: torch.Tensor, method: str = "compact") -> Features:
    count = len(descriptors)
    generator = torch.Generator().manual_seed(count)
    return Features(
        keypoints=torch.rand((count, 2), generator=generator) * 99,
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=descriptors,
        global_descriptor=torch.zeros(0),
        image_size=(100, 100),
        method=method,
    )


def some(count: int, seed: int, width: int = 64) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return features_of(torch.nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1))


def nearly(features: Features, noise: float) -> Features:
    generator = torch.Generator().manual_seed(9)
    moved = features.descriptors + noise * torch.randn(features.descriptors.shape, generator=generator)
    return replace(features, descriptors=torch.nn.functional.normalize(moved, dim=1))


def test_dual_softmax_is_the_product_of_both_softmaxes() -> None:
    features0, features1 = some(30, 0), nearly(some(30, 0), 0.1)
    found = match_dual_softmax(features0, features1, temperature=10.0, threshold=0.0)
    similarity = 10.0 * features0.descriptors @ features1.descriptors.T
    rows, columns = similarity.exp() / similarity.exp().sum(1, keepdim=True), similarity.exp() / similarity.exp().sum(0)
    expected = rows * columns
    for (i, j), score in zip(found.indices.tolist(), found.scores.tolist(), strict=True):
        assert score == pytest.approx(float(expected[i, j]), rel=1e-4)
        assert expected[i].argmax() == j
        assert expected[:, j].argmax() == i
    best = expected.max()
    assert not len(match_dual_softmax(features0, features1, temperature=10.0, threshold=min(1.0, float(best) * 1.01)))


def test_dual_softmax_leaves_out_what_has_a_double() -> None:
    descriptors = torch.eye(8)
    doubled = torch.cat([descriptors, descriptors[:1]])
    found = match_dual_softmax(features_of(descriptors), features_of(doubled), threshold=0.9)
    assert found.indices[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(match(features_of(descriptors), features_of(doubled))) == 8, "nearest neighbours take either"


def test_the_names_choose_the_matcher() -> None:
    features0, features1 = some(60, 0), nearly(some(60, 0), 0.2)
    plain = match(features0, features1)
    tested = match(features0, features1, matcher="ratio")
    assert 0 < len(tested) < len(plain)
    torch.testing.assert_close(tested.indices, match(features0, features1, ratio=0.9).indices)
    named = match(features0, features1, matcher="dual-softmax")
    torch.testing.assert_close(named.indices, match_dual_softmax(features0, features1).indices)
    made = create_matcher("ratio", ratio=0.7)
    torch.testing.assert_close(
        match(features0, features1, matcher=made).indices, match(features0, features1, ratio=0.7).indices
    )


@pytest.mark.parametrize("matcher", ["mnn", "ratio", "dual-softmax"])
def test_nothing_to_match_gives_no_matches(matcher: str) -> None:
    none = some(5, 0).select(torch.zeros(0, dtype=torch.int64))
    assert len(match(none, some(5, 1), matcher=matcher)) == 0
    assert len(match(some(5, 1), none, matcher=matcher)) == 0


@pytest.mark.parametrize("matcher", ["mnn", "ratio", "dual-softmax"])
def test_bad_features_are_one_clear_error(matcher: str) -> None:
    good = some(5, 0)
    spoilt = good.descriptors.clone()
    spoilt[2, 3] = torch.nan
    with pytest.raises(InputError, match="descriptors of image 1 hold NaN"):
        match(good, replace(good, descriptors=spoilt), matcher=matcher)
    lost = good.keypoints.clone()
    lost[0, 0] = torch.inf
    with pytest.raises(InputError, match="keypoints of image 0 hold NaN or infinite"):
        match(replace(good, keypoints=lost), good, matcher=matcher)
    with pytest.raises(InputError, match="'compact' and 'orb' cannot be matched"):
        match(good, replace(good, method="orb"), matcher=matcher)
    with pytest.raises(InputError, match="widths 64 and 32"):
        match(good, replace(some(5, 0, width=32), method=""), matcher=matcher)


@pytest.mark.parametrize(
    ("matcher", "options", "kind", "words"),
    [
        ("mmn", {}, ConfigError, "unknown matcher 'mmn'.*did you mean 'mnn'"),
        ("lightglue", {}, ConfigError, "no weights for the features 'orb', only for aliked-n16, disk"),
        ("dual-softmax", {"ratio": 0.9}, ConfigError, "of nearest neighbours; the matcher 'dual-softmax' has neither"),
        ("mnn", {"ratio": 1.5}, InputError, "ratio lies in"),
        ("nowhere.safetensors", {}, CheckpointError, "no such file of a matcher"),
    ],
)
def test_wrong_options_say_what_is_right(
    matcher: str, options: dict[str, float], kind: type[SemkeyError], words: str
) -> None:
    good = replace(some(5, 0), method="orb")
    with pytest.raises(kind, match=words):
        match(good, good, matcher=matcher, **options)  # ty: ignore[invalid-argument-type]


def test_methods_of_evaluations_name_matcher_and_refinement() -> None:
    plain, named = create_method("orb", device="cpu"), create_method("orb+mnn", device="cpu")
    assert plain.fingerprint["matching"] == named.fingerprint["matching"]
    refined = create_method("orb+ratio+refine", device="cpu")
    assert refined.refinement is not None
    assert refined.fingerprint["matching"]["ratio"] == 0.9
    assert refined.fingerprint["matching"]["refinement"]["radius"] == 5
    assert dict(refined.extraction) == dict(plain.extraction), "cached features are shared"
    softmax = create_method("orb+dual-softmax", device="cpu")
    assert softmax.fingerprint["matching"]["matcher"] == "dual-softmax"


def test_the_evaluation_measures_refined_keypoints(shared: Path) -> None:
    from semkey.evaluation.data.planar import planar_sets
    from semkey.evaluation.kinds.planar import PlanarProtocol

    pair = planar_sets(shared / "data/planar/hpatches/v_dogman")[0].pairs[0]
    method = create_method("orb+refine", device="cpu")
    image0, image1 = pair.image0.read(), pair.image1.read()
    features0, features1 = method.extract(image0), method.extract(image1)
    matches = method.match(features0, features1)
    moved = method.refined(features0, features1, matches, image0, image1)
    protocol = PlanarProtocol()
    before = protocol.measure(pair, features0, features1, matches)
    after = protocol.measure(pair, features0, moved, matches)
    assert after["mma"][0] > 1.1 * before["mma"][0]


def test_semkey_match_has_the_default_matcher() -> None:
    features0, features1 = some(20, 0), some(20, 1)
    torch.testing.assert_close(
        semkey.match(features0, features1).indices, semkey.match(features0, features1, matcher="mnn").indices
    )
