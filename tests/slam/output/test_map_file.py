"""The map file: round trip, and what is said of files that are damaged, foreign, newer or cannot be written."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semkey.errors import InputError
from semkey.slam.output.map_file import (
    FORMAT_VERSION,
    ArraySpec,
    MapFile,
    encode_map_file,
    read_map_file,
    write_map_file,
)

SPECS = {
    "a/pose": ArraySpec(dtype="float64", shape=("K", 4, 4)),
    "a/id": ArraySpec(dtype="int64", shape=("K",)),
    "b/mask": ArraySpec(dtype="bool", shape=("L",)),
    "b/extra": ArraySpec(dtype="float32", shape=("L", 2), optional=True),
}


def content(keyframes: int = 2) -> MapFile:
    arrays = {
        "a/pose": np.arange(16.0 * keyframes).reshape(-1, 4, 4),
        "a/id": np.arange(keyframes),
        "b/mask": np.array([True, False, True]),
    }
    return MapFile(header={"camera": {"fx": 500.5}, "name": "Zimmer ü"}, arrays=arrays)


def written(tmp_path: Path, value: MapFile | None = None) -> Path:
    write_map_file(tmp_path / "room.semkey", value or content())
    return tmp_path / "room.semkey"


def test_round_trip_gives_the_same_bytes_back(tmp_path: Path) -> None:
    path = written(tmp_path)
    read = read_map_file(path, SPECS)
    assert read.header == content().header
    assert read.arrays.keys() == content().arrays.keys()
    for name, array in content().arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].dtype == array.dtype
    assert encode_map_file(read) == path.read_bytes() == encode_map_file(content())
    assert [file.name for file in tmp_path.iterdir()] == ["room.semkey"]


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 3), st.just(4), st.just(4))))
def test_any_numbers_survive(tmp_path_factory: pytest.TempPathFactory, poses: np.ndarray) -> None:
    value = MapFile(
        header={}, arrays={"a/pose": poses, "a/id": np.arange(len(poses)), "b/mask": np.zeros(0, dtype=bool)}
    )
    path = tmp_path_factory.mktemp("any") / "x.semkey"
    write_map_file(path, value)
    np.testing.assert_array_equal(read_map_file(path, SPECS).arrays["a/pose"], poses)


def test_no_pickle_and_readable_by_safetensors_alone(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = written(tmp_path)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == content().arrays.keys()
        assert json.loads(json.loads(file.metadata()["semkey_map"])["header"]) == content().header


@pytest.mark.parametrize("position", [-1, -200, 300])
def test_a_flipped_bit_is_noticed(tmp_path: Path, position: int) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"room\.semkey.*(damaged|not a semkey map|map format)"):
        read_map_file(path, SPECS)


@pytest.mark.parametrize("length", [0, 4, 8, 9, 100, 400, -1])
def test_a_file_that_is_cut_off_is_noticed(tmp_path: Path, length: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"room\.semkey.*(damaged|cut off|not a semkey map)"):
        read_map_file(path, SPECS)


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    from safetensors.numpy import save

    for name, data in {
        "weights": save({"w": np.zeros(3)}, metadata={"format": "pt"}),
        "text": b"hello, this is a text file",
        "zip": b"PK\x03\x04" + bytes(100),
        "list": struct.pack("<Q", 2) + b"[]",
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.*not a semkey map"):
            read_map_file(path, SPECS)
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_map_file(tmp_path / "nowhere", SPECS)
    with pytest.raises(InputError, match="cannot be read"):
        read_map_file(tmp_path, SPECS)


def test_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    path = written(tmp_path, replace(content(), version=FORMAT_VERSION + 1))
    with pytest.raises(InputError, match=rf"map format {FORMAT_VERSION + 1} is newer than this semkey.*update semkey"):
        read_map_file(path, SPECS)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_all_versions_so_far_are_read(tmp_path: Path, version: int) -> None:
    assert read_map_file(written(tmp_path, replace(content(), version=version)), SPECS).version == version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a/id": None}, "'a/id' is missing"),
        ({"a/id": np.arange(3)}, r"'a/id' is int64 \(3,\), expected int64 \(2\)"),
        ({"a/id": np.arange(2.0)}, "'a/id' is float64"),
        ({"a/pose": np.zeros((2, 3, 4))}, "'a/pose'"),
        ({"b/extra": np.zeros((2, 2), np.float32)}, "'b/extra'"),
        ({"c/new": np.zeros(2)}, "unknown array 'c/new'"),
    ],
)
def test_arrays_must_be_as_specified(tmp_path: Path, change: dict, message: str) -> None:
    arrays = {name: array for name, array in (dict(content().arrays) | change).items() if array is not None}
    path = written(tmp_path, MapFile(header={}, arrays=arrays))
    with pytest.raises(InputError, match=message):
        read_map_file(path, SPECS)


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()
    # The limit on the size of a file stands for a disk that has no more room; it holds for a process, so in another.
    program = f"""
import resource, numpy as np
from semkey.errors import InputError
from semkey.slam.output.map_file import MapFile, write_map_file
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_map_file({str(path)!r}, MapFile(header={{}}, arrays={{"a": np.zeros(100000)}}))
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert str(path) in done.stdout
    assert "the map needs 0.8 MB" in done.stdout
    assert done.stdout.count("\n") == 1
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["room.semkey"], "no temporary file is left behind"
