"""What users of an exported detector write, and whether it is what extraction in torch gives."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from semkey.model.features import Features

# Width and height: a multiple of 32, an odd portrait, and one larger than the graph was traced with.
SIZES = ((160, 128), (111, 183), (257, 194))


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return cv2.resize(data.astronaut(), size, interpolation=cv2.INTER_AREA)


def as_features(session, images: list[NDArray[np.uint8]]) -> list[dict[str, NDArray]]:
    """What a user of the file writes: grey or RGB in [0, 1] in, valid rows out."""
    if session.get_inputs()[0].shape[1] == 1:
        planes = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[None] for image in images]
    else:
        planes = [image.transpose(2, 0, 1) for image in images]
    names = [output.name for output in session.get_outputs()]
    given = {"image": np.stack(planes).astype(np.float32) / 255}
    outputs = dict(zip(names, session.run(None, given), strict=True))
    rows = []
    for number in range(len(images)):
        valid = outputs["valid"][number]
        one = {name: value[number] for name, value in outputs.items()}
        rows.append({name: value if name == "global_descriptor" else value[valid] for name, value in one.items()})
    return rows


def assert_same(found: dict[str, NDArray], expected: Features) -> None:
    """Keypoints within 0.01 px for 99 %, and the rest of each alike."""
    ours = expected.keypoints.numpy()
    assert len(ours) > 40
    assert abs(len(found["keypoints"]) - len(ours)) <= 0.01 * len(ours)
    distance = np.linalg.norm(ours[:, None] - found["keypoints"][None], axis=2)
    nearest = distance.argmin(axis=1)
    same = distance.min(axis=1) < 0.01
    assert same.mean() >= 0.99
    pairs = nearest[same]
    cosines = (expected.descriptors.numpy()[same] * found["descriptors"][pairs]).sum(axis=1)
    assert np.quantile(cosines, 0.01) > 0.9999
    for name, limit in (("scores", 1e-4), ("reliability", 1e-3)):
        theirs = getattr(expected, name).numpy()[same]
        assert np.quantile(np.abs(theirs - found[name][pairs]), 0.99) < limit
    assert float(expected.global_descriptor.numpy() @ found["global_descriptor"]) > 0.9999
    if expected.covariances is not None:
        differences = np.abs(expected.covariances.numpy()[same] - found["covariances"][pairs])
        assert np.quantile(differences, 0.99) < 1e-3
