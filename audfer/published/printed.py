"""What the printed results tables can and cannot show: their sheets for ``audit``, clip counts, noise, resolution.

Nothing here needs a dataset or a trained network. A printed accuracy is a whole number of clips of a test set of known
size, so the diagonal of the confusion matrix can be read back from it, and with it exact binomial intervals and the
smallest gain that the test set can resolve. Percentages are 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import scipy

from .. import published
from ..errors import InputError
from ..evaluation import LEVEL, effective_count, holm, mcnemar, minimum_detectable_difference
from ..facs import EVALUATION_DATASETS, EXPRESSION_HEADINGS, EXPRESSIONS, PRINTED_EXPRESSIONS
from .audit import Sheet, protocols

FOLDS = ("1", "2", "3", "4", "5")
_POOLED = "1-5"
#: the tables that print the paper's own rows class by class
OWN_TABLES = ("AU-DFER Table 2", "AU-DFER Table 3")
_OWN = ("local replication baseline", "+AU-DFER")
#: spellings of the seven classes in KP-GCN's tables -> the headings used here
_KPGCN = dict(zip(PRINTED_EXPRESSIONS, EXPRESSION_HEADINGS, strict=True)) | {"Anger": "Ang."}


# ------------------------------------------------------------------------------------------------------------- sheets
@lru_cache
def sheets() -> tuple[Sheet, ...]:
    """The transcribed tables of AU-DFER, KP-GCN and LAC that hold checkable numbers, as printed."""
    return *_audfer(), *_kpgcn(), *_lac()


def sheet(name: str) -> Sheet:
    """One of ``sheets`` by its name.

    Raises:
        InputError: none has it.
    """
    found = {one.name: one for one in sheets()}
    if name not in found:
        raise InputError("printed tables", "name", repr(name), f"one of {', '.join(found)}")
    return found[name]


def origins() -> list[Sheet]:
    """What the baselines' own authors print, one sheet a dataset and a fold, for ``audit.check_origin``."""
    rows = published.load("upstream_results")
    # the fold that the paper's rows are proven on (MAE-DFER: fold 1), else the authors' own reading of all folds
    wanted = {
        ("MAE-DFER", "DFEW"): "1",
        ("MAE-DFER", "FERV39k"): "reproduced",
        ("Former-DFER", "DFEW"): "mean",
        ("Former-DFER", "FERV39k"): "-",
    }
    found = []
    for (method, dataset), fold in wanted.items():
        part = rows[(rows["method"] == method) & (rows["dataset"] == dataset) & (rows["fold"] == fold)]
        text = pd.DataFrame(
            [[_plain(r.WAR), _plain(r.UAR)] for r in part.itertuples()], columns=["WAR", "UAR"], index=part["method"]
        )
        label = {"1": ", fold 1", "mean": ", five folds", "reproduced": ", reproduced"}.get(fold, "")
        found.append(Sheet(f"{part['source'].iloc[0].split(' (')[0]}{label}", text, dataset=dataset))
    return found


def _plain(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _text(name: str, row: Sequence[str], column: str = "column") -> pd.DataFrame:
    """A transcribed table as text, rows and columns in the printed order; ``row``: the columns that name a row."""
    table = published.load(name)
    table = table.assign(
        label=[", ".join(filter(None, parts)) for parts in zip(*(table[c].astype(str) for c in row), strict=True)]
    )
    wide = table.pivot(index="label", columns=column, values="printed")
    return (
        wide.loc[table["label"].unique(), list(dict.fromkeys(table[column]))]
        .rename_axis(None)
        .rename_axis(None, axis=1)
    )


def _label(variants: pd.Series) -> pd.Series:
    return variants.map({"as printed": "", "local replication baseline": "baseline", "Baseline": "baseline"}).fillna(
        variants
    )


def _protocol(fold: str) -> str:
    return "five folds pooled" if fold == _POOLED else f"fold {fold}"


def _whole_counts(dataset: str) -> dict[str, list[int]]:
    """Protocol -> clips a class, of a dataset's test split: folds and their union, or the one official split."""
    if dataset == "FERV39k":
        return {"official test split": list(published.class_counts(dataset, "test").values())}
    if dataset == "DFEW":
        return {_protocol(name): counts for name, counts in published.dfew_protocols().items()}
    folds = {_protocol(fold): list(published.class_counts(dataset, "test", fold).values()) for fold in FOLDS}
    return folds | {_protocol(_POOLED): list(np.sum(list(folds.values()), axis=0))}


def _audfer() -> list[Sheet]:
    found = []
    first = published.load("audfer_table1")
    first = first.assign(label=first["method"] + _label(first["variant"]).map(lambda v: f", {v}" if v else ""))
    names = first.drop_duplicates("label").set_index("label")
    own = tuple(names.index[names["variant"].isin(_OWN)])
    better = {f"{m}, +AU-DFER": f"{m}, baseline" for m in names.loc[list(own), "method"].unique()}
    for dataset in EVALUATION_DATASETS:
        part = first[first["dataset"] == dataset]
        wide = part.pivot(index="label", columns="metric", values="printed").loc[part["label"].unique(), ["WAR", "UAR"]]
        totals = {name: [sum(counts)] for name, counts in _whole_counts(dataset).items()}
        found.append(
            Sheet(
                f"AU-DFER Table 1, {dataset}",
                wide.rename_axis(None).rename_axis(None, axis=1),
                counts=totals,
                dataset=dataset,
                methods=tuple(names.loc[wide.index, "method"]),
                own=own,
                baselines=better,
            )
        )
    for number, column in ((2, "variant"), (3, "strategy")):
        table = published.load(f"audfer_table{number}")
        table = table.assign(label=table["method"] + _label(table[column]).map(lambda v: f", {v}" if v else ""))
        wide = table.pivot(index="label", columns="column", values="printed")
        wide = wide.loc[table["label"].unique(), list(dict.fromkeys(table["column"]))]
        names = table.drop_duplicates("label").set_index("label")
        mine = names.index if number == 3 else names.index[names["variant"].isin(_OWN)]
        claims = {
            label: f"{names.loc[label, 'method']}, baseline" for label in mine if not label.endswith(", baseline")
        }
        found.append(
            Sheet(
                f"AU-DFER Table {number}",
                wide.rename_axis(None).rename_axis(None, axis=1),
                EXPRESSION_HEADINGS,
                counts=_whole_counts("DFEW"),
                dataset="DFEW",
                methods=tuple(names["method"]),
                own=tuple(mine),
                baselines=claims if number == 3 else {},
                costs=("FLOPs_G",) if number == 2 else (),
            )
        )
    return found


def _kpgcn() -> list[Sheet]:
    def methods(wide: pd.DataFrame) -> tuple[str, ...]:
        return tuple("KP-GCN" if name.casefold() == "ours" else name for name in wide.index)

    found = []
    for number, dataset in ((3, "DFEW"), (5, "FERV39k")):
        wide = _text(f"kpgcn_table{number}", ["method"]).rename(columns=_KPGCN)
        # the classes in the order of the counts; the sheet keeps the printed order of the columns
        found.append(
            Sheet(
                f"KP-GCN Table {number}",
                wide,
                EXPRESSION_HEADINGS,
                counts=_whole_counts(dataset),
                dataset=dataset,
                methods=methods(wide),
                costs=("Params_M",),
            )
        )
    wide = _text("kpgcn_table7", ["method"])
    counts = published.load("class_counts")
    counts = counts[(counts["dataset"] == "MAFW") & (counts["split"] == "test")]
    by_fold = {
        _protocol(fold): list(part.set_index("label")["clips"][list(published.MAFW_CODES.values())])
        for fold, part in counts.groupby("fold")
    }
    found.append(
        Sheet(
            "KP-GCN Table 7",
            wide,
            tuple(published.MAFW_CODES),
            counts=by_fold,
            dataset="MAFW, 11 classes",
            methods=methods(wide),
        )
    )
    wide = _text("kpgcn_table8", ["method"]).rename(columns={"WAR_DFEW": "WAR"})
    found.append(Sheet("KP-GCN Table 8", wide, dataset="DFEW", methods=methods(wide), costs=("Params_M",)))
    # one network in three ablation tables: their values together are its results on each test set
    ablations = pd.concat({f"Table {n}": _text(f"kpgcn_table{n}", ["method"]) for n in (10, 11, 12)})
    ablations.index = [f"{table}, {label}" for table, label in ablations.index]
    stated = int(published.load("kpgcn_table2").query("dataset.str.startswith('AFEW')")["validation_set"].iloc[0])
    totals = {name: [sum(numbers)] for name, numbers in _whole_counts("DFEW").items()}
    found.append(
        Sheet(
            "KP-GCN Tables 10 to 12, DFEW",
            ablations[["DFEW_WAR"]].set_axis(["WAR"], axis=1),
            counts=totals,
            stated=("five folds pooled",),
            dataset="DFEW",
        )
    )
    # which number of clips near the stated one?
    near = {f"{n} clips": [n] for n in range(stated - 15, stated + 16)}
    found.append(
        Sheet(
            "KP-GCN Tables 10 to 12, AFEW",
            ablations[["AFEW_WAR"]].set_axis(["WAR"], axis=1),
            counts=near,
            stated=(f"{stated} clips",),
            dataset="AFEW",
        )
    )
    return found


def _lac() -> list[Sheet]:
    marks = {"bold (best)": 1, "underlined (2nd)": 2, "bracketed (3rd)": 3}
    found = []
    for number in (2, 3):
        name = f"lac_table{number}"
        wide, table = _text(name, ["method"]), published.load(name)
        ranks = {(r.method, r.column): marks[r.rank_mark_in_ocr] for r in table.itertuples() if r.rank_mark_in_ocr}
        units = tuple(c for c in wide.columns if c != "Avg")
        found.append(
            Sheet(
                f"LAC Table {number}",
                wide,
                units,
                mean="Avg",
                weighted="",
                ranks=ranks,
                dataset={2: "BP4D", 3: "DISFA"}[number],
            )
        )
    return found


def overview() -> pd.DataFrame:
    """Which tables are checked, one row a sheet: table, dataset, rows, numbers, classes, protocols tried."""
    return pd.DataFrame(
        [
            {
                "table": s.name,
                "dataset": s.dataset,
                "rows": len(s.rows),
                "numbers": int(s.values.notna().sum().sum()),
                "classes": len(s.classes),
                "protocols tried": len(s.counts),
            }
            for s in sheets()
        ]
    )


# ------------------------------------------------------------------------------------------------ clips behind a number
def own_protocols() -> dict[str, str]:
    """What each of the paper's own rows on DFEW was measured on: row -> protocol proven by whole clips, or ""."""
    return {
        row.row: row.proven
        for one in map(sheet, OWN_TABLES)
        for row in protocols(one).itertuples()
        if row.row in one.own
    }


def printed_counts() -> pd.DataFrame:
    """The diagonal of the confusion matrix behind each of the paper's own rows on DFEW (Tables 2 and 3).

    Returns:
        One row a class (and WAR): table, row, protocol (as proven by ``audit.protocols``; where none is proven, the
        best fitting one), proven (bool), measure, printed, hits, clips, exact (whether the printed digits are hits /
        clips), low, high: exact binomial (Clopper-Pearson) 95 % limits in percent.
    """
    rows = []
    for one in map(sheet, OWN_TABLES):
        for found in protocols(one).itertuples():
            if found.row not in one.own:
                continue
            counts = one.counts[found.best.split(" or ")[0]]
            for measure, count in (*zip(one.classes, counts, strict=True), (one.weighted, int(np.sum(counts)))):
                printed = one.values.loc[found.row, measure]
                hits = round(printed * count / 100)
                low, high = scipy.stats.binomtest(hits, count).proportion_ci(LEVEL, "exact")
                rows.append(
                    {
                        "table": one.name,
                        "row": found.row,
                        "protocol": found.best,
                        "proven": bool(found.proven),
                        "measure": measure,
                        "printed": printed,
                        "hits": hits,
                        "clips": count,
                        "exact": published.integer_count(printed, count) is not None,
                        "low": 100 * float(low),
                        "high": 100 * float(high),
                    }
                )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------- printed gains
WITHIN, OPEN, BEYOND = "within noise however paired", "depends on the pairing", "beyond noise however paired"


def gains() -> pd.DataFrame:
    """Each printed gain of AU-DFER over its local baseline (Table 1; classes of Table 2) against the noise of its test
    set.

    The predictions are not published, so how often the two networks disagree is not known. Two bounds hold whatever
    they are, as long as two networks tested on the same clips do not disagree *more* than two independent ones:

    * *unpaired* (conservative): as if they had been tested on different clips; Fisher's exact test.
    * *best pairing*: as if no clip that the first had right was lost, so that exactly the net gain is discordant;
      McNemar's exact test, p = 2^(1 - clips gained).

    A gain that is not significant even under the best pairing is within noise; one that is significant unpaired is
    beyond it (for these two trained networks; one seed each, so nothing is known about training again). In between,
    ``may_disagree`` is the largest share of clips on which the two may disagree for the gain to be significant.

    Returns:
        One row a gain: dataset, method, measure, without, with (percent), gain (points), clips, hits_without,
        hits_with, unpaired, best (half widths of the 95 % noise bands around no gain, points), p_unpaired, p_best,
        may_disagree (percent of clips), verdict, p_unpaired_holm (Holm's correction, over the WARs and UARs of Table 1
        and over the classes of Table 2; the verdict is without it). For UAR the bands are normal approximations; where
        the classes are not printed (``classes_assumed``), each class is taken to be at the printed UAR, and only the
        unpaired band can be given.
    """
    clips_of = _clips_of_rows()
    rows = []
    for method in ("M3DFEL", "MAE-DFER", "Former-DFER"):
        for dataset in EVALUATION_DATASETS:
            counts = clips_of[method, dataset]
            pair = [
                published.printed_row(method, variant, dataset, corrected=True) for variant in ("baseline", "audfer")
            ]
            measures = [("WAR", int(np.sum(counts)))]
            measures += list(zip(EXPRESSION_HEADINGS, counts, strict=True)) if EXPRESSION_HEADINGS[0] in pair[0] else []
            rows += [_gain(method, dataset, name, clips, *(row[name] for row in pair)) for name, clips in measures]
            rows.append(_uar_gain(method, dataset, counts, *pair))
    table = pd.DataFrame(rows).astype({"hits_without": "Int64", "hits_with": "Int64"})
    overall = table["measure"].isin(published.METRICS)
    families = [holm(table["p_unpaired"].where(chosen)) for chosen in (overall, ~overall)]
    table["p_unpaired_holm"] = np.where(overall, *families)
    return table


def _clips_of_rows() -> dict[tuple[str, str], list[int]]:
    """(method, dataset) -> clips a class behind the paper's own rows.

    DFEW: as proven by whole clips for the baseline row. MAFW: the seven-class counts of the fold (or the pooled
    folds) that turn both printed WARs into whole clips, fold 1 where several do.
    """
    proven, found = own_protocols(), {}
    for method in ("M3DFEL", "MAE-DFER", "Former-DFER"):
        for dataset in EVALUATION_DATASETS:
            options = _whole_counts(dataset)
            name = next(iter(options))
            if dataset == "DFEW":
                name = proven[f"{method}, baseline"].split(" or ")[0]
            elif dataset == "MAFW":
                printed = [published.printed_metric(method, variant, dataset) for variant in ("baseline", "audfer")]
                whole = {
                    key: sum(published.integer_count(p, sum(counts)) is not None for p in printed)
                    for key, counts in options.items()
                }
                name = max(whole, key=whole.get)
            found[method, dataset] = list(options[name])
    return found


def _gain(method: str, dataset: str, measure: str, clips: int, without: float, with_: float) -> dict:
    before, after = (round(value * clips / 100) for value in (without, with_))
    net = abs(after - before)
    z = scipy.stats.norm.ppf(0.5 + LEVEL / 2)
    share = (before + after) / (2 * clips)
    p_unpaired = float(scipy.stats.fisher_exact([[before, clips - before], [after, clips - after]]).pvalue)
    p_best = mcnemar(net, 0)
    return {
        "dataset": dataset,
        "method": method,
        "measure": measure,
        "without": without,
        "with": with_,
        "gain": with_ - without,
        "clips": clips,
        "hits_without": before,
        "hits_with": after,
        "unpaired": 100 * z * np.sqrt(2 * share * (1 - share) / clips),
        "best": 100 * z * np.sqrt(net) / clips,
        "p_unpaired": p_unpaired,
        "p_best": p_best,
        "may_disagree": 100 * _may_disagree(net, clips) / clips,
        "verdict": BEYOND if p_unpaired < 1 - LEVEL else WITHIN if p_best >= 1 - LEVEL else OPEN,
        "classes_assumed": False,
    }


def _may_disagree(net: int, clips: int) -> int:
    """Largest number of discordant clips of all ``clips`` with which a net gain of ``net`` has McNemar p < 0.05; 0:
    none.
    """
    if mcnemar(net, 0) >= 1 - LEVEL:
        return 0
    low, high = net, max(net, clips - (clips - net) % 2)  # the p-value rises with the discordant clips of equal parity
    while low + 2 <= high:
        middle = low + 2 * ((high - low) // 4 or 1)
        gained = (middle + net) // 2
        if mcnemar(gained, middle - gained) < 1 - LEVEL:
            low = middle
        else:
            high = middle - 2
    return low


def _uar_gain(method: str, dataset: str, counts: Sequence[int], before: pd.Series, after: pd.Series) -> dict:
    known = EXPRESSION_HEADINGS[0] in before
    counts = np.asarray(counts, float)
    rates = [np.array([row[h] if known else row["UAR"] for h in EXPRESSION_HEADINGS]) / 100 for row in (before, after)]
    z, gain = scipy.stats.norm.ppf(0.5 + LEVEL / 2), after["UAR"] - before["UAR"]
    unpaired = np.sqrt(sum((p * (1 - p) / counts).sum() for p in rates)) / len(counts)
    best = np.sqrt((np.abs(np.round(rates[1] * counts) - np.round(rates[0] * counts)) / counts**2).sum()) / len(counts)
    p_unpaired, p_best = (
        float(2 * scipy.stats.norm.sf(abs(gain) / 100 / s)) if s > 0 else 1.0 for s in (unpaired, best)
    )
    return {
        "dataset": dataset,
        "method": method,
        "measure": "UAR",
        "without": before["UAR"],
        "with": after["UAR"],
        "gain": gain,
        "clips": int(counts.sum()),
        "hits_without": np.nan,
        "hits_with": np.nan,
        "unpaired": 100 * z * unpaired,
        "best": 100 * z * best if known else np.nan,
        "p_unpaired": p_unpaired,
        "p_best": p_best if known else np.nan,
        "may_disagree": np.nan,
        "classes_assumed": not known,
        "verdict": BEYOND if p_unpaired < 1 - LEVEL else WITHIN if known and p_best >= 1 - LEVEL else OPEN,
    }


def resolution(discordances: Sequence[float] = (0.05, 0.1, 0.2, 0.3), power: float = 0.8) -> pd.DataFrame:
    """Minimum detectable difference of each dataset's test split, in points
    (``evaluation.minimum_detectable_difference``).

    Args:
        discordances: assumed shares of clips that exactly one of two networks gets right. Ours are measured
            (``evaluation.compare``); the papers' are not published.

    Returns:
        One row a dataset, measure (WAR, UAR, each expression) and discordance: dataset, protocol, measure, clips,
        effective_clips, discordance, detectable (points; NaN: not even if all discordant clips were gained).
    """
    rows = []
    for dataset in EVALUATION_DATASETS:
        options = _whole_counts(dataset)
        for protocol in dict.fromkeys((next(iter(options)), list(options)[-1])):
            counts = options[protocol]
            parts = {"WAR": effective_count(counts), "UAR": effective_count(counts, "uar")}
            parts |= {name: float(count) for name, count in zip(EXPRESSIONS, counts, strict=True)}
            rows += [
                {
                    "dataset": dataset,
                    "protocol": protocol,
                    "measure": measure,
                    "clips": int(np.sum(counts) if measure in ("WAR", "UAR") else effective),
                    "effective_clips": effective,
                    "discordance": share,
                    "detectable": 100 * minimum_detectable_difference(effective, share, power),
                }
                for measure, effective in parts.items()
                for share in discordances
            ]
    return pd.DataFrame(rows)
