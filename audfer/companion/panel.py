"""A face with a slider for every action unit, and what the knowledge matrix makes of it.

In JupyterLab the face is rendered again as a slider moves; where nobody can move one (papermill, nbval,
``AUDFER_HEADLESS=1``) the same call returns a static picture.
"""

from __future__ import annotations

import html
import io

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, EXPRESSIONS, PROTOTYPES
from ..knowledge import KnowledgeMatrix
from ..progress import headless
from ..synth.face import neutral_scene, render, sample_identities
from ..training.engine import threads

UPPER_FACE = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU45")
LOWER_FACE = tuple(au for au in ACTION_UNITS if au not in UPPER_FACE)
_BAR = "#3b6fb6"


def prototype(expression: str) -> torch.Tensor:
    """Intensities (18,) in 0..5 of the textbook face of an expression."""
    chosen = PROTOTYPES[expression]
    return torch.tensor([chosen.get(au, 0.0) for au in ACTION_UNITS])


class FacePanel(widgets.HBox):
    """The interactive panel; ``face_panel`` makes it.

    Attributes:
        sliders: action unit -> slider, 0 to 5.
        image: the face as PNG.
        scores: the seven bars.
        expression_scores: (7,) numpy array behind the bars, in ``EXPRESSIONS`` order; sums to 1.
    """

    def __init__(self, knowledge: KnowledgeMatrix, seed: int, size: int):
        self._knowledge, self._seed, self._size = knowledge, seed, size
        self._scene = neutral_scene(1)
        self._paused = False
        self.sliders = {
            au: widgets.FloatSlider(
                min=0,
                max=5,
                step=0.25,
                value=0,
                description=f"{au} {ACTION_UNIT_NAMES[au]}",
                readout_format=".2f",
                continuous_update=True,  # the face follows a slider while it is dragged
                layout={"width": "37.5em"},  # a step of 0.25 is ten pixels
                style={"description_width": "14em"},
            )
            for au in ACTION_UNITS
        }
        for slider in self.sliders.values():
            slider.observe(lambda change: self.refresh(), names="value")
        side = f"{max(size, 200)}px"
        self.image = widgets.Image(format="png", layout={"width": side, "height": side})
        self.scores = widgets.HTML(layout={"width": "20em"})
        self.buttons = {name: widgets.Button(description=name, layout={"width": "6.4em"}) for name in EXPRESSIONS}
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.show(prototype(name)))
        self.new_identity = widgets.Button(description="another person", button_style="info", layout={"width": "13em"})
        self.new_identity.on_click(lambda _: self.set_identity(self._seed + 1))
        columns = [
            widgets.VBox([widgets.HTML(f"<b>{title}</b>"), *(self.sliders[au] for au in group)])
            for title, group in (("upper face", UPPER_FACE), ("lower face", LOWER_FACE))
        ]
        buttons = widgets.HBox(
            [*self.buttons.values(), self.new_identity], layout={"flex_flow": "row wrap", "width": "28em"}
        )
        self.set_identity(seed)
        super().__init__(
            [widgets.VBox([self.image, buttons, self.scores]), *columns],
            layout={"flex_flow": "row wrap", "align_items": "flex-start"},
        )

    @property
    def intensities(self) -> torch.Tensor:
        """(18,) what the sliders say, in ``ACTION_UNITS`` order."""
        return torch.tensor([self.sliders[au].value for au in ACTION_UNITS])

    def set_identity(self, seed: int) -> None:
        """Show another person with the same action units."""
        self._seed = seed
        self._identity = sample_identities(1, seed)
        self.refresh()

    def show(self, intensities: torch.Tensor) -> None:
        """Move all sliders at once; the face is rendered once."""
        self._paused = True
        try:
            for au, value in zip(ACTION_UNITS, intensities.tolist(), strict=True):
                self.sliders[au].value = value
        finally:
            self._paused = False
        self.refresh()

    def refresh(self) -> None:
        """Render the face and score it from what the sliders say."""
        if self._paused:
            return
        values = self.intensities
        with threads(1):  # more of them wait for each other longer than a face takes
            frames, _ = render(self._identity, values[None], self._scene, size=self._size)
        self.image.value = _png(frames[0])
        self.expression_scores = self._knowledge.expression_scores(values.numpy())
        self.scores.value = score_bars(self.expression_scores)


def face_panel(knowledge: KnowledgeMatrix | None = None, seed: int = 0, size: int = 160) -> FacePanel | Figure:
    """The panel, or its static picture where nobody can move a slider.

    Args:
        knowledge: gives the expression scores; ``None`` takes the paper's printed matrix (Fig. 4).
        seed: which person.
        size: side of the rendered face in pixels; 160 renders in well under 100 ms on one core.
    """
    knowledge = KnowledgeMatrix.published() if knowledge is None else knowledge
    return static_panel(knowledge, seed, size) if headless() else FacePanel(knowledge, seed, size)


def static_panel(knowledge: KnowledgeMatrix, seed: int = 0, size: int = 160) -> Figure:
    """One person with the seven textbook expressions, each above the scores that the knowledge matrix gives it."""
    values = torch.stack([prototype(name) for name in EXPRESSIONS])
    count = len(EXPRESSIONS)
    frames, _ = render(sample_identities(1, seed)[[0] * count], values, neutral_scene(count), size=size)
    figure = Figure(figsize=(1.45 * count, 3.3), layout="constrained")
    axes = figure.subplots(2, count, height_ratios=(1.15, 1))
    for column, name in enumerate(EXPRESSIONS):
        top, bottom = axes[:, column]
        top.imshow(frames[column].numpy(), interpolation="lanczos")
        top.set_title(name, fontsize=9)
        top.set_axis_off()
        colours = [_BAR if other == name else "#c3cad4" for other in EXPRESSIONS]
        bottom.barh(range(count), knowledge.expression_scores(values[column].numpy()), color=colours)
        bottom.invert_yaxis()
        bottom.set_xlim(0, 1)
        bottom.set_xticks([0, 1])
        bottom.tick_params(labelsize=7, length=0)
        bottom.set_yticks(range(count), EXPRESSIONS if column == 0 else [""] * count)
        bottom.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("expression score from the knowledge matrix", fontsize=8)
    return figure


def _png(frame: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame.numpy()).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def score_bars(scores) -> str:
    """Scores (7,) as a table with a bar each, HTML; the highest stands out where it is alone."""
    near = np.isclose(scores, scores.max())
    best, rows = near & (near.sum() == 1), []
    for name, score, alone in zip(EXPRESSIONS, scores, best, strict=True):
        colour = _BAR if alone else "#c3cad4"
        rows.append(
            f"<tr><td style='padding-right:.6em'>{html.escape(name)}</td><td style='width:11em'>"
            f"<div style='background:{colour};height:.8em;width:{100 * score:.1f}%'></div></td>"
            f"<td style='text-align:right'>{score:.2f}</td></tr>"
        )
    return "<table style='line-height:1.3'>" + "".join(rows) + "</table>"
