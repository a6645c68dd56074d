"""``semkey localize``: where images were taken in a saved map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import print_table, track
from semkey.cli.inputs import FeatureOptions
from semkey.cli.options import changes_option, field_option

if TYPE_CHECKING:
    from semkey.slam.output.session import Session
    from semkey.slam.tracking.localize import Localization

_FILES = ("poses.txt", "poses.json", "map.png")


def localize(
    map_file: Path = typer.Argument(..., metavar="MAP", help="A map that semkey slam --save-map has written."),
    images: list[Path] = typer.Argument(..., metavar="IMAGES", help="Image files, or folders of images."),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Where the results go; made if missing."),
    camera: str | None = typer.Option(
        None,
        metavar="FX,FY,CX,CY|FILE",
        help="Camera of the images in pixels, or a calibration file; else the map's, resized to images of the same "
        "shape.",
    ),
    features: str | None = typer.Option(
        None,
        "--features",
        "-f",
        metavar="NAME|FILE",
        help="Where the map's features are now; else by the name that it was made with. A map made with your own "
        "module:function needs it again: a file never says which code is run.",
    ),
    max_keypoints: int = field_option(FeatureOptions, "max_keypoints"),
    device: str = field_option(FeatureOptions, "device"),
    changes: list[str] = changes_option("SlamConfig", "tracking.min_relocalisation_inliers=40"),
    pictures: bool = typer.Option(True, help="Draw every found image with the landmarks that agree with its pose."),
) -> None:
    """Find images in a saved map: their poses as text, JSON and pictures.

    Writes poses.txt (TUM format: number of the image from 0, tx ty tz qx qy qz qw, camera to world of the map; one row
    per image that was found), poses.json (all images, with the landmarks that agree), map.png (the map from above with
    the images in it) and NUMBER_NAME.png for each image that was found.

    [bold]Examples[/]

        semkey localize room.semkey photo.jpg --out found

        semkey localize room.semkey photos/ --out found --camera 1400,1400,959.5,539.5
    """
    from semkey.cli.console import write_json
    from semkey.datasets import Calibration, parse_camera
    from semkey.datasets.cameras.calibration import optics_for
    from semkey.errors import ConfigError
    from semkey.extractors import create_extractor, create_stored_extractor
    from semkey.files import atomic_write_bytes
    from semkey.images import read_image
    from semkey.images.writing import write_image
    from semkey.slam.output.report import check_out_dir
    from semkey.slam.output.session import check_features, load_session
    from semkey.slam.tracking.localize import Localizer, camera_of_image
    from semkey.visualization.map_picture import draw_reprojections

    parameters = None if camera is None else parse_camera(camera)
    paths = _expand(images)
    session = load_session(map_file)
    if features is None:
        extractor = create_stored_extractor(session.result.features, max_keypoints=max_keypoints, device=device)
    else:
        extractor = create_extractor(features, max_keypoints=max_keypoints, device=device)
    check_features(session, map_file, extractor.name, getattr(extractor, "settings", {}))
    check_out_dir(out)
    localizer = Localizer(session.slam_map, session.result.config.with_changes(changes))
    found: list[Localization] = []
    for number, path in enumerate(track(paths, "Localising")):
        image = read_image(path)
        try:
            size = (image.shape[1], image.shape[0])
            if isinstance(parameters, Calibration):
                optics = optics_for(parameters, size)
                image = image if optics.left is None else optics.left(image)
                own = optics.camera or session.result.camera
            else:
                own = camera_of_image(session.result.camera, size, parameters)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        result = localizer.localize(extractor.extract(image), own, image)
        found.append(result)
        if pictures and result.T_world_cam is not None:
            caption = f"{path.name}: {result.inliers} landmarks, keyframe {result.keyframe_id}"
            drawing = draw_reprojections(image, result.keypoints, result.projected, caption)
            write_image(out / f"{number:04d}_{path.stem}.png", drawing)
    _write_poses(out / "poses.txt", found)
    entries = [_to_json(path, result) for path, result in zip(paths, found, strict=True)]
    write_json(str(out / "poses.json"), {"map": str(map_file), "images": entries})
    atomic_write_bytes(out / "map.png", _map_picture(session, paths, found))
    rows = [_row(path, result) for path, result in zip(paths, found, strict=True)]
    print_table(["image", "found", "landmarks", "x, m", "y, m", "z, m"], rows)
    for path, result in zip(paths, found, strict=True):
        if result.remark is not None:
            typer.echo(f"{path}: {result.remark} (--camera fx,fy,cx,cy)")
    count = sum(result.T_world_cam is not None for result in found)
    typer.echo(f"{count} of {len(found)} found; written to {out}: {', '.join(_FILES)}")


def _expand(images: list[Path]) -> list[Path]:
    """Files as they are, folders as the images in them."""
    from semkey.datasets.readers.folder import list_images
    from semkey.errors import InputError

    paths = []
    for path in images:
        inside = list_images(path) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no images in this folder")
        paths += inside
    return paths


def _write_poses(path: Path, found: list[Localization]) -> None:
    import numpy as np

    from semkey.geometry.trajectories import Trajectory, write_tum_trajectory

    rows = [(number, result.T_world_cam) for number, result in enumerate(found) if result.T_world_cam is not None]
    stamps = np.array([number for number, _ in rows], dtype=np.float64)
    write_tum_trajectory(path, Trajectory(stamps, np.array([pose for _, pose in rows]).reshape(-1, 4, 4)))


def _to_json(path: Path, result: Localization) -> dict[str, Any]:
    from dataclasses import asdict

    from semkey.geometry.pose_covariance import ros_covariance

    covariance, pose = result.covariance, result.T_world_cam
    return {
        "path": str(path),
        "found": result.T_world_cam is not None,
        "T_world_cam": None if result.T_world_cam is None else result.T_world_cam.tolist(),
        "covariance_ros": None if covariance is None or pose is None else ros_covariance(covariance, pose).tolist(),
        "quality": round(result.quality, 4),
        "submap": result.submap,
        "keyframe": result.keyframe_id,
        "matches": result.matches,
        "landmarks": result.inliers,
        "remark": result.remark,
        "camera": asdict(result.camera),
    }


def _map_picture(session: Session, paths: list[Path], found: list[Localization]) -> bytes:
    from semkey.visualization.map_picture import map_figure

    slam_map = session.slam_map
    alive = slam_map.landmarks.ids
    located = [
        (path.stem, result.T_world_cam)
        for path, result in zip(paths, found, strict=True)
        if result.T_world_cam is not None
    ]
    return map_figure(
        slam_map.landmarks.positions[alive],
        None if session.colors is None else session.colors[alive],
        [keyframe.T_world_cam for keyframe in slam_map.keyframes.values()],
        located,
        title=f"{session.result.sequence_name}: {len(located)} of {len(found)} images found",
    )


def _row(path: Path, result: Localization) -> list[str]:
    if result.T_world_cam is None:
        return [str(path), "no", "0", "-", "-", "-"]
    place = [f"{value:.3f}" for value in result.T_world_cam[:3, 3]]
    return [str(path), "yes", str(result.inliers), *place]
