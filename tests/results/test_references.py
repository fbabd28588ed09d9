"""How far networks are from what needs none, and what the AU head does on all clips together: intervals by hand."""

from copy import copy

import numpy as np
import pandas as pd
import pytest
from fake_records import FakeStudy, fake_record

from audfer.evaluation import compare, holm
from audfer.results.references import REFERENCES, differences, gap
from audfer.results.selection import WITH, WITHOUT, joined, of_fold

MODELS, DATASETS, SEEDS = ("m3dfel", "former_dfer"), ("DFEW", "MAFW"), (0, 1, 2)


class Study(FakeStudy):
    """Of four cells with three seeds; regressions that err now and then, and the commonest expression."""

    def au_predictions(self, name):
        record = next(record for record in self.made_of if record.cell["dataset"] == name)
        truth, tables = record.expressions, []
        for every in (2, 5):  # every so many-th clip is wrong
            predicted = np.where(np.arange(len(truth)) % every == 0, (truth + 1) % 7, truth)
            frame = {"clip_id": record.clip_ids, "predicted": predicted, "majority": np.bincount(truth).argmax()}
            tables.append(pd.DataFrame(frame).sample(frac=1, random_state=0, ignore_index=True))
        return tables


@pytest.fixture(scope="module")
def study():
    records = [
        fake_record(model, dataset, ratio, seed=seed, skill=0.5 + ratio / 4, noise=seed)
        for model in MODELS
        for dataset in DATASETS
        for ratio in (0.0, 0.25)
        for seed in SEEDS
    ]
    return Study(records, au_ratio=0.25)


def of(study, **cell):
    return [r for r in study.made_of if all(r.cell[name] == value for name, value in cell.items())]


def test_every_network_is_compared_with_every_reference_on_the_same_clips(study):
    rows = differences(study, of_fold(study.made_of, 1), "last")
    assert len(rows) == len(MODELS) * len(DATASETS) * 2 * len(REFERENCES)
    commonest, ours, planted = REFERENCES
    for _, row in rows.iterrows():
        cell = of(study, model=row["model"], dataset=row["dataset"], au_ratio=0.25 if row["variant"] == WITH else 0.0)
        truth = cell[0].expressions
        reference = {
            commonest: np.bincount(truth).max() / len(truth),
            ours: 1 - np.mean(np.arange(len(truth)) % 2 == 0),
            planted: 1 - np.mean(np.arange(len(truth)) % 5 == 0),
        }[row["against"]]
        war = np.mean([(record.scores.argmax(1) == truth).mean() for record in cell])
        assert row["difference"] == pytest.approx(100 * (war - reference))
        assert row["difference_low"] < row["difference"] < row["difference_high"]
    for _, family in rows.groupby("against"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]))


def test_the_gap_names_both_ends_with_their_intervals_and_what_is_certain(study):
    answers = gap(study, study.made_of).frame.set_index("question")["answer"]
    assert len(answers) == len(REFERENCES)
    rows = differences(study, study.made_of, "last")
    for name in REFERENCES:
        part, answer = rows[rows["against"] == name], answers[f"How far are the networks from “{name}”?"]
        for dataset in DATASETS:
            own = part.loc[part["dataset"] == dataset]
            for row in (own.loc[own["difference"].idxmin()], own.loc[own["difference"].idxmax()]):
                ends = [row[end] for end in ("difference", "difference_low", "difference_high")]
                assert "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends) in answer
        gains = int(((part["p_holm"] < 0.05) & (part["difference"] > 0)).sum())
        assert f"of 8 differences, {gains} " in answer


def test_without_records_or_with_other_clips_nothing_is_said(study):
    assert not len(gap(study, []).frame)
    others = [fake_record("m3dfel", "DFEW", ratio, fold=2) for ratio in (0.0, 0.25)]
    assert not len(differences(study, others, "last"))


def test_on_all_clips_together_every_clip_counts_once_however_many_networks_read_it(study):
    table = study.results("table1_aggregate").frame.query("what == 'together'").set_index("metric")
    cells = {
        ratio: [of(study, model=model, dataset=dataset, au_ratio=ratio) for model in MODELS for dataset in DATASETS]
        for ratio in (0.0, 0.25)
    }
    hits = {
        ratio: [np.mean([r.scores.argmax(1) == r.expressions for r in cell], axis=0) for cell in some]
        for ratio, some in cells.items()
    }
    change = np.concatenate(hits[0.25]) - np.concatenate(hits[0.0])
    assert table.loc["WAR", "value"] == pytest.approx(100 * change.mean())
    whole = compare(*(joined(cells[ratio]) for ratio in (0.0, 0.25)))
    assert f"{len(np.unique(joined(cells[0.0])[0].groups))} subjects or videos" in whole.test
    assert len(np.unique(joined(cells[0.0])[0].groups)) == len(change) / len(MODELS)
    assert table.loc["UAR", "high"] == pytest.approx(100 * whole.uar.high)


def test_the_same_network_twice_is_no_more_certain(study):
    def width(copies) -> float:
        cells = [
            joined([[as_another(record, number) for record in of(study, **ONE, au_ratio=ratio)] for number in copies])
            for ratio in (0.0, 0.25)
        ]
        found = compare(*cells).war
        return found.high - found.low

    assert width(range(2)) == pytest.approx(width(range(1)), rel=0.03)


ONE = {"model": "m3dfel", "dataset": "DFEW", "seed": 0}


def as_another(record, number):
    other = copy(record)
    other.cell = record.cell | {"model": f"network {number}"}
    return other


def test_a_variant_that_lacks_is_no_pair(study):
    alone = Study([record for record in study.made_of if record.cell["au_ratio"] == 0], au_ratio=0.25)
    assert not len(alone.results("table1_aggregate").frame)
    assert WITHOUT in set(differences(alone, alone.made_of, "last")["variant"])
