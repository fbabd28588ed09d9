"""How often printed intervals hold the truth, and how often printed p-values below 0.05 cry wolf, by simulation.

    python benchmarks/statistics.py [--draws 1000]

Seven classes with the test counts of the laptop profile (2,000 clips, about 25 of Disgust) and of a small
set (320 clips, 4 of Disgust); two networks whose hits share a clip's difficulty through a Gaussian copula (correlation
rho); every training run (seed) shifts each class's skill by a normal deviate of ``spread`` on the probit scale. Worlds
under a true null and under true gains. Nominal: coverage 0.95, rejection 0.05 under a null. The standard error of a
share of 0.95 is 0.007 with 1,000 draws.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import stats

from audfer.evaluation import compare, summary
from audfer.files import write_json
from audfer.progress import progress

COUNTS = {2000: (417, 324, 456, 371, 251, 25, 156), 320: (67, 52, 73, 59, 40, 4, 25)}
EQUAL = np.array([0.8, 0.55, 0.7, 0.6, 0.5, 0.2, 0.4])
#: recall of each class, of the first and the second network
WORLDS = {
    "equal skill": (EQUAL, EQUAL),
    "rare classes never right": (np.array([0.6, 0.05, 0.77, 0.15, 0.15, 0, 0.05]),) * 2,
    "every class one half": (np.full(7, 0.5),) * 2,
    "UAR equal, WAR not": (EQUAL, EQUAL + [-0.08, -0.04, -0.06, 0, 0, 0.1, 0.08]),
    "gain of 2 points": (EQUAL, EQUAL + 0.02),
    "gain of 5 points": (EQUAL, EQUAL + 0.05),
}


def record(hits: np.ndarray, truth: np.ndarray, seed: int) -> SimpleNamespace:
    """What ``compare`` and ``summary`` need of a run record."""
    return SimpleNamespace(
        path=Path("simulated"),
        cell={"seed": seed},
        history=pd.DataFrame({"epoch": [1]}),
        best_epoch=1,
        clip_ids=[str(number) for number in range(len(truth))],
        expressions=truth,
        scores=np.eye(7)[np.where(hits, truth, (truth + 1) % 7)],
        groups=None,
    )


def sides(generator, skills, counts, rho: float, seeds: int, spread: float) -> list[list[SimpleNamespace]]:
    """Records of both networks, one per seed."""
    truth = np.repeat(np.arange(7), counts)
    difficulty = generator.normal(size=len(truth))
    out = []
    for skill in skills:
        # the marginal recall over seeds stays what the world says
        threshold = stats.norm.ppf(np.clip(skill, 1e-9, 1)) * np.sqrt(1 + spread**2)
        rows = []
        for seed in range(seeds):
            own = np.sqrt(rho) * difficulty + np.sqrt(1 - rho) * generator.normal(size=len(truth))
            rows.append(record(own < (threshold + spread * generator.normal(size=7))[truth], truth, seed))
        out.append(rows)
    return out


def simulate(world: str, clips: int, rho: float, seeds: int, spread: float, draws: int) -> dict:
    """Coverage and rejection of one setting; one seed is about these networks, several about training."""
    skills, counts = WORLDS[world], np.array(COUNTS[clips])
    gain = skills[1] - skills[0]
    truth = np.array([*gain, gain @ counts / clips, gain.mean()])
    alone = np.array([*skills[0], skills[0] @ counts / clips, skills[0].mean()])
    covered, rejected, width, single, disagree = (np.zeros(9) for _ in range(5))
    for draw in range(draws):
        generator = np.random.default_rng([draw, seeds, clips])
        first, second = sides(generator, skills, counts, rho, seeds, spread if seeds > 1 else 0)
        change = compare(first, second)
        intervals = (*change.per_class, change.war, change.uar)
        p = np.array([*change.per_class_p, change.war_p, change.uar_p])
        low, high = (np.array([getattr(one, end) for one in intervals]) for end in ("low", "high"))
        covered += (low <= truth) & (truth <= high)
        rejected += p < 0.05
        disagree += (p < 0.05) == ((low <= 0) & (high >= 0))
        width += high - low
        if seeds == 1:
            found = summary(first)
            single += [
                one.low <= true <= one.high
                for one, true in zip((*found.per_class, found.war, found.uar), alone, strict=True)
            ]
    out = {"world": world, "clips": clips, "rho": rho, "seeds": seeds, "spread": spread if seeds > 1 else 0.0}
    for place, name in ((7, "WAR"), (8, "UAR"), (5, "Disgust"), (0, "Happy")):
        out[name] = {
            "true": round(float(truth[place]), 4),
            "coverage": covered[place] / draws,
            "rejected": rejected[place] / draws,
            "width_points": round(100 * width[place] / draws, 2),
            "disagree": disagree[place] / draws,
        }
        if seeds == 1:
            out[name]["coverage_alone"] = single[place] / draws
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records")
    arguments = parser.parse_args()
    settings = [
        (world, clips, rho, seeds, 0.1)
        for clips in COUNTS
        for seeds in (1, 3, 5)
        for world in WORLDS
        for rho in ((0.5, 0.8) if seeds == 1 else (0.8,))
    ]
    rows = [simulate(*one, arguments.draws) for one in progress(settings, desc="simulate", unit="setting")]
    path = arguments.out / f"{date.today()}_statistics.json"
    write_json(path, {"draws": arguments.draws, "counts": COUNTS, "rows": rows})
    flat = pd.json_normalize(rows).set_index(["world", "clips", "rho", "seeds"])
    wanted = [f"{name}.{what}" for name in ("WAR", "UAR") for what in ("coverage", "rejected", "width_points")]
    print(flat[wanted].round(3).to_string())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
