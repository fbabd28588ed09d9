"""Does the positive control hold on other data? Controls of the laptop profile, rendered with other data seeds.

    python benchmarks/controls.py [--seeds 101 202] [--work FOLDER]

For each data seed the ablations' network is trained on all three datasets without an AU head and with planted action
units, of its own clips and of others, with the ablations' seeds, and what the rows that decide say is kept. About
twelve minutes a data seed on two cores; what lies in the work folder is not made again.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import pandas as pd

from audfer import open_study
from audfer.files import write_json
from audfer.results.controls import controls, verdict
from audfer.study.profiles import with_changes

RECORDS = Path(__file__).parent / "records"
COLUMNS = ("ours", "difference", "difference_low", "difference_high", "p_holm")


def measure(seed: int, work: str) -> list[dict]:
    """One row per control and metric that decide: what the control adds, in points, with its interval and Holm's p."""
    study = open_study(with_changes("laptop", [f"data.seed={seed}"]), work)
    model = study.profile.grid.ratio_model
    cells = [cell for cell in study.cells("controls") if cell.model == model and (cell.au_source or not cell.uses_aus)]
    frame = controls(study, study.run(cells, f"data seed {seed}")).frame
    print(seed, verdict(frame), flush=True)
    rows: pd.DataFrame = frame[frame["decides"].astype(bool)]
    return [
        {"data_seed": seed, "control": row["variant"], "metric": row["metric"], "training_seeds": int(row["seeds"])}
        | {name: float(row[name]) for name in COLUMNS}
        for _, row in rows.iterrows()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 202])
    parser.add_argument("--work", default="", help="folder of generated work")
    parser.add_argument("--out", type=Path, default=RECORDS / f"{date.today()}_controls.json")
    options = parser.parse_args()
    write_json(options.out, [row for seed in options.seeds for row in measure(seed, options.work)])


if __name__ == "__main__":
    main()
