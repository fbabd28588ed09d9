"""Tables and figures of the appendix on the key-point network (notebook A2): the method drawn, its own paper's tables
and ours.

Numbers of tables and figures are those of KP-GCN's paper (Huang, Zhu, Li and Yang, 2024), not of AU-DFER's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.spatial import ConvexHull

from .. import published
from ..facs import ACTION_UNITS, PROTOTYPES
from ..models import NETWORKS, build_model, default_clip_shape
from ..results import fig6, fig8
from ..results.builder import DASH, Result, digests_of, output
from ..results.cost import paper_costs
from ..results.drawing import METRIC_COLOURS, legend_below
from ..results.rows import (
    COLUMNS,
    TOTALS,
    Line,
    describe,
    differences,
    identity,
    measured,
    paper_heading,
    table_caption,
    text,
    totals,
)
from ..results.selection import cells_of, no_head, pooled, select
from ..results.table2 import class_table
from ..results.words import answers, certainty, changes, compared
from ..study.study import ROOT
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

MODEL, NOTEBOOK = "keypoint_gcn", "A2_keypoint_gcn"
NAME = NETWORKS[MODEL].title
#: what the network's own constructor takes where a variant does not say otherwise
DEFAULTS: dict = KeyPointGCN.__init__.__kwdefaults__
#: the name of the unchanged network in tables
FULL = "full network"
_BRIDGE = "nose bridge"
#: region -> colour, and that of the points that are in none
REGION_COLOURS: dict[str, str] = dict(
    zip((*REGIONS, _BRIDGE), ("#0072B2", "#D55E00", "#009E73", "#7A7A7A"), strict=True)
)
#: what captions of the drawings say about their picture
_FACE = "Rendered face of the embedded benchmark."
#: clips per second of the paper-size networks, measured; a package without its repository has none
SPEEDS = ROOT / "benchmarks" / "records"
#: epochs of the paper's training
_EPOCHS = 80


# ------------------------------------------------------------------------------------------------ the method, drawn
@lru_cache(maxsize=2)
def key_point_sheet(size: int = 256) -> dict:
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
    with torch.device("meta"):
        shape = KeyPointGCN().backbone(torch.zeros(1, *default_clip_shape(MODEL)[1:])).shape[-2:]
    return {
        "picture": pictures[0].numpy(),
        "landmarks": landmarks[0].numpy() / size,
        "points": points.numpy(),
        "maps": heat_maps(points, *shape, DEFAULTS["sigma"]).numpy(),
    }


def region_of(point: int) -> str:
    """The region of the fusion that a key point belongs to, or "nose bridge"."""
    return next((name for name, members in REGIONS.items() if point in members), _BRIDGE)


def key_point_data(sheet: dict) -> pd.DataFrame:
    """The 18 key points: point, name, region, landmarks (of the 68, 0-based), neighbours, x, y (units of the side)."""
    cheeks = (f"centroid of {', '.join(map(str, three))}" for three in CHEEKS)
    linked = [sorted(sum(edge) - point for edge in EDGES if point in edge) for point in range(NUM_POINTS)]
    return pd.DataFrame(
        {
            "point": range(NUM_POINTS),
            "name": POINT_NAMES,
            "region": map(region_of, range(NUM_POINTS)),
            "landmarks": [*map(str, LANDMARK_POINTS), *cheeks],
            "neighbours": [", ".join(map(str, others)) for others in linked],
            "x": sheet["points"][:, 0],
            "y": sheet["points"][:, 1],
        }
    )


def draw_key_points(sheet: dict) -> Figure:
    """The key points and their graph on the face, the regions that are fused, and the adjacency matrix.

    Args:
        sheet: from ``key_point_sheet``.
    """
    figure, (graph, regions, matrix) = plt.subplots(1, 3, figsize=(10.4, 4.1), width_ratios=(1, 1, 1.18))
    points, own = sheet["points"], [region_of(point) for point in range(NUM_POINTS)]
    colours = [REGION_COLOURS[name] for name in own]
    centres = {name: points[[other == name for other in own]].mean(0) for name in REGION_COLOURS}
    middle = {"ha": "center", "va": "center", "color": "white"}
    for axes in (graph, regions):
        axes.imshow(sheet["picture"], extent=(0, 1, 1, 0))
        axes.set_axis_off()
    graph.scatter(*sheet["landmarks"].T, s=3, color="white", linewidth=0)
    for a, b in EDGES:
        graph.plot(*points[[a, b]].T, color=colours[a], linewidth=1.6)
    for point, place in enumerate(points):
        graph.plot(*place, "o", color=colours[point], markersize=5, markeredgecolor="white", markeredgewidth=0.6)
        # where the number does not hide a neighbour: away from the middle of its region
        away = place - centres[own[point]]
        dx, dy = 8.5 * away / (np.linalg.norm(away) + 1e-9)
        box = {"boxstyle": "round,pad=0.1", "color": "#222222", "alpha": 0.55, "linewidth": 0}
        graph.annotate(str(point), place, (dx, -dy), textcoords="offset points", fontsize=7, bbox=box, **middle)
    graph.set_title("(a) 18 key points, and their graph")
    for name, members in REGIONS.items():
        hull = points[list(members)][ConvexHull(points[list(members)]).vertices]
        regions.fill(*hull.T, color=REGION_COLOURS[name], alpha=0.45, linewidth=6, joinstyle="round")
        regions.text(*hull.mean(0), f"mean of {len(members)}", fontsize=8, fontweight="bold", **middle)
    regions.set_title("(b) regions that are fused")
    image = np.ones((NUM_POINTS, NUM_POINTS, 3))
    for a, b in np.argwhere(adjacency().numpy()):
        image[a, b] = to_rgb(colours[a])
    matrix.imshow(image)
    matrix.set_xticks(range(NUM_POINTS), range(NUM_POINTS), fontsize=6.5)
    matrix.set_yticks(range(NUM_POINTS), [f"{name} {point}" for point, name in enumerate(POINT_NAMES)], fontsize=6.5)
    for ticks in (matrix.set_xticks, matrix.set_yticks):
        ticks(np.arange(NUM_POINTS - 1) + 0.5, minor=True)
    matrix.grid(which="minor", color="#e4e4e4", linewidth=0.6)
    matrix.tick_params(which="both", length=0)
    matrix.set_title("(c) adjacency A: coloured cells are 1")
    legend_below(figure, [Patch(color=colour, label=name) for name, colour in REGION_COLOURS.items()])
    return figure


def heat_map_data(sheet: dict) -> pd.DataFrame:
    """The heat maps' cells: point, name, row, column, value (mean of a map: 1)."""
    maps = sheet["maps"]
    point, row, column = (index.ravel() for index in np.indices(maps.shape))
    names = np.array(POINT_NAMES)[point]
    return pd.DataFrame({"point": point, "name": names, "row": row, "column": column, "value": maps.ravel()})


def draw_heat_maps(sheet: dict) -> Figure:
    """The 18 Gaussian maps over the face, on the cells of the feature map that they weigh.

    Args:
        sheet: from ``key_point_sheet``.
    """
    figure, grid = plt.subplots(3, 6, figsize=(9.6, 5.4))
    grey = sheet["picture"][::2, ::2].mean(axis=2, keepdims=True) / 255
    cells = [np.arange(len(grey)) * count // len(grey) for count in sheet["maps"].shape[1:]]
    for point, (axes, one) in enumerate(zip(grid.flat, sheet["maps"], strict=True)):
        strength = 0.85 * (one / one.max())[np.ix_(*cells)][..., None]
        axes.imshow((1 - strength) * grey + strength * (1.0, 0.1, 0.1), extent=(0, 1, 1, 0))
        axes.plot(*sheet["points"][point], "+", color="#222222", markersize=5)
        axes.set_axis_off()
        axes.set_title(f"{point} {POINT_NAMES[point]}", fontsize=7.5, color=REGION_COLOURS[region_of(point)])
    return figure


@output("keypoint_method", NOTEBOOK)
def method(study) -> Result:
    """The key points, their graph and the regions of the fusion, drawn on a rendered face; needs no record."""
    sheet, width = key_point_sheet(), DEFAULTS["node_dim"]
    caption = (
        "Key points of the network: 16 of the 68 landmarks and two cheeks (centroids of three); neighbouring points of "
        "one part of the face are connected. The mean of each region and the whole face's vector are concatenated, 4 x "
        f"{width} = {4 * width} a frame; the nose bridge only passes messages. {_FACE}"
    )
    return Result("a2_key_points", key_point_data(sheet), caption, draw=lambda _: draw_key_points(sheet))


@output("keypoint_heat_maps", NOTEBOOK)
def gaussian_maps(study) -> Result:
    """The heat maps of the key points over a rendered face; needs no record."""
    sheet = key_point_sheet()
    caption = (
        "Gaussian maps A_j over the {} x {} cells of the feature map (paper size; sigma {:g} cell): v_j = GAP(F * A_j) "
        "looks at the map F around one point. {}"
    ).format(*sheet["maps"].shape[1:], DEFAULTS["sigma"], _FACE)
    return Result("a2_heat_maps", heat_map_data(sheet), caption, draw=lambda _: draw_heat_maps(sheet))


# ------------------------------------------------------------------------------------- Tables 3 to 5 and 7, features
def _title(table: int, what: str = "") -> str:
    return f"Table {table} of {NAME}'s paper{what}"


def class_cells(study) -> list:
    """The network on every dataset without and with the AU head, all folds and seeds."""
    grid = study.profile.grid
    wanted = ((MODEL, dataset, ratio) for dataset in grid.datasets for ratio in (0.0, grid.au_ratio))
    return cells_of(study, wanted, every_fold=True)


@output("keypoint_classes", NOTEBOOK, cells=class_cells)
def classes(study, records, protocol: str = "last") -> tuple[Result, ...]:
    """Tables 3, 5 and 7: percent right of every expression, UAR and WAR on every dataset, without and with AU-DFER."""
    made = []
    for dataset in study.profile.grid.datasets:
        number = published.KPGCN_TABLES.get(dataset)
        made.append(
            class_table(
                study,
                pooled(records),
                f"a2_{f'table{number}' if number else 'classes'}_{dataset.lower()}",
                dataset=dataset,
                models=(MODEL,),
                costs=paper_costs((MODEL,)),
                title=_title(number) if number else f"{NAME}, a dataset that its paper lacks",
                protocol=protocol,
            )
        )
    return tuple(made)


@output("keypoint_afew", NOTEBOOK)
def afew(study) -> tuple[Result, ...]:
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
        "have the AFEW columns of Tables 10 to 12."
    )
    return (Result("a2_table4_afew", tidy, caption, display.rename_axis(columns=None)),)


@output("keypoint_confusion", NOTEBOOK, needs=("keypoint_classes",))
def confusion(study, records, protocol: str = "last") -> tuple[Result, ...]:
    """Confusion matrices on every dataset, without and with AU-DFER."""
    made = []
    for dataset in study.profile.grid.datasets:
        own = [record for record in records if record.cell["dataset"] == dataset]
        how = describe(own, protocol, study.profile.embedded)
        data = fig6.confusion_data(own, dataset, protocol)
        caption = f"Confusion matrices of {NAME} on {dataset}. {how}"
        name = f"a2_confusion_{dataset.lower()}"
        made.append(Result(name, data, caption, draw=fig6.draw, digests=digests_of(own)))
    return tuple(made)


@output("keypoint_features", NOTEBOOK, needs=("keypoint_classes",))
def features(study, records) -> Result:
    """t-SNE of the test clips' features, without and with AU-DFER."""
    place = study.profile.grid.strategy_dataset
    own = [record for record in records if record.cell["dataset"] == place]
    caption = f"t-SNE of {NAME}'s test features on {place}; the numbers are taken in feature space. {study.caption}"
    draw = partial(fig8.draw, variants=fig8.PANELS[::2])
    return Result("a2_tsne", fig8.embedding_data(own, MODEL, place), caption, draw=draw, digests=digests_of(own))


# ---------------------------------------------------------------------------------------------------------- Table 8
def measured_speeds(folder: Path = SPEEDS) -> pd.DataFrame:
    """The newest clips per second of every paper-size network on every kind of device (``benchmarks/model_speed.py``).

    Returns:
        Columns model, device, threads, clock ("wall", or "processor" where other work shared the machine), date,
        inference, training (clips per second, median); empty where no record lies.
    """
    same = ["device", "threads", "clock", "date"]
    rows = []
    for path in sorted(Path(folder).glob("*_model_speed*.json")):
        record = json.loads(path.read_text())
        for row in record["results"]:
            speeds = (row[step]["ours_clips_per_second"]["median"] for step in ("forward", "training"))
            rows.append((row["model"], *(record[key] for key in same), *speeds))
    table = pd.DataFrame(rows, columns=["model", *same, "inference", "training"])
    return table.drop_duplicates(["model", "device"], keep="last").reset_index(drop=True)


@output("keypoint_cost", NOTEBOOK)
def cost(study) -> Result:
    """Table 8: parameters, samples per second and training time beside the printed ones; from benchmark records, no run
    record.

    Times are taken from ``benchmarks/records`` alone, so that the table is the same after every run.
    """
    speeds, clips = measured_speeds(), sum(published.class_counts("DFEW", "train").values())
    wide = published.load("kpgcn_table8").pivot(index="method", columns="column", values="value")
    rows = [
        (NAME if name == "Ours" else name, "printed", 1e6 * row.Params_M, row.Inference_samples_per_s)
        + (row.Training_time_h, row.WAR_DFEW, None)
        for name, row in wide.loc[published.load("kpgcn_table8")["method"].unique()].iterrows()
    ]
    for model in dict.fromkeys((*study.profile.grid.models, MODEL)):
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build_model(model).parameters())
        name, found = NETWORKS[model].title, speeds[speeds["model"] == model]
        if found.empty:
            rows.append((name, "not measured yet", parameters, np.nan, np.nan, np.nan, np.nan))
        for row in found.itertuples():
            threads = f"{row.threads} CPU thread{'s' if row.threads != 1 else ''}"
            where = f"here, {threads if row.device == 'cpu' else row.device}"
            where += ", processor time" if row.clock == "processor" else ""
            hours = _EPOCHS * clips / row.training / 3600
            rows.append((name, where, parameters, row.inference, hours, np.nan, row.date))
    tidy = pd.DataFrame(rows, columns=["network", "source", "parameters", "inference", "hours", "war", "date"])
    display = pd.DataFrame(
        {
            "Network": row.network,
            "Source": row.source,
            "Parameters (M)": text(row.parameters / 1e6, digits=0 if row.source == "printed" else 2),
            "Samples/s, inference": text(row.inference, digits=0 if row.source == "printed" else 1),
            "Training (h)": text(row.hours),
            "WAR DFEW, printed": text(row.war, digits=2),
        }
        for row in tidy.itertuples()
    )
    caption = (
        f"{_title(8)}: cost, as printed and of the paper-size networks here (with AU head: {len(ACTION_UNITS)} outputs "
        f"more). A sample is a clip of {default_clip_shape(MODEL)[0]} frames. Here: clips a second from "
        "benchmarks/records (model_speed: bfloat16, fresh weights, rendered clips of the embedded benchmark); training "
        f"hours are {_EPOCHS} epochs of DFEW's {clips} training clips at the measured speed of a training step, not "
        "run. The printed ones are from another machine: only the order of the networks can be compared."
    )
    former = [
        published.load(f"kpgcn_table{number}")
        .query("method.str.startswith('Former-DFER') and column == 'Params_M'")["value"]
        .item()
        for number in (8, 3)
    ]
    note = "Former-DFER has {:.0f} million parameters in the paper's Table 8 and {:.0f} in its Table 3.".format(*former)
    return Result("a2_table8_cost", tidy, caption, display, notes=(note,))


# ------------------------------------------------------------------------------------- Tables 9 to 12, and Fig. 8
@dataclass(frozen=True)
class Ablation:
    """An ablation of the paper.

    Attributes:
        table: its number. name: of the files, behind the number.
        variants: regular expression of the network's variants that it shows.
        title: how the caption goes on. question: that it answers.
        heading: of the first column. full: what the paper calls the full network in it.
        notes: on the whole table.
    """

    table: int
    name: str
    variants: str
    title: str
    question: str
    heading: str = ""
    full: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """One row of an ablation.

    Attributes:
        name: of the variant; "" is the full network, which the others are compared with.
        cells: heading -> what the first columns say. paper: heading -> printed percentage.
    """

    name: str
    cells: dict[str, str]
    paper: dict[str, float]


def _one_fold() -> str:
    """What the audit says about the printed ablations on DFEW, counted again."""
    printed = pd.concat(published.load(f"kpgcn_table{number}") for number in (10, 11, 12))
    values = printed.query("column == 'DFEW_WAR'")["value"].unique()
    clips = sum(published.class_counts("DFEW", "test").values())
    whole = sum(published.integer_count(value, clips) is not None for value in values)
    return (
        f"{whole} of the {len(values)} different DFEW values of Tables 10 to 12 are whole numbers of the {clips} "
        "test clips of one fold, so they are one fold's, not the five folds' average that the paper speaks of"
    )


_WIDTH, _HEADS = 4 * DEFAULTS["node_dim"], DEFAULTS["temporal_heads"]
#: outputs of Tables 9 to 12
TABLES: dict[str, Ablation] = {
    "keypoint_modules": Ablation(
        9,
        "modules",
        "[A-D]",
        "its parts",
        "Does a part matter (Table 9)?",
        notes=(
            "A and B have neither: the mean of the frame vectors is classified, so they have no auxiliary loss either.",
            "E is the full network. The ticks of the printed table are lost; the paper's text says which parts a model "
            f"has. {_one_fold()}.",
        ),
    ),
    "keypoint_fusion": Ablation(
        10,
        "fusion",
        ".* fusion",
        "fusion of a frame's points",
        "Does the fusion (Table 10)?",
        "Fusion",
        "structure-based fusion method",
        (
            "mean: of all 18 points, beside the whole face, brought to the same width by a linear layer; LSTM: over "
            "the 18 points and the whole face.",
        ),
    ),
    "keypoint_heads": Ablation(
        11,
        "heads",
        "heads .*",
        "attention heads",
        "The number of heads (Table 11)?",
        "Heads",
        str(_HEADS),
        (
            f"Usually {_WIDTH} dimensions are shared out among the heads, which 6, 10 and 12 cannot do evenly, and the "
            f"paper does not say what it did. Here a head is {DEFAULTS['head_dim']} wide at paper size ({_WIDTH} / "
            f"{_HEADS}) whatever their number, and a linear layer brings them back to {_WIDTH}: more heads are more "
            "weights.",
        ),
    ),
    "keypoint_depth": Ablation(
        12,
        "depth",
        "depth .*",
        "blocks over time",
        "The number of blocks (Table 12)?",
        "Blocks",
        str(DEFAULTS["temporal_depth"]),
    ),
}
_AUXILIARY = "keypoint_auxiliary"
#: all of them, with Fig. 8's
ABLATIONS: tuple[str, ...] = (*TABLES, _AUXILIARY)


def variant_cells(study, pattern: str) -> list:
    """The full network and those of the profile's variants whose names fit, on the strategy dataset, all seeds."""
    names = study.profile.keypoint.variants or NETWORKS[MODEL].variants
    return [
        study.cell(MODEL, study.profile.grid.strategy_dataset, variant=name, seed=seed)
        for name in ("", *(name for name in names if re.fullmatch(pattern, name)))
        for seed in study.profile.training.seeds
    ]


def _shown(about: Ablation) -> list[Shown]:
    """The rows of a table of the paper, with the variants that they are here."""
    rows = published.load(f"kpgcn_table{about.table}")
    if about.table == 9:
        parts = {"FEM": "features", "GCN": "graph", "LSTM": "LSTM", "MSA": "self-attention"}
        return [
            Shown(
                "" if row["model"] == "E" else row["model"],
                {"Model": row["model"], **{title: "✓" if row[name] == "y" else "" for name, title in parts.items()}},
                {"DFEW WAR": row["WAR_DFEW"]},
            )
            for row in rows.to_dict("records")
        ]
    rows = rows.assign(method=rows["method"].astype(str))
    wide = rows.pivot(index="method", columns="column", values="value").loc[rows["method"].unique()]
    shown = []
    for printed, row in wide.iterrows():
        short = printed.removesuffix(" fusion method")
        variant = f"{short.removesuffix('-based')} fusion" if about.table == 10 else f"{about.name} {printed}"
        paper = {"DFEW WAR": row["DFEW_WAR"], "AFEW WAR": row["AFEW_WAR"]}
        shown.append(Shown("" if printed == about.full else variant, {about.heading: short}, paper))
    return shown


def variant_table(
    study, records: Sequence, shown: Sequence[Shown], name: str, title: str, protocol: str, notes: tuple[str, ...] = ()
) -> Result:
    """Every variant of the network, without an AU head, with its difference to the full network.

    Args:
        shown: the rows; one without a record has em dashes beside what is printed. Printed columns are the first row's.
        name: of the result. title: how the caption begins. notes: remarks on the whole table.

    Returns:
        Its numbers have one row per variant and metric, with "parameters" (of the network trained here) and a column
        for every printed heading (numbers beside WAR only; the paper's ablations print no UAR).
    """
    place, embedded = study.profile.grid.strategy_dataset, study.profile.embedded
    same = {"model": MODEL, "dataset": place, "au_ratio": no_head}
    cells = {
        row.name: select(records, **same, variant=lambda value, name=row.name: (value or "") == name) for row in shown
    }
    lines = []
    for row in shown:
        cell = cells[row.name]
        base = identity(cell, MODEL, place, row.name or FULL)
        base["parameters"] = (cell[0].flops or {}).get("parameters") if cell else None
        lines.append(Line(base, cell, cells.get("", []) if row.name else []))
    tidy, parts = measured(lines, TOTALS, protocol)
    display = []
    for row, part in zip(shown, parts, strict=True):
        parameters = part["parameters"].iloc[0]
        line = {**row.cells, **totals(part), **differences(part)}
        line["Parameters"] = f"{int(parameters):,}" if pd.notna(parameters) else DASH
        for heading, value in row.paper.items():
            line[f"{heading}, {paper_heading(embedded)}"] = text(value, digits=2)
            tidy.loc[part.index[part["metric"] == "WAR"], heading] = value
        display.append(line)
    used = [record for cell in cells.values() for record in cell]
    title = (
        f"{title} on {place}. Δ is against the full network, without an AU head all of them; parameters of the "
        "networks trained here."
    )
    first = ["dataset", "model", "variant", "parameters"]
    columns = [*first, *(column for column in COLUMNS if column not in (*first, "paper", "note")), *shown[0].paper]
    return Result(
        name,
        tidy[columns],
        table_caption(title, used, protocol, tidy, embedded),
        pd.DataFrame(display),
        notes=notes,
        digests=digests_of(used),
    )


def ablation(study, records, protocol: str = "last", *, about: Ablation) -> Result:
    """Table 9 (without the graph, with an LSTM or the mean over time), 10 (how the points of a frame become one
    vector), 11 (heads of the temporal self-attention) or 12 (its blocks).
    """
    name, title = f"a2_table{about.table}_{about.name}", _title(about.table, f": {about.title}")
    return variant_table(study, records, _shown(about), name, title, protocol, about.notes)


for _name, _about in TABLES.items():
    output(_name, NOTEBOOK, cells=partial(variant_cells, pattern=_about.variants))(partial(ablation, about=_about))


def auxiliary_weights() -> dict[str, float]:
    """Name of a variant ("" for the full network) -> weight of its auxiliary loss, for those that differ in nothing
    else; rising.
    """
    weights = {"": DEFAULTS["auxiliary_weight"]}
    for name, fields in NETWORKS[MODEL].variants.items():
        if set(fields) == {"auxiliary_weight"}:
            weights[name] = fields["auxiliary_weight"]
    return dict(sorted(weights.items(), key=lambda item: item[1]))


def _auxiliary_table(study, records, protocol: str) -> Result:
    there = {record.cell.get("variant") or "" for record in records}
    shown = [Shown(name, {"Weight": f"{weight:g}"}, {}) for name, weight in auxiliary_weights().items()]
    # the paper prints no number here, so a weight without a record has nothing to show
    shown = [row for row in shown if row.name in there] or shown
    title = f"Fig. 8 of {NAME}'s paper: weight of the auxiliary loss"
    return variant_table(study, records, shown, "a2_fig8_auxiliary", title, protocol)


@output(_AUXILIARY, NOTEBOOK, cells=partial(variant_cells, pattern="auxiliary .*"))
def auxiliary(study, records, protocol: str = "last") -> Result:
    """Fig. 8: WAR and UAR against the weight of the auxiliary loss."""
    table = _auxiliary_table(study, records, protocol)
    weights = {name or FULL: weight for name, weight in auxiliary_weights().items()}
    data = table.frame.assign(weight=table.frame["variant"].map(weights)).dropna(subset="ours")
    chosen = f"The paper chooses {DEFAULTS['auxiliary_weight']:g} (its figure's values are not printed)."
    return Result(table.name, data, f"{table.caption} {chosen}", draw=draw_auxiliary, digests=digests_of(records))


def draw_auxiliary(data: pd.DataFrame) -> Figure:
    """Fig. 8: WAR and UAR against the weight of the auxiliary loss, with 95 % intervals: a band from five weights on,
    between fewer nothing is known.

    Args:
        data: weight, metric, ours, low, high (percent).
    """
    figure, grid = plt.subplots(1, 2, figsize=(7.2, 2.9))
    line, chosen = {"color": "#999999", "linestyle": "--", "linewidth": 1.1}, DEFAULTS["auxiliary_weight"]
    for axes, metric, marker in zip(grid, TOTALS, "os", strict=True):
        part, colour = data[data["metric"] == metric].sort_values("weight"), METRIC_COLOURS[metric]
        axes.axvline(chosen, **line)
        if len(part) < 5:
            axes.vlines(part["weight"], part["low"], part["high"], color=colour, linewidth=2, alpha=0.5)
            axes.margins(x=0.15)
        else:
            axes.fill_between(part["weight"], part["low"], part["high"], color=colour, alpha=0.16, linewidth=0)
        joined = "-" if len(part) > 4 else "none"
        axes.plot(part["weight"], part["ours"], linestyle=joined, marker=marker, color=colour)
        axes.set_xticks(part["weight"], [f"{weight:g}" for weight in part["weight"]])
        axes.set(xlabel="weight of the auxiliary loss", ylabel=f"{metric} (%)")
        axes.grid(True)
    band = Patch(color="#999999", alpha=0.35, linewidth=0, label="95 % interval over clips")
    legend_below(figure, [Line2D([], [], label=f"the paper's choice, {chosen:g}", **line), band])
    return figure


@output("keypoint_conclusions", NOTEBOOK, needs=ABLATIONS)
def conclusions(study, records, protocol: str = "last") -> Result:
    """What Tables 9 to 12 and Fig. 8 say, in words."""
    named = {about.question: study.results(name, protocol=protocol) for name, about in TABLES.items()}
    named["The auxiliary loss (Fig. 8)?"] = _auxiliary_table(study, study.records(_AUXILIARY), protocol)
    rows = {question: compared(table.frame) for question, table in named.items()}
    said = [(question, changes(part, "differences to the full network")) for question, part in rows.items()]
    known = [part for part in rows.values() if len(part)]
    said.append(("How sure is that?", certainty(pd.concat(known) if known else pd.DataFrame())))
    where = " on the embedded benchmark (rendered faces)" if study.profile.embedded else ""
    return answers("a2_conclusions", said, f"What the ablations of {NAME} say{where}", *named.values())
