"""Which images of a folder are matched with which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.errors import ConfigError, InputError
from semkey.matching.image_pairs import exhaustive_pairs, listed_pairs, retrieved_pairs, sequential_pairs


def test_all_and_neighbours_in_order() -> None:
    assert exhaustive_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert sequential_pairs(4, 2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert sequential_pairs(3, 10) == exhaustive_pairs(3)
    with pytest.raises(ConfigError, match="1 or more"):
        sequential_pairs(3, 0)


def test_the_most_alike_are_retrieved_and_each_pair_once() -> None:
    angles = np.radians([0.0, 5.0, 90.0, 97.0, 45.0])
    descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert retrieved_pairs(descriptors, 1) == [(0, 1), (1, 4), (2, 3)]
    assert retrieved_pairs(descriptors, 10) == exhaustive_pairs(5)
    with pytest.raises(ConfigError, match="no global descriptors: use --exhaustive"):
        retrieved_pairs(np.zeros((5, 0), np.float32), 1)


def test_a_list_is_read_and_every_wrong_line_is_named(tmp_path: Path) -> None:
    names = ["a/1.png", "a/2.png", "b.png"]
    path = tmp_path / "pairs.txt"
    path.write_text("# pairs\na/2.png a/1.png\n\nb.png a/1.png  # again\na/1.png b.png\n")
    assert listed_pairs(path, names) == [(0, 1), (0, 2)]
    for text, words in [
        ("a/1.png\n", r"pairs.txt:1: expected two names"),
        ("a/1.png a/2.png\na/1.png c.png\n", r"pairs.txt:2: there is no image 'c.png'"),
        ("b.png b.png\n", "with itself"),
        ("# none\n", "names no pairs"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            listed_pairs(path, names)
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read"):
        listed_pairs(tmp_path / "nowhere.txt", names)
