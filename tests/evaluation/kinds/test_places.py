"""Global descriptors by hand, vocabularies, and recall on a path that comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semkey.backbones.backbone import BackboneFeatures
from semkey.backbones.global_descriptors import VladVocabulary, class_descriptor, gem_descriptor, train_vlad
from semkey.datasets.sequence import Frame, FrameSequence
from semkey.errors import CheckpointError, ConfigError, DatasetError
from semkey.evaluation.kinds.place_methods import PlaceMethod, create_place_methods
from semkey.evaluation.kinds.places import PlacesConfig, run_places
from semkey.geometry.transforms import make_transform

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import tiny_backbone, write_folder
from semkey.backbones.loading import load_backbone


def features(tokens: torch.Tensor, class_token: torch.Tensor | None = None) -> BackboneFeatures:
    """One map of a batch of one with the given tokens (N, C) in a row."""
    one = tokens.T.reshape(1, tokens.shape[1], 1, -1)
    return BackboneFeatures(maps=(one,), class_token=tokens[:1] if class_token is None else class_token, patch=14)


# -- descriptors -------------------------------------------------------------------------------------------------------


def test_class_token_and_gem_by_hand() -> None:
    both = features(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(class_descriptor(both), torch.tensor([[0.6, 0.8]]))
    # means of signed cubes: (1 + 27) / 2 = 14 and (-8 + 0) / 2 = -4
    wanted = torch.tensor([[14.0 ** (1 / 3), -(4.0 ** (1 / 3))]])
    torch.testing.assert_close(gem_descriptor(both), wanted / wanted.norm())
    torch.testing.assert_close(gem_descriptor(both, p=1.0), torch.tensor([[2.0, -1.0]]) / 5**0.5)


def test_vlad_by_hand() -> None:
    centers = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    words = VladVocabulary(centers=centers, layer=4, content="")
    tokens = torch.tensor([[5.0, 0.0], [0.6, 0.8], [0.0, 2.0]])  # on the first centre, near the second, on the second
    found = words.describe(features(tokens), (4,))[0].reshape(3, 2)
    residual = torch.tensor([0.6, -0.2])
    torch.testing.assert_close(found, torch.stack([torch.zeros(2), residual / residual.norm(), torch.zeros(2)]))
    with pytest.raises(ConfigError, match="of layer 4"):
        words.describe(features(tokens), (3,))


def test_vocabularies_find_the_clusters_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", "vit")
    backbone = load_backbone(str(folder), (2, 4))
    rng = np.random.default_rng(0)
    images = [np.full((64, 64, 3), value, np.uint8) for value in (0, 120, 255)]
    images.append(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    first, again = (train_vlad(backbone, images, clusters=4, seed=1) for _ in range(2))
    assert first.layer == 2, "the last but one"
    assert first.centers.shape == (4, 32)
    assert torch.equal(first.centers, again.centers)
    first.write(tmp_path / "words.safetensors")
    read = VladVocabulary.read(tmp_path / "words.safetensors", backbone)
    assert torch.equal(read.centers, first.centers)
    assert read.layer == 2
    found = read.describe(backbone(torch.rand(2, 3, 50, 60)), backbone.layers)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert found.shape == (2, 4 * 32)
    with pytest.raises(CheckpointError, match="made over another backbone"):
        VladVocabulary.read(tmp_path / "words.safetensors", tiny_backbone("vit"))
    (tmp_path / "bad.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="cannot be read as a vocabulary"):
        VladVocabulary.read(tmp_path / "bad.safetensors", backbone)
    with pytest.raises(ConfigError, match="clusters is 100"):
        train_vlad(backbone, images[:1], clusters=100)
    with pytest.raises(ConfigError, match="layer 3"):
        train_vlad(backbone, images, layer=3)


# -- places ------------------------------------------------------------------------------------------------------------


class Path1D(FrameSequence):
    """A camera on the x axis; its frame's first pixel is its place, in decimetres."""

    def __init__(self, places: list[float], *, posed: bool = True, name: str = "path") -> None:
        self.places = places
        poses = [make_transform(np.eye(3), [x, 0.0, 0.0]) if posed else None for x in places]
        super().__init__(
            name=name,
            format="folder",
            camera=None,
            has_depth=False,
            timestamps=np.arange(len(places), dtype=np.float64),
            ground_truth=poses,
        )

    def _load(self, index: int) -> Frame:
        image = np.full((4, 4, 3), round(10 * self.places[index]), np.uint8)
        return Frame(index=index, timestamp=float(index), image=image)


def by_place(image: np.ndarray) -> torch.Tensor:
    """A descriptor that tells places apart."""
    angle = torch.tensor(image[0, 0, 0] / 200.0)
    return torch.stack([angle.cos(), angle.sin()])


def constant(image: np.ndarray) -> torch.Tensor:
    """One that does not: the oldest frame comes first."""
    return torch.tensor([1.0, 0.0])


def test_recall_by_hand() -> None:
    sequence = Path1D([0.0, 1.0, 2.0, 3.0, 2.0, 1.1, 0.0, 9.0])
    config = PlacesConfig(max_distance_m=0.3, max_angle_deg=10.0, min_gap_s=2.0)
    methods = [PlaceMethod(name="good", describe=by_place), PlaceMethod(name="blind", describe=constant)]
    results = run_places(methods, [sequence], config).results
    good, blind = results["good"]["path"], results["blind"]["path"]
    # frames 4, 5 and 6 come back to frames 2, 1 and 0; frame 7 and those before have nowhere to come back to
    assert [row["name"] for row in good.rows] == ["frame 4", "frame 5", "frame 6"]
    assert [row["rank"] for row in good.rows] == [1.0, 1.0, 1.0]
    assert [row["rank"] for row in blind.rows] == [3.0, 2.0, 1.0]
    assert good.metrics["recall@1"] == 1.0
    assert blind.metrics["recall@1"] == pytest.approx(1 / 3)
    assert blind.metrics["recall@5"] == 1.0
    assert blind.metrics["chance"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3)
    assert list(blind.curves["recall"].y[:3]) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_together_other_rooms_are_to_choose_from() -> None:
    """Two corridors ten metres apart; one method sees the place modulo ten metres, and takes them for each other."""
    sequences = [Path1D([0.0, 1.0, 2.0, 1.1, 0.1]), Path1D([10.0, 11.1, 12.0, 11.0, 10.1], name="second")]
    config = PlacesConfig(max_distance_m=0.3, min_gap_s=2.0, together=True)
    good = PlaceMethod(name="good", describe=by_place)
    alike = PlaceMethod(name="alike", describe=lambda image: by_place(image % 100))
    evaluation = run_places([good, alike], sequences, config)
    found, mixed = (evaluation.results[name]["path"] for name in ("good", "alike"))
    assert (found.metrics["elsewhere"], found.metrics["recall@1"]) == (0.0, 1.0)
    assert (mixed.metrics["elsewhere"], mixed.metrics["recall@1"]) == (1.0, 0.0)
    assert [row["candidates"] for row in mixed.rows] == [2 + 5, 3 + 5]
    assert found.metrics["chance"] == pytest.approx((1 / 7 + 1 / 8) / 2)
    assert "elsewhere" in [metric.name for metric in evaluation.metrics]
    queries = {name: len(evaluation.results["alike"][name].rows) for name in ("path", "second", "together")}
    assert queries == {"path": 2, "second": 2, "together": 4}
    assert [row["name"] for row in evaluation.results["alike"]["together"].rows][2:] == [
        f"second, {row['name']}" for row in evaluation.results["alike"]["second"].rows
    ]
    for name, share in (("good", 0.0), ("alike", 1.0)):
        every = evaluation.results[name]["together"]
        assert (every.metrics["elsewhere"], every.metrics["recall@1"]) == (share, 1.0 - share)
        assert every.intervals["elsewhere"] == (share, share)
    assert evaluation.sets["together"] == {"description": "4 revisits among 10 frames", "pairs": 4}
    alone = run_places([alike], sequences, PlacesConfig(max_distance_m=0.3, min_gap_s=2.0))
    assert alone.results["alike"]["path"].metrics["recall@1"] == 1.0
    assert "elsewhere" not in [metric.name for metric in alone.metrics]
    assert set(alone.sets) == {"path", "second"}
    with pytest.raises(ConfigError, match="none of them together"):
        run_places([alike], [sequences[0], Path1D([0.0], name="together")], config)


def test_orientation_counts_too() -> None:
    class Turned(Path1D):
        def __init__(self) -> None:
            super().__init__([0.0, 5.0, 5.0, 0.0])
            turn = make_transform(np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), [0.0, 0.0, 0.0])
            self.ground_truth = (*self.ground_truth[:3], turn)

    method = [PlaceMethod(name="good", describe=by_place)]
    with pytest.raises(DatasetError, match="no frame comes back"):
        run_places(method, [Turned()], PlacesConfig(min_gap_s=2.0, max_angle_deg=80.0))
    run_places(method, [Turned()], PlacesConfig(min_gap_s=2.0, max_angle_deg=95.0))


def test_what_cannot_be_measured() -> None:
    method = PlaceMethod(name="good", describe=by_place)
    with pytest.raises(DatasetError, match="0 frames have a ground-truth pose"):
        run_places([method], [Path1D([0.0, 0.0], posed=False)])
    with pytest.raises(ConfigError, match="once each"):
        run_places([method, method], [Path1D([0.0] * 9)])
    with pytest.raises(ConfigError, match="must be positive"):
        PlacesConfig(min_gap_s=0.0)
    with pytest.raises(ConfigError, match="vit-tiny:cls"):
        create_place_methods(["vit-tiny"])


def test_methods_by_name_share_a_backbone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", "dinov3")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    names = [f"{folder}:cls", f"{folder}:gem", f"{folder}:vlad", "compact"]
    methods = create_place_methods(names, vocabulary_images=[image], clusters=3, device="cpu")
    sizes = [len(method.describe(image)) for method in methods]
    assert sizes == [32, 32, 96, 256]
    for method in methods:
        assert float(method.describe(image).norm()) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        create_place_methods([f"{folder}:vlad"], device="cpu")
    (orb,) = create_place_methods(["orb"], device="cpu")
    with pytest.raises(ConfigError, match="has no global descriptor"):
        orb.describe(image)


def test_joined_methods_share_keypoints_and_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many extractions as images, whatever is joined with them, and the descriptor that semkey.load would give."""
    from semkey.backbones.backbone import Backbone
    from semkey.extractors.registry import create_extractor
    from semkey.model.semantic_detector import SemanticKeypointDetector

    folder = write_folder(tmp_path / "net", "dinov3")
    names = ["compact", f"compact@own@{folder}:gem", f"compact@{folder}:cls"]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(2)]
    expected = [
        create_extractor(name, max_keypoints=512, device="cpu").extract(images[1]).global_descriptor for name in names
    ]
    calls = {"compact": 0, "backbone": 0}
    for owner, key in ((SemanticKeypointDetector, "compact"), (Backbone, "backbone")):
        forward = owner.forward

        def counted(self, *arguments, _forward=forward, _key=key, **options):
            calls[_key] += 1
            return _forward(self, *arguments, **options)

        monkeypatch.setattr(owner, "forward", counted)
    methods = create_place_methods(names, device="cpu")
    for image in images:
        found = [method.describe(image) for method in methods]
    assert calls == {"compact": 2, "backbone": 2}
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_redkitchen_is_recognised(shared: Path) -> None:
    """Every sixth frame: far above chance with the class token."""
    from semkey.datasets import open_sequence

    sequence = open_sequence(shared / "data" / "7scenes" / "redkitchen" / "seq-01")
    methods = create_place_methods(["vit-tiny:cls"], device="cpu")
    (found,) = run_places(methods, [sequence], PlacesConfig(stride=6)).results["vit-tiny:cls"].values()
    assert found.metrics["recall@1"] > 3 * found.metrics["chance"]
