"""Damaged copies of files: bytes at random, and values inside JSON, YAML and safetensors at random."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 10**9, -(10**18), 10**30, 1e308, -0.5, 1e-320, "", "x", "../../etc/passwd", "\x00",
    "1e999", "nan", [], {}, [[]], [0] * 50, [None], {"x": 1}, "y" * 5000, math.nan, math.inf, "os:system", "\u202e\n",
)  # fmt: skip
NUMBERS = (0.0, -1.0, 1e-300, 1e300, -1e300, math.nan, math.inf, -math.inf)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, a part cut off, blanked, doubled, removed or replaced."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.choice((1, 2, 8, 64, 1024)))
    if rng.random() < 0.4:  # headers are short and say most
        start = rng.randrange(min(len(data), 256))
    before, part, behind = data[:start], data[start : start + length], data[start + length :]
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            bytes(flipped),
            before,
            before + bytes(len(part)) + behind,
            before + part * rng.choice((2, 6)) + behind,
            before + behind,
            before + rng.randbytes(len(part)) + behind,
            data + rng.choice((b"\x00" * 100, b"\n", b"\xff\xfe", data[:200])),
            before + rng.choice((b"[" * 100_000, b"{" * 5000, b"9" * 6000, b"-" * 300)) + part + behind,
        )
    )


def mutate_tree(value: Any, rng: random.Random) -> Any:
    """A JSON-like value with one place changed: another value, a key lost, renamed or added, entries doubled."""
    places = list(_places(value))
    path = rng.choice(places)
    return _changed(value, path, rng)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """JSON text with one place in its tree changed."""
    return json.dumps(mutate_tree(json.loads(data), rng)).encode()


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """YAML text with one place in its tree changed, or something that only YAML can say."""
    import yaml

    extras = (
        "\nx: &a [*a]\n",
        "\n? [1, 2]\n: 3\n",
        "\nd: 2024-99-99\n",
        "\nn: 0x" + "f" * 6000 + "\n",
        "\nt: !!python/object/apply:os.system ['true']\n",
        "\n" + "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10) if i else '0'}]" for i in range(12)) + "\n",
        "\n<<: 3\n",
        "\nname: !!binary '%%%'\n",
    )
    if b"&l" in data:  # this function would be bombed itself
        return mutate_bytes(data, rng)
    if rng.random() < 0.2:
        return data + rng.choice(extras).encode()
    return yaml.safe_dump(mutate_tree(yaml.safe_load(data), rng), allow_unicode=True).encode()


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with one place of its JSON header changed, its metadata's JSON included."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    inside = [key for key, text in header.get("__metadata__", {}).items() if text[:1] in "{["]
    if inside and rng.random() < 0.6:
        key = rng.choice(inside)
        header["__metadata__"][key] = json.dumps(mutate_tree(json.loads(header["__metadata__"][key]), rng))
    else:
        header = mutate_tree(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate_arrays(arrays: dict[str, np.ndarray], rng: random.Random) -> dict[str, np.ndarray]:
    """One array with an entry changed, or of another type, shape or length, or gone."""
    changed = dict(arrays)
    name = rng.choice(sorted(arrays))
    array = arrays[name].copy()
    kind = rng.randrange(8)
    if kind <= 4 and array.size:
        index = rng.randrange(array.size)
        if array.dtype.kind == "f":
            array.reshape(-1)[index] = rng.choice(NUMBERS)
        elif array.dtype.kind in "iu":
            info = np.iinfo(array.dtype)
            array.reshape(-1)[index] = rng.choice((info.min, info.max, 0, 1, min(info.max, 10**9)))
        elif array.dtype.kind == "b":
            array.reshape(-1)[index] ^= True
        changed[name] = array
    elif kind == 5:
        changed[name] = array[: len(array) // 2]
    elif kind == 6:
        changed[name] = array.astype(rng.choice(("float16", "int32", "float64")), casting="unsafe")
    elif kind == 7:
        del changed[name]
    return changed


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Rows of numbers with one word changed, rows doubled, swapped or lost."""
    lines = data.decode().splitlines()
    row = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind <= 2:
        words = lines[row].split()
        words[rng.randrange(len(words))] = rng.choice(
            (
                "nan",
                "inf",
                "-inf",
                "1e400",
                "-1",
                "0",
                "1e200",
                "1e-200",
                "x",
                "0x1",
                "1_0",
                "9" * 5000,
                "\u0663",
                "-0.0",
            )
        )
        lines[row] = " ".join(words)
    elif kind == 3:
        lines.insert(rng.randrange(len(lines)), lines[row])
    elif kind == 4:
        del lines[row]
    else:
        lines[row] = lines[row][: rng.randrange(len(lines[row]) + 1)]
    return "\n".join(lines).encode()


Mutation = Callable[[bytes, random.Random], bytes]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _places(item, (*path, key))
    return found


def _changed(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if path:
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = _changed(value[path[0]], path[1:], rng)
        return copy
    kind = rng.randrange(6)
    if isinstance(value, dict) and value and kind < 4:
        copy, key = dict(value), rng.choice(sorted(value, key=str))
        if kind == 0:
            del copy[key]
        elif kind == 1:
            copy[f"{key}x"] = copy.pop(key)
        elif kind == 2:
            copy["unknown"] = rng.choice(VALUES)
        else:
            copy[key] = rng.choice(VALUES)
        return copy
    if isinstance(value, list) and value and kind < 3:
        return [value[:-1], value * 2, [*value, rng.choice(VALUES)]][kind]
    if isinstance(value, int | float) and not isinstance(value, bool) and kind < 2:
        return rng.choice((-value, value * 10**6 + 1, value + 0.5, str(value)))
    return rng.choice(VALUES)
