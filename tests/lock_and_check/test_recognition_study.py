"""Lock and Check in a study.

Which cells its tables need, the recogniser behind the AU table, and what better AUs do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audfer.errors import AudferError, InputError
from audfer.facs import EXPRESSIONS
from audfer.knowledge import KnowledgeMatrix
from audfer.lock_and_check import study as recognition
from audfer.lock_and_check.training import COMPONENTS, Recogniser
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from audfer.study.profiles import load_profile
from audfer.study.study import Study


def test_tables_name_their_cells_and_share_them(study):
    cells = {output: recognition.cells(study, output) for output in recognition.OUTPUTS}
    assert [cell.components for cell in cells["lac_components"]] == list(COMPONENTS)
    assert [cell.window for cell in cells["lac_window"]] == [2, 4] and [
        cell.segments for cell in cells["lac_segments"]
    ] == [1, 2]
    assert {cell.components for output in ("lac_window", "lac_segments") for cell in cells[output]} == {"TS"}
    assert [cell.loss for cell in cells["lac_loss"]] == ["CE", "WA", "DWA"]
    # Table VII's first and last rows are Table IV's last two, and so on: 10 networks for 15 rows
    assert cells["lac_loss"][0] == cells["lac_components"][5] and cells["lac_loss"][2] == cells["lac_components"][6]
    assert len({cell for group in cells.values() for cell in group}) == 10
    with pytest.raises(InputError, match="one of lac_components"):
        recognition.cells(study, "table4")
    with pytest.raises(InputError, match="one of baseline, TS"):
        recognition.cell(study, "everything")


def test_the_paper_profile_has_the_papers_grid(tmp_path):
    paper = Study(
        replace(load_profile("paper"), training=replace(load_profile("paper").training, device="cpu")),
        tmp_path,
        tmp_path,
    )
    cell = recognition.cell(paper)
    assert (cell.window, cell.segments, cell.epochs, cell.batch, cell.size) == (16, 12, 200, 8, "paper")
    baseline = recognition.cell(paper, "baseline")
    assert (baseline.epochs, baseline.batch) == (20, 64)
    assert [one.window for one in recognition.cells(paper, "lac_window")] == [2, 4, 8, 16, 32, 64]
    assert len(recognition.cells(Study(load_profile("smoke"), tmp_path, tmp_path), "lac_components")) == 7


def test_the_recogniser_makes_the_au_table_and_is_made_once(study):
    (record,) = recognition.records(study, "lac_final")
    found = recognition.recogniser(study)
    assert isinstance(found, Recogniser) and (study.work / "lac" / "recogniser.json").is_file()
    stamp = (study.work / "lac" / "stamp.json").stat().st_mtime_ns
    table = study.au_table("DFEW", "lac")
    assert set(table.clip_ids()) == set(study.manifest("DFEW").table["clip_id"]) and set(
        table.provenance()["tool"]
    ) == {"LAC"}
    assert table.frames[list(INTENSITY_COLUMNS)].to_numpy().max() <= 5 and set(
        np.unique(table.frames[list(PRESENCE_COLUMNS)])
    ) <= {0, 1}
    recognition.lac_table(study, "DFEW")
    assert (study.work / "lac" / "stamp.json").stat().st_mtime_ns == stamp
    # the estimator on the same frames, for comparison
    intensity, presence = recognition.baseline_predictions(study, record.rows)
    assert intensity.shape == record.intensity.shape and presence.shape == record.labels.shape
    np.testing.assert_array_equal(recognition.baseline_predictions(study, record.rows)[1], presence)


def test_medians_of_a_sample_of_clips_are_those_of_its_rows():
    generator = np.random.default_rng(0)
    values, clips = generator.integers(0, 5, (60, 17)).astype(float), generator.integers(0, 9, 60)
    values[generator.random(values.shape) < 0.2] = np.nan
    times = np.vstack([generator.multinomial(9, np.full(9, 1 / 9), 5), np.zeros((1, 9), int)])
    found = recognition._weighted_medians(values, clips, times)
    for mine, counts in zip(found[:-1], times[:-1], strict=True):
        np.testing.assert_allclose(mine, np.nanmedian(np.repeat(values, counts[clips], axis=0), axis=0))
    assert np.isnan(found[-1]).all()


def test_every_clip_once_gives_the_matrix_itself(study):
    matrix = study.knowledge(source="planted")
    parts = recognition._by_expression(study, "planted")
    for (clip, values, expression), theirs in zip(parts, matrix.medians.values(), strict=True):
        once = np.ones((1, clip.max() + 1), int)
        kinds = [expression == number for number in range(len(EXPRESSIONS))]
        mine = np.stack([recognition._weighted_medians(values[kind], clip[kind], once)[0] for kind in kinds])
        np.testing.assert_allclose(mine, theirs)
    assert isinstance(matrix, KnowledgeMatrix) and matrix.values.shape[0] == len(EXPRESSIONS)


def test_better_aus_compares_the_three_sources(study):
    table = recognition.better_aus(study, draws=20).set_index("source")
    assert list(table.index) == ["no AUs", "baseline", "LAC", "planted"]
    assert np.isnan(table.loc["no AUs", "recovery"]) and table.loc["planted", "recovery"] > 0.9
    known = table.iloc[1:]
    assert (known["recovery_low"] <= known["recovery"]).all() and (known["recovery"] <= known["recovery_high"]).all()
    assert (
        np.isnan(table.loc["baseline", "war_gain"])
        and np.isfinite(table.loc[["no AUs", "LAC", "planted"], "uar_p_holm"]).all()
    )
    assert (table["war_low"] <= table["war"]).all() and len(
        recognition.better_aus(study, draws=5).attrs["records"]
    ) == 4


def test_real_data_has_no_planted_truth(tmp_path):
    profile = replace(load_profile("paper"), training=replace(load_profile("paper").training, device="cpu"))
    with pytest.raises(AudferError, match="better_aus compares with the planted truth"):
        recognition.better_aus(Study(profile, tmp_path, tmp_path))
