"""Which topics of a bag are what: found by their types, frames and names where there is no doubt, or given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semkey.datasets.bags.messages import encoding_of, is_depth
from semkey.datasets.bags.reader import BagReader, BagTopic
from semkey.errors import ConfigError, DatasetError

#: What a topic can be for semkey.
ROLES = ("rgb", "depth", "info", "right", "right_info", "imu")

_IMAGE_KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_INFO_KIND = "sensor_msgs/msg/CameraInfo"
_IMU_KIND = "sensor_msgs/msg/Imu"
_KINDS = {
    "rgb": _IMAGE_KINDS,
    "depth": _IMAGE_KINDS,
    "right": _IMAGE_KINDS,
    "info": (_INFO_KIND,),
    "right_info": (_INFO_KIND,),
    "imu": (_IMU_KIND,),
}
_TRANSPORTS = ("/compressed", "/compressedDepth")
_LISTED = 6
# Names of the two cameras of a pair, left first.
_SIDES = (("left", "right"), ("infra1", "infra2"), ("cam0", "cam1"))


@dataclass(frozen=True, kw_only=True)
class TopicRoles:
    """Which topic is what; None where there is none.

    Attributes:
        rgb: images, of the left camera where there are two; grey ones as well.
        depth: depth maps registered to the images.
        info: camera_info of the images.
        right: images of the right camera.
        right_info: its camera_info.
        imu: inertial measurements.
    """

    rgb: str
    depth: str | None = None
    info: str | None = None
    right: str | None = None
    right_info: str | None = None
    imu: str | None = None


def parse_topics(text: str) -> dict[str, str]:
    """Roles and topics of ``rgb=/camera/color/image_raw,depth=none``; ``none`` leaves a role out.

    Raises:
        ConfigError: not of this form, or an unknown role.
    """
    roles: dict[str, str] = {}
    for part in text.split(","):
        role, equals, topic = (piece.strip() for piece in part.partition("="))
        if not equals or not topic or role not in ROLES:
            raise ConfigError(
                f"--topics '{part.strip()}': expected role=topic with a role of {', '.join(ROLES)}, such as "
                "rgb=/camera/color/image_raw"
            )
        if role in roles:
            raise ConfigError(f"--topics: '{role}' is given twice")
        roles[role] = topic
    return roles


def find_topics(reader: BagReader, given: Mapping[str, str]) -> TopicRoles:
    """Find out which topics are used.

    Args:
        reader: the bag.
        given: topics by role that are not to be found; ``none`` for no such topic.

    Raises:
        DatasetError: there are no images, a given topic is missing, empty or of another type, several topics would fit,
            or the depth found is not in the frame of the images.
    """
    topics = {topic.name: topic for topic in reader.topics if topic.count > 0}
    chosen = {role: _check_given(reader, topics, role, name) for role, name in given.items() if name != "none"}
    absent = {role for role, name in given.items() if name == "none"}
    heads = _heads(reader, topics, chosen)
    colours = [name for name, head in heads.items() if not is_depth(head)]
    if "rgb" not in chosen:
        chosen |= _find_images(reader, heads, colours, absent, chosen)
    rgb = chosen["rgb"]
    if "depth" not in chosen and "right" not in chosen and "depth" not in absent:
        depth = _find_depth(reader.path, heads, rgb)
        chosen |= {} if depth is None else {"depth": depth}
    infos = [topic.name for topic in topics.values() if topic.kind == _INFO_KIND]
    for role, image in (("info", rgb), ("right_info", chosen.get("right"))):
        if role not in chosen and role not in absent and image is not None:
            info = _info_of(image, infos, alone=len(colours) == 1)
            chosen |= {} if info is None else {role: info}
    imus = [topic.name for topic in topics.values() if topic.kind == _IMU_KIND]
    if "imu" not in chosen and "imu" not in absent and len(imus) == 1:
        chosen["imu"] = imus[0]
    return TopicRoles(**chosen)


def _check_given(reader: BagReader, topics: Mapping[str, BagTopic], role: str, name: str) -> str:
    name = name if name in topics or name.startswith("/") else f"/{name}"
    if name not in topics:
        declared = any(topic.name == name for topic in reader.topics)
        what = "holds no messages" if declared else "is not in the bag"
        raise DatasetError(f"{reader.path}: topic {name} {what}; it has {_listed(topics.values())}")
    if topics[name].kind not in _KINDS[role]:
        raise DatasetError(
            f"{reader.path}: topic {name} is of type {topics[name].kind}; '{role}' needs {' or '.join(_KINDS[role])}"
        )
    return name


def _heads(reader: BagReader, topics: Mapping[str, BagTopic], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The first message of every image topic; of a picture in several transports the one that is not compressed."""
    names = [topic.name for topic in topics.values() if topic.kind in _IMAGE_KINDS]
    kept = [name for name in names if _base(name) == name or _base(name) not in names or name in chosen.values()]
    if not kept:
        raise DatasetError(f"{reader.path}: no images in this bag; it has {_listed(topics.values())}")
    heads = {name: reader.first(name) for name in kept}
    return {name: head for name, head in heads.items() if head is not None}


def _find_images(
    reader: BagReader, heads: Mapping[str, Any], colours: list[str], absent: set[str], chosen: Mapping[str, str]
) -> dict[str, str]:
    free = [name for name in colours if name not in chosen.values()]
    if len(free) == 1:
        return {"rgb": free[0]}
    if not free:
        depths = ", ".join(f"{name} ({encoding_of(head)})" for name, head in heads.items())
        raise DatasetError(f"{reader.path}: no pictures, only depth ({depths}); name them with --topics rgb=TOPIC")
    if len(free) == 2 and not {"right", "depth"} & (absent | set(chosen)):
        pair = _pair_of(*free)
        has_depth = any(is_depth(head) for head in heads.values())
        if pair is not None and not has_depth:
            return {"rgb": pair[0], "right": pair[1]}
    raise DatasetError(
        f"{reader.path}: several topics hold pictures ({', '.join(free)}); choose with --topics rgb=TOPIC"
    )


def _pair_of(first: str, second: str) -> tuple[str, str] | None:
    """The two topics as left and right, if that is all their names differ in."""
    for left, right in _SIDES:
        for one, other in ((first, second), (second, first)):
            if left in one and one.replace(left, right) == other:
                return one, other
    return None


def _find_depth(path: Path, heads: Mapping[str, Any], rgb: str) -> str | None:
    depths = {name: head for name, head in heads.items() if is_depth(head) and name != rgb}
    frame = heads[rgb].header.frame_id
    registered = [name for name, head in depths.items() if head.header.frame_id == frame]
    if len(registered) == 1:
        return registered[0]
    if len(registered) > 1:
        raise DatasetError(f"{path}: several topics hold depth ({', '.join(registered)}); choose with --topics depth=")
    if depths:
        name, head = next(iter(depths.items()))
        raise DatasetError(
            f"{path}: {name} is in frame '{head.header.frame_id}', the images {rgb} are in '{frame}': depth must be "
            f"registered to the images; give --topics depth={name} to take it as it is, or depth=none"
        )
    return None


def _info_of(image: str, infos: list[str], *, alone: bool) -> str | None:
    """The camera_info beside the images, by ROS's rule; the only one of the bag if there are no other images."""
    beside = f"{_base(image).rpartition('/')[0]}/camera_info"
    if beside in infos:
        return beside
    return infos[0] if alone and len(infos) == 1 else None


def _base(name: str) -> str:
    """The topic without the transport at its end."""
    return next((name.removesuffix(end) for end in _TRANSPORTS if name.endswith(end)), name)


def _listed(topics: Iterable[BagTopic]) -> str:
    names = [f"{topic.name} ({topic.kind})" for topic in topics]
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join(names[:_LISTED] + more) or "no messages at all"
