"""A video with a slider through its frames, beside the action units and scores that ``audfer.predict`` gave.

In JupyterLab it moves; where nobody can move a slider the same call returns the static picture.
"""

from __future__ import annotations

import io
import os
from base64 import b64decode

import ipywidgets as widgets
import numpy as np
import pandas as pd
from PIL import Image

from ..facs import EXPRESSIONS
from ..openface import INTENSITY_COLUMNS, MAX_INTENSITY
from ..progress import headless
from .panel import score_bars
from .predict import clip_pictures, traces

#: pictures that are kept at most: of a longer video every second, third ... frame
_MOST, _WIDTH = 1500, 360


class VideoPanel(widgets.VBox):
    """The interactive panel; ``video_panel`` makes it.

    Attributes:
        slider: which of the shown frames. image: it, as JPEG. scores, units: tables of bars, HTML.
    """

    def __init__(self, frames: pd.DataFrame, video: str | os.PathLike):
        self._frames = frames
        self._shown = list(range(0, len(frames), -(-len(frames) // _MOST)))
        self._pictures = [_jpeg(picture) for _, picture in clip_pictures(video, self._shown)]
        about = frames.attrs["about"]
        self.slider = widgets.IntSlider(min=0, max=len(self._shown) - 1, layout={"width": f"{_WIDTH}px"})
        play = widgets.Play(min=0, max=len(self._shown) - 1, interval=80, show_repeat=False)
        widgets.jslink((play, "value"), (self.slider, "value"))
        self.image = widgets.Image(format="jpeg", layout={"width": f"{_WIDTH}px"})
        self.scores, self.units = (widgets.HTML(layout={"width": width}) for width in ("20em", "18em"))
        self.slider.observe(lambda change: self.refresh(), names="value")
        self.refresh()
        left = widgets.VBox([self.image, widgets.HBox([play, self.slider])])
        words = widgets.HTML("".join(f"<p>{sentence}</p>" for sentence in (*about["words"], *about["flags"])))
        super().__init__([widgets.HBox([left, self.scores, self.units], layout={"flex_flow": "row wrap"}), words])

    def refresh(self) -> None:
        """Show the slider's frame."""
        row = self._frames.iloc[self._shown[self.slider.value]]
        self.image.value = self._pictures[self.slider.value]
        scores = row[list(EXPRESSIONS)].to_numpy(float)
        self.scores.value = score_bars(scores) if np.isfinite(scores).all() else "no face in this frame"
        lines = [
            f"<tr><td>{name[:4]}</td><td style='width:9em'><div style='background:#3b6fb6;height:.7em;"
            f"width:{100 * row[name] / MAX_INTENSITY:.0f}%'></div></td><td>{row[name]:.1f}</td></tr>"
            for name in INTENSITY_COLUMNS
            if np.isfinite(row[name])
        ]
        self.units.value = f"<table style='line-height:1.1'>{''.join(lines)}</table>"


def video_panel(frames: pd.DataFrame, video: str | os.PathLike) -> VideoPanel | Image.Image:
    """The panel, or its static picture where nobody can move a slider.

    Args:
        frames: what ``audfer.predict`` gave for the video.
    """
    if headless():
        return Image.open(io.BytesIO(b64decode(traces(frames, video))), formats=("PNG",))
    return VideoPanel(frames, video)


def _jpeg(picture: np.ndarray) -> bytes:
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((_WIDTH, _WIDTH))
    image.save(buffer, "jpeg", quality=85)
    return buffer.getvalue()
