"""The chain from clips to numbers, step by step and made only once."""

import numpy as np
import pandas as pd
import pytest

from audfer.errors import AudferError, InputError
from audfer.study import Study, open_study


def test_the_environment_overrides_the_profile_and_the_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDFER_PROFILE", "smoke")
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "w"))
    monkeypatch.setenv("AUDFER_FIGURES", str(tmp_path / "f"))
    study = open_study("laptop")
    assert study.profile.name == "smoke"
    assert study.work == tmp_path / "w" / "smoke" and study.figures == tmp_path / "f" / "smoke"


def test_the_tables_need_the_cells_of_the_paper():
    from audfer.profiles import load_profile

    study = Study(load_profile("laptop"), "w", "f")
    assert [len(study.cells(name)) for name in ("table1", "table2", "table3", "fig5", "fig6", "fig7", "fig8")] == [18, 6, 12, 12, 6, 2, 3]
    table3 = {(c.model, c.strategy) for c in study.cells("table3")}
    assert table3 == {(m, s) for m in ("m3dfel", "mae_dfer", "former_dfer") for s in ("none", "global", "distinct", "minor")}
    distinct = {c for name in ("table1", "table2", "table3", "fig5", "fig6", "fig7", "fig8") for c in study.cells(name)}
    assert len(distinct) == 31
    with pytest.raises(InputError, match="found 'table9'"):
        study.cells("table9")


def test_clips_au_tables_and_matrix_fit_together(study):
    for name in ("DFEW", "FERV39k"):
        manifest, packed, table = study.manifest(name), study.packed(name), study.au_table(name)
        assert set(table.frames["clip_id"]) == set(manifest.table["clip_id"]) == set(packed.clip_ids)
        assert table.frames["ok"].all()
    frames = study.knowledge_frames()
    tests = {c for n in ("DFEW", "FERV39k") for c in study.manifest(n).table.query("split == 'test'")["clip_id"]}
    assert not tests & set(frames["clip_id"]), "test clips must not enter the knowledge matrix"
    assert study.knowledge().values.shape == (7, 18)


def test_a_second_study_on_the_same_folder_makes_nothing_again(study):
    study.inputs
    before = {p: p.stat().st_mtime_ns for p in study.work.rglob("*") if p.suffix in (".jpg", ".npy", ".parquet", ".safetensors")}
    again = Study(study.profile, study.work.parent, study.figures.parent)
    assert again.inputs == study.inputs
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(before) > 100


def test_frame_scores_are_probabilities_of_every_frame(study):
    scores = study.frame_scores("DFEW")
    frames = study.au_table("DFEW").frames
    assert len(scores) == len(frames) and scores["score"].between(0, 1).all()
    pd.testing.assert_frame_equal(scores[["clip_id", "frame"]].sort_values(["clip_id", "frame"], ignore_index=True),
                                  frames[["clip_id", "frame"]].sort_values(["clip_id", "frame"], ignore_index=True),
                                  check_dtype=False)


def test_theta_keeps_fewer_frames_and_zero_keeps_all(study):
    grid = study.theta_grid().set_index("theta")
    assert grid.loc[0.0, "kept (%)"] == 100
    assert grid["kept (%)"].is_monotonic_decreasing


def test_positive_class_weights_are_inactive_over_active(study):
    from audfer.action_units.table import clip_presence

    data = study.positive_class_weights().query("source == 'global' and expression == 'happy'").set_index("action_unit")["value"]
    train = study.manifest("DFEW").table.query("split == 'train'")["clip_id"].tolist()
    labels = pd.DataFrame(clip_presence(study.au_table("DFEW"), train), columns=data.index)
    active = labels.sum()
    some = active[active > 0].index
    np.testing.assert_allclose(data[some], ((len(labels) - active) / active)[some].clip(upper=200), rtol=1e-5)


def test_the_planted_truth_is_read_by_the_evaluation_of_recovery_only():
    from pathlib import Path

    import audfer

    readers = [p.name for p in Path(audfer.__file__).parent.rglob("*.py") if "read_truth" in p.read_text()
               and p.parent.name != "synth"]
    assert readers == ["study.py"]
    assert (Path(audfer.__file__).parent / "study.py").read_text().count("read_truth") == 1


def test_real_datasets_need_their_folder(monkeypatch, tmp_path):
    from dataclasses import replace

    from audfer.profiles import load_profile

    monkeypatch.delenv("AUDFER_DATA", raising=False)
    profile = load_profile("paper")
    study = Study(replace(profile, training=replace(profile.training, device="cpu")), tmp_path, tmp_path)
    with pytest.raises(InputError, match="AUDFER_DATA: folder of the real datasets"):
        study.manifest("DFEW")
    with pytest.raises(AudferError, match="embedded benchmark only"):
        study.planted_medians()
