"""One training clip from pixels to loss: its faces, landmarks, action units and labels; a network's outputs, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..datasets import PackedClips, load_frames
from ..errors import InputError
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from ..losses import clip_au_labels, combined_loss
from ..training.loop import CellTask, choose_frames, predict
from .builder import Result, output
from .drawing import BLUE, GREY, ORANGE, colour_bar, names_down
from .selection import model_name


@output("one_clip", "01_au_extraction", elsewhere=True)
def one_clip(study, clip: str = "") -> Result:
    """Pixels, faces with their landmarks, AUs of every frame, and the clip's AU labels.

    Args:
        clip: its id in the strategy dataset; "" = the first training clip with action units.

    Raises:
        InputError: no such clip.
    """
    dataset = study.profile.grid.strategy_dataset
    packed, row = _place(study, clip)
    name = packed.clip_ids[row]
    track = study.au_table(dataset).clip(name)
    intensity = pd.DataFrame(track.intensity, columns=INTENSITY_ACTION_UNITS).reindex(columns=ACTION_UNITS)
    median, active = intensity.median(), clip_au_labels(track.presence)
    columns = {"intensity": intensity.to_numpy(), "presence": track.presence, "median": median, "active": active}
    shape = len(track), len(ACTION_UNITS)
    data = pd.DataFrame({column: np.broadcast_to(values, shape).ravel() for column, values in columns.items()})
    data.insert(0, "action_unit", ACTION_UNITS * len(track))
    data.insert(0, "frame", np.repeat(track.frame, len(ACTION_UNITS)))

    numbers, places = np.unique(packed.frame_numbers[row], return_index=True)
    shown = np.unique(np.linspace(0, len(numbers) - 1, 6).astype(int))
    faces = dict(zip((f"face {number}" for number in numbers[shown]), packed.frames[row][places[shown]], strict=True))
    points = np.load(study.landmarks(dataset)["landmarks"], mmap_mode="r")[row][places[shown]]
    first = load_frames(study.manifest(dataset), name, [0])[0]

    def draw(_):
        left, right = _sheet({"on disk": first, **faces}, (2.4, 1), points)
        image = left.imshow(intensity.T, cmap="YlGnBu", vmin=0, vmax=5, aspect="auto")
        colour_bar(image, left, "intensity (0 to 5)")
        left.plot(*np.nonzero(track.presence > 0), linestyle="none", marker="o", markersize=3.5, color=ORANGE)
        left.set_yticks(range(len(ACTION_UNITS)), ACTION_UNITS)
        left.set(title="Every frame; dot: present", xlabel="frame, from the clip's first", facecolor="#EEEEEE")
        _bars(right, ACTION_UNITS, median, active)
        right.set(title="The clip; blue: active (Eq. 4)", xlabel="median intensity", xlim=(0, 5))
        return plt.gcf()

    caption = (
        f"One clip of {dataset} from pixels to AU labels: {name}, {EXPRESSIONS[packed.expressions[row]]}, "
        f"{first.shape[1]} x {first.shape[0]} pixels on disk, {packed.frames.shape[2]} for networks. {study.caption}"
    )
    return Result("one_clip", data, caption, draw=draw)


def _place(study, clip: str) -> tuple[PackedClips, int]:
    """The strategy dataset's clips, and the place of the one that is followed."""
    dataset = study.profile.grid.strategy_dataset
    packed, names = study.packed(dataset), {*study.au_table(dataset).clip_ids()}
    for row in range(len(packed)) if clip else packed.split("train"):
        if packed.clip_ids[row] in names and clip in ("", packed.clip_ids[row]):
            return packed, row
    expected = f"a clip of {dataset} with pictures and action units"
    raise InputError("one_clip", "clip", repr(clip), expected)


def _sheet(pictures: Mapping[str, np.ndarray], widths: Sequence[float], points: Sequence[np.ndarray] = ()):
    """Pictures in a row, the last with ``points`` (68, 2) in units of their side; below the panels that it returns."""
    above, below = plt.figure(figsize=(9.0, 6.2)).subfigures(2, 1, height_ratios=(1, 2.8))
    row = above.subplots(1, len(pictures))
    for axes, (title, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    for axes, picture, marks in zip(row[::-1], [*pictures.values()][::-1], points[::-1], strict=False):
        axes.plot(*(len(picture) * marks.T - 0.5), linestyle="none", marker=".", markersize=1.5, color="#00FF7F")
    return below.subplots(1, len(widths), width_ratios=widths)


def _bars(axes, names: Sequence[str], values, dark) -> None:
    axes.barh(range(len(names)), values, color=np.where(np.asarray(dark) > 0, BLUE, "#CCCCCC"))
    names_down(axes, names)


@output("one_clip_loss", "03_training", elsewhere=True)
def one_clip_loss(study, clip: str = "") -> Result:
    """The same clip in a trained network: both heads' outputs, and Eqs. 5, 9 and 10 on them; ``clip`` as above."""
    grid = study.profile.grid
    cell = study.cell(grid.ratio_model, grid.strategy_dataset, grid.au_ratio or 0.5)
    (record,) = study.run([cell])
    task = CellTask(cell, study.cell_inputs([cell])[cell.source])
    task.model.load_state_dict(record.load_weights())
    packed, row = _place(study, clip)
    rows = np.array([row])
    found = predict(task.model, packed, rows, cell, landmarks=task.landmarks)
    p, q = found["scores"][0], found["au_scores"][0].clip(1e-7, 1 - 1e-7)
    y, t = packed.expressions[row], task.au_labels[row].numpy()
    k, weighted = (getattr(task.au_loss, name)[y].cpu().numpy() for name in ("negative", "positive"))
    terms = -(weighted * t * np.log(q) + k * (1 - t) * np.log(1 - q))
    losses = [-np.log(p[y]), np.nanmean(terms)]
    losses.append(combined_loss(*losses, cell.au_ratio))
    right = np.arange(len(p)) == y
    tables = (
        {"kind": "expression", "name": EXPRESSIONS, "output": p, "label": right.astype(float)},
        {
            "kind": "action unit",
            "name": ACTION_UNITS,
            "output": q,
            "label": t,
            "k": k,
            "w": weighted / k,
            "loss": terms,
        },
        {"kind": "total", "name": ("L_e", "L_AU", "L"), "loss": losses},
    )
    data = pd.concat(map(pd.DataFrame, tables), ignore_index=True)
    (seen,) = choose_frames(packed, rows, task.recipe.test_sampling, cell, np.random.default_rng(cell.seed))[0]
    numbers = packed.frame_numbers[row][seen]
    pictures = dict(zip((f"seen {number}" for number in numbers), packed.frames[row][seen], strict=True))

    def draw(_):
        first, second, third = _sheet(pictures, (1, 1.3, 1.3))
        _bars(first, EXPRESSIONS, p, right)
        first.set(title="p, expression head", xlabel=f"L_e = -log p of the label = {losses[0]:.3f}", xlim=(0, 1))
        _bars(second, ACTION_UNITS, q, t)
        second.set(title="q, AU head", xlabel="blue: label 1 (Eq. 4)", xlim=(0, 1))
        _bars(third, ACTION_UNITS, terms, t)
        third.axvline(losses[1], color=GREY, linestyle="--")
        third.set(title="The 18 terms of L_AU", xlabel=f"line: their mean, L_AU = {losses[1]:.3f}")
        return plt.gcf()

    caption = (
        f"The same clip's losses in {model_name(cell.model)}: L_e = {losses[0]:.3f}, L_AU = {losses[1]:.3f}, "
        f"L = {1 - cell.au_ratio:g} L_e + {cell.au_ratio:g} L_AU = {losses[2]:.3f}. Clip {packed.clip_ids[row]} of "
        f"{cell.dataset}, on which it was trained, as test clips are seen: without augmentation. {study.caption}"
    )
    return Result("one_clip_loss", data, caption, draw=draw)
