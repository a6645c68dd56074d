"""Conversion of LoFTR's MegaDepth scene files: what is written, and that nothing in them is run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semkey.errors import DatasetError
from semkey.evaluation.data.megadepth import convert_megadepth, read_npz
from semkey.evaluation.data.pair_lists import pair_list_sets, read_pair_list
from semkey.evaluation.data.pairs import PoseTruth
from semkey.geometry.transforms import inverse, make_transform, so3_exp
from semkey.images.writing import write_image


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def scene(count: int = 4, pairs: tuple[tuple[int, int], ...] = ((0, 1), (2, 1))) -> dict[str, np.ndarray]:
    """A scene as LoFTR stores it; the last image is missing there, so its entries are None."""
    names = [f"Undistorted_SfM/0015/images/{k}.png" for k in range(count)]
    K = [np.array([[500.0 + k, 0, 60], [0, 510, 40], [0, 0, 1]]) for k in range(count)]
    poses = [make_transform(so3_exp([0.0, 0.1 * k, 0.05]), [1.0 * k, 0.5, 0.0]) for k in range(count)]
    infos = [((np.int64(i), j), np.float64(0.25), np.zeros((3, 4))) for i, j in pairs]
    return {
        "image_paths": objects([*names, None]),
        "depth_paths": objects([*names, None]),
        "intrinsics": objects([*K, None]),
        "poses": objects([*poses, None]),
        "pair_infos": objects(infos),
        "overlap": np.arange(6.0).reshape(2, 3),
    }


def write_npz(path: Path, arrays: dict[str, np.ndarray], protocol: int = 4) -> Path:
    """What ``numpy.savez`` writes, with pickles of the given protocol (2 and 3 in files of older numpy)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            if array.dtype.hasobject:
                header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(buffer, header)
                pickle.dump(array, buffer, protocol=protocol)
            else:
                np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pairs_are_written_as_published_lists_have_them(tmp_path: Path, protocol: int) -> None:
    write_npz(tmp_path / "npz" / "0022_0.1_0.3.npz", scene(pairs=((3, 0),)), protocol)
    write_npz(tmp_path / "npz" / "0015_0.1_0.3.npz", scene(), protocol)
    out = tmp_path / "lists" / "megadepth_1500.txt"
    assert convert_megadepth(tmp_path / "npz", out) == 3
    listed = list(read_pair_list(out))
    assert [pair.name0[-5:] + pair.name1[-5:] for pair in listed] == ["0.png1.png", "2.png1.png", "3.png0.png"]
    poses, K = scene()["poses"], scene()["intrinsics"]
    np.testing.assert_allclose(listed[1].T_cam1_cam0, poses[1] @ inverse(poses[2]), atol=1e-14)
    np.testing.assert_array_equal(listed[1].K0, K[2])
    np.testing.assert_array_equal(listed[1].K1, K[1])
    assert "# 0015_0.1_0.3.npz: 2 pairs" in out.read_text()


def test_the_list_is_read_with_images_beside_it(tmp_path: Path) -> None:
    write_npz(tmp_path / "npz" / "0015.npz", scene())
    for k in range(3):
        write_image(tmp_path / f"Undistorted_SfM/0015/images/{k}.png", np.zeros((90, 120, 3), np.uint8))
    convert_megadepth(tmp_path / "npz", tmp_path / "list.txt")
    (found,) = pair_list_sets(tmp_path / "list.txt", tmp_path, resize=60)
    truth = found.pairs[0].truth
    assert isinstance(truth, PoseTruth)
    assert (truth.camera0.fx, truth.camera0.cx) == (250.0, (60 + 0.5) * 0.5 - 0.5)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.dtype.hasobject:
            found, expected = found.reshape(-1).tolist(), expected.reshape(-1).tolist()
        else:
            np.testing.assert_array_equal(found, expected)
            return
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def test_arrays_are_as_numpy_reads_them(tmp_path: Path) -> None:
    arrays = {
        **scene(),
        "two_dimensional": np.array([[1, "a"], [None, 2.5]], dtype=object),
        "fortran": objects([np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3, dtype=">i4")]),
        "mixed": objects([np.float32(1.5), np.array(["one", "two"]), np.array([True, False]), [1, (2, {"a": 3})]]),
    }
    path = write_npz(tmp_path / "arrays.npz", arrays)
    found = read_npz(path)
    with np.load(path, allow_pickle=True) as expected:
        assert sorted(found) == sorted(expected.files)
        for name in expected.files:
            assert_same(found[name], expected[name])


class Command:
    """What a hostile file would hold."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    bad = scene()
    bad["pair_infos"] = objects([Command(tmp_path / "made")])
    path = write_npz(tmp_path / "npz" / "bad.npz", bad)
    with pytest.raises(DatasetError, match=r"bad\.npz: holds '(posix|os|nt)\.mkdir', which is no array"):
        convert_megadepth(tmp_path / "npz", tmp_path / "out.txt")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out.txt").exists()
    with np.load(path, allow_pickle=True) as unsafe:  # the test can fail: numpy itself runs it
        unsafe["pair_infos"]
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cnumpy\ndtype\n(S'V100000'\ntR.",  # raw memory
        b"c_codecs\nencode\n(S'aGk='\nS'base64'\ntR.",  # a codec that does something else
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'i8'\ntRI1000000000000\ntR.",  # a count for bytes
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR.",  # an array without content
        b"cnumpy\nndarray\n(tR.",
        b"I1\n.",
        b"",
        b"\x80\x04]\x94h\x00a.",  # a list that holds itself
    ],
)
def test_odd_pickles_are_errors(tmp_path: Path, payload: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pair_infos.npy", header.getvalue() + payload)
    with pytest.raises(DatasetError, match=r"odd\.npz: "):
        read_npz(path)


def test_damaged_files_are_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = write_npz(tmp_path / "whole.npz", scene()).read_bytes()
    path = tmp_path / "damaged.npz"
    for length in (0, 10, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"damaged\.npz"):
            read_npz(path)
    stored = tmp_path / "stored.npz"
    with zipfile.ZipFile(stored, "w") as archive, zipfile.ZipFile(tmp_path / "whole.npz") as source:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    clean = stored.read_bytes()
    for _ in range(200):
        data = bytearray(clean)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(DatasetError):  # anything else fails the test
            read_npz(path)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.npz scene files"):
        convert_megadepth(tmp_path / "npz", tmp_path / "out.txt")
    incomplete = scene()
    del incomplete["poses"]
    write_npz(tmp_path / "npz" / "0015.npz", incomplete)
    with pytest.raises(DatasetError, match=r"0015\.npz: has no poses"):
        convert_megadepth(tmp_path / "npz", tmp_path / "out.txt")
    write_npz(tmp_path / "npz" / "0015.npz", scene(pairs=((0, 1), (0, 4))))  # the image that is missing
    with pytest.raises(DatasetError, match=r"0015\.npz: pair 1 is broken"):
        convert_megadepth(tmp_path / "npz", tmp_path / "out.txt")
    with pytest.raises(DatasetError, match=r"none\.npz: file is missing"):
        read_npz(tmp_path / "none.npz")
    assert not (tmp_path / "out.txt").exists()
