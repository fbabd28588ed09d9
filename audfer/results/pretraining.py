"""MAE-DFER's self-supervised pre-training: what it makes of hidden places, and what fine-tuning gains from it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..files import read_csv
from ..study.pretrained import FOLDER, LANDMARKS, MASKED, cards
from .builder import Result, digests_of, output
from .drawing import heading, image_grid
from .rows import (
    COLUMNS,
    TOTALS,
    Line,
    comparisons,
    describe,
    differences,
    identity,
    measured,
    sentences,
    settings_text,
    totals,
)
from .selection import WITH, WITHOUT, has_head, model_name, models_of, no_head, select
from .table1 import PRINTED

#: initialisation of cells -> how the table calls it
_STARTS = {"scratch": "scratch", "mae": "masked pre-training", "shipped": "weights that ship"}
#: share of the true motion's strength from which on predicted motion can be seen
_SEEN = 0.1


def cells(study) -> list:
    """Networks from everything that the profile compares, without and with the AU head, the first seed."""
    grid = study.profile.grid
    return [
        study.cell(model, grid.strategy_dataset, ratio, seed=seed, initialisation=start)
        for model in (grid.models if "shipped" in grid.starts else (MASKED,))
        for ratio in (0.0, grid.au_ratio)
        for start in grid.starts
        if start != "mae" or model == MASKED
        for seed in study.profile.training.seeds[:1]
    ]


@output("pretraining", "03_training", cells=cells)
def pretraining(study, records, protocol: str = "last") -> Result:
    """From scratch and from other starts, without and with AU; each start against scratch."""
    dataset, lines = study.profile.grid.strategy_dataset, []
    for model in models_of(records):
        for variant, ratio in ((WITHOUT, no_head), (WITH, has_head)):
            scratch = []
            for initialisation, start in _STARTS.items():
                cell = select(records, model=model, dataset=dataset, au_ratio=ratio, initialisation=initialisation)
                if cell:
                    base = identity(cell, model, dataset, variant) | {"start": start}
                    lines.append(Line(base, cell, scratch, PRINTED[variant]))
                scratch = scratch or cell
    tidy, parts = measured(lines, TOTALS, protocol)
    first = ["dataset", "model", "variant", "start"]
    tidy = tidy[[*first, *(column for column in COLUMNS if column not in (*first, "paper", "note"))]]
    display = [
        {
            "Network": model_name(line.base["model"]),
            "Variant": line.base["variant"],
            "Start": line.base["start"],
            **totals(part),
            **differences(part),
        }
        for line, part in zip(lines, parts, strict=True)
    ]
    used = [record for line in lines for record in line.cell]
    caption = sentences(
        f"What networks start from, on {dataset}{settings_text(used)}: random weights, masked pre-training on the "
        "training clips of all datasets (no labels), or the weights that ship with the package (other rendered "
        f"people's clips, no action units: their expressions, and for {' and '.join(map(model_name, LANDMARKS))} "
        "points of the face alone; classifier drawn anew); Δ: minus scratch, same head.",
        describe(used, protocol, study.profile.embedded, comparisons(tidy)),
    )
    return Result("pretraining", tidy, caption, pd.DataFrame(display), digests=digests_of(used))


@output("pretrained_cards", "03_training", elsewhere=True)
def pretrained_cards(study) -> Result:
    """What ships trained, one row per part, from its card."""
    data = cards()
    scores = data.pop("scores").map(lambda one: ", ".join(f"{name} {value:g}" for name, value in one.items()))
    data["sha256"] = data["sha256"].str[:12]
    caption = (
        "What ships trained (audfer/pretrained): other rendered people and seeds than those of every other profile."
    )
    return Result("pretrained_cards", data.assign(scores=scores), caption)


@output("pretexts", "03_training", elsewhere=True)
def pretexts(study) -> Result:
    """What tiny networks may start from, at equal time, as ``benchmarks/pretexts.py`` measured it."""
    data = read_csv(FOLDER / "pretexts.csv")

    def interval(row: pd.Series, name: str, sign: str = "") -> str:
        return f"{row[name]:{sign}.1f} [{row[f'{name}_low']:{sign}.1f}, {row[f'{name}_high']:{sign}.1f}]"

    display = [
        {
            "Network": model_name(row["model"]),
            "Trained before on": row["pretext"],
            "Epochs": row["epochs"],
            "Seconds": row["pretext_seconds"],
            "WAR [95 %]": interval(row, "war"),
            "UAR [95 %]": interval(row, "uar"),
            "Planted AUs: Δ WAR": interval(row, "war_planted_adds", "+"),
            "Planted AUs: Δ UAR": interval(row, "uar_planted_adds", "+"),
        }
        for _, row in data.iterrows()
    ]
    first = data.iloc[0]
    caption = (
        "What tiny networks may start from, each trained for about as long (seconds of one core) on other rendered "
        f"people, then for {first['cell_epochs']} epochs on the embedded DFEW of data seed {first['data_seed']} "
        f"({first['n']:,} test clips, {first['seeds']} training seeds), without an AU head; Δ: what an AU head with "
        "planted action units, the best that there could be, adds. No correction for the number of rows. Measured by "
        "benchmarks/pretexts.py, not by this run."
    )
    return Result("pretexts", data, caption, pd.DataFrame(display))


@output("pretraining_reconstruction", "03_training", elsewhere=True)
def pretraining_reconstruction(study) -> Result:
    """What the pre-trained network makes of clips that it has not seen."""
    sheet = study.reconstructions()
    strength = motion_strength(sheet)
    motion = f"The motion that it predicts has {100 * strength:.1f} % of the true one's strength" + (
        "." if strength >= _SEEN else " (it is not learned in so few epochs), so neither is drawn."
    )
    return Result(
        "pretraining_reconstruction",
        reconstruction_data(sheet),
        f"Masked appearance and motion: test clips of {study.profile.grid.strategy_dataset}, never seen in "
        f"pre-training. Predicted places are shown with their true mean and contrast. {motion} {study.caption}",
        draw=lambda _: draw_reconstruction(sheet),
    )


def motion_strength(sheet: Mapping) -> float:
    """Standard deviation of the predicted changes, as a share of that of the true ones at the same hidden places."""
    hidden = np.isfinite(sheet["predicted_motion"])
    return float(sheet["predicted_motion"][hidden].std() / max(sheet["motion"][hidden].std(), 1e-9))


def reconstruction_data(sheet: Mapping) -> pd.DataFrame:
    """How well the hidden places of masked clips were predicted (``study.reconstructions``).

    Returns:
        One row per clip and tubelet: clip_id, expression, tubelet (from 1), hidden (share of pixels), appearance_error
        (mean absolute difference at hidden pixels, 0 to 255), motion_r (Pearson correlation of true and predicted
        change there, NaN where nothing moves).
    """
    rows = []
    for i, (clip, expression) in enumerate(zip(sheet["clip_ids"], sheet["expressions"], strict=True)):
        for k in range(sheet["original"].shape[1]):
            hidden = np.isfinite(sheet["predicted_motion"][i, k])
            error = np.abs(sheet["appearance"][i, k].astype(float) - sheet["original"][i, k])[hidden].mean()
            true, predicted = sheet["motion"][i, k][hidden], sheet["predicted_motion"][i, k][hidden]
            moves = true.std() > 0 and predicted.std() > 0
            correlation = np.corrcoef(true, predicted)[0, 1] if moves else np.nan
            rows.append((clip, expression, k + 1, hidden.mean(), error, correlation))
    return pd.DataFrame(rows, columns=["clip_id", "expression", "tubelet", "hidden", "appearance_error", "motion_r"])


def draw_reconstruction(sheet: Mapping, moments: int = 4) -> Axes:
    """Masked clips and what the network makes of them: appearance above, motion below if any can be seen.

    Args:
        moments: pictures per clip, evenly spread over its tubelets.
    """
    clips, times = sheet["original"].shape[:2]
    chosen = np.unique(np.linspace(0, times - 1, min(moments, times)).round().astype(int))
    # one scale per clip: blue gets darker, red gets brighter
    largest = np.maximum(np.quantile(np.abs(sheet["motion"]), 0.99, axis=(1, 2, 3), keepdims=True), 1e-6)
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="#D9D9D9")
    pictures = [sheet[name] for name in ("original", "masked", "appearance")]
    shown = ("motion", "predicted_motion") if motion_strength(sheet) >= _SEEN else ()
    pictures += [colours(0.5 + 0.5 * sheet[name] / largest, bytes=True)[..., :3] for name in shown]
    grid = np.stack([picture[:, chosen].reshape(-1, *picture.shape[2:]) for picture in pictures])
    names = ["clip", "what the\nencoder sees", "appearance,\npredicted", "motion", "motion,\npredicted"]
    axes = image_grid(grid, names[: len(grid)], [""] * grid.shape[1], cell=0.72, block=len(chosen))
    places = axes.get_xticks().reshape(clips, -1).mean(1)
    for place, expression in zip(places, sheet["expressions"], strict=True):
        heading(axes, f"{expression} →", place, 5)
    return axes
