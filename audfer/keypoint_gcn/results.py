"""Tables and figures of the appendix on the key-point network (notebook A2): the method drawn, its own paper's tables
and ours.

As in ``results``: a function takes a study and gives ``Result``s, from the records that the study has. Numbers of
    tables and
figures are those of KP-GCN's paper (Huang, Zhu, Li and Yang, 2024), not of AU-DFER's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.spatial import ConvexHull

from .. import published
from ..facs import ACTION_UNITS, PROTOTYPES
from ..models import NETWORKS, build_model, default_clip_shape
from ..results import figure_data, plots, tables
from ..results.outputs import Result
from ..results.tables import DASH, MODEL_NAMES, Shown, Table
from ..study.study import KEYPOINT_ABLATIONS, ROOT, Study, paper_cost
from ..synth.face import render, sample_identities
from ..synth.scene import neutral_scene
from .network import (
    CHEEKS,
    EDGES,
    LANDMARK_POINTS,
    NUM_POINTS,
    POINT_NAMES,
    REGIONS,
    KeyPointGCN,
    adjacency,
    heat_maps,
    key_points,
)

MODEL = "keypoint_gcn"
NAME = MODEL_NAMES[MODEL]
#: what the network's own constructor takes where a variant does not say otherwise
DEFAULTS: dict = KeyPointGCN.__init__.__kwdefaults__
#: outputs of ``study.OUTPUTS`` behind Tables 9 to 12 and Fig. 8
ABLATIONS: tuple[str, ...] = tuple(KEYPOINT_ABLATIONS)
#: region -> colour, and that of the points that are in none
REGION_COLOURS: dict[str, str] = dict(
    zip((*REGIONS, "nose bridge"), ("#0072B2", "#D55E00", "#009E73", "#7A7A7A"), strict=True)
)
#: the embedded benchmark's face in the drawings, pixels
_SIDE = 256
#: clips a second of the paper-size networks, measured; a package without its repository has none
SPEEDS = ROOT / "benchmarks" / "records"
#: epochs of the paper's training
_EPOCHS = 80


# ------------------------------------------------------------------------------------------------ the method, drawn
@lru_cache(maxsize=2)
def key_point_sheet(size: int = _SIDE) -> dict:
    """A rendered face with everything that the network makes of its landmarks.

    Returns:
        ``picture`` uint8 (size, size, 3); ``landmarks`` (68, 2) and ``points`` (18, 2), in units of the side; ``maps``
        (18, h, w): the heat maps on the paper-size network's feature map.
    """
    intensities = torch.zeros(1, len(ACTION_UNITS))
    for action_unit, intensity in PROTOTYPES["happy"].items():
        intensities[0, ACTION_UNITS.index(action_unit)] = 0.6 * intensity
    pictures, landmarks = render(sample_identities(8, 0)[3], intensities, neutral_scene(1), size)
    points, visible = key_points(landmarks[0] / size)
    assert visible.all()
    return {
        "picture": pictures[0].numpy(),
        "landmarks": landmarks[0].numpy() / size,
        "points": points.numpy(),
        "maps": heat_maps(points, *_map_shape(), DEFAULTS["sigma"]).numpy(),
    }


def _map_shape() -> tuple[int, int]:
    """Height and width of the paper-size network's feature map."""
    with torch.device("meta"):
        return tuple(KeyPointGCN().backbone(torch.zeros(1, *default_clip_shape(MODEL)[1:])).shape[-2:])


def region_of(point: int) -> str:
    """The region of the fusion that a key point belongs to, or "nose bridge"."""
    return next((name for name, members in REGIONS.items() if point in members), "nose bridge")


def key_point_data(sheet: dict) -> pd.DataFrame:
    """The 18 key points: point, name, region, landmarks (of the 68, 0-based), neighbours, x, y (units of the side)."""
    sources = [str(number) for number in LANDMARK_POINTS] + [
        f"centroid of {', '.join(map(str, three))}" for three in CHEEKS
    ]
    linked = [[b if a == point else a for a, b in EDGES if point in (a, b)] for point in range(NUM_POINTS)]
    return pd.DataFrame(
        {
            "point": range(NUM_POINTS),
            "name": POINT_NAMES,
            "region": map(region_of, range(NUM_POINTS)),
            "landmarks": sources,
            "neighbours": [", ".join(map(str, sorted(found))) for found in linked],
            "x": sheet["points"][:, 0],
            "y": sheet["points"][:, 1],
        }
    )


def draw_key_points(sheet: dict) -> Figure:
    """The key points and their graph on the face, the regions that are fused, and the adjacency matrix.

    Args:
        sheet: from ``key_point_sheet``.
    """
    with plt.style.context(plots.STYLE):
        figure, (graph, regions, matrix) = plt.subplots(1, 3, figsize=(10.4, 4.1), width_ratios=(1, 1, 1.18))
        points, colours = sheet["points"], [REGION_COLOURS[region_of(point)] for point in range(NUM_POINTS)]
        for axes in (graph, regions):
            axes.imshow(sheet["picture"], extent=(0, 1, 1, 0))
            axes.set_axis_off()
        graph.scatter(*sheet["landmarks"].T, s=3, color="white", linewidth=0)
        for a, b in EDGES:
            graph.plot(*points[[a, b]].T, color=colours[a], linewidth=1.6)
        # where the number does not hide a neighbour: away from the middle of its region
        for point, (x, y) in enumerate(points):
            graph.plot(x, y, "o", color=colours[point], markersize=5, markeredgecolor="white", markeredgewidth=0.6)
            away = points[point] - points[[p for p in range(NUM_POINTS) if region_of(p) == region_of(point)]].mean(0)
            dx, dy = 8.5 * away / (np.linalg.norm(away) + 1e-9)
            graph.annotate(
                str(point),
                (x, y),
                (dx, -dy),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=7,
                color="white",
                bbox={"boxstyle": "round,pad=0.1", "color": "#222222", "alpha": 0.55, "linewidth": 0},
            )
        graph.set_title("(a) 18 key points, and their graph")
        for name, members in REGIONS.items():
            hull = points[list(members)][ConvexHull(points[list(members)]).vertices]
            regions.fill(*hull.T, color=REGION_COLOURS[name], alpha=0.45, linewidth=6, joinstyle="round")
            x, y = hull.mean(0)
            regions.text(
                x, y, f"mean of {len(members)}", ha="center", va="center", fontsize=8, color="white", fontweight="bold"
            )
        regions.set_title("(b) regions that are fused")
        shown = np.where(adjacency().numpy() > 0, 1.0, 0.0)
        image = np.ones((NUM_POINTS, NUM_POINTS, 3))
        for a, b in np.argwhere(shown):
            image[a, b] = plt.matplotlib.colors.to_rgb(colours[a])
        matrix.imshow(image)
        matrix.set_xticks(range(NUM_POINTS), range(NUM_POINTS), fontsize=6.5)
        matrix.set_yticks(
            range(NUM_POINTS), [f"{name} {point}" for point, name in enumerate(POINT_NAMES)], fontsize=6.5
        )
        matrix.set_xticks(np.arange(NUM_POINTS - 1) + 0.5, minor=True)
        matrix.set_yticks(np.arange(NUM_POINTS - 1) + 0.5, minor=True)
        matrix.grid(which="minor", color="#e4e4e4", linewidth=0.6)
        matrix.tick_params(which="both", length=0)
        matrix.set_title("(c) adjacency A: coloured cells are 1")
        figure.legend(
            handles=[Patch(color=colour, label=name) for name, colour in REGION_COLOURS.items()],
            loc="outside lower center",
            ncols=len(REGION_COLOURS),
        )
        return figure


def heat_map_data(sheet: dict) -> pd.DataFrame:
    """The heat maps' cells: point, name, row, column, value (mean of a map: 1)."""
    count, height, width = sheet["maps"].shape
    point, row, column = (index.ravel() for index in np.indices((count, height, width)))
    return pd.DataFrame(
        {
            "point": point,
            "name": np.array(POINT_NAMES)[point],
            "row": row,
            "column": column,
            "value": sheet["maps"].ravel(),
        }
    )


def draw_heat_maps(sheet: dict) -> Figure:
    """The 18 Gaussian maps over the face, on the cells of the feature map that they weigh.

    Args:
        sheet: from ``key_point_sheet``.
    """
    with plt.style.context(plots.STYLE):
        figure, grid = plt.subplots(3, 6, figsize=(9.6, 5.4))
        grey = sheet["picture"][::2, ::2].mean(axis=2, keepdims=True) / 255
        cells = [np.arange(len(grey)) * count // len(grey) for count in sheet["maps"].shape[1:]]
        for point, axes in enumerate(grid.flat):
            strength = 0.85 * (sheet["maps"][point] / sheet["maps"][point].max())[np.ix_(*cells)][..., None]
            axes.imshow((1 - strength) * grey + strength * (1.0, 0.1, 0.1), extent=(0, 1, 1, 0))
            axes.plot(*sheet["points"][point], "+", color="#222222", markersize=5)
            axes.set_axis_off()
            axes.set_title(f"{point} {POINT_NAMES[point]}", fontsize=7.5, color=REGION_COLOURS[region_of(point)])
        return figure


#: what captions of the drawings say about their picture
_FACE = "Rendered face of the embedded benchmark."


def method(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """The key points, their graph and the regions of the fusion, drawn on a rendered face; needs no record."""
    sheet = key_point_sheet()
    return (
        Result(
            "a2_key_points",
            draw_key_points(sheet),
            key_point_data(sheet),
            "Key points of the network: 16 of the 68 landmarks and two cheeks (centroids of three); neighbouring "
            "points of one "
            "part of the face are connected. The mean of each region and the whole face's vector are concatenated, 4 x "
            f"{DEFAULTS['node_dim']} = {4 * DEFAULTS['node_dim']} a frame; the nose bridge only passes messages. "
            f"{_FACE}",
        ),
    )


def gaussian_maps(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """The heat maps of the key points over a rendered face; needs no record."""
    sheet, (height, width) = key_point_sheet(), _map_shape()
    return (
        Result(
            "a2_heat_maps",
            draw_heat_maps(sheet),
            heat_map_data(sheet),
            f"Gaussian maps A_j over the {height} x {width} cells of the feature map (paper size; sigma "
            f"{DEFAULTS['sigma']:g} "
            f"cell): v_j = GAP(F * A_j) looks at the map F around one point. {_FACE}",
        ),
    )


# ------------------------------------------------------------------------------------------ Tables 3 to 5, and 7
def _title(table: int, what: str = "") -> str:
    return f"Table {table} of {NAME}'s paper{what}"


def classes(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Tables 3, 5 and 7: percent right of every expression, UAR and WAR on every dataset, without and with AU-DFER."""
    records, grid = study.records("keypoint_classes"), study.profile.grid
    found = []
    for dataset in grid.datasets:
        number = published.KPGCN_TABLES.get(dataset)
        table = tables.table2(
            records,
            dataset=dataset,
            protocol=protocol,
            strategy=grid.strategy,
            au_ratio=grid.au_ratio,
            models=(MODEL,),
            embedded=study.profile.embedded,
            paper_flops={MODEL: _paper_costs()},
            title=_title(number) if number else f"{NAME}, a dataset that its paper lacks",
        )
        found.append(
            Result(f"a2_table{number}_{dataset.lower()}" if number else f"a2_classes_{dataset.lower()}", table)
        )
    return tuple(found)


def _paper_costs() -> dict[str, dict[str, float]]:
    return {"baseline": dict(paper_cost(MODEL, None)), "audfer": dict(paper_cost(MODEL, len(ACTION_UNITS)))}


def afew(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 4 as printed; AFEW is not rendered, so there is no row of ours. Needs no record.

    Nothing where the profile has AFEW among its datasets: ``classes`` makes the table then.
    """
    if "AFEW" in study.profile.grid.datasets:
        return ()
    rows = published.load("kpgcn_table4")
    wide = rows.pivot(index="method", columns="column", values="printed").loc[
        rows["method"].unique(), ["Params_M", "UAR", "WAR"]
    ]
    display = wide.replace("-", DASH).rename(columns={"Params_M": "Parameters (M)"}).reset_index(names="Method")
    tidy = rows[["method", "column", "value"]].rename(columns={"column": "metric", "value": "paper"})
    why = "the embedded benchmark renders no AFEW" if study.profile.embedded else "the profile has no AFEW"
    caption = (
        f"{_title(4)}, as printed: AFEW. No row of ours: {why}, so this table has no counterpart here, and neither "
        f"have the AFEW "
        "columns of Tables 10 to 12."
    )
    return (Result("a2_table4_afew", Table(tidy, display.rename_axis(columns=None), caption)),)


# ------------------------------------------------------------------------------------------------------- Table 8
def measured_speeds(folder: Path = SPEEDS) -> pd.DataFrame:
    """The newest clips a second of every paper-size network on every kind of device (``benchmarks/model_speed.py``).

    Returns:
        Columns model, device, threads, clock ("wall", or "processor" where other work shared the machine), date,
        inference, training (clips a second, median); empty where no record lies.
    """
    rows = []
    for path in sorted(Path(folder).glob("*_model_speed*.json")):
        record = json.loads(path.read_text())
        rows += [
            (
                row["model"],
                record["device"],
                record["threads"],
                record["clock"],
                record["date"],
                row["forward"]["ours_clips_per_second"]["median"],
                row["training"]["ours_clips_per_second"]["median"],
            )
            for row in record["results"]
        ]
    table = pd.DataFrame(rows, columns=["model", "device", "threads", "clock", "date", "inference", "training"])
    return table.drop_duplicates(["model", "device"], keep="last").reset_index(drop=True)


def cost(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 8: parameters, samples a second and training time beside the printed ones; from benchmark records, no run
    record.

    Times are taken from ``benchmarks/records`` alone, so that the table is the same after every run.
    """
    speeds = measured_speeds()
    clips = sum(published.class_counts("DFEW", "train").values())
    rows = []
    for method_name, part in published.load("kpgcn_table8").groupby("method", sort=False):
        value = part.set_index("column")["value"]
        rows.append(
            {
                "network": NAME if method_name == "Ours" else method_name,
                "source": "printed",
                "parameters": 1e6 * value["Params_M"],
                "inference": value["Inference_samples_per_s"],
                "hours": value["Training_time_h"],
                "war": value["WAR_DFEW"],
            }
        )
    for model in dict.fromkeys((*study.profile.grid.models, MODEL)):
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build_model(model).parameters())
        measured = speeds[speeds["model"] == model].to_dict("records") or [
            dict.fromkeys(speeds, np.nan) | {"device": ""}
        ]
        for found in measured:
            threads = f"{found['threads']} CPU thread{'s' if found['threads'] != 1 else ''}"
            where = {"": "not measured yet", "cpu": f"here, {threads}"}.get(found["device"], f"here, {found['device']}")
            where += ", processor time" if found["clock"] == "processor" else ""
            rows.append(
                {
                    "network": MODEL_NAMES[model],
                    "source": where,
                    "parameters": parameters,
                    "inference": found["inference"],
                    "hours": _EPOCHS * clips / found["training"] / 3600,
                    "war": np.nan,
                    "date": found["date"],
                }
            )
    tidy = pd.DataFrame(rows, columns=["network", "source", "parameters", "inference", "hours", "war", "date"])
    number = lambda value, digits: f"{value:.{digits}f}" if np.isfinite(value) else DASH  # noqa: E731
    display = pd.DataFrame(
        [
            {
                "Network": row.network,
                "Source": row.source,
                "Parameters (M)": number(row.parameters / 1e6, 0 if row.source == "printed" else 2),
                "Samples/s, inference": number(row.inference, 0 if row.source == "printed" else 1),
                "Training (h)": number(row.hours, 1),
                "WAR DFEW, printed": number(row.war, 2),
            }
            for row in tidy.itertuples()
        ]
    )
    caption = (
        f"{_title(8)}: cost, as printed and of the paper-size networks here (with AU head: {len(ACTION_UNITS)} "
        f"outputs more). A sample is "
        f"a clip of {default_clip_shape(MODEL)[0]} frames. Here: clips a second from benchmarks/records (model_speed: "
        f"bfloat16, fresh "
        f"weights, rendered clips of the embedded benchmark); training hours are {_EPOCHS} epochs of DFEW's {clips} "
        f"training clips at "
        "the measured speed of a training step, not run. The printed ones are from another machine: only the order of "
        "the networks can be "
        "compared."
    )
    former = [
        published.load(f"kpgcn_table{n}")
        .query("method.str.startswith('Former-DFER') and column == 'Params_M'")["value"]
        .item()
        for n in (8, 3)
    ]
    notes = (
        f"Former-DFER has {former[0]:.0f} million parameters in the paper's Table 8 and {former[1]:.0f} in its Table "
        f"3.",
    )
    return (Result("a2_table8_cost", Table(tidy, display, caption, notes)),)


# ------------------------------------------------------------------------------------- Tables 9 to 12, and Fig. 8
#: tables that several results need, once a study
_made: WeakKeyDictionary[Study, dict[tuple, Table]] = WeakKeyDictionary()


def _shown(table: int) -> list[Shown]:
    """The rows of Tables 9 to 12 of the paper, with the variants that they are here."""
    rows = published.load(f"kpgcn_table{table}")
    if table == 9:
        parts = {"FEM": "features", "GCN": "graph", "LSTM": "LSTM", "MSA": "self-attention"}
        return [
            Shown(
                "" if row["model"] == "E" else row["model"],
                {"Model": row["model"], **{title: "✓" if row[name] == "y" else "" for name, title in parts.items()}},
                {"DFEW WAR": row["WAR_DFEW"]},
            )
            for row in rows.to_dict("records")
        ]
    heading = {10: "Fusion", 11: "Heads", 12: "Blocks"}[table]
    full = {
        10: "structure-based fusion method",
        11: str(DEFAULTS["temporal_heads"]),
        12: str(DEFAULTS["temporal_depth"]),
    }[table]
    names = {
        10: lambda text: text.replace("-based fusion method", " fusion"),
        11: "heads {}".format,
        12: "depth {}".format,
    }[table]
    rows = rows.assign(method=rows["method"].astype(str))
    wide = rows.pivot(index="method", columns="column", values="value").loc[rows["method"].unique()]
    return [
        Shown(
            "" if method == full else names(method),
            {heading: method.replace(" fusion method", "")},
            {"DFEW WAR": row["DFEW_WAR"], "AFEW WAR": row["AFEW_WAR"]},
        )
        for method, row in wide.iterrows()
    ]


def _ablation(
    study: Study, output: str, shown: Sequence[Shown], title: str, protocol: str, notes: Sequence[str] = ()
) -> Table:
    records = study.records(output)
    key = (output, protocol, *(record.path.name for record in records))
    made = _made.setdefault(study, {})
    if key not in made:
        made[key] = tables.variants(
            records,
            shown,
            model=MODEL,
            title=title,
            dataset=study.profile.grid.strategy_dataset,
            protocol=protocol,
            embedded=study.profile.embedded,
            notes=notes,
        )
    return made[key]


def _one_fold() -> str:
    """What the audit says about the printed ablations on DFEW, counted again."""
    printed = (
        pd.concat(published.load(f"kpgcn_table{n}") for n in (10, 11, 12))
        .query("column == 'DFEW_WAR'")["value"]
        .unique()
    )
    clips = sum(published.class_counts("DFEW", "test").values())
    whole = sum(published.integer_count(value, clips) is not None for value in printed)
    return (
        f"{whole} of the {len(printed)} different DFEW values of Tables 10 to 12 are whole numbers of the {clips} "
        f"test clips of one "
        "fold, so they are one fold's, not the five folds' average that the paper speaks of"
    )


def modules(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 9: without the graph, and with an LSTM or the mean over time instead of self-attention."""
    notes = (
        "A and B have neither: the mean of the frame vectors is classified, so they have no auxiliary loss either.",
        f"E is the full network. The ticks of the printed table are lost; the paper's text says which parts a model "
        f"has. {_one_fold()}.",
    )
    return (
        Result(
            "a2_table9_modules",
            _ablation(study, "keypoint_modules", _shown(9), _title(9, ": its parts"), protocol, notes),
        ),
    )


def fusion(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 10: how the points of a frame become one vector."""
    notes = (
        "mean: of all 18 points, beside the whole face, brought to the same width by a linear layer; LSTM: over the "
        "18 points "
        "and the whole face.",
    )
    return (
        Result(
            "a2_table10_fusion",
            _ablation(
                study, "keypoint_fusion", _shown(10), _title(10, ": fusion of a frame's points"), protocol, notes
            ),
        ),
    )


def heads(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 11: heads of the temporal self-attention."""
    width = 4 * DEFAULTS["node_dim"]
    notes = (
        f"Usually {width} dimensions are shared out among the heads, which 6, 10 and 12 cannot do evenly, and the "
        f"paper does not say "
        f"what it did. Here a head is {DEFAULTS['head_dim']} wide at paper size ({width} / "
        f"{DEFAULTS['temporal_heads']}) whatever "
        f"their number, and a linear layer brings them back to {width}: more heads are more weights.",
    )
    return (
        Result(
            "a2_table11_heads",
            _ablation(study, "keypoint_heads", _shown(11), _title(11, ": attention heads"), protocol, notes),
        ),
    )


def depth(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 12: blocks of the temporal self-attention."""
    return (
        Result(
            "a2_table12_depth",
            _ablation(study, "keypoint_depth", _shown(12), _title(12, ": blocks over time"), protocol),
        ),
    )


def auxiliary_weights() -> dict[str, float]:
    """Name of a variant ("" for the full network) -> weight of its auxiliary loss, for those that differ in nothing
    else.
    """
    found = {
        name: fields["auxiliary_weight"]
        for name, fields in NETWORKS[MODEL].variants.items()
        if set(fields) == {"auxiliary_weight"}
    }
    return dict(sorted({"": DEFAULTS["auxiliary_weight"], **found}.items(), key=lambda item: item[1]))


def _auxiliary_table(study: Study, protocol: str) -> Table:
    shown = [Shown(name, {"Weight": f"{weight:g}"}, {}) for name, weight in auxiliary_weights().items()]
    there = {record.cell.get("variant") or "" for record in study.records("keypoint_auxiliary")}
    # the paper prints no number here, so a weight without a record has nothing to show
    shown = [row for row in shown if row.name in there] or shown
    return _ablation(
        study, "keypoint_auxiliary", shown, f"Fig. 8 of {NAME}'s paper: weight of the auxiliary loss", protocol
    )


def auxiliary(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Fig. 8: WAR and UAR against the weight of the auxiliary loss."""
    table = _auxiliary_table(study, protocol)
    weights = {name or tables.FULL: weight for name, weight in auxiliary_weights().items()}
    data = table.tidy.assign(weight=table.tidy["variant"].map(weights)).dropna(subset="ours")
    return (
        Result(
            "a2_fig8_auxiliary",
            draw_auxiliary(data),
            data,
            f"{table.caption} The paper chooses {DEFAULTS['auxiliary_weight']:g} "
            "(its figure's values are not printed).",
            study.records("keypoint_auxiliary"),
        ),
    )


def draw_auxiliary(data: pd.DataFrame) -> Figure:
    """Fig. 8: WAR and UAR against the weight of the auxiliary loss, with 95 % interval bands.

    Args:
        data: weight, metric, ours, low, high (percent).
    """
    with plt.style.context(plots.STYLE):
        figure, grid = plt.subplots(1, 2, figsize=(7.2, 2.9))
        chosen = DEFAULTS["auxiliary_weight"]
        for axes, metric in zip(grid, ("WAR", "UAR"), strict=True):
            part, colour = data[data["metric"] == metric].sort_values("weight"), plots.METRIC_COLOURS[metric]
            axes.axvline(chosen, color="#999999", linestyle="--", linewidth=1.1)
            axes.fill_between(part["weight"], part["low"], part["high"], color=colour, alpha=0.16, linewidth=0)
            axes.plot(part["weight"], part["ours"], marker="o" if metric == "WAR" else "s", color=colour)
            axes.set_xticks(part["weight"], [f"{weight:g}" for weight in part["weight"]])
            axes.set(xlabel="weight of the auxiliary loss", ylabel=f"{metric} (%)")
            axes.grid(True)
        figure.legend(
            handles=[
                Line2D([], [], color="#999999", linestyle="--", linewidth=1.1, label=f"the paper's choice, {chosen:g}"),
                Patch(color="#999999", alpha=0.35, linewidth=0, label="95 % interval over clips"),
            ],
            loc="outside lower center",
            ncols=2,
        )
        return figure


def conclusions(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """What Tables 9 to 12 and Fig. 8 say, in words."""
    named = {
        "Does a part matter (Table 9)?": modules(study, protocol)[0].content,
        "Does the fusion (Table 10)?": fusion(study, protocol)[0].content,
        "The number of heads (Table 11)?": heads(study, protocol)[0].content,
        "The number of blocks (Table 12)?": depth(study, protocol)[0].content,
        "The auxiliary loss (Fig. 8)?": _auxiliary_table(study, protocol),
    }
    where = " on the embedded benchmark (rendered faces)" if study.profile.embedded else ""
    return (Result("a2_conclusions", tables.variant_conclusions(named, f"What the ablations of {NAME} say{where}")),)


# ------------------------------------------------------------------------------------- what it confuses and learns
def confusion(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Confusion matrices on every dataset, without and with AU-DFER."""
    records, found = study.records("keypoint_classes"), []
    for dataset in study.profile.grid.datasets:
        data = figure_data.confusion_data(records, dataset, protocol)
        own = [record for record in records if record.cell["dataset"] == dataset]
        found.append(
            Result(
                f"a2_confusion_{dataset.lower()}",
                plots.fig6(data),
                data,
                f"Confusion matrices of {NAME} on {dataset}. {tables.describe(own, protocol, study.profile.embedded)}",
                own,
            )
        )
    return tuple(found)


def features(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """t-SNE of the test clips' features, without and with AU-DFER."""
    records, place = study.records("keypoint_classes"), study.profile.grid.strategy_dataset
    records = [record for record in records if record.cell["dataset"] == place]
    data = figure_data.embedding_data(records, MODEL, place)
    return (
        Result(
            "a2_tsne",
            plots.fig8(data, figure_data.EMBEDDINGS[::2]),
            data,
            f"t-SNE of {NAME}'s test features on {place}; the numbers are taken in feature space. {study.caption}",
            records,
        ),
    )


#: as ``results.RESULTS``
RESULTS: dict[Callable[..., tuple[Result, ...]], tuple[str, ...]] = {
    method: (),
    gaussian_maps: (),
    classes: ("keypoint_classes",),
    afew: (),
    cost: (),
    modules: ("keypoint_modules",),
    fusion: ("keypoint_fusion",),
    heads: ("keypoint_heads",),
    depth: ("keypoint_depth",),
    auxiliary: ("keypoint_auxiliary",),
    conclusions: ABLATIONS,
    confusion: ("keypoint_classes",),
    features: ("keypoint_classes",),
}
