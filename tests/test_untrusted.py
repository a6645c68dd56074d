"""Bounds on what is read from files of anybody: size, depth and count."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.settings import override, read_yaml
from semkey.textfiles import numbered_rows
from semkey.untrusted import one_line, parse_json, parse_yaml, read_bytes, read_json, shown


def test_files_and_pipes_are_read_up_to_the_limit(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"x" * 1000)
    assert read_bytes(file, limit=1000) == b"x" * 1000
    with pytest.raises(InputError, match=r"file: has more than .* MB"):
        read_bytes(file, limit=999)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"y" * 300_000))
    writer.start()
    assert read_bytes(pipe, limit=300_000) == b"y" * 300_000
    writer.join()


def test_a_limit_takes_no_memory_by_itself(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_bytes(tmp_path / "small", limit=1 << 40) == b"x"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("read", [read_json, read_yaml, lambda path: list(numbered_rows(path))])
def test_devices_folders_and_missing_files_are_refused(read, tmp_path: Path) -> None:
    start = time.monotonic()
    for path, reason in (
        (Path("/dev/zero"), "is a device"),
        (tmp_path, "directory"),
        (tmp_path / "x", "no such file|is missing"),
    ):
        with pytest.raises((InputError, ConfigError, DatasetError), match=reason):
            read(path)
    assert time.monotonic() - start < 2


def test_deep_json_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"room: cannot be read as JSON .*nested too deeply"):
        parse_json("[" * 100_000, "room")
    for text in ("NaN", "[Infinity]", "{", "9" * 5000):
        with pytest.raises(InputError, match="room: cannot be read as JSON"):
            parse_json(text, "room")
    assert parse_json(b'{"a": [1, 2.5, null]}', "room") == {"a": [1, 2.5, None]}


def bomb(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(9, 9), "more than 20000 values"),
        ("a: &a [*a]", "more than 20000 values"),
        ("[" * 20_000, "nested too deeply"),
        ("x: " + "y" * 300_000, "more than 0.25 MB"),
        ("d: 2024-99-99", "not valid YAML"),
        ("n: " + "1" * 5000, "not valid YAML"),
        ("a: [", "line 1: is not valid YAML"),
        ("t: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
    ids=["laughs", "self", "deep", "large", "date", "digits", "cut", "tag"],
)
def test_yaml_is_bounded(text: str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_yaml(text, "train.yaml", error=ConfigError)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 5


def test_aliases_of_small_things_are_read() -> None:
    assert parse_yaml(bomb(3, 3), "x")["a2"] == [[["x"] * 3] * 3] * 3
    assert override({}, ["a.b=[1, &x 2, *x]"]) == {"a": {"b": [1, 2, 2]}}
    assert override({}, [f"a={'[' * 20_000}"]) == {"a": "[" * 20_000}


def test_values_are_shown_in_one_short_line() -> None:
    for value in ("a\nb" * 500, list(range(10_000)), {"x": "y" * 1000}, 10**6000, b"\n" * 200, None):
        assert len(shown(value)) <= 80
        assert "\n" not in shown(value)
    assert shown("as it is") == "'as it is'"
    assert one_line("as\nit is") == "as it is"
