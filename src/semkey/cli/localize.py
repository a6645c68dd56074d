"""``semkey localize``: where images were taken in a saved map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import print_error, print_table, track
from semkey.cli.inputs import FeatureOptions, expand_folders
from semkey.cli.options import changes_option, field_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semkey.datasets import CameraArgument
    from semkey.geometry.camera import PinholeCamera
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
    from semkey.datasets import parse_camera
    from semkey.errors import ConfigError, InputError
    from semkey.extractors import create_extractor, create_stored_extractor
    from semkey.files import atomic_write_bytes
    from semkey.images.writing import write_image
    from semkey.slam.output.report import check_out_dir
    from semkey.slam.output.session import check_features, load_session
    from semkey.slam.tracking.localize import Localizer
    from semkey.visualization.map_picture import draw_reprojections

    parameters = None if camera is None else parse_camera(camera)
    paths = list(dict.fromkeys(expand_folders(images)))
    session = load_session(map_file)
    if features is None:
        extractor = create_stored_extractor(session.result.features, max_keypoints=max_keypoints, device=device)
    else:
        extractor = create_extractor(features, max_keypoints=max_keypoints, device=device)
    check_features(session, map_file, extractor.name, getattr(extractor, "settings", {}))
    localizer = Localizer(session.slam_map, session.result.config.with_changes(changes))
    found: dict[Path, Localization] = {}
    problems: dict[Path, str] = {}
    for number, path in enumerate(track(paths, "Localising")):
        try:
            image, own = _with_camera(path, parameters, session.result.camera)
        except (ConfigError, InputError) as error:
            text = str(error)
            problems[path] = text if str(path) in text else f"{path}: {text}"
            print_error(problems[path])
            continue
        result = localizer.localize(extractor.extract(image), own, image)
        found[path] = result
        if pictures and result.T_world_cam is not None:
            caption = f"{path.name}: {result.inliers} landmarks, keyframe {result.keyframe_id}"
            drawing = draw_reprojections(image, result.keypoints, result.projected, caption)
            write_image(out / f"{number:04d}_{path.stem}.png", drawing)
    if not found:
        raise typer.Exit(2)
    check_out_dir(out)
    _write_poses(out / "poses.txt", paths, found)
    entries = [
        _to_json(path, found[path]) if path in found else {"path": str(path), "error": problems[path]} for path in paths
    ]
    write_json(str(out / "poses.json"), {"map": str(map_file), "images": entries})
    atomic_write_bytes(out / "map.png", _map_picture(session, found, len(paths)))
    _tell(paths, found, out, _unit(session))
    if problems:
        typer.echo(f"{len(problems)} of {len(paths)} could not be used", err=True)
        raise typer.Exit(2)


def _unit(session: Session) -> str:
    """Of the map's lengths: that of a single camera has no metres."""
    return "units" if session.result.sensor == "mono" else "m"


def _tell(paths: list[Path], found: dict[Path, Localization], out: Path, unit: str) -> None:
    """What was found, a row for each image."""
    rows = [_row(path, found[path]) if path in found else [str(path), "error", *"----"] for path in paths]
    print_table(["image", "found", "landmarks", *(f"{axis}, {unit}" for axis in "xyz")], rows)
    for path, result in found.items():
        if result.remark is not None:
            typer.echo(f"{path}: {result.remark} (--camera fx,fy,cx,cy)")
    count = sum(result.T_world_cam is not None for result in found.values())
    typer.echo(f"{count} of {len(paths)} found; written to {out}: {', '.join(_FILES)}")


def _with_camera(
    path: Path, given: CameraArgument | None, map_camera: PinholeCamera
) -> tuple[NDArray[np.uint8], PinholeCamera]:
    """A photo as it is shown, without the distortion of its lens, and its camera.

    The camera is the given one, or the map's where the photo has the same shape, as shown or as stored; else one by the
    focal length that the photo notes, which is said.

    Raises:
        ConfigError: the photo has another shape than the map's images, and notes no focal length.
        InputError: the photo cannot be read.
    """
    from semkey.cli.terminal.messages import say_warning
    from semkey.datasets.cameras.calibration import optics_for
    from semkey.datasets.cameras.turning import turned_argument, turned_camera
    from semkey.errors import ConfigError
    from semkey.images.orientation import shown_size
    from semkey.images.reading import read_exif, read_image
    from semkey.slam.tracking.localize import camera_of_image

    exif = read_exif(path)
    image = read_image(path, orientation=exif.orientation)
    size = (image.shape[1], image.shape[0])
    stored = shown_size(size, exif.orientation)
    if given is not None:
        optics = optics_for(turned_argument(given, exif.orientation, stored)[0], size)
        return (image if optics.left is None else optics.left(image)), optics.camera or map_camera
    try:
        return image, camera_of_image(map_camera, size)
    except ConfigError as error:
        try:
            return image, turned_camera(camera_of_image(map_camera, stored), exif.orientation)
        except ConfigError:
            focal = exif.focal_px(*size)
        if focal is None:
            raise ConfigError(f"{error}; the photo notes no focal length") from None
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    say_warning(f"{path}: its camera is taken from its EXIF focal length, {focal:.0f} pixels; --camera is more exact")
    return image, optics_for((focal, focal, *middle), size).camera or map_camera


def _write_poses(path: Path, paths: list[Path], found: dict[Path, Localization]) -> None:
    import numpy as np

    from semkey.geometry.trajectories import Trajectory, write_tum_trajectory

    poses = {number: found[path].T_world_cam for number, path in enumerate(paths) if path in found}
    rows = [(number, pose) for number, pose in poses.items() if pose is not None]
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


def _map_picture(session: Session, found: dict[Path, Localization], given: int) -> bytes:
    from semkey.visualization.map_picture import map_figure

    slam_map = session.slam_map
    alive = slam_map.landmarks.ids
    located = [(path.stem, result.T_world_cam) for path, result in found.items() if result.T_world_cam is not None]
    return map_figure(
        slam_map.landmarks.positions[alive],
        None if session.colors is None else session.colors[alive],
        [keyframe.T_world_cam for keyframe in slam_map.keyframes.values()],
        located,
        title=f"{session.result.sequence_name}: {len(located)} of {given} images found",
        unit=_unit(session),
    )


def _row(path: Path, result: Localization) -> list[str]:
    if result.T_world_cam is None:
        return [str(path), "no", "0", "-", "-", "-"]
    place = [f"{value:.3f}" for value in result.T_world_cam[:3, 3]]
    return [str(path), "yes", str(result.inliers), *place]
