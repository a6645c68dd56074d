"""Whatever a data set's text files hold, opening gives a sequence or one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semkey.datasets import open_sequence
from semkey.errors import SemkeyError
from semkey.images import write_image

_NUMBERS = ["0", "1", "-1", "0.5", "nan", "-inf", "1e999", "1e30"]
_SYNTAX = ["P0:", "T_BS:", "data:", "[", "]", "{", "- ", ": ", "#", ",", "\r", "\t", "%YAML:1.0", "&a", "*a"]
_NAMES = ["0.png", "depth/0.png", "rgb/0.png", "..", "/", "\x00", "a" * 300, "é"]
_TOKENS = st.sampled_from([*_NUMBERS, *_SYNTAX, *_NAMES])
_TEXTS = st.lists(st.lists(_TOKENS, max_size=13).map(" ".join), max_size=6).map("\n".join)

_POSE = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
_SENSOR = (
    f"T_BS:\n  data: [{', '.join(_POSE.split())}]\nresolution: [32, 24]\nintrinsics: [30, 30, 15.5, 11.5]\n"
    "distortion_model: radial-tangential\ndistortion_coefficients: [0, 0, 0, 0]\n"
)
#: Text files of small whole sequences of one frame; images are added where a name ends in .png.
_LAYOUTS = {
    "euroc": {
        "mav0/cam0/data.csv": "0,0.png\n",
        "mav0/cam0/sensor.yaml": _SENSOR,
        "mav0/cam0/data/0.png": "",
        "mav0/state_groundtruth_estimate0/data.csv": "0,0,0,0,1,0,0,0\n",
    },
    "kitti": {
        "calib.txt": "P0: 30 0 15.5 0 0 30 11.5 0 0 0 1 0\n",
        "times.txt": "0\n",
        "poses.txt": "1 0 0 0 0 1 0 0 0 0 1 0\n",
        "image_0/000000.png": "",
    },
    "scannet": {
        "color/0.png": "",
        "depth/0.png": "depth",
        "pose/0.txt": _POSE,
        "intrinsic/intrinsic_color.txt": "30 0 15.5 0\n0 30 11.5 0\n0 0 1 0\n0 0 0 1\n",
        "intrinsic/intrinsic_depth.txt": "30 0 15.5 0\n0 30 11.5 0\n0 0 1 0\n0 0 0 1\n",
    },
    "tartanair": {"image_left/000000_left.png": "", "pose_left.txt": "0 0 0 0 0 0 1\n"},
    "icl-nuim": {
        "rgb/0.png": "",
        "depth/0.png": "depth",
        "associations.txt": "0 depth/0.png 0 rgb/0.png\n",
        "a.gt.freiburg": "0 0 0 0 0 0 0 1\n",
    },
}


@pytest.mark.parametrize("layout", _LAYOUTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_text_is_a_sequence_or_one_clear_line(layout: str, tmp_path: Path, data: st.DataObject) -> None:
    files = _LAYOUTS[layout]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            if not path.exists():
                write_image(path, np.zeros((24, 32), np.uint16 if text == "depth" else np.uint8))
        else:
            path.write_text(text)
    camera = (30.0, 30.0, 15.5, 11.5) if layout in ("tartanair", "icl-nuim") else None
    assert len(list(open_sequence(tmp_path, format=layout, camera=camera))) == 1  # whole as it is
    name = data.draw(st.sampled_from([name for name in files if not name.endswith(".png")]))
    (tmp_path / name).write_text(data.draw(_TEXTS))
    try:
        sequence = open_sequence(tmp_path, format=layout, camera=camera)
    except SemkeyError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert len(list(sequence.frames())) == len(sequence) > 0
