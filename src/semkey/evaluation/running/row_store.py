"""Measured rows in a file that grows by a line per pair and survives an interruption."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from semkey.errors import InputError
from semkey.evaluation.data.pairs import HomographyTruth, PairSet, PoseTruth
from semkey.evaluation.running.code import code_hash
from semkey.evaluation.running.results import Row, plain, row_from_json
from semkey.files import atomic_write_bytes

_CODE = ("evaluation", "geometry", "images", "matching", "metrics")
"""Packages whose code decides what a row says; extraction is part of a method's fingerprint."""

_CHECK = b'{"check": "'
_CHECK_LENGTH = 16  # hexadecimal digits


def run_key(fingerprint: Mapping[str, Any], kind: str, options: Mapping[str, Any], pair_set: PairSet) -> str:
    """A hash of everything that the rows of one method on one set depend on, but for the pixels of the images."""
    content = {
        "method": fingerprint,
        "kind": kind,
        "options": options,
        "set": [pair_set.name, pair_set.description],
        "pairs": [
            [pair.name, pair.image0.key, pair.image1.key, pair.group, _truth_values(pair.truth)]
            for pair in pair_set.pairs
        ],
    }
    return content_key(content, _CODE)


def content_key(content: Mapping[str, Any], packages: tuple[str, ...]) -> str:
    """A hash of values that JSON can hold, and of the code of packages of semkey."""
    text = json.dumps(plain({**content, "code": code_hash(packages)}), sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def file_name(name: str) -> str:
    """A file name for any method or set: itself where it is plain, else with a hash so that no two fall together."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:80]
    if safe and safe == name:
        return safe
    return f"{safe}-{hashlib.blake2b(name.encode('utf-8'), digest_size=4).hexdigest()}"


class RowStore:
    """The rows of one method on one set, by the name of their pair, in ``FOLDER/METHOD/SET.jsonl``.

    The first line holds the key, every other one a row, each behind a checksum of its own. A file with another key is
    started anew; a line that was cut off in the middle of a write, or changed since, is dropped: its pair is measured
    again.

    Args:
        folder: made if missing.
        method: name of the method.
        pair_set: name of the set.
        key: see :func:`run_key`.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, folder: Path, method: str, pair_set: str, key: str) -> None:
        self.path = folder / file_name(method) / f"{file_name(pair_set)}.jsonl"
        self._rows: dict[str, Row] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stored = self.path.read_bytes() if self.path.is_file() else b""
            good = self._read(stored, key)
            if good != stored:
                atomic_write_bytes(self.path, good)
            self._file: IO[bytes] = self.path.open("ab")
            if not good:
                self._write({"key": key})
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def __enter__(self) -> RowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    def append(self, row: Row) -> None:
        """Store a row under its ``name``; it is in the file when this returns.

        What is kept is what a later run would read back, so that both give the same numbers.

        Raises:
            InputError: the disk is full, or the like.
        """
        stored = plain(row)
        try:
            self._write(stored)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None
        self._rows[str(row["name"])] = row_from_json(stored)

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(_line(json.dumps(value, allow_nan=False).encode("utf-8")))
        self._file.flush()

    def _read(self, stored: bytes, key: str) -> bytes:
        """Load the rows that can be used; returns the part of the file that they are, with the line of the key."""
        good: list[bytes] = []
        for number, line in enumerate(stored.splitlines(keepends=True)):
            text = line[len(_CHECK) + _CHECK_LENGTH + 2 :].rstrip(b"\n")
            if line != _line(b"{" + text):
                if number == 0:
                    return b""
                continue
            value = json.loads(b"{" + text)
            if number == 0 and value.get("key") != key:
                return b""
            if number > 0 and "name" not in value:  # a second line of a key
                continue
            if number > 0:
                self._rows[value["name"]] = row_from_json({k: v for k, v in value.items() if k != "check"})
            good.append(line)
        return b"".join(good)


def _line(text: bytes) -> bytes:
    """A JSON object as a line, with the checksum of its text as its first entry."""
    check = hashlib.blake2b(text, digest_size=_CHECK_LENGTH // 2).hexdigest().encode()
    return _CHECK + check + b'",' + text[1:] + b"\n"


def _truth_values(truth: HomographyTruth | PoseTruth) -> list[Any]:
    if isinstance(truth, HomographyTruth):
        return np.asarray(truth.H10).tolist()
    pose = np.asarray(truth.T_cam1_cam0).tolist()
    cameras = [repr(part) for part in (truth.camera0, truth.camera1, truth.lens0, truth.lens1)]
    return [pose, *cameras, truth.has_depth, truth.depth_tolerance]
