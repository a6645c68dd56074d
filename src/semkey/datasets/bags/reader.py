"""Opening bags through rosbags: topics, messages in order of time, and a message again by its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from semkey.errors import ConfigError, DatasetError

BAG_SUFFIXES = frozenset({".bag", ".mcap", ".db3"})

# A jump forwards of at most so many messages of a topic is read through; a longer one seeks by time.
_READ_THROUGH = 16


@dataclass(frozen=True, kw_only=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: with its slash.
        kind: type of its messages, such as ``sensor_msgs/msg/Image``.
        count: messages that the bag announces.
    """

    name: str
    kind: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a message lies in its topic.

    Attributes:
        time_ns: when it was recorded.
        ordinal: its place among the messages of the topic that were recorded at this time.
    """

    time_ns: int
    ordinal: int


def is_bag(path: Path) -> bool:
    """Whether this is a bag's file, or a folder of rosbag2 or with bag files."""
    if path.is_dir():
        return _is_described(path) or bool(_files(path))
    return path.suffix.lower() in BAG_SUFFIXES


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in BAG_SUFFIXES and file.is_file())


def _is_described(folder: Path) -> bool:
    try:
        return "rosbag2_bagfile_information" in (folder / "metadata.yaml").read_text(encoding="utf-8")[:4096]
    except (OSError, UnicodeDecodeError):
        return False


class BagReader:
    """An open bag: ROS 1 (``.bag``, or a folder of them), ROS 2 (``.mcap``, ``.db3``, or the folder).

    Args:
        path: the file or folder.

    Raises:
        ConfigError: the package rosbags is not installed.
        DatasetError: the bag is damaged, truncated, or of a storage that rosbags does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise ConfigError("bags are read through rosbags: pip install 'semkey[bags]'") from None
        files = _files(path) if path.is_dir() and not _is_described(path) else [path]
        if files and len({file.suffix == ".bag" for file in files}) > 1:
            raise DatasetError(f"{path}: holds bags of ROS 1 and of ROS 2; give one of them")
        try:
            # Bags of older ROS 2 do not say what their messages hold; sensor_msgs have not changed since.
            self._reader = AnyReader(files, default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # parsers of foreign, possibly damaged files raise what they like
            raise _unreadable(path, error) from None

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def topics(self) -> tuple[BagTopic, ...]:
        """All topics, by name."""
        found = [
            BagTopic(name=name, kind=topic.msgtype or "several types", count=topic.msgcount)
            for name, topic in self._reader.topics.items()
        ]
        return tuple(sorted(found, key=lambda topic: topic.name))

    def messages(self, topics: Sequence[str], start_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording in nanoseconds, message) of these topics, in order of that time.

        Raises:
            DatasetError: the bag is damaged.
        """
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if not connections:
            return
        try:
            for connection, time_ns, data in self._reader.messages(connections, start=start_ns):
                yield connection.topic, time_ns, self._reader.deserialize(data, connection.msgtype)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _unreadable(self.path, error) from None

    def first(self, topic: str) -> Any | None:
        """The first message of a topic, None where it has none."""
        return next((message for _, _, message in self.messages([topic])), None)


class TopicCursor:
    """Messages of one topic by their number: quick in order, by a seek otherwise. It has the bag open on its own.

    Args:
        path: the bag.
        topic: its name.
        places: of all its messages that count.
    """

    def __init__(self, path: Path, topic: str, places: Sequence[Place]) -> None:
        self._path, self._topic, self._places = path, topic, places
        self._reader: BagReader | None = None
        self._messages: Iterator[tuple[Place, Any]] = iter(())
        self._next = -1

    def read(self, number: int) -> Any:
        """Message ``number``.

        Raises:
            DatasetError: the bag has changed or is damaged.
        """
        if not 0 <= number - self._next <= _READ_THROUGH or self._next < 0:
            self._messages = self._from(self._places[number].time_ns)
        wanted = self._places[number]
        for place, message in self._messages:
            if place == wanted:
                self._next = number + 1
                return message
            if place.time_ns > wanted.time_ns:
                break
        self._next = -1
        raise DatasetError(f"{self._path}: {self._topic} has lost its message at {wanted.time_ns} ns; was it changed?")

    def _from(self, time_ns: int) -> Iterator[tuple[Place, Any]]:
        if self._reader is None:
            self._reader = BagReader(self._path)
        return with_places(self._reader.messages([self._topic], start_ns=time_ns))


def with_places(messages: Iterator[tuple[str, int, Any]]) -> Iterator[tuple[Place, Any]]:
    """Messages of one topic with their places."""
    before, ordinal = None, 0
    for _, time_ns, message in messages:
        ordinal = ordinal + 1 if time_ns == before else 0
        before = time_ns
        yield Place(time_ns=time_ns, ordinal=ordinal), message


def _unreadable(path: Path, error: Exception) -> DatasetError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DatasetError(
        f"{path}: bag cannot be read ({reason}); is it whole? (`ros2 bag reindex`, `mcap recover` or `rosbag reindex`)"
    )
