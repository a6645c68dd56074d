"""The page itself, made of Gradio's parts: what is dropped, what is chosen, what is shown."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import SemkeyError
from semkey.ui.clips import ClipView
from semkey.ui.desk import FEATURES, MATCHERS, MOST_KEYPOINTS, Desk
from semkey.ui.images import ImageView, OpenImages
from semkey.ui.similarity import backbone_choices, reduced

TITLE = "semkey"
_SHOWN_SIDE = 1280
_KEPT_S = 3600
_ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "desk", "concurrency_limit": 1}
_INTRODUCTION = (
    "Drop **two images** for keypoints, matches and what looks alike, or **a short clip** for the way of the camera. "
    "All of it stays on this machine."
)
_KEYPOINTS = (
    "Colour: predicted reliability, blue 0 to red 1. Ellipses, where features have them: 8 sigma of the position."
)
_SIMILARITY = "Click on a point: what looks like it to the backbone, in both images, on one scale of colours."


def build_page(desk: Desk) -> Any:
    """The page as ``gradio.Blocks``, not yet served.

    Args:
        desk: answers it.
    """
    import gradio

    with gradio.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(_KEPT_S // 6, _KEPT_S), fill_width=True
    ) as page:
        opened = gradio.State(None, time_to_live=_KEPT_S)
        gradio.Markdown(f"# {TITLE}\n{_INTRODUCTION}")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                files = gradio.File(file_count="multiple", label="Two images, or a clip", height=170, elem_id="files")
                with gradio.Row():
                    run = gradio.Button("Show", variant="primary", min_width=80, elem_id="show")
                    stop = gradio.Button("Stop", min_width=80, elem_id="stop")
                choices = _choices(gradio)
            with gradio.Column(scale=4):
                status = gradio.Textbox(label="Found", lines=3, elem_id="status", interactive=False)
                tabs = gradio.Tabs(selected="keypoints")
        with tabs:
            with gradio.Tab("Keypoints", id="keypoints"):
                gradio.Markdown(_KEYPOINTS)
                drawn = _two_pictures(gradio, "keypoints")
            with gradio.Tab("Matches", id="matches"):
                matches = _picture(gradio, "Green: agree on one geometry; red: do not", "matches")
            with gradio.Tab("Similarity", id="similarity"):
                names = backbone_choices()
                backbone = gradio.Dropdown(names, value=names[0][1], label="Backbone")
                said = gradio.Textbox(_SIMILARITY, show_label=False, elem_id="said", interactive=False)
                compared = _two_pictures(gradio, "similarity")
            with gradio.Tab("Map", id="map"):
                shown_map = gradio.HTML(elem_id="map")

        show = _show(gradio, desk)
        outputs = [opened, status, *drawn, matches, *compared, said, shown_map, tabs]
        run.click(show, [files, *choices], outputs, api_name="show", show_progress_on=status, **_ONE_AT_A_TIME)
        files.upload(
            show, [files, *choices], outputs, api_visibility="private", show_progress_on=status, **_ONE_AT_A_TIME
        )
        stop.click(desk.stop, queue=False, api_visibility="private")
        for number, picture in enumerate(compared):
            answer = _compare(gradio, desk, number)
            picture.select(answer, [opened, backbone], [*compared, said], api_visibility="private", **_ONE_AT_A_TIME)
    return page


def _choices(gradio: Any) -> list[Any]:
    """Parts that choose what is computed, in the order in which :func:`_show` takes them."""
    features = gradio.Dropdown(list(FEATURES), value=FEATURES[0], label="Features")
    keypoints = gradio.Slider(64, MOST_KEYPOINTS, value=1024, step=64, label="Keypoints per image, at most")
    matcher = gradio.Dropdown(list(MATCHERS), value=MATCHERS[0], label="Matcher")
    refined = gradio.Checkbox(value=False, label="Refine matches to fractions of a pixel")
    with gradio.Accordion("Camera of a clip", open=False):
        camera = gradio.Textbox("", label="fx,fy,cx,cy in pixels", placeholder="525,525,319.5,239.5")
        degrees = gradio.Slider(20, 120, value=65, step=1, label="else: degrees of view, horizontally")
    return [features, keypoints, matcher, refined, camera, degrees]


def _show(gradio: Any, desk: Desk) -> Callable[..., list[Any]]:
    """What dropping files does."""

    def show(
        given: list[str] | None,
        features: str,
        keypoints: float,
        matcher: str,
        refined: bool,
        camera: str | None,
        degrees: float,
        progress: Any = gradio.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> list[Any]:
        with _told(gradio):
            found = desk.show(
                given or [],
                features=features,
                keypoints=int(keypoints),
                matcher=matcher,
                refined=refined,
                camera=camera or "",
                view_degrees=degrees,
                progress=lambda done, total: progress((done, total), desc="Tracking", unit="frames"),
            )
        if isinstance(found, ClipView):
            none = [None] * 5
            return [None, found.text, *none, _SIMILARITY, _map_html(found), gradio.Tabs(selected="map")]
        images, view = found
        shown = _image_outputs(images, view)
        return [images, view.text, *shown, _SIMILARITY, "", gradio.Tabs(selected="keypoints")]

    return show


def _compare(gradio: Any, desk: Desk, number: int) -> Callable[..., list[Any]]:
    """What a click on an image does."""

    def compare(opened: OpenImages | None, backbone: str, event: Any) -> list[Any]:
        with _told(gradio):
            x, y = event.index
            drawn, text = desk.compare(opened, number, (float(x), float(y)), backbone)
        return [*drawn, *[None] * (2 - len(drawn)), text]

    # Gradio looks at annotations for what to hand over, and those of functions here are only text.
    compare.__annotations__ = {"event": gradio.SelectData}
    return compare


@contextmanager
def _told(gradio: Any) -> Generator[None]:
    """Errors of semkey become a line on the page."""
    try:
        yield
    except SemkeyError as error:
        line = html.escape(" ".join(str(error).split()), quote=False)
        raise gradio.Error(line, duration=None, print_exception=False) from None


def _two_pictures(gradio: Any, name: str) -> list[Any]:
    with gradio.Row():
        return [_picture(gradio, f"Image {k + 1}", f"{name}{k}") for k in range(2)]


def _picture(gradio: Any, label: str, name: str) -> Any:
    return gradio.Image(label=label, interactive=False, format="png", elem_id=name, buttons=["download", "fullscreen"])


def _image_outputs(images: OpenImages, view: ImageView) -> list[NDArray[np.uint8] | None]:
    """Pictures of two images with keypoints, of matches, and the images to be clicked on."""
    drawn: list[NDArray[np.uint8] | None] = [reduced(one, _SHOWN_SIDE) for one in view.keypoints]
    plain: list[NDArray[np.uint8] | None] = [reduced(one) for one in images.images]
    missing = [None] * (2 - len(drawn))
    return [*drawn, *missing, view.matches, *plain, *missing]


def _map_html(view: ClipView) -> str:
    """The map in a frame of its own, where its lines of JavaScript run, and the picture of the trajectory."""
    picture = f'<img alt="trajectory" style="width:100%" src="data:image/png;base64,{_base64(view.picture)}">'
    if not view.html:
        return picture
    body = f'<!doctype html><body style="margin:0;font:14px sans-serif">{view.html}</body>'
    frame = f'<iframe title="map" sandbox="allow-scripts" srcdoc="{html.escape(body)}" style="{_FRAME_STYLE}"></iframe>'
    return frame + picture


_FRAME_STYLE = "width:100%;height:580px;border:0;background:#fff"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
