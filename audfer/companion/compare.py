"""Two runs side by side: ``audfer compare RUN RUN``, differences of equal cells on the same clips, with intervals."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..evaluation import LEVEL, compare, holm, summary
from ..files import read_json
from ..results.long import variant_words
from ..results.rows import p_text, percent, text
from ..results.selection import model_name
from ..training.records import RunRecord, RunStore

#: what a cell is, apart from how it was trained
_IDENTITY = (
    *("model", "dataset", "fold", "variant", "initialisation"),
    *("strategy", "weights", "reading", "au_source", "au_loss", "au_ratio"),
)


@dataclass(frozen=True)
class Differences:
    """What ``compare_runs`` gives.

    Attributes:
        frame: a row for each pair of cells and metric, in percent and points: dataset, network, variant, metric, first,
            first_low, first_high, second ..., difference ..., p, p_holm, clips, seeds.
        changed: setting -> (values of the first run, of the second), where they differ between paired cells.
        alone: cells that only the first, only the second run has, in words; or whose clips are others.
    """

    frame: pd.DataFrame
    changed: dict[str, tuple[str, str]]
    alone: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"{name}: {first} -> {second}" for name, (first, second) in self.changed.items()]
        lines = lines or ["no setting differs"]
        if len(self.frame):
            shown = pd.DataFrame(
                {
                    "dataset": self.frame["dataset"],
                    "network": [model_name(name) for name in self.frame["network"]],
                    "variant": self.frame["variant"],
                    "": self.frame["metric"],
                    **{
                        side: [
                            text(*row, signed=side == "difference")
                            for row in self.frame[[side, f"{side}_low", f"{side}_high"]].itertuples(index=False)
                        ]
                        for side in ("first", "second", "difference")
                    },
                    "p": [p_text(p) for p in self.frame["p_holm"]],
                }
            )
            sure = int((self.frame["p_holm"] < 1 - LEVEL).sum())
            lines += ["", shown.to_string(index=False), ""]
            lines.append(
                f"Percent and points, {100 * LEVEL:.0f} % intervals over clips; p after Holm's correction over all "
                f"{len(self.frame)}: {sure} certain."
            )
        for where, cells in self.alone.items():
            if cells:
                lines.append(f"{where}: {len(cells)}, the first {cells[0]}")
        return "\n".join(lines)


def records_of(run: str | os.PathLike, work: Path) -> list[RunRecord]:
    """The records of a run: of a profile's name below ``work``, a folder of records (or the one above), or one record.

    Raises:
        InputError: nothing there.
    """
    given = Path(run)
    for folder in (given, given / "runs", work / str(run) / "runs"):
        if (folder / "record.json").is_file():
            return [RunRecord.load(folder)]
        if folder.is_dir() and (records := RunStore(folder).records()):
            return records
    expected = f"a profile with records in {work}, a folder of run records, or one of them"
    raise InputError("compare", "RUN", repr(str(run)), expected)


def compare_runs(first: list[RunRecord], second: list[RunRecord], protocol: str = "last") -> Differences:
    """Every cell of the second run minus the same one of the first.

    Cells are the same that agree in network, dataset and AU head; where one of these was changed, cells that agree in
    all but it. Two single records are compared whatever they are. Seeds of a cell go together.
    """
    sides = [_by_cell(records) for records in (first, second)]
    single = len(first) == len(second) == 1
    pairs = [(*sides[0], *sides[1])] if single else _pairs(*sides)
    rows, changed, alone = [], defaultdict(set), {"only in the first run": [], "only in the second run": []}
    other_clips = []
    for names in pairs:
        cells = [side[name] for side, name in zip(sides, names, strict=True)]
        one = cells[1][0].cell
        label = f"{model_name(one['model'])} on {one['dataset']}, {variant_words(one)}"
        try:
            difference = compare(*cells, protocol)
        except InputError as error:
            other_clips.append(f"{label} ({error.found})")
            continue
        for name, values in _changes(*cells).items():
            changed[name].add(values)
        summaries = [summary(cell, protocol) for cell in cells]
        for metric in ("war", "uar"):
            row = {"dataset": one["dataset"], "network": one["model"], "variant": variant_words(one)}
            row["metric"] = metric.upper()
            for side, found in zip(("first", "second", "difference"), (*summaries, difference), strict=True):
                row |= percent(getattr(found, metric), side, f"{side}_")
            row |= {"p": getattr(difference, f"{metric}_p"), "clips": len(cells[1][0].clip_ids), "seeds": len(cells[1])}
            rows.append(row)
    frame = pd.DataFrame(rows)
    if rows:
        frame.insert(frame.columns.get_loc("p") + 1, "p_holm", holm(frame["p"]))
    for place, (where, side) in enumerate(zip(alone, sides, strict=True)):
        paired = {names[place] for names in pairs}
        alone[where] = [
            f"{model_name(cells[0].cell['model'])} on {cells[0].cell['dataset']}, {variant_words(cells[0].cell)}"
            for name, cells in side.items()
            if name not in paired
        ]
    told = {
        name: tuple(" or ".join(sorted({str(pair[side]) for pair in values})) for side in (0, 1))
        for name, values in sorted(changed.items())
    }
    return Differences(frame, told, {**alone, "judged on other clips": other_clips})


def _by_cell(records: list[RunRecord]) -> dict[tuple, list[RunRecord]]:
    """Cell without its seed -> its records, by seed; of several with one seed, which a store keeps of other settings,
    data or code, the one written last.
    """
    cells = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.path / "record.json").stat().st_mtime_ns):
        cells[tuple(record.cell.get(name, "") for name in _IDENTITY)][record.cell["seed"]] = record
    return {cell: [of_seed[seed] for seed in sorted(of_seed)] for cell, of_seed in cells.items()}


def _pairs(first: dict[tuple, list], second: dict[tuple, list]) -> list[tuple[tuple, tuple]]:
    pairs = [(name, name) for name in first if name in second]
    for place in range(len(_IDENTITY)):
        taken = [{pair[k] for pair in pairs} for k in (0, 1)]
        left = [[name for name in side if name not in some] for side, some in zip((first, second), taken, strict=True)]
        short = [defaultdict(list), defaultdict(list)]
        for side, names in zip(short, left, strict=True):
            for name in names:
                side[name[:place] + name[place + 1 :]].append(name)
        pairs += [
            (names[0], short[1][rest][0])
            for rest, names in sorted(short[0].items(), key=str)
            if len(names) == 1 and len(short[1].get(rest, ())) == 1
        ]
    return pairs


def _changes(first: list[RunRecord], second: list[RunRecord]) -> dict[str, tuple[str, str]]:
    """Settings in which two cells differ, their recipes' numbers among them."""
    sides = []
    for cell in (first, second):
        settings = {name: value for name, value in cell[0].cell.items() if name not in ("seed", "device", "recipe")}
        settings["seeds"] = ", ".join(str(record.cell["seed"]) for record in cell)
        recipe = read_json(cell[0].path / "record.json").get("recipe", {})
        sides.append(settings | {f"recipe.{name}": value for name, value in recipe.items() if name != "epochs"})
    names = [name for name in sides[1] if name in sides[0] and sides[0][name] != sides[1][name]]
    return {name: (json.dumps(sides[0][name]), json.dumps(sides[1][name])) for name in names}
