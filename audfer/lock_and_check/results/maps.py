"""Figs. 6 and 7 and the localisation: where networks look for an AU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ...errors import InputError
from ...evaluation import holm
from ...facs import ACTION_UNIT_NAMES, ACTION_UNITS
from ...results.builder import DASH, Result, digests_of
from ...results.drawing import PICTURE_DPI
from ...results.rows import p_text
from .. import study as recognition
from ..activation_maps import FLAT, KINDS, activation_maps, area_shares, energy_shares, localisation, resized_maps
from ..regions import landmark_boxes
from ..training import Recogniser
from .judged import (
    BASELINE,
    ESTIMATOR,
    LAC,
    MEAN,
    NETWORK_COLOURS,
    annotated_output,
    components_records,
    faces_text,
    rows_of_units,
    value_text,
)
from .plots import map_grid, networks_by_unit

#: AUs of Fig. 6: some of each part of the face
SHOWN: tuple[str, ...] = ("AU01", "AU04", "AU07", "AU06", "AU09", "AU12", "AU17", "AU25")
#: held-out frames whose maps are measured, at most
MAPPED = 400
_KINDS = {
    "evidence": "what each place adds to the logit of the single picture (HiResCAM)",
    "similarity": "cosine between the AU's class weights and the features (M, which Lock's losses act on)",
}
_MAPS = (
    "Class activation maps (HiResCAM of the single picture's logit, negative places 0) of LAC's baseline and LAC, "
    "trained alike,"
)


@dataclass(frozen=True)
class Looked:
    """Held-out frames and the networks that look at them.

    Attributes:
        frames: uint8 (n, H, W, 3). boxes: (n, 18, 2, 4). labels, codes: (n, 18).
        subjects, sequences, numbers: (n,) of each frame. networks: name -> network, trained alike; records: behind
            them.
    """

    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    subjects: np.ndarray
    sequences: np.ndarray
    numbers: np.ndarray
    networks: Mapping[str, torch.nn.Module]
    records: Sequence

    def per_lac(self, measure: Callable) -> dict[str, np.ndarray]:
        """Name -> what is measured of LAC's baseline and of LAC."""
        return {name: measure(self.networks[name]) for name in (BASELINE, LAC)}


def looked(study, most: int | None = None) -> Looked:
    """What activation maps are made of: LAC's baseline and LAC of Table IV (first fold and seed), and the estimator.

    Args:
        most: held-out frames, evenly spread over all; ``None``: all.
    """
    data, records = study.annotated_frames, [components_records(study)[name][0] for name in ("baseline", "LAC")]
    networks = {
        name: Recogniser.load(record.path).network for name, record in zip((BASELINE, LAC), records, strict=True)
    }
    if recognition.folds(study)[0] == study.profile.estimator.held_out_fold:
        networks[ESTIMATOR] = study.estimator
    first = records[0]
    count = len(first.rows)
    part = np.unique(np.linspace(0, count - 1, min(count, most or count)).round().astype(int))
    held = first.rows[part]
    return Looked(
        np.asarray(data.frames[held]),
        landmark_boxes(torch.from_numpy(data.landmarks[held])).numpy(),
        *(values[part] for values in (first.labels, first.codes, first.subjects)),
        data.table["sequence"].to_numpy().astype(str)[held],
        data.table["frame"].to_numpy()[held],
        networks,
        records,
    )


def _map_data(maps: Mapping[str, np.ndarray], columns: Mapping[str, Sequence]) -> pd.DataFrame:
    """The cells of maps (n, h, w) in their own resolution, with what is known of each picture."""
    parts = []
    for name, values in maps.items():
        picture, row, column = (index.ravel() for index in np.indices(values.shape))
        known = {key: np.asarray(value)[picture] for key, value in columns.items()}
        parts.append(pd.DataFrame({"network": name, **known, "row": row, "column": column, "value": values.ravel()}))
    return pd.concat(parts, ignore_index=True)


def _grown(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (n, h, w) as (n, side, side), each with a sum of 1."""
    return resized_maps(maps[:, None], side)[:, 0]


# ------------------------------------------------------------------------------------------------------------ Fig. 6
def strongest_frames(codes: np.ndarray, subjects, units: Sequence[str]) -> np.ndarray:
    """For each AU the frame with its highest code, of a person that no earlier AU has shown where there is one; the
    first of equals.

    Args:
        codes: (n, 18), NaN = not coded. subjects: (n,).
    """
    subjects, rows = np.asarray(subjects), []
    for unit in units:
        code = np.nan_to_num(codes[:, ACTION_UNITS.index(unit)], nan=-1.0)
        # half a code less: another person wins between equals only
        rows.append(int((code - 0.5 * np.isin(subjects, subjects[rows])).argmax()))
    return np.array(rows)


def activation_faces(
    pictures: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    labels: Sequence[str],
    shares: Mapping[str, np.ndarray],
) -> Figure:
    """Fig. 6: class activation maps of several networks on the same faces; one row per network, one column per face.

    Args:
        pictures: n faces (H, W, 3) uint8. maps: network -> (n, H, W), each map with a sum of 1. boxes: (n, 2, 4) in
            units of the side.
        labels: of the columns. shares: network -> (n,) energy inside the regions, 0 to 1.
    """
    rows, columns = len(maps) + 1, len(pictures)
    figure, grid = plt.subplots(rows, columns, figsize=(1.12 * columns + 0.6, 1.25 * rows + 0.35), squeeze=False)
    # each map is drawn to its own strongest place: a flat map shall look flat, not faint
    map_grid(grid, pictures, maps, boxes, labels, lambda name, j: maps[name][j].max(), 1.0)
    for row, (name, own) in zip(grid[1:], maps.items(), strict=True):
        for axes, one, share in zip(row, own, shares[name], strict=True):
            inside = f"{100 * share:.0f} % inside" if np.isfinite(share) else DASH
            axes.set_xlabel(inside if one.any() else "no evidence", fontsize=7, labelpad=1)
    figure.set_dpi(PICTURE_DPI)
    return figure


@annotated_output("a3_faces")
def faces(study) -> tuple[Result, ...]:
    """Fig. 6."""
    seen = looked(study)
    units = [unit for unit in SHOWN if np.isfinite(seen.labels[:, ACTION_UNITS.index(unit)]).any()]
    rows = strongest_frames(seen.codes, seen.subjects, units)
    columns = np.array([ACTION_UNITS.index(unit) for unit in units])
    frames, boxes, codes = seen.frames[rows], seen.boxes[rows, columns], seen.codes[rows, columns]
    coarse = seen.per_lac(lambda network: activation_maps(network, frames)[np.arange(len(rows)), columns])
    shares = {name: energy_shares(maps[:, None], boxes[:, None])[:, 0] for name, maps in coarse.items()}
    fine = {name: _grown(maps, frames.shape[1]) for name, maps in coarse.items()}
    labels = [f"{unit}, code {code:.0f}\n{ACTION_UNIT_NAMES[unit]}" for unit, code in zip(units, codes, strict=True)]
    data = _map_data(coarse, {"action_unit": units, "subject": seen.subjects[rows], "frame": seen.numbers[rows]})
    caption = (
        f"Fig. 6. {_MAPS} on the held-out frame with each AU's highest code; every map is drawn to its own largest "
        f"value. Boxes: the AU's regions; below: the share of the map inside. {study.caption}"
    )
    return (
        Result(
            "a3_fig6_activation_maps",
            data,
            caption,
            draw=lambda _: activation_faces(frames, fine, boxes, labels, shares),
            digests=digests_of(seen.records),
        ),
    )


# ------------------------------------------------------------------------------------------------------------ Fig. 7
def subtle_sequence(codes: np.ndarray, sequences, frames) -> tuple[np.ndarray, str]:
    """A sequence in which an AU comes and stays subtle: it is coded 2 at most, the lowest code that counts as present.

    Args:
        codes: (n, 18), NaN = not coded. sequences: (n,) names. frames: (n,) numbers.

    Returns:
        (rows of the sequence in order, the AU): where the AU is 0 at first and the smaller of the numbers of frames at
        0 and at 2 is largest; the first of equals. An AU with another peak comes only where no AU peaks at 2.

    Raises:
        InputError: no AU is above 0 anywhere.
    """
    sequences, frames, candidates = np.asarray(sequences), np.asarray(frames), []
    for name in dict.fromkeys(sequences):
        rows = np.flatnonzero(sequences == name)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        for unit, code in zip(ACTION_UNITS, codes[rows].T, strict=True):
            if not np.isnan(code).any() and code.max() >= 1:
                score = (code.max() == 2, code[0] == 0, min((code == 0).sum(), (code == 2).sum()))
                candidates.append((score, rows, unit))
    if not candidates:
        raise InputError("subtle_sequence", "codes", "none above 0", "an AU that comes up in some sequence")
    return max(candidates, key=lambda one: one[0])[1:]


def activation_sequence(
    pictures: np.ndarray,
    maps: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    frames: Sequence[int],
    codes: Sequence[float],
    probabilities: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """Fig. 7: one AU's maps over a sequence, with its code and each network's probability below.

    Args:
        pictures: (t, H, W, 3) uint8. maps: network -> (t, H, W). boxes: (t, 2, 4). frames: numbers of the pictures.
        codes: FACS code of every frame of the whole sequence. probabilities: network -> probability of every frame.
    """
    height = 1.1 * (len(maps) + 1)
    figure = plt.figure(figsize=(1.05 * len(pictures) + 0.8, height + 1.9))
    top, bottom = figure.subfigures(2, 1, height_ratios=(height, 1.8))
    grid = top.subplots(len(maps) + 1, len(pictures), squeeze=False)
    # one scale per network, so that a map that grows with the AU is seen to grow
    strongest = {name: own.max() for name, own in maps.items()}
    map_grid(grid, pictures, maps, boxes, [f"frame {frame}" for frame in frames], lambda name, _: strongest[name], 0.9)
    axes = bottom.subplots()
    axes.step(range(len(codes)), np.asarray(codes) / 5, where="mid", color="#222222", linewidth=1.2, label="code / 5")
    for name, values in probabilities.items():
        axes.plot(values, color=NETWORK_COLOURS.get(name, "#333333"), label=f"probability, {name}")
    for frame in frames:
        axes.axvline(frame, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.set(xlabel="frame", ylim=(-0.03, 1.03), xlim=(-0.5, len(codes) - 0.5), ylabel="0 to 1", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.set_dpi(PICTURE_DPI)
    return figure


@annotated_output("a3_sequence")
def sequence(study) -> tuple[Result, ...]:
    """Fig. 7."""
    seen = looked(study)
    names = [f"{subject} {name}" for subject, name in zip(seen.subjects, seen.sequences, strict=True)]
    rows, unit = subtle_sequence(seen.codes, names, seen.numbers)
    column, subject = ACTION_UNITS.index(unit), seen.subjects[rows[0]]
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 7)).round().astype(int))
    part, codes = rows[shown], seen.codes[rows, column]
    frames = seen.frames[part]
    coarse = seen.per_lac(lambda network: activation_maps(network, frames, action_units=(unit,))[:, 0])
    fine = {
        name: _grown(maps, frames.shape[1]) * maps.mean(axis=(1, 2))[:, None, None] for name, maps in coarse.items()
    }
    probabilities = {
        name: record.probabilities[rows, column] for name, record in zip(coarse, seen.records, strict=True)
    }
    title = f"{unit} {ACTION_UNIT_NAMES[unit]}, {subject}"
    draw = partial(activation_sequence, frames, fine, seen.boxes[part, column], shown, codes, probabilities, title)
    data = _map_data(coarse, {"frame": seen.numbers[part], "code": codes[shown]})
    caption = (
        f"Fig. 7. {_MAPS} over a held-out sequence in which {unit} comes and stays subtle (code 2 at most); one "
        "colour scale a network. Below: the code, and the probability of each network's last stage. "
        f"{study.caption}"
    )
    return (
        Result(
            "a3_fig7_sequence",
            data.assign(action_unit=unit, subject=subject),
            caption,
            draw=lambda _: draw(),
            digests=digests_of(seen.records),
        ),
    )


# ------------------------------------------------------------------------------------------------------ localisation
def localisation_table(data: pd.DataFrame, kind: str = KINDS[0], frames: int = 0, *, embedded: bool = True) -> Result:
    """Share of the activation maps' energy inside the AUs' regions.

    Args:
        data: from ``activation_maps.localisation``; the first network is the one that the others are compared with.
        kind: of the maps. frames: held-out frames that were looked at, whatever they show; 0 = not said.
    """
    mean = data["action_unit"] == MEAN
    tidy = data.assign(p_holm=np.where(mean, holm(data["p"].where(mean)), holm(data["p"].where(~mean))))
    first, *others = dict.fromkeys(tidy["network"])

    def line(_unit: str, rows: dict) -> dict:
        cells = {"frames": rows[first].pictures}
        cells |= {f"{name} [95 %]": value_text(row, "share", factor=100) for name, row in rows.items()}
        for name in others:
            if name != FLAT:
                change = value_text(rows[name], "difference", "difference_", factor=100, signed=True)
                cells |= {f"Δ {name} [95 %]": change, f"p ({name})": p_text(rows[name].p_holm)}
        return cells

    caption = (
        "Localisation: share (percent) of the class activation map inside the AU's two regions, on held-out frames "
        f"that show the AU{f' (of {frames} frames, evenly spread)' if frames else ''}. Map, of all networks: "
        f"{_KINDS[kind]}, negative places 0, interpolated to one grid. Δ against {first}; “{FLAT}”: the regions' share "
        "of the picture. [ ]: 95 % bootstrap over subjects; p: approximate randomisation over subjects, Holm's "
        f"correction over the AUs, and apart from them over the means. {faces_text(embedded)}."
    )
    name = "a3_localisation" if kind == KINDS[0] else f"a3_localisation_{kind}"
    return Result(name, tidy, caption, rows_of_units(tidy, line))


def localisation_plot(data: pd.DataFrame) -> Figure:
    """Share of the maps' energy inside the regions, every AU and network.

    Args:
        data: from ``activation_maps.localisation``.
    """
    look = {"gap": 0.5, "width": 0.24, "height": 3.2, "colours": NETWORK_COLOURS, "factor": 100}
    figure, axes, place = networks_by_unit(data, "share", **look)
    axes.set(ylabel="energy inside the regions (%)", xlim=(-0.6, max(place.values()) + 0.6))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=data["network"].nunique())
    return figure


@annotated_output("a3_localisation")
def localise(study) -> tuple[Result, ...]:
    """How much of the maps lies in the AUs' regions, as evidence and as similarity."""
    seen, tables = looked(study, MAPPED), []
    for kind in KINDS:
        shares = {
            name: energy_shares(activation_maps(network, seen.frames, kind, device=study.device), seen.boxes)
            for name, network in seen.networks.items()
            if kind == "evidence" or name != ESTIMATOR
        }
        data = localisation({**shares, FLAT: area_shares(seen.boxes)}, seen.labels, seen.subjects)
        table = localisation_table(data, kind, len(seen.frames), embedded=study.profile.embedded)
        tables.append(replace(table, digests=digests_of(seen.records)))
    caption = f"Localisation as a picture: share of the maps' energy inside the AUs' regions. {study.caption}"
    first = tables[0]
    picture = Result("a3_localisation_plot", first.frame, caption, draw=localisation_plot, digests=first.digests)
    return first, picture, *tables[1:]
