"""What a run with a single camera knows of its unit of length, in figures and in a sentence."""

from __future__ import annotations

import math
from typing import Any

from semkey.slam.result import SlamResult


def scale_figures(result: SlamResult) -> dict[str, Any] | None:
    """What ``report.json`` has as ``scale``; None for a map in metres, and where there is no map.

    A map that was made with depth is in metres, whatever goes on in it. ``maps`` is the number of submaps that were
    not, each with a unit of its own. ``corrected_percent`` is the largest change of scale by which a loop was closed:
    what had gathered on the way, was measured there, and is corrected since; null without a loop, where nothing has
    measured it. ``statement`` says that in a sentence. What is left between places that no loop joins is not known:
    uncertainties of landmarks promise 0.2 % where 8 % are true (a round through a room).
    """
    if result.sensor != "mono" or result.slam_map is None or not result.slam_map.keyframes:
        return None
    keyframes = result.slam_map.keyframes.values()
    in_metres = {keyframe.submap for keyframe in keyframes if (keyframe.frame.depth > 0).any()}
    maps = len(set(result.slam_map.tree.submaps) - in_metres)
    if maps == 0:
        return None
    changes = [abs(math.log(loop.scale)) for loop in result.loops if loop.kind == "loop"]
    corrected = round(100 * math.expm1(max(changes)), 1) if changes else None
    owner = f"those of {maps} separate maps, each with its own" if maps > 1 else "those of the map"
    if in_metres:
        owner = f"in {maps} of {maps + len(in_metres)} separate maps their own"
    checked = "no loop was closed that would have shown by how much the scale has drifted"
    if corrected is not None:
        checked = f"the scale had drifted by up to {corrected:.1f} % where loops were closed, which is corrected"
    return {
        "maps": maps,
        "corrected_percent": corrected,
        "statement": f"units of length are {owner}, not metres, since a single camera sees no sizes; {checked}",
    }
