"""``semkey export map``: a saved map for other programs, and the surface and floor plan of what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from semkey.cli.console import progress_bar
from semkey.cli.inputs import InputOptions
from semkey.cli.options import configured, option
from semkey.settings import Settings, require, require_within
from semkey.surfaces.config import OccupancyConfig, SurfaceConfig

if TYPE_CHECKING:
    from semkey.interop.map_part import MapPart
    from semkey.interop.recording import Recording

MapFormat = Literal["colmap", "nerfstudio", "tum", "kitti", "euroc", "g2o", "ply"]
_FOLDERS = ("colmap", "nerfstudio")


@dataclass(frozen=True, kw_only=True)
class MapExportOptions(Settings):
    """What is written.

    Attributes:
        to: format: folders for COLMAP or nerfstudio; the run's trajectory as TUM, KITTI or EuRoC write it; the
            keyframes' pose graph (g2o); the landmarks as points (ply).
        out: file or folder that ``--to`` writes.
        sequence: the recording that the map was made of, for images and depth, which a map does not hold.
        submap: which submap (default: the one with most keyframes); others lie in worlds of their own.
        dense: write the surface that the keyframes' depth shows (.ply, .obj, .glb or .stl), coloured.
        points: ``--dense`` writes the points of the surface with their normals (.ply), not triangles.
        occupancy: write a floor plan for ROS's map server: NAME.pgm, NAME.yaml, and the pose in NAME.json.
    """

    to: MapFormat | None = option(None, "--to")
    out: Path | None = option(None, "--out", "-o", metavar="FILE|DIR")
    sequence: Path | None = option(None, metavar="FOLDER")
    submap: int | None = None
    dense: Path | None = option(None, metavar="FILE")
    points: bool = option(False, "--points")
    occupancy: Path | None = option(None, metavar="NAME")

    def __post_init__(self) -> None:
        if self.submap is not None:
            require_within(self, "[0, inf)", "submap")
        needs_depth = self.dense is not None or self.occupancy is not None
        require(self.to is not None or needs_depth, "nothing to write: give --to, --dense or --occupancy")
        require((self.to is None) == (self.out is None), "--to FORMAT and --out FILE|DIR belong together")
        require(
            not needs_depth or self.sequence is not None, "--dense and --occupancy need --sequence FOLDER for depth"
        )
        require(not self.points or self.dense is not None, "--points says how --dense FILE is written; give it too")


@configured
def export_map(
    *,
    map_file: Path = typer.Argument(..., metavar="MAP", help="A map that semkey slam --save-map has written."),
    what: MapExportOptions,
    source: InputOptions,
    surface: SurfaceConfig,
    plan: OccupancyConfig,
) -> None:
    """Write a saved map for other programs: a reconstruction, a trajectory, points, a surface, a floor plan.

    A map has the poses and points of keyframes, not their images: --sequence takes these, and their depth, from the
    recording. Poses are camera to world of the map; every format's own axes and pixels are in docs/interop.md.

    [bold]Examples[/]

        semkey export map room.semkey --to colmap --out room_colmap --sequence recording

        semkey export map room.semkey --to g2o --out room.g2o

        semkey export map room.semkey --dense mesh.ply --occupancy plan --sequence recording
    """
    from semkey.interop.map_part import map_part
    from semkey.interop.recording import open_recording
    from semkey.slam.output.session import load_session

    _check_paths(what)
    part = map_part(load_session(map_file), what.submap)
    recording = None
    if what.sequence is not None:
        needs_depth = what.dense is not None or what.occupancy is not None
        recording = open_recording(part, source.open(what.sequence), needs_depth=needs_depth)
    typer.echo(part.summary)
    if what.to is not None and what.out is not None:
        typer.echo(f"{what.out}: {_write(what.to, what.out, part, recording)}")
    if recording is not None and (what.dense is not None or what.occupancy is not None):
        _write_surface(what, recording, surface, plan)


def _check_paths(what: MapExportOptions) -> None:
    """Tell before the work what cannot be written."""
    from semkey.errors import InputError
    from semkey.surfaces.mesh import check_mesh_path
    from semkey.surfaces.occupancy import check_plan_path

    files = [what.dense, what.out if what.to not in _FOLDERS else None]
    for path in files:
        if path is not None and path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
    if what.dense is not None:
        suffix = check_mesh_path(what.dense)
        if what.points and suffix != ".ply":
            raise InputError(f"cannot write {what.dense}: points are written as .ply")
    if what.occupancy is not None:
        check_plan_path(what.occupancy)


def _write(to: MapFormat, out: Path, part: MapPart, recording: Recording | None) -> str:
    """Write one of the formats; says what is in it."""
    from semkey.geometry.trajectories import write_tum_trajectory
    from semkey.interop.g2o import write_g2o
    from semkey.interop.map_folder import export_folder
    from semkey.interop.trajectory_files import times_path, write_euroc_trajectory, write_kitti_trajectory
    from semkey.slam.output.ply import write_points

    if to == "colmap" or to == "nerfstudio":  # noqa: PLR1714 (a type checker follows comparisons)
        with progress_bar("Writing images") as progress:
            return export_folder(to, out, part, recording, progress)
    if to == "g2o":
        return write_g2o(out, part)
    if to == "ply":
        return f"{write_points(out, part.points, part.colors)} points"
    trajectory = part.trajectory()
    lost = len(part.result.frames) - len(trajectory)
    said = f"{len(trajectory)} poses" + (f"; {lost} frames of the run have none here" if lost else "")
    if to == "kitti":
        write_kitti_trajectory(out, trajectory)
        return f"{said}; their times in {times_path(out)}"
    writer = write_tum_trajectory if to == "tum" else write_euroc_trajectory
    writer(out, trajectory)
    return said


def _write_surface(what: MapExportOptions, recording: Recording, surface: SurfaceConfig, plan: OccupancyConfig) -> None:
    import numpy as np

    from semkey.interop.dense import KeyframeViews
    from semkey.slam.output.ply import write_points
    from semkey.surfaces.floor import find_floor
    from semkey.surfaces.mesh import fuse, write_mesh
    from semkey.surfaces.occupancy import FREE, OCCUPIED, occupancy_grid, write_occupancy

    if recording.missing:
        typer.echo(f"{recording.missing} keyframes have no frame at their time in {recording.sequence.name}")
    with progress_bar() as progress:
        mesh = fuse(KeyframeViews(recording), surface, progress)
    if what.dense is not None and what.points:
        write_points(what.dense, mesh.vertices, mesh.colors, mesh.normals)
        typer.echo(f"{what.dense}: {len(mesh.vertices)} points")
    elif what.dense is not None:
        write_mesh(what.dense, mesh)
        typer.echo(f"{what.dense}: {len(mesh)} triangles, {len(mesh.vertices)} vertices")
    if what.occupancy is not None:
        floor = find_floor(mesh, np.stack([keyframe.T_world_cam for keyframe in recording.part.keyframes]))
        grid = occupancy_grid(mesh, floor, plan)
        files = write_occupancy(what.occupancy, grid)
        area = plan.resolution**2
        free, occupied = (float((grid.cells == kind).sum() * area) for kind in (FREE, OCCUPIED))
        typer.echo(
            f"{', '.join(map(str, files))}: {free:.1f} m^2 free, {occupied:.1f} m^2 occupied, the floor "
            f"{floor.camera_height:.2f} m below the camera"
        )
