"""Every table and figure of the appendix on Lock and Check (notebook A3): numbers in, ``outputs.Result``s out.

Ours are percentages of F1 over frames of held-out subjects, with intervals and tests over subjects
(``evaluation.f1_intervals``, ``compare_f1``). Printed numbers stand beside them; they were measured on BP4D and DISFA,
ours on rendered faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from .. import published
from ..action_units.estimator import agreement
from ..datasets.annotated import READERS
from ..errors import InputError
from ..evaluation.statistics import LEVEL, compare_f1, f1_intervals, holm, presence_counts
from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, INTENSITY_ACTION_UNITS
from ..models.heads import weightless
from ..published.audit import recomputed
from ..published.printed import sheet
from ..results.outputs import Result
from ..results.plots import PICTURE_DPI, _empty, _styled
from ..results.tables import DASH, Table, _Notes, _text, digests_of, model_name, p_text
from ..study.study import Study
from ..synth.face import render, sample_identities
from ..synth.scene import neutral_scene
from . import study as recognition
from .activation_maps import FLAT, KINDS, activation_maps, area_shares, energy_shares, localisation, resized_maps
from .network import build_lac, lac_flops
from .regions import BOX_SHARE, OURS, group_of, landmark_boxes
from .training import COMPONENTS, RULES, Recogniser

#: names of the networks that are compared, with their colours
ESTIMATOR, BASELINE, LAC, LONGER = "estimator", "LAC's baseline", "LAC", "LAC, trained longer"
NETWORK_COLOURS: dict[str, str] = {ESTIMATOR: "#7A7A7A", BASELINE: "#E69F00", LAC: "#0072B2", LONGER: "#56B4E9"}
LOSS_COLOURS: dict[str, str] = {"L_CE": "#7A7A7A", "L_WA": "#E69F00", "L_DWA": "#0072B2"}
#: the paper's two results tables and what they were measured on
PRINTED: dict[int, str] = {2: "BP4D", 3: "DISFA"}
OWN = "LAC (ours)"
_MEAN = "mean"
TABLE_I = "LAC Table I"
#: AUs of Fig. 6: some of each part of the face
SHOWN: tuple[str, ...] = ("AU01", "AU04", "AU07", "AU06", "AU09", "AU12", "AU17", "AU25")
#: held-out frames whose maps are measured, at most
MAPPED = 400


@dataclass(frozen=True)
class Judged:
    """What a network says about frames of people it has not seen, beside their codes.

    Attributes:
        name: of the network. labels: (n, 18) 0, 1 or NaN. presence: (S, n, 18) 0 or 1, one a seed. subjects: (n,).
        codes: (n, 18) FACS codes 0 to 5, NaN = not coded; ``None`` where there are no codes.
        intensity: (S, n, 17) 0 to 5; ``None`` without.
        records: what it comes from.
    """

    name: str
    labels: np.ndarray
    presence: np.ndarray
    subjects: np.ndarray
    codes: np.ndarray | None = None
    intensity: np.ndarray | None = None
    records: Sequence = field(default=(), repr=False)

    @property
    def counts(self) -> np.ndarray:
        """Hits, false alarms and misses a subject (``evaluation.presence_counts``)."""
        return presence_counts(self.labels, self.presence, self.subjects)

    @property
    def text(self) -> str:
        """What was judged, for captions."""
        seeds = len(self.presence)
        subjects = len(np.unique(self.subjects))
        return f"{len(self.labels):,} frames of {subjects} held-out subjects, {seeds} seed{'s' if seeds > 1 else ''}"


def _how(judged: Judged, embedded: bool, tests: str) -> str:
    """The part of a caption that says what our numbers are."""
    ours = "Embedded benchmark (rendered faces)" if embedded else "Real faces"
    return f"{ours}: {judged.text}, frame-based F1 in percent; [ ]: 95 % bootstrap over subjects. {tests} " + (
        "The paper's numbers were measured on real faces, of other networks and sizes: they stand beside ours for "
        "orientation "
        "and cannot be compared."
        if embedded
        else ""
    )


_PAIRED = (
    "Differences: paired over subjects (same bootstrap draws); p: approximate randomisation over subjects, "
    "Holm's correction over"
)
_THRESHOLDS = (
    "Each AU is present from a threshold on that calls as many frames present as were coded so, set on subjects that "
    "are neither "
    "trained on nor judged here."
)


# --------------------------------------------------------------------------------------------------------- F1 per AU
def printed_units(number: int) -> tuple[str, ...]:
    """The AUs of the paper's Table II (number 2, BP4D) or III (3, DISFA)."""
    return sheet(f"LAC Table {number}").classes


def printed_f1(number: int, unit: str, method: str = OWN) -> float:
    """One printed F1 in percent; NaN where the table lacks the AU. ``unit`` may be "Avg"."""
    values = sheet(f"LAC Table {number}").values
    return float(values.at[method, unit]) if unit in values else float("nan")


def _sets() -> dict[str, tuple[str, ...]]:
    """Heading -> AUs whose F1 are averaged: all, and those of ours that the paper's two tables have."""
    found = {f"{_MEAN} of {len(ACTION_UNITS)}": ACTION_UNITS}
    for number, dataset in PRINTED.items():
        units = tuple(au for au in printed_units(number) if au in ACTION_UNITS)
        found[f"{_MEAN} of {dataset}'s {len(units)}"] = units
    return found


def _chosen(counts: np.ndarray, units: Sequence[str]) -> np.ndarray:
    return counts[..., [ACTION_UNITS.index(au) for au in units]]


def f1_table(networks: Sequence[Judged], *, embedded: bool = True, level: float = LEVEL) -> Table:
    """F1 of every AU and network, LAC against the networks before it, and the printed LAC rows.

    Args:
        networks: judged on the same frames, one of them named ``LAC``.
    """
    names, counts = [network.name for network in networks], [network.counts for network in networks]
    chosen = names.index(LAC)
    last, rows = networks[chosen], []
    for k, network in enumerate(networks):
        f1 = dict(zip(ACTION_UNITS, f1_intervals(counts[k], level), strict=True))
        against = (
            dict(zip(ACTION_UNITS, zip(*compare_f1(counts[k], counts[chosen], level), strict=True), strict=True))
            if k < chosen
            else {}
        )
        for name, units in _sets().items():
            f1[name] = f1_intervals(_chosen(counts[k], units), level)[-1]
            if k < chosen:
                change, p = compare_f1(_chosen(counts[k], units), _chosen(counts[chosen], units), level)
                against[name] = change[-1], p[-1]
        for unit, interval in f1.items():
            row = {
                "network": network.name,
                "action_unit": unit,
                "f1": 100 * interval.value,
                "low": 100 * interval.low,
                "high": 100 * interval.high,
            }
            if unit in against:
                change, p = against[unit]
                row |= {
                    "gain": 100 * change.value,
                    "gain_low": 100 * change.low,
                    "gain_high": 100 * change.high,
                    "p": p,
                }
            rows.append(row)
    tidy = pd.DataFrame(
        rows, columns=["network", "action_unit", "f1", "low", "high", "gain", "gain_low", "gain_high", "p"]
    )
    means = tidy["action_unit"].str.startswith(_MEAN)
    tidy["p_holm"] = np.where(means, holm(tidy["p"].where(means)), holm(tidy["p"].where(~means)))
    share = np.nanmean(np.where(np.isnan(last.labels), np.nan, last.labels), axis=0)
    tidy["base_rate"] = tidy["action_unit"].map(dict(zip(ACTION_UNITS, 100 * share, strict=True)))
    for number, dataset in PRINTED.items():
        tidy[f"paper_{dataset}"] = [
            printed_f1(number, "Avg" if unit.startswith(f"{_MEAN} of {dataset}") else unit)
            for unit in tidy["action_unit"]
        ]
    display = []
    for unit, part in tidy.groupby("action_unit", sort=False):
        rows_of = {row.network: row for row in part.itertuples()}
        first = next(iter(rows_of.values()))
        line = {
            "AU": f"{unit} {ACTION_UNIT_NAMES[unit]}" if unit in ACTION_UNITS else unit,
            "present": _text(first.base_rate, digits=0),
        }
        line |= {f"{name} [95 %]": _text(row.f1, row.low, row.high) for name, row in rows_of.items()}
        for name in names[:chosen]:
            row = rows_of[name]
            line[f"{LAC} against {name} [95 %]"] = _text(row.gain, row.gain_low, row.gain_high, signed=True)
            line[f"p ({name})"] = p_text(row.p_holm)
        line |= {f"paper's LAC, {dataset}": _text(getattr(first, f"paper_{dataset}")) for dataset in PRINTED.values()}
        display.append(line)
    missing = [au for number in PRINTED for au in printed_units(number) if au not in ACTION_UNITS]
    how = _how(last, embedded, f"{_PAIRED} the AUs, and apart from them over the means.")
    caption = (
        f"F1 per AU. {_THRESHOLDS} {how} Gains: {LAC} minus the other. present: share of frames (%). "
        f"Not among ours: {', '.join(dict.fromkeys(missing)) or 'none'}; the paper's averages include it."
    )
    return Table(
        tidy, pd.DataFrame(display), caption, (), digests_of([r for network in networks for r in network.records])
    )


def printed_table(number: int, networks: Sequence[Judged], *, embedded: bool = True, level: float = LEVEL) -> Table:
    """The paper's Table II (2) or III (3) as printed, with our networks below; averages that do not add up are marked.

    Args:
        networks: ours, as in ``f1_table``.
    """
    printed_sheet, notes, rows, display = sheet(f"LAC Table {number}"), _Notes(), [], []
    units, dataset = printed_units(number), PRINTED[number]
    sums = recomputed(printed_sheet).set_index("row")
    for method, values in printed_sheet.values.iterrows():
        found = sums.loc[method]
        wrong = found["mean_beyond"] > 0
        letters = notes.refer(
            [
                f"the average is misprinted: this row's AUs give {found['mean_recomputed']:.2f}, not "
                f"{found['mean_printed']:g}"
            ]
            if wrong
            else []
        )
        line = {"Method": method, "Source": f"printed, {dataset}"}
        for column in (*units, "Avg"):
            line[column] = printed_sheet.rows.at[method, column] + (
                f" ({letters})" if wrong and column == "Avg" else ""
            )
            rows.append(
                {
                    "method": method,
                    "source": "printed",
                    "column": column,
                    "value": values[column],
                    "low": np.nan,
                    "high": np.nan,
                    "recomputed": found["mean_recomputed"] if column == "Avg" else np.nan,
                }
            )
        display.append(line)
    shared = [au for au in units if au in ACTION_UNITS]
    missing = [au for au in units if au not in ACTION_UNITS]
    for network in networks:
        found = dict(zip((*shared, "Avg"), f1_intervals(_chosen(network.counts, shared), level), strict=True))
        line = {"Method": network.name, "Source": "ours, rendered" if embedded else "ours"}
        for column in (*units, "Avg"):
            value = found.get(column)
            numbers = (np.nan,) * 3 if value is None else (100 * value.value, 100 * value.low, 100 * value.high)
            line[column] = _text(*numbers[:1]) if column != "Avg" else _text(*numbers)
            rows.append(
                {
                    "method": network.name,
                    "source": "ours",
                    "column": column,
                    "value": numbers[0],
                    "low": numbers[1],
                    "high": numbers[2],
                    "recomputed": np.nan,
                }
            )
        display.append(line)
    without = f" Our average leaves out {', '.join(missing)}, which the rendered faces do not have." if missing else ""
    caption = (
        f"LAC Table {'II' if number == 2 else 'III'} ({dataset}) as printed, and our networks. "
        f"{_THRESHOLDS} {_how(networks[-1], embedded, 'Intervals of single AUs: the csv.')}{without}"
    )
    return Table(
        pd.DataFrame(rows),
        pd.DataFrame(display),
        caption,
        notes.lines(),
        digests_of([r for network in networks for r in network.records]),
    )


# --------------------------------------------------------------------------------------------------------- ablations
@dataclass(frozen=True)
class Row:
    """One row of an ablation.

    Attributes:
        columns: what is shown first, heading -> text; the first one names the row.
        judged: rule of ``recognition.RULES`` -> what the network says by it; empty where there is no record.
        printed: the paper's F1 in percent; NaN where it has none.
        against: number of the row that it is compared with; ``None``: not compared.
    """

    columns: Mapping[str, str]
    judged: Mapping[str, Judged]
    printed: float = float("nan")
    against: int | None = None


def ablation_table(
    title: str, rows: Sequence[Row], dataset: str, *, embedded: bool = True, level: float = LEVEL
) -> Table:
    """Mean F1 of each variant with its difference to the one that it changes, by both rules, and the printed numbers.

    Args:
        title: first sentence of the caption.
        rows: in the printed order; all judged on the same frames.
        dataset: that the paper's column was measured on.

    Raises:
        InputError: no row is judged.
    """
    rules = list(dict.fromkeys(rule for row in rows for rule in row.judged))
    if not rules:
        raise InputError("ablation_table", "records", "none", "at least one judged row")
    counts = [{rule: judged.counts for rule, judged in row.judged.items()} for row in rows]
    lines = []
    for rule in rules:
        part = []
        for row, mine in zip(rows, counts, strict=True):
            line = {
                **row.columns,
                "rule": rule,
                **dict.fromkeys(("f1", "low", "high"), np.nan),
                "against": "",
                **dict.fromkeys(("difference", "difference_low", "difference_high", "p"), np.nan),
                "paper": row.printed,
                "paper_difference": np.nan,
            }
            if rule in mine:
                value = f1_intervals(mine[rule], level)[-1]
                line |= {"f1": 100 * value.value, "low": 100 * value.low, "high": 100 * value.high}
            if row.against is not None:
                other = rows[row.against]
                line |= {"against": next(iter(other.columns.values())), "paper_difference": row.printed - other.printed}
                if rule in mine and rule in counts[row.against]:
                    change, p = compare_f1(counts[row.against][rule], mine[rule], level)
                    line |= {
                        "difference": 100 * change[-1].value,
                        "difference_low": 100 * change[-1].low,
                        "difference_high": 100 * change[-1].high,
                        "p": p[-1],
                    }
            part.append(line)
        for line, p in zip(part, holm([line["p"] for line in part]), strict=True):
            lines.append({**line, "p_holm": p})
    tidy = pd.DataFrame(lines)
    display = []
    for number, row in enumerate(rows):
        shown = {**row.columns}
        for rule in rules:
            line = tidy[tidy["rule"] == rule].iloc[number]
            shown[f"F1, {rule} [95 %]"] = _text(line["f1"], line["low"], line["high"])
            shown["against"] = line["against"] or DASH
            shown[f"Δ, {rule} [95 %]"] = _text(
                line["difference"], line["difference_low"], line["difference_high"], signed=True
            )
            shown[f"p, {rule}"] = p_text(line["p_holm"])
        shown |= {
            f"paper's F1, {dataset}": _text(row.printed),
            "paper's Δ": _text(line["paper_difference"], signed=True),
        }
        display.append(shown)
    judged = [one for row in rows for one in row.judged.values()]
    caption = (
        f"{title} Mean F1 over {len(ACTION_UNITS)} AUs, present from a probability of 0.5 on, as in the paper, and "
        f"from calibrated "
        f"thresholds on (as many frames as coded). {_how(judged[0], embedded, f'{_PAIRED} the column.')}"
    )
    return Table(tidy, pd.DataFrame(display), caption, (), digests_of([r for one in judged for r in one.records]))


#: columns of Table IV beside the backbone
TICKS: tuple[str, ...] = ("TS", "L_loc", "L_act", "L_l2g", "ST", "L_DWA")


def printed_components() -> list[tuple[dict[str, bool], float]]:
    """The rows of Table IV: component -> whether it is on, and the printed F1."""
    return [
        ({name: getattr(row, name) == "y" for name in TICKS}, float(row.F1_BP4D))
        for row in published.load("lac_table4").itertuples()
    ]


def extended_row(rows: Sequence[Mapping[str, bool]], number: int) -> int | None:
    """Which earlier row a row of Table IV extends: the largest one whose components it all has.

    ``None`` for the first.
    """
    mine = {name for name, on in rows[number].items() if on}
    earlier = [{name for name, on in row.items() if on} for row in rows[:number]]
    inside = [k for k, other in enumerate(earlier) if other < mine]
    return max(inside, key=lambda k: (len(earlier[k]), -k)) if inside else None


def components_table(judged: Sequence[Mapping[str, Judged]], *, embedded: bool = True) -> Table:
    """Table IV: every component against the row that lacks only it (and what comes with it).

    Args:
        judged: for each printed row what ``Row.judged`` takes.
    """
    rows = printed_components()
    marks = [
        {"Row": str(k + 1), **{name: "✓" if on else "" for name, on in found.items()}}
        for k, (found, _) in enumerate(rows)
    ]
    return ablation_table(
        "LAC Table IV: components. Row 1 is the backbone with a linear layer; each row is compared with the row that "
        "it extends.",
        [
            Row(marks[k], judged[k], value, extended_row([found for found, _ in rows], k))
            for k, (_, value) in enumerate(rows)
        ],
        "BP4D",
        embedded=embedded,
    )


def values_table(
    number: int, judged: Mapping[str, Mapping[str, Judged]], chosen: str = "", *, embedded: bool = True
) -> Table:
    """Table V (5: window t), VI (6: segments N_sep) or VII (7: loss).

    Args:
        judged: value as printed (text) -> what ``Row.judged`` takes. Values of ours that the paper lacks are added,
            without printed numbers.
        chosen: value that the others are compared with; "" = the paper's choice, of losses L_CE.

    Raises:
        InputError: another table.
    """
    if number not in (5, 6, 7):
        raise InputError("values_table", "number", number, "5, 6 or 7")
    key, dataset, title = {
        5: ("t", "BP4D", "LAC Table V: frames t of a window."),
        6: ("N_sep", "DISFA", "LAC Table VI: segments N_sep that each subject's sequence is cut into."),
        7: ("loss", "BP4D", "LAC Table VII: losses."),
    }[number]
    printed = (
        published.load(f"lac_table{number}").astype({key: str}).set_index(key)[f"F1_{dataset}"].astype(float).to_dict()
    )
    values = [*printed, *(value for value in judged if value not in printed)]
    if number != 7:
        values.sort(key=int)
    chosen = chosen or ("L_CE" if number == 7 else max(printed, key=printed.get))
    return ablation_table(
        f"{title} Compared with {key} = {chosen}.",
        [
            Row(
                {key: value},
                judged.get(value, {}),
                printed.get(value, float("nan")),
                None if value == chosen else values.index(chosen),
            )
            for value in values
        ],
        dataset,
        embedded=embedded,
    )


# -------------------------------------------------------------------------------------------------------------- cost
def cost_table(measured: Mapping[str, Mapping[str, float]], frames: int = 16) -> Table:
    """Table VIII: parameters and operations of a sequence, measured, beside the printed ones.

    Args:
        measured: method as printed ("Resnet50", "LAC (ours)") -> ``models.count_flops`` of it (``parameters``,
            ``gmacs``, ``gflops``).
        frames: of the sequence.
    """
    rows, display = [], []
    for printed in published.load("lac_table8").itertuples():
        found = measured.get(printed.method, {})
        millions, gmacs, gflops = (
            found.get("parameters", np.nan) / 1e6,
            found.get("gmacs", np.nan),
            found.get("gflops", np.nan),
        )
        off = {"parameters": 100 * (millions / printed.Params_M - 1), "gmacs": 100 * (gmacs / printed.FLOPs_G - 1)}
        rows.append(
            {
                "method": printed.method,
                "parameters": found.get("parameters", np.nan),
                "gmacs": gmacs,
                "gflops": gflops,
                "paper_parameters_millions": printed.Params_M,
                "paper_gflops": printed.FLOPs_G,
                "parameters_off_percent": off["parameters"],
                "gmacs_off_percent": off["gmacs"],
            }
        )
        display.append(
            {
                "Method": printed.method,
                "Parameters (M)": _text(millions, digits=2),
                "paper's (M)": _text(printed.Params_M),
                "off (%)": _text(off["parameters"], signed=True),
                "G multiply-adds": _text(gmacs),
                "GFLOPs": _text(gflops),
                "paper's G": _text(printed.FLOPs_G),
                "multiply-adds off (%)": _text(off["gmacs"], signed=True),
            }
        )
    caption = (
        f"LAC Table VIII: parameters and operations of a sequence of {frames} frames of 224 x 224, counted here. A "
        f"multiply-add is two "
        "FLOPs; the paper prints one number and calls it FLOPs. Counted: convolutions, matrix products and LSTMs of "
        "networks for the "
        f"{len(printed_units(2))} AUs of BP4D. The other methods are not rebuilt here."
    )
    return Table(pd.DataFrame(rows), pd.DataFrame(display), caption)


@lru_cache(maxsize=None)
def paper_costs() -> dict[str, dict[str, float]]:
    """Paper-size networks of Table VIII that are rebuilt here, as printed there -> ``lac_flops``; for BP4D's AUs."""
    units = printed_units(2)
    with weightless():
        networks = {
            "Resnet50": build_lac("paper", action_units=units, lock=False, sequence=False),
            OWN: build_lac("paper", action_units=units),
        }
    return {name: lac_flops(network) for name, network in networks.items()}


# --------------------------------------------------------------------------------------------------------- intensity
def intensity_table(accuracies: Mapping[str, pd.DataFrame], judged: Judged, *, embedded: bool = True) -> Table:
    """Correlation of intensities with the codes, network beside network.

    Args:
        accuracies: network -> what ``estimator.agreement`` gives (one row an AU) on the same frames.
        judged: any of the networks, for the caption.
    """
    parts = [table.assign(network=name) for name, table in accuracies.items()]
    columns = [
        "network",
        "action_unit",
        "intensity_r",
        "intensity_r_low",
        "intensity_r_high",
        "icc",
        "mean_absolute_error",
        "n",
    ]
    tidy = pd.concat(parts, ignore_index=True)[columns]
    tidy = tidy[tidy["action_unit"].isin(INTENSITY_ACTION_UNITS)].reset_index(drop=True)
    display = []
    for unit in INTENSITY_ACTION_UNITS:
        line = {"AU": f"{unit} {ACTION_UNIT_NAMES[unit]}"}
        for row in tidy[tidy["action_unit"] == unit].itertuples():
            line[f"r, {row.network} [95 %]"] = _text(row.intensity_r, row.intensity_r_low, row.intensity_r_high, 2)
            line[f"mean error, {row.network}"] = _text(row.mean_absolute_error, digits=2)
        display.append(line)
    means = tidy.groupby("network", sort=False)[["intensity_r", "mean_absolute_error"]].mean()
    display.append(
        {"AU": f"{_MEAN} of {len(INTENSITY_ACTION_UNITS)}"}
        | {
            f"r, {name} [95 %]": _text(row.intensity_r, digits=2)
            for name, row in zip(means.index, means.itertuples(), strict=True)
        }
        | {
            f"mean error, {name}": _text(row.mean_absolute_error, digits=2)
            for name, row in zip(means.index, means.itertuples(), strict=True)
        }
    )
    ours = "Embedded benchmark (rendered faces)" if embedded else "Real faces"
    caption = (
        f"Intensity, 0 to 5: Pearson correlation with the codes, [ ]: 95 % bootstrap over subjects, and mean absolute "
        f"error. {ours}: "
        f"{judged.text}. LAC classifies; its intensities are a monotone map of its probabilities, fitted on subjects "
        f"that are neither "
        "trained on nor judged here."
    )
    return Table(tidy, pd.DataFrame(display), caption, (), digests_of(judged.records))


# ------------------------------------------------------------------------------------------------------ localisation
def localisation_table(data: pd.DataFrame, kind: str = KINDS[0], frames: int = 0, *, embedded: bool = True) -> Table:
    """Share of the activation maps' energy inside the AUs' regions.

    Args:
        data: from ``activation_maps.localisation``; the first network is the one that the others are compared with.
        kind: of the maps. frames: held-out frames that were looked at, whatever they show; 0 = not said.
    """
    tidy = data.copy()
    mean = tidy["action_unit"] == _MEAN
    tidy["p_holm"] = np.where(mean, holm(tidy["p"].where(mean)), holm(tidy["p"].where(~mean)))
    names, display = list(dict.fromkeys(tidy["network"])), []
    for unit, part in tidy.groupby("action_unit", sort=False):
        rows = {row.network: row for row in part.itertuples()}
        line = {
            "AU": f"{unit} {ACTION_UNIT_NAMES[unit]}" if unit in ACTION_UNITS else unit,
            "frames": rows[names[0]].pictures,
        }
        line |= {
            f"{name} [95 %]": _text(*(100 * x for x in (row.share, row.low, row.high))) for name, row in rows.items()
        }
        for name in names[1:]:
            row = rows[name]
            if name == FLAT:
                continue
            line[f"Δ {name} [95 %]"] = _text(
                *(100 * x for x in (row.difference, row.difference_low, row.difference_high)), signed=True
            )
            line[f"p ({name})"] = p_text(row.p_holm)
        display.append(line)
    what = {
        "evidence": "what each place adds to the logit of the single picture (HiResCAM)",
        "similarity": "cosine between the AU's class weights and the features (M, which Lock's losses act on)",
    }[kind]
    caption = (
        f"Localisation: share (percent) of the class activation map inside the AU's two regions, on held-out frames "
        f"that show the AU"
        f"{f' (of {frames} frames, evenly spread)' if frames else ''}. Map, of all networks: {what}, negative places "
        f"0, interpolated to one "
        f"grid. Δ against {names[0]}; “{FLAT}”: the regions' share of the picture. [ ]: 95 % bootstrap over subjects; "
        f"p: approximate "
        f"randomisation over subjects, Holm's correction over the AUs, and apart from them over the means. "
        f"{_input(embedded)}"
    )
    return Table(tidy, pd.DataFrame(display), caption)


def _input(embedded: bool) -> str:
    return "Embedded benchmark (rendered faces)." if embedded else "Real faces."


# ------------------------------------------------------------------------------------------------------------- plots
@_styled
def f1_plot(data: pd.DataFrame) -> Figure:
    """F1 of every AU and network with 95 % intervals, and what the paper prints for LAC.

    Args:
        data: ``f1_table(...).tidy``.
    """
    units = list(dict.fromkeys(data["action_unit"]))
    names = list(dict.fromkeys(data["network"]))
    # a gap before the means
    place = {unit: k + (0.6 if unit.startswith(_MEAN) else 0) for k, unit in enumerate(units)}
    figure, axes = plt.subplots(figsize=(8.6, 3.8))
    for shift, name in zip(np.linspace(-0.25, 0.25, len(names)) if len(names) > 1 else (0,), names, strict=True):
        part = data[data["network"] == name]
        at = part["action_unit"].map(place) + shift
        axes.vlines(at, part["low"], part["high"], color=NETWORK_COLOURS.get(name, "#333333"), linewidth=2, alpha=0.5)
        axes.plot(
            at,
            part["f1"],
            linestyle="none",
            marker="o",
            markersize=4,
            color=NETWORK_COLOURS.get(name, "#333333"),
            label=name,
        )
    for dataset, marker in zip(PRINTED.values(), ("D", "s"), strict=True):
        part = data[data["network"] == names[0]].dropna(subset=f"paper_{dataset}")
        axes.plot(
            part["action_unit"].map(place) + 0.42,
            part[f"paper_{dataset}"],
            linestyle="none",
            marker=marker,
            markersize=3.5,
            markerfacecolor="white",
            markeredgecolor="black",
            label=f"paper's LAC, {dataset} (real faces)",
        )
    axes.set_xticks(list(place.values()), units, rotation=60, ha="right", rotation_mode="anchor")
    axes.set(ylabel="F1 (%)", ylim=(0, 100), xlim=(-0.6, max(place.values()) + 0.8))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@_styled
def class_distribution(data: pd.DataFrame) -> Figure:
    """Fig. 4: how often each AU is present in the annotated set.

    Args:
        data: split ("training" or "held out"), action_unit, value (percent of the coded frames).
    """
    figure, axes = plt.subplots(figsize=(7.6, 2.9))
    splits = list(dict.fromkeys(data["split"]))
    width = 0.8 / max(1, len(splits))
    for k, (split, colour) in enumerate(zip(splits, ("#0072B2", "#9CC9E3", "#999999"), strict=True)):
        part = data[data["split"] == split].set_index("action_unit").reindex(ACTION_UNITS)
        axes.bar(
            np.arange(len(part)) + (k - (len(splits) - 1) / 2) * width,
            part["value"],
            width=width,
            color=colour,
            label=split,
        )
    axes.set_xticks(range(len(ACTION_UNITS)), ACTION_UNITS, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("frames with the AU present (%)")
    axes.set_xlim(-0.6, len(ACTION_UNITS) - 0.4)
    axes.grid(axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # the bars fill the axes
    return figure


@_styled
def recall_per_epoch(data: pd.DataFrame) -> Figure:
    """Fig. 5: recall of every AU over the epochs of training, a line a loss; AUs from common to rare.

    Args:
        data: loss, epoch, action_unit, recall (0 to 1), share (of the training frames that show the AU, 0 to 1).
    """
    if data.empty:
        return _empty(plt.figure(figsize=(4, 3)))
    shares = data.groupby("action_unit")["share"].first().reindex(ACTION_UNITS)
    order = shares.sort_values(ascending=False, kind="stable").index
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 4.8), sharex=True, sharey=True)
    names = list(dict.fromkeys(data["loss"]))
    last = data["epoch"].max()
    for axes, unit in zip(grid.flat, order, strict=True):
        for name in names:
            part = data[(data["loss"] == name) & (data["action_unit"] == unit)].sort_values("epoch")
            axes.plot(
                part["epoch"],
                part["recall"],
                color=LOSS_COLOURS.get(name, "#333333"),
                linewidth=1.4,
                marker="o" if last == 1 else None,
                markersize=3,
            )
        axes.set_title(f"{unit}, {100 * shares[unit]:.0f} %", fontsize=8)
        axes.grid(True)
    grid[0, 0].set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1), xlim=(0.5, last + 0.5))
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel("recall on the training frames (0 to 1)", fontsize=9)
    figure.legend(
        handles=[Line2D([], [], color=LOSS_COLOURS.get(name, "#333333"), label=name) for name in names],
        loc="outside lower center",
        ncols=len(names),
    )
    return figure


@_styled
def regions_plot(
    picture: np.ndarray, boxes: np.ndarray, names: Mapping[str, str], sources: Mapping[str, str]
) -> Figure:
    """The two regions of every AU, drawn on one face; an AU that Table I lacks is marked.

    Args:
        picture: (H, W, 3) uint8. boxes: (C, 2, 4) in units of the side. names: AU -> group, in the order of ``boxes``.
        sources: AU -> ``TABLE_I``, or anything else where its regions are ours.
    """
    side = picture.shape[0]
    groups = {"upper": "#56B4E9", "middle": "#E69F00", "lower": "#CC79A7"}
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 4.9))
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (unit, group), pair in zip(grid.flat, names.items(), boxes, strict=True):
        axes.imshow(picture, interpolation="bilinear")
        colour = groups.get(group.split()[0].lower(), "#FFFFFF")
        for x0, y0, x1, y1 in pair * side - 0.5:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.8))
        axes.set_title(f"{unit}{'' if sources[unit] == TABLE_I else ' *'}\n{ACTION_UNIT_NAMES[unit]}", fontsize=7)
    handles = [Line2D([], [], color=colour, label=f"{name} face") for name, colour in groups.items()]
    handles.append(Line2D([], [], linestyle="none", marker="$*$", color="#222222", label="not in Table I: chosen here"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.set_dpi(PICTURE_DPI)
    return figure


def overlay(picture: np.ndarray, grown: np.ndarray, strongest: float) -> np.ndarray:
    """A face with a map laid over it: (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) uint8. grown: (H, W), 0 and above. strongest: value that is drawn fully.
    """
    strength = np.clip(grown / strongest if strongest > 0 else np.zeros_like(grown), 0, 1)
    colour = plt.get_cmap("inferno")(strength)[..., :3]
    grey = picture.mean(axis=2, keepdims=True) / 255
    mixed = grey * 0.75 * (1 - strength[..., None]) + colour * strength[..., None]
    return np.rint(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


@_styled
def activation_faces(
    pictures: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    labels: Sequence[str],
    shares: Mapping[str, np.ndarray],
) -> Figure:
    """Fig. 6: class activation maps of several networks on the same faces; a row a network, a column a face.

    Args:
        pictures: n faces (H, W, 3) uint8. maps: network -> (n, H, W), each map with a sum of 1. boxes: (n, 2, 4) in
            units of the side.
        labels: of the columns. shares: network -> (n,) energy inside the regions, 0 to 1.
    """
    rows = ["face", *maps]
    figure, grid = plt.subplots(
        len(rows), len(pictures), figsize=(1.12 * len(pictures) + 0.6, 1.25 * len(rows) + 0.35), squeeze=False
    )
    for j, picture in enumerate(pictures):
        side = picture.shape[0]
        for i, name in enumerate(rows):
            axes = grid[i, j]
            # each map is drawn to its own strongest place: a flat map shall look flat, not faint
            shown = picture if i == 0 else overlay(picture, maps[name][j], maps[name][j].max())
            axes.imshow(shown, interpolation="bilinear")
            for x0, y0, x1, y1 in boxes[j] * side - 0.5:
                axes.add_patch(
                    Rectangle(
                        (x0, y0),
                        x1 - x0,
                        y1 - y0,
                        fill=False,
                        edgecolor="#56B4E9" if i == 0 else "white",
                        linewidth=1.0,
                    )
                )
            axes.set(xticks=(), yticks=(), xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
            axes.spines[:].set_visible(False)
            if i:
                share = shares[name][j]
                axes.set_xlabel(
                    "no evidence"
                    if not maps[name][j].any()
                    else DASH
                    if not np.isfinite(share)
                    else f"{100 * share:.0f} % inside",
                    fontsize=7,
                    labelpad=1,
                )
        grid[0, j].set_title(labels[j], fontsize=7.5, loc="center")
    for i, name in enumerate(rows):
        grid[i, 0].set_ylabel(name, fontsize=8)
    figure.set_dpi(PICTURE_DPI)
    return figure


@_styled
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
    rows = ["face", *maps]
    figure = plt.figure(figsize=(1.05 * len(pictures) + 0.8, 1.1 * len(rows) + 1.9))
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1 * len(rows), 1.8))
    grid = top.subplots(len(rows), len(pictures), squeeze=False)
    # one scale a network, so that a map that grows with the AU is seen to grow
    strongest = {name: found.max() for name, found in maps.items()}
    for i, name in enumerate(rows):
        for j, picture in enumerate(pictures):
            axes, side = grid[i, j], picture.shape[0]
            axes.imshow(
                picture if i == 0 else overlay(picture, maps[name][j], strongest[name]), interpolation="bilinear"
            )
            for x0, y0, x1, y1 in boxes[j] * side - 0.5:
                axes.add_patch(
                    Rectangle(
                        (x0, y0),
                        x1 - x0,
                        y1 - y0,
                        fill=False,
                        edgecolor="#56B4E9" if i == 0 else "white",
                        linewidth=0.9,
                    )
                )
            axes.set(xticks=(), yticks=(), xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_title(f"frame {frames[j]}", fontsize=7.5, loc="center")
        grid[i, 0].set_ylabel(name, fontsize=8)
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


@_styled
def localisation_plot(data: pd.DataFrame) -> Figure:
    """Share of the maps' energy inside the regions, every AU and network.

    Args:
        data: from ``activation_maps.localisation``.
    """
    units, names = list(dict.fromkeys(data["action_unit"])), list(dict.fromkeys(data["network"]))
    place = {unit: k + (0.5 if unit == _MEAN else 0) for k, unit in enumerate(units)}
    figure, axes = plt.subplots(figsize=(8.6, 3.2))
    for shift, name in zip(np.linspace(-0.24, 0.24, len(names)) if len(names) > 1 else (0,), names, strict=True):
        part = data[data["network"] == name]
        at, colour = part["action_unit"].map(place) + shift, NETWORK_COLOURS.get(name, "#BBBBBB")
        axes.vlines(at, 100 * part["low"], 100 * part["high"], color=colour, linewidth=2, alpha=0.5)
        axes.plot(
            at,
            100 * part["share"],
            linestyle="none",
            marker="o" if name in NETWORK_COLOURS else "_",
            markersize=4 if name in NETWORK_COLOURS else 7,
            color=colour,
            label=name,
        )
    axes.set_xticks(list(place.values()), units, rotation=60, ha="right", rotation_mode="anchor")
    axes.set(ylabel="energy inside the regions (%)", xlim=(-0.6, max(place.values()) + 0.6))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=len(names))
    return figure


# --------------------------------------------------------------------------------------------------- what is looked at
def strongest_frames(codes: np.ndarray, subjects, units: Sequence[str]) -> np.ndarray:
    """For each AU the frame with its highest code, of a person that no earlier AU has shown where there is one; the
    first of equals.

    Args:
        codes: (n, 18), NaN = not coded. subjects: (n,).
    """
    subjects, shown, rows = np.asarray(subjects), set(), []
    for unit in units:
        code = np.nan_to_num(codes[:, ACTION_UNITS.index(unit)], nan=-1.0)
        new = code - 0.5 * np.isin(subjects, list(shown))  # half a code less: another person wins between equals only
        rows.append(int(new.argmax()))
        shown.add(subjects[rows[-1]])
    return np.array(rows)


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
    sequences, frames = np.asarray(sequences), np.asarray(frames)
    best, found = None, None
    for name in dict.fromkeys(sequences):
        rows = np.flatnonzero(sequences == name)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        for column, unit in enumerate(ACTION_UNITS):
            code = codes[rows, column]
            if np.isnan(code).any() or code.max() < 1:
                continue
            score = (code.max() == 2, code[0] == 0, min((code == 0).sum(), (code == 2).sum()))
            if best is None or score > best:
                best, found = score, (rows, unit)
    if found is None:
        raise InputError("subtle_sequence", "codes", "none above 0", "an AU that comes up in some sequence")
    return found


# --------------------------------------------------------------------------------------------------------- the results
def method(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """The regions of Table I on a rendered face; needs no record."""
    picture, landmarks = neutral_face()
    boxes = landmark_boxes(torch.from_numpy(landmarks)[None])[0].numpy()
    groups = {unit: group_of(unit) for unit in ACTION_UNITS}
    sources = {unit: "ours" if unit in OURS else TABLE_I for unit in ACTION_UNITS}
    data = pd.DataFrame(
        [
            {
                "action_unit": unit,
                "group": groups[unit],
                "source": sources[unit],
                "region": number + 1,
                **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
            }
            for unit, pair in zip(ACTION_UNITS, boxes, strict=True)
            for number, box in enumerate(pair)
        ]
    )
    return (
        Result(
            "a3_regions",
            regions_plot(picture, boxes, groups, sources),
            data,
            f"The two regions of every AU on a rendered face (shares of the side in the csv): {TABLE_I}, whose 98 "
            f"landmarks are taken from "
            f"68 where they are not known; a region is {BOX_SHARE:g} distances of the eyes wide, which the paper does "
            f"not say.",
        ),
    )


def neutral_face(size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A rendered face at rest: uint8 (size, size, 3), and its landmarks (68, 2) in units of the side."""
    pictures, landmarks = render(sample_identities(8, 0)[3], torch.zeros(1, len(ACTION_UNITS)), neutral_scene(1), size)
    return pictures[0].numpy(), landmarks[0].numpy() / size


def cost(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table VIII; needs no record."""
    return (Result("a3_table8_cost", cost_table(paper_costs())),)


def has_annotated_set(study: Study) -> bool:
    """Whether the study has frames to train a recogniser on; without any every function below gives no result."""
    return study.profile.embedded or any((study.data_root / name).is_dir() for name in READERS)


def _with_annotated_set(function):
    @wraps(function)
    def made(study: Study) -> tuple[Result, ...]:
        return function(study) if has_annotated_set(study) else ()

    return made


def judged_of(name: str, records: Sequence, rule: str = "calibrated", intensity: bool = False) -> Judged:
    """What one cell's records say: folds one after the other, seeds beside each other.

    Args:
        records: ``RecognitionRecord``s that differ by seed and fold only, each seed with the same folds.
        rule: of ``action_units.recognition.RULES``. intensity: whether intensities are wanted too.
    """
    seeds = {}
    for record in records:
        seeds.setdefault(record.cell["seed"], []).append(record)
    folds = [sorted(group, key=lambda record: record.cell["fold"]) for group in seeds.values()]
    labels, codes, subjects = (
        np.concatenate([getattr(record, field) for record in folds[0]]) for field in ("labels", "codes", "subjects")
    )
    return Judged(
        name,
        labels,
        np.stack([np.concatenate([record.presence(rule) for record in group]) for group in folds]),
        subjects,
        codes,
        np.stack([np.concatenate([record.intensity for record in group]) for group in folds]) if intensity else None,
        tuple(records),
    )


def _baseline_judged(study: Study, like: Judged) -> Judged | None:
    """The estimator of notebook 01 on the same frames; ``None`` where it has learned from some of them."""
    if recognition.folds(study) != (study.profile.estimator.held_out_fold,):
        return None
    intensity, presence = recognition.baseline_predictions(study, like.records[0].rows)
    return Judged(ESTIMATOR, like.labels, presence[None], like.subjects, like.codes, intensity[None])


def _row_records(study: Study, output: str) -> list[list]:
    """The records of each row of one of ``recognition.OUTPUTS``."""
    found = recognition.records(study, output)
    each = len(recognition.folds(study)) * len(study.profile.training.seeds)
    return [found[k : k + each] for k in range(0, len(found), each)]


def _networks(study: Study, intensity: bool = False) -> list[Judged]:
    """The estimator (where it can be judged), LAC's baseline and LAC, trained alike, and the profile's recogniser where
    it is another.
    """
    rows = dict(zip(COMPONENTS, _row_records(study, "lac_components"), strict=True))
    found = [
        judged_of(BASELINE, rows["baseline"], intensity=intensity),
        judged_of(LAC, rows["LAC"], intensity=intensity),
    ]
    first = _baseline_judged(study, found[0])
    final = recognition.final_record(study)
    if len(rows["LAC"]) == 1 and final.path != rows["LAC"][0].path:
        found.append(judged_of(LONGER, [final], intensity=intensity))
    return [*([first] if first else []), *found]


def _settings(study: Study, output: str) -> str:
    """What was trained, for captions."""
    cell = recognition.cells(study, output)[-1]
    start = {"scratch": "", "estimator": ", from the estimator's weights"}.get(
        cell.initialisation, ", from ImageNet weights"
    )
    return (
        f"Network “{cell.size}”{start}: {cell.epochs} epoch{'s' if cell.epochs > 1 else ''} of N_sep = "
        f"{cell.segments} windows of "
        f"t = {cell.window} a subject."
    )


@_with_annotated_set
def f1(study: Study) -> tuple[Result, ...]:
    """F1 of every AU, as a table and as a picture."""
    networks = _networks(study)
    table = _noted(f1_table(networks, embedded=study.profile.embedded), _settings(study, "lac_components"))
    return (
        Result("a3_f1", table),
        Result(
            "a3_f1_plot",
            f1_plot(table.tidy),
            table.tidy,
            f"F1 per AU as a picture. {study.caption}",
            _all_records(networks),
        ),
    )


@_with_annotated_set
def printed_tables(study: Study) -> tuple[Result, ...]:
    """Tables II and III as printed, with ours below."""
    networks = _networks(study)
    return tuple(
        Result(f"a3_table{number}_{dataset.lower()}", printed_table(number, networks, embedded=study.profile.embedded))
        for number, dataset in PRINTED.items()
    )


def _noted(table: Table, text: str) -> Table:
    return replace(table, caption=f"{table.caption} {text}")


def _all_records(networks: Sequence[Judged]) -> list:
    return [record for network in networks for record in network.records]


def _by_rule(name: str, records: Sequence) -> dict[str, Judged]:
    return {rule: judged_of(name, records, rule) for rule in RULES}


@_with_annotated_set
def components(study: Study) -> tuple[Result, ...]:
    """Table IV."""
    judged = [
        _by_rule(name, rows) for name, rows in zip(COMPONENTS, _row_records(study, "lac_components"), strict=True)
    ]
    table = components_table(judged, embedded=study.profile.embedded)
    return (Result("a3_table4_components", _noted(table, _settings(study, "lac_components"))),)


def _values(study: Study, number: int, output: str, field: str, own: str, name: str) -> tuple[Result, ...]:
    rows = _row_records(study, output)
    judged = {str(part[0].cell[field]): _by_rule(str(part[0].cell[field]), part) for part in rows}
    if output == "lac_loss":
        judged = {f"L_{value}": found for value, found in judged.items()}
    chosen = own if own in judged else ""
    return (
        Result(
            f"a3_table{number}_{name}",
            _noted(values_table(number, judged, chosen, embedded=study.profile.embedded), _settings(study, output)),
        ),
    )


@_with_annotated_set
def windows(study: Study) -> tuple[Result, ...]:
    """Table V, against the profile's own t."""
    return _values(study, 5, "lac_window", "window", str(study.profile.recognition.window), "window")


@_with_annotated_set
def segments(study: Study) -> tuple[Result, ...]:
    """Table VI, against the profile's own N_sep."""
    return _values(study, 6, "lac_segments", "segments", str(study.profile.recognition.segments), "segments")


@_with_annotated_set
def losses(study: Study) -> tuple[Result, ...]:
    """Table VII."""
    return _values(study, 7, "lac_loss", "loss", "L_CE", "loss")


@_with_annotated_set
def distribution(study: Study) -> tuple[Result, ...]:
    """Fig. 4."""
    data = recognition.annotated(study)
    training, calibrating, held_out = data.split(recognition.folds(study)[0], study.profile.data.seed)
    parts = {"training subjects": np.concatenate((training, calibrating)), "held-out subjects": held_out}
    share = {split: np.nanmean(data.labels[rows], axis=0) for split, rows in parts.items()}
    drawn = pd.DataFrame(
        [
            {"split": split, "action_unit": unit, "value": 100 * value, "frames": len(parts[split])}
            for split, values in share.items()
            for unit, value in zip(data.action_units, values, strict=True)
        ]
    )
    return (
        Result(
            "a3_fig4_distribution",
            class_distribution(drawn),
            drawn,
            f"Fig. 4. How often each AU is present in the annotated frames. {study.caption}",
        ),
    )


@_with_annotated_set
def recall(study: Study) -> tuple[Result, ...]:
    """Fig. 5."""
    records = [part[0] for part in _row_records(study, "lac_loss")]
    data = pd.DataFrame(
        [
            {
                "loss": f"L_{record.cell['loss']}",
                "epoch": epoch + 1,
                "action_unit": unit,
                "recall": values[k],
                "weight": record.weights[epoch, k],
                "share": record.share[k],
            }
            for record in records
            for epoch, values in enumerate(record.training_recall)
            for k, unit in enumerate(ACTION_UNITS)
        ]
    )
    return (
        Result(
            "a3_fig5_recall",
            recall_per_epoch(data),
            data,
            "Fig. 5. Recall of every AU on the frames of each epoch, as they went by, at a probability of 0.5; beside "
            "the AU's name its "
            f"share of the training frames. The csv has the loss weights too. {study.caption}",
            records,
        ),
    )


# ---------------------------------------------------------------------------------------------------- activation maps
@dataclass(frozen=True)
class Looked:
    """Held-out frames and the networks that look at them.

    Attributes:
        rows: of the annotated set. frames: uint8 (n, H, W, 3). boxes: (n, 18, 2, 4). labels, codes: (n, 18).
        subjects, sequences, numbers: (n,) of each frame. networks: name -> network, trained alike; records: behind
            them.
    """

    rows: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    subjects: np.ndarray
    sequences: np.ndarray
    numbers: np.ndarray
    networks: Mapping[str, torch.nn.Module]
    records: Sequence


def looked(study: Study, rows: np.ndarray | None = None) -> Looked:
    """What activation maps are made of: LAC's baseline and LAC of Table IV (first fold and seed), and the estimator.

    Args:
        rows: places among the held-out frames; ``None``: all.
    """
    data, made = (
        recognition.annotated(study),
        dict(zip(COMPONENTS, (part[0] for part in _row_records(study, "lac_components")), strict=True)),
    )
    records = [made["baseline"], made["LAC"]]
    networks = {
        name: Recogniser.load(record.path).network for name, record in zip((BASELINE, LAC), records, strict=True)
    }
    if recognition.folds(study)[0] == study.profile.estimator.held_out_fold:
        networks = {BASELINE: networks[BASELINE], LAC: networks[LAC], ESTIMATOR: study.estimator}
    part = np.arange(len(records[0].rows)) if rows is None else rows
    held = records[0].rows[part]
    table = data.table.iloc[held]
    return Looked(
        held,
        np.asarray(data.frames[held]),
        landmark_boxes(torch.from_numpy(data.landmarks[held])).numpy(),
        records[0].labels[part],
        records[0].codes[part],
        records[0].subjects[part],
        table["sequence"].to_numpy().astype(str),
        table["frame"].to_numpy(),
        networks,
        records,
    )


def _some_frames(study: Study) -> np.ndarray:
    """Places of at most ``MAPPED`` held-out frames, evenly spread over all."""
    count = len(_row_records(study, "lac_components")[0][0].rows)
    return np.unique(np.linspace(0, count - 1, min(count, MAPPED)).round().astype(int))


@_with_annotated_set
def localise(study: Study) -> tuple[Result, ...]:
    """How much of the maps lies in the AUs' regions, as evidence and as similarity."""
    seen, results = looked(study, _some_frames(study)), []
    for kind in KINDS:
        shares = {
            name: energy_shares(activation_maps(network, seen.frames, kind, device=study.device), seen.boxes)
            for name, network in seen.networks.items()
            if kind == "evidence" or name != ESTIMATOR
        }
        data = localisation({**shares, FLAT: area_shares(seen.boxes)}, seen.labels, seen.subjects)
        table = localisation_table(data, kind, len(seen.rows), embedded=study.profile.embedded)
        stem = "a3_localisation" if kind == KINDS[0] else f"a3_localisation_{kind}"
        results.append(Result(stem, replace(table, digests=digests_of(seen.records))))
        if kind == KINDS[0]:
            results.append(
                Result(
                    "a3_localisation_plot",
                    localisation_plot(data),
                    table.tidy,
                    f"Localisation as a picture: share of the maps' energy inside the AUs' regions. {study.caption}",
                    seen.records,
                )
            )
    return tuple(results)


def _map_data(maps: Mapping[str, np.ndarray], columns: Mapping[str, Sequence]) -> pd.DataFrame:
    """The cells of maps (n, h, w) in their own resolution, with what is known of each picture."""
    parts = []
    for name, values in maps.items():
        picture, row, column = (index.ravel() for index in np.indices(values.shape))
        parts.append(
            pd.DataFrame(
                {
                    "network": name,
                    **{key: np.asarray(known)[picture] for key, known in columns.items()},
                    "row": row,
                    "column": column,
                    "value": values.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@_with_annotated_set
def faces(study: Study) -> tuple[Result, ...]:
    """Fig. 6."""
    seen = looked(study)
    units = [unit for unit in SHOWN if np.isfinite(seen.labels[:, ACTION_UNITS.index(unit)]).any()]
    rows, columns = (
        strongest_frames(seen.codes, seen.subjects, units),
        np.array([ACTION_UNITS.index(unit) for unit in units]),
    )
    coarse = {
        name: activation_maps(network, seen.frames[rows])[np.arange(len(rows)), columns]
        for name, network in seen.networks.items()
        if name != ESTIMATOR
    }
    boxes = seen.boxes[rows, columns]
    shares = {name: energy_shares(maps[:, None], boxes[:, None])[:, 0] for name, maps in coarse.items()}
    fine = {name: resized_maps(maps[:, None], seen.frames.shape[1])[:, 0] for name, maps in coarse.items()}
    labels = [
        f"{unit}, code {seen.codes[row, column]:.0f}\n{ACTION_UNIT_NAMES[unit]}"
        for unit, row, column in zip(units, rows, columns, strict=True)
    ]
    data = _map_data(coarse, {"action_unit": units, "subject": seen.subjects[rows], "frame": seen.numbers[rows]})
    return (
        Result(
            "a3_fig6_activation_maps",
            activation_faces(seen.frames[rows], fine, boxes, labels, shares),
            data,
            f"Fig. 6. {_MAPS} on the held-out frame with each AU's highest code; every map is drawn to its own "
            f"largest value. Boxes: the "
            f"AU's regions; below: the share of the map inside. {study.caption}",
            seen.records,
        ),
    )


@_with_annotated_set
def sequence(study: Study) -> tuple[Result, ...]:
    """Fig. 7."""
    seen = looked(study)
    rows, unit = subtle_sequence(
        seen.codes, np.char.add(np.char.add(seen.subjects.astype(str), " "), seen.sequences), seen.numbers
    )
    column = ACTION_UNITS.index(unit)
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 7)).round().astype(int))
    coarse = {
        name: activation_maps(network, seen.frames[rows[shown]], action_units=(unit,))[:, 0]
        for name, network in seen.networks.items()
        if name != ESTIMATOR
    }
    side = seen.frames.shape[1]
    fine = {
        name: resized_maps(maps[:, None], side)[:, 0] * maps.mean(axis=(1, 2))[:, None, None]
        for name, maps in coarse.items()
    }
    probabilities = {
        name: record.probabilities[rows, column] for name, record in zip(coarse, seen.records, strict=True)
    }
    figure = activation_sequence(
        seen.frames[rows[shown]],
        fine,
        seen.boxes[rows[shown], column],
        shown,
        seen.codes[rows, column],
        probabilities,
        f"{unit} {ACTION_UNIT_NAMES[unit]}, {seen.subjects[rows[0]]}",
    )
    data = _map_data(coarse, {"frame": seen.numbers[rows[shown]], "code": seen.codes[rows[shown], column]})
    return (
        Result(
            "a3_fig7_sequence",
            figure,
            data.assign(action_unit=unit, subject=seen.subjects[rows[0]]),
            f"Fig. 7. {_MAPS} over a held-out sequence in which {unit} comes and stays subtle (code 2 at most); one "
            f"colour scale a network. "
            f"Below: the code, and the probability of each network's last stage. {study.caption}",
            seen.records,
        ),
    )


_MAPS = (
    "Class activation maps (HiResCAM of the single picture's logit, negative places 0) of LAC's baseline and LAC, "
    "trained alike,"
)


# --------------------------------------------------------------------------------------------- intensity and AU-DFER
@_with_annotated_set
def intensity(study: Study) -> tuple[Result, ...]:
    """Correlation of intensities with the codes, LAC's beside the baselines'; nothing for a set without intensities."""
    networks = _networks(study, intensity=True)
    if np.nanmax(networks[-1].codes) <= 1:
        return ()
    accuracies = {one.name: agreement(one.intensity[0], one.presence[0], one.codes, one.subjects) for one in networks}
    return (Result("a3_intensity", intensity_table(accuracies, networks[-1], embedded=study.profile.embedded)),)


def better_aus_table(data: pd.DataFrame, about: str = "") -> Table:
    """What better AUs do for AU-DFER.

    Args:
        data: from ``recognition.better_aus``. about: which network on which clips, for the caption.
    """
    display = []
    for row in data.itertuples():
        line = {
            "AUs from": row.source,
            "knowledge, rank correlation [95 %]": _text(row.recovery, row.recovery_low, row.recovery_high, 2),
        }
        for metric in ("war", "uar"):
            value, gain = (
                [100 * getattr(row, f"{metric}{name}{end}") for end in ("", "_low", "_high")] for name in ("", "_gain")
            )
            line[f"{metric.upper()} [95 %]"] = _text(*value)
            line[f"Δ {metric.upper()} [95 %]"] = _text(*gain, signed=True)
            line[f"p {metric.upper()}"] = p_text(getattr(row, f"{metric}_p_holm"))
        display.append(line)
    caption = (
        "What better action units do for AU-DFER: rank correlation of the knowledge matrix with what was planted "
        "(intervals: bootstrap over clips), "
        f"and accuracy{about}, with AUs of the estimator (“baseline”), of LAC, and as planted. Δ: against the "
        f"baseline's AUs, paired by clip; "
        "p: Holm's correction over the column."
    )
    return Table(data, pd.DataFrame(display), caption, (), tuple(sorted(data.attrs.get("records", ()))))


@_with_annotated_set
def better_aus(study: Study) -> tuple[Result, ...]:
    """Knowledge recovery and accuracy with AUs of the estimator, of LAC and as planted.

    The embedded benchmark's alone.
    """
    if not study.profile.embedded:
        return ()
    grid, seeds = study.profile.grid, len(study.profile.training.seeds)
    counted = f"test clips, {seeds} seed{'s' if seeds > 1 else ''}"
    about = f" of {model_name(grid.ratio_model)} on {grid.strategy_dataset} ({counted})"
    return (Result("a3_better_aus", _noted(better_aus_table(recognition.better_aus(study), about), study.caption)),)


#: what needs neither records nor frames, as ``results.RESULTS``
RESULTS: dict[Callable[..., tuple[Result, ...]], tuple[str, ...]] = {method: (), cost: ()}
