"""Does the positive control hold on other data? Controls of the laptop profile, rendered with other data seeds.

    python benchmarks/controls.py [--seeds 101 202] [--work FOLDER]

For each data seed the ablations' network is trained on all three datasets without an AU head, with planted action units
and with those of other clips, with three training seeds, and compared on the clips of all datasets together, as
notebook 04 does. About eight minutes a data seed on two cores; what lies in the work folder is not made again.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from audfer import open_study
from audfer.evaluation import compare, holm, summary
from audfer.files import write_json
from audfer.results.controls import CONTROLS, NEGATIVE, POSITIVE
from audfer.results.selection import joined, select
from audfer.study.profiles import with_changes

RECORDS = Path(__file__).parent / "records"
METRICS = ("war", "uar")


def measure(seed: int, work: str) -> list[dict]:
    """One row per control: what it adds to the network alone, in points, with its interval and Holm's p."""
    study = open_study(with_changes("laptop", [f"data.seed={seed}"]), work)
    grid, sources = study.profile.grid, {name: CONTROLS[name][0] for name in (POSITIVE, NEGATIVE)}
    wanted = {"": 0.0} | dict.fromkeys(sources.values(), grid.au_ratio)
    cells = [
        study.cell(grid.ratio_model, dataset, ratio, seed=training, au_source=source)
        for source, ratio in wanted.items()
        for dataset in grid.datasets
        for training in study.profile.training.seeds
    ]
    records = study.run(cells, f"data seed {seed}")
    whole = {
        source: joined(
            [select(records, dataset=dataset, au_ratio=ratio, au_source=source) for dataset in grid.datasets]
        )
        for source, ratio in wanted.items()
    }
    alone, rows = summary(whole[""]), []
    for name, source in sources.items():
        found = compare(whole[""], whole[source])
        p = holm([getattr(found, f"{metric}_p") for metric in METRICS])
        row = {"data_seed": seed, "control": name, "training_seeds": len(study.profile.training.seeds)}
        for metric, p_holm in zip(METRICS, p, strict=True):
            difference = getattr(found, metric)
            row |= {
                metric: 100 * getattr(alone, metric).value,
                f"{metric}_difference": [100 * value for value in (difference.value, difference.low, difference.high)],
                f"{metric}_p_holm": float(p_holm),
            }
        rows.append(row)
        print(seed, name, *(f"{metric} {getattr(found, metric).percent(signed=True)}" for metric in METRICS))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 202])
    parser.add_argument("--work", default="", help="folder of generated work")
    parser.add_argument("--out", type=Path, default=RECORDS / f"{date.today()}_controls.json")
    options = parser.parse_args()
    write_json(options.out, [row for seed in options.seeds for row in measure(seed, options.work)])


if __name__ == "__main__":
    main()
