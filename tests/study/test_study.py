"""The chain from clips to numbers, step by step and made only once."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audfer import synth
from audfer.errors import AudferError, InputError
from audfer.study import steps
from audfer.study.inputs import _au_arrays
from audfer.study.study import Study, open_study


def test_the_environment_gives_the_profile_and_the_folders_where_nobody_names_them(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDFER_PROFILE", "smoke")
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "w"))
    monkeypatch.setenv("AUDFER_FIGURES", str(tmp_path / "f"))
    study = open_study()
    assert study.profile.name == "smoke" and open_study("laptop").profile.name == "laptop"
    assert study.work == tmp_path / "w" / "smoke" and study.figures == tmp_path / "f" / "smoke"


def test_the_tables_need_the_cells_of_the_paper():
    from audfer.study.profiles import load_profile

    study = Study(load_profile("appendices"), "w", "f")
    assert [len(study.cells(name)) for name in ("table1", "table2", "table3", "fig5", "fig6", "fig7", "fig8")] == [
        24,
        8,
        16,
        9,
        8,
        2,
        3,
    ]
    assert [len(study.cells(name)) for name in ("ablations", "calibration", "au_head")] == [8, 2, 1]
    table3 = {(c.model, c.strategy) for c in study.cells("table3")}
    assert table3 == {
        (m, s)
        for m in ("m3dfel", "mae_dfer", "former_dfer", "keypoint_gcn")
        for s in ("none", "global", "distinct", "minor")
    }
    distinct = {c for name in ("table1", "table2", "table3", "fig5", "fig6", "fig7", "fig8") for c in study.cells(name)}
    assert len(distinct) == 36
    ablations = set(study.cells("ablations")) - distinct
    assert len(ablations) == 5 and {(c.model, c.dataset) for c in ablations} == {("former_dfer", "DFEW")}
    paper = Study(load_profile("paper"), "w", "f", anywhere=True)
    assert {(c.model, c.dataset, c.strategy) for c in paper.cells("table3")} == {
        (m, d, s)
        for m in paper.profile.grid.models
        for d in paper.profile.grid.datasets
        for s in ("none", "global", "distinct", "minor")
    }
    assert {c.au_ratio for c in paper.cells("fig5")} == {0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4}
    # only one network has weights of the profile's own, and only those of the curves are looked at in every epoch
    gpu = Study(load_profile("gpu"), "w", "f", anywhere=True)
    starts = {c.model: c.initialisation for c in gpu.cells("table1")}
    assert starts == {"m3dfel": "scratch", "mae_dfer": "mae", "former_dfer": "scratch"}
    assert {c.evaluate_every for c in gpu.cells("fig7")} == {1} and gpu.cell("m3dfel", "MAFW").evaluate_every == 6
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
    before = {
        p: p.stat().st_mtime_ns
        for p in study.work.rglob("*")
        if p.suffix in (".jpg", ".npy", ".parquet", ".safetensors")
    }
    again = Study(study.profile, study.work.parent, study.figures.parent)
    assert again.inputs == study.inputs
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(before) > 100


def test_a_copied_profile_takes_what_its_settings_leave_equal_and_makes_the_rest(study, tmp_path, monkeypatch):
    table = study.au_table("DFEW")
    (record,) = study.run([study.cell("m3dfel", "DFEW")])
    profile = study.profile
    copy = Study(
        replace(profile, name="copy", training=replace(profile.training, epochs=1)), study.work.parent, tmp_path
    )
    monkeypatch.setattr("audfer.synth.layouts._render_all", lambda *_: pytest.fail("rendered again"))
    monkeypatch.setattr("audfer.study.action_units.train_estimator", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("audfer.study.action_units.extract", lambda *_, **__: pytest.fail("extracted again"))
    pd.testing.assert_frame_equal(copy.au_table("DFEW").frames, table.frames)
    copy.packed("DFEW"), copy.truth("DFEW")
    for place in ("packed/DFEW/frames.npy", "action_units/DFEW/frames.parquet", "data/truth/DFEW.parquet"):
        assert (copy.work / place).samefile(study.work / place)
    other = copy.cell("m3dfel", "DFEW")
    assert other.epochs == 1 and not copy.store.has(copy.store.key(other, copy.cell_inputs([other])[other.source]))
    monkeypatch.setattr("audfer.study.study.run_cells", lambda cells, *_: cells)
    copy.train([study.cell("m3dfel", "DFEW")])  # a cell that the change does not touch
    assert (copy.store.path(record.path.name) / "test.npz").samefile(record.path / "test.npz")
    monkeypatch.undo()
    bigger = Study(replace(profile, name="bigger", data=replace(profile.data, seed=9)), study.work.parent, tmp_path)
    assert not synth.is_written(study.work / "data", "DFEW", bigger.synth_config)
    assert not steps.borrow(bigger.work / "packed" / "DFEW", lambda folder: False)


def test_frame_scores_are_probabilities_of_every_frame(study):
    scores = study.frame_scores("DFEW")
    frames = study.au_table("DFEW").frames
    assert len(scores) == len(frames) and scores["score"].between(0, 1).all()
    pd.testing.assert_frame_equal(
        scores[["clip_id", "frame"]].sort_values(["clip_id", "frame"], ignore_index=True),
        frames[["clip_id", "frame"]].sort_values(["clip_id", "frame"], ignore_index=True),
        check_dtype=False,
    )


def test_theta_keeps_fewer_frames_and_zero_keeps_all(study):
    grid = study.theta_grid().set_index("theta")
    assert grid.loc[0.0, "kept (%)"] == 100
    assert grid["kept (%)"].is_monotonic_decreasing


@pytest.fixture(scope="module")
def train_labels(study):
    """Clip AU labels and expressions of DFEW's training clips."""
    from audfer.action_units.table import clip_presence

    train = study.manifest("DFEW").table.query("split == 'train'")
    return clip_presence(study.au_table("DFEW"), train["clip_id"]), train["expression"].to_numpy()


def test_positive_class_weights_are_inactive_over_active(study, train_labels):
    cell = study.cell("former_dfer", "DFEW", 0.25, "global")
    found = study.run([cell])[0].positive_weights[0]
    active = train_labels[0].sum(0)
    some = active > 0
    np.testing.assert_allclose(
        found[some], ((len(train_labels[0]) - active[some]) / active[some]).clip(max=200), rtol=1e-5
    )


# ------------------------------------------------------------------------------------------- what an ablation is
# trained from
def variant(study, name, **fields):
    from audfer.study.ablations import ABLATIONS

    return study.cell("former_dfer", "DFEW", 0.25, **ABLATIONS[name].fields, **fields)


def test_every_ablation_is_a_cell_with_inputs_and_a_record_of_its_own(study):
    from audfer.study.ablations import NO_HEAD

    cells = study.cells("ablations")
    assert len(cells) == len(set(cells)) == 1 + len(study.profile.grid.ablations) and cells[0].au_ratio == 0
    inputs = study.cell_inputs(cells)
    keys = [study.store.key(cell, inputs[cell.source]) for cell in cells]
    assert len(set(keys)) == len(cells) and NO_HEAD not in study.profile.grid.ablations
    matrices = {
        cell.source: inputs[cell.source].knowledge_fingerprint
        for cell in cells
        if cell.weights != "none" and cell.reading == "paper"
    }
    assert len(set(matrices.values())) == len(matrices) == 8


def test_only_cells_that_use_a_matrix_depend_on_it(study):
    for name, same in (("plain BCE", True), ("knowledge", False), ("uniform", False)):
        cell = variant(study, name)
        inputs = study.cell_inputs([cell])[cell.source]
        other = replace(inputs, knowledge_fingerprint="another matrix")
        assert (study.store.key(cell, inputs) == study.store.key(cell, other)) is same


def test_a_shuffle_belongs_to_its_seed(study):
    cells = [variant(study, "shuffled AUs", seed=seed) for seed in (0, 1)]
    inputs = study.cell_inputs(cells)
    assert len(inputs) == 2 and len({found.knowledge_fingerprint for found in inputs.values()}) == 2
    # one matrix for all seeds of the others
    assert len(study.cell_inputs([variant(study, "uniform", seed=seed) for seed in (0, 1)])) == 1


def test_the_matrix_of_the_own_split_is_made_of_its_training_frames_alone(study):
    from audfer.knowledge import KnowledgeMatrix

    cell = variant(study, "own training split")
    made = KnowledgeMatrix.load(study.cell_inputs([cell])[cell.source].knowledge)
    frames = study.knowledge_frames().query("dataset == 'DFEW'")
    assert list(made.medians) == ["DFEW"]
    np.testing.assert_array_equal(
        made.values, KnowledgeMatrix.from_frames(frames, study.profile.grid.knowledge, missing="others").values
    )


def test_the_releases_counts_are_of_frames_and_of_test_clips_too(study):
    from audfer.losses import positive_class_weight
    from audfer.openface import PRESENCE_COLUMNS

    cell = variant(study, "release's counts")
    with np.load(study.cell_inputs([cell])[cell.source].au_labels) as stored:
        frames = study.au_table("DFEW").frames
        active = frames[list(PRESENCE_COLUMNS)].to_numpy().sum(0)
        some = active > 0
        np.testing.assert_allclose(
            stored["pos_weight"][some], ((len(frames) - active[some]) / active[some]).clip(max=200), rtol=1e-5
        )
        np.testing.assert_allclose(study.run([cell])[0].positive_weights, np.tile(stored["pos_weight"], (7, 1)))
    distinct = variant(study, "release's counts", strategy="distinct")
    assert distinct.source != cell.source
    with np.load(study.cell_inputs([distinct])[distinct.source].au_labels) as stored:
        labels = frames["clip_id"].map(study.manifest("DFEW").table.set_index("clip_id")["expression"])
        np.testing.assert_allclose(
            stored["pos_weight"], positive_class_weight(frames[list(PRESENCE_COLUMNS)], labels, "distinct")
        )


def test_the_releases_votes_are_of_the_frames_that_the_network_sees(study):
    cell = replace(variant(study, "release's votes"), num_frames=2)
    packed = study.packed("DFEW")
    labels = _au_arrays(study, cell, packed)["labels"]
    from audfer.losses import clip_au_labels
    from audfer.openface import PRESENCE_COLUMNS
    from audfer.sampling import stored_indices

    frames = study.au_table("DFEW").frames
    for row in (0, 7):
        numbers = packed.frame_numbers[row]
        seen = numbers[stored_indices("uniform", numbers, 2)[0]]
        assert len(set(seen)) == 2
        own = frames[(frames["clip_id"] == packed.clip_ids[row]) & frames["frame"].isin(seen)]
        np.testing.assert_array_equal(labels[row], clip_au_labels(own[list(PRESENCE_COLUMNS)].to_numpy()))
    assert (labels != _au_arrays(study, variant(study, "knowledge"), packed)["labels"]).any()


def test_a_cell_is_trained_with_labels_and_knowledge_of_the_source_that_it_names(study):
    from audfer.knowledge import KnowledgeMatrix
    from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS

    cells = [study.cell("former_dfer", "DFEW", 0.25, au_source=source) for source in ("", "planted")]
    inputs = study.cell_inputs(cells)
    ours, planted = (inputs[cell.source] for cell in cells)
    assert cells[1].source == "DFEW, AUs planted"
    assert ours.au_fingerprint != planted.au_fingerprint and ours.knowledge_fingerprint != planted.knowledge_fingerprint
    table = study.planted_table("DFEW").frames
    with np.load(planted.au_labels) as stored:
        of_clip = table[table["clip_id"] == stored["clip_ids"][3]]
        np.testing.assert_array_equal(stored["labels"][3], 2 * of_clip[list(PRESENCE_COLUMNS)].mean() >= 1)
    frames = study.knowledge_frames(source="planted")
    merged = frames[frames["dataset"] == "DFEW"].merge(table, on=["clip_id", "frame"], suffixes=("", "_planted"))
    assert len(merged) == (frames["dataset"] == "DFEW").sum() > 100
    np.testing.assert_array_equal(
        merged[list(INTENSITY_COLUMNS)], merged[[f"{name}_planted" for name in INTENSITY_COLUMNS]]
    )
    np.testing.assert_allclose(KnowledgeMatrix.load(planted.knowledge).values, study.knowledge(source="planted").values)
    control = study.cell("former_dfer", "DFEW", 0.25, weights="train-only", au_source="planted")
    np.testing.assert_allclose(
        KnowledgeMatrix.load(study.cell_inputs([control])[control.source].knowledge).values,
        study.knowledge(names=("DFEW",), source="planted").values,
    )
    with pytest.raises(InputError, match="source: found 'openface', expected one of '', 'planted', 'shuffled', 'lac'"):
        study.au_table("DFEW", "openface")


def test_lock_and_checks_action_units_come_from_its_own_room_once(study, monkeypatch):
    from audfer.lock_and_check import study as recognition

    asked = []
    monkeypatch.setattr(recognition, "lac_table", lambda *given: asked.append(given) or study.planted_table("DFEW"))
    # as if nobody had asked before
    monkeypatch.setattr(
        study, "_kept", {key: kept for key, kept in study._kept.items() if key != ("AU table", "DFEW", "lac")}
    )
    assert study.au_table("DFEW", "lac") is study.au_table("DFEW", "lac")
    assert asked == [(study, "DFEW")]
    assert study.au_table("DFEW", "lac") is not study.au_table("DFEW")


def test_planted_action_units_of_windows_are_those_of_the_long_take(study, tmp_path):
    from audfer import datasets, synth
    from audfer.openface import INTENSITY_COLUMNS

    synth.write_benchmark(study.data_root, study.synth_config, ("AffWild2",), progress=False)
    frames = study.planted_table("AffWild2").frames
    manifest = study.manifest("AffWild2")
    assert frames["clip_id"].str.contains(":").any() and set(frames["clip_id"]) == set(manifest.table["clip_id"])
    truth = synth.read_truth(study.data_root, "AffWild2")
    row = manifest.table.iloc[-1]
    numbers = datasets.frame_numbers(manifest, row)
    own = frames[frames["clip_id"] == row["clip_id"]].set_index("frame")
    assert set(numbers) <= set(own.index) and own.index.is_unique
    of_take = truth[truth["clip_id"] == row["clip_id"].split(":")[0]].set_index("frame").loc[numbers]
    np.testing.assert_allclose(own.loc[numbers, list(INTENSITY_COLUMNS)], of_take[list(INTENSITY_COLUMNS)], rtol=1e-6)


def test_a_cell_says_what_it_is():
    from audfer.training.loop import Cell

    cell = Cell("m3dfel", "DFEW", 0.25, "global", "shuffled-aus", seed=3, fold=2)
    assert (
        cell.label == "m3dfel DFEW +AU 0.25 global shuffled-aus fold 2"
        and cell.source == "DFEW, fold 2, shuffled-aus 3"
    )
    assert Cell("m3dfel", "DFEW").source == Cell("m3dfel", "DFEW", 0.25, "minor", "knowledge").source == "DFEW"
    for wrong, sentence in (
        ({"weights": "half"}, "weights: found 'half', expected one of knowledge, none, uniform"),
        ({"reading": "mine"}, "reading: found 'mine', expected one of paper, release-votes"),
        ({"strategy": "rare"}, "strategy: found 'rare', expected one of none, global, distinct, minor, plain"),
        ({"fold": 0}, "fold: found 0"),
        ({"au_ratio": 0.0, "strategy": "none"}, "without an AU head: found 'knowledge', 'paper'"),
    ):
        with pytest.raises(InputError, match=sentence):
            Cell(
                **{"model": "m3dfel", "dataset": "DFEW", "au_ratio": 0.25, "strategy": "global", "weights": "knowledge"}
                | wrong
            )


# -----------------------------------------------------------------------------------------------------------------
# folds
def test_folds_share_frames_and_leave_out_their_own_test_clips(study, tmp_path):
    import shutil

    profile = replace(
        study.profile, grid=replace(study.profile.grid, folds=(1, 2)), training=replace(study.profile.training)
    )
    two = Study(profile, tmp_path / "work", tmp_path)
    shutil.copytree(study.work / "data", two.work / "data")
    # a second fold: another third of the clips is the test split
    lists = two.work / "data" / "DFEW" / "EmoLabel_DataSplit"
    rows = {
        split: (lists / f"{split}(single-labeled)" / "set_1.csv").read_text().splitlines()
        for split in ("train", "test")
    }
    clips = rows["train"][1:] + rows["test"][1:]
    for split, chosen in (("train", clips[21:]), ("test", clips[:21])):
        (lists / f"{split}(single-labeled)" / "set_2.csv").write_text("\n".join([rows["train"][0], *chosen]) + "\n")
    first, second = two.packed("DFEW"), two.packed("DFEW", 2)
    assert second.clip_ids == first.clip_ids and np.array_equal(second.frames, first.frames)
    assert (two.work / "packed" / "DFEW-fold2" / "frames.npy").is_symlink()
    expected = two.manifest("DFEW", 2).table.set_index("clip_id")["split"]
    assert dict(zip(second.clip_ids, second.manifest["split"], strict=True)) == expected.to_dict()
    assert set(np.array(second.clip_ids)[second.split("test")]) != set(np.array(first.clip_ids)[first.split("test")])
    assert first.content != second.content
    cells = two.cells("table1")
    assert {(c.dataset, c.fold) for c in cells} == {("DFEW", 1), ("DFEW", 2), ("FERV39k", 1)}
    assert {c.fold for name in ("fig5", "fig8", "ablations") for c in two.cells(name)} == {1}
    two._kept |= {("AU table", name, ""): study.au_table(name) for name in ("DFEW", "FERV39k")}
    inputs = two.cell_inputs(cells)
    assert set(inputs) == {"DFEW", "DFEW, fold 2", "FERV39k"}
    # the matrix of a fold has nothing of the clips that it is judged on
    tests = set(expected[expected == "test"].index)
    assert tests & set(two.knowledge_frames()["clip_id"]) and not tests & set(two.knowledge_frames(fold=2)["clip_id"])
    assert inputs["DFEW, fold 2"].knowledge_fingerprint != inputs["DFEW"].knowledge_fingerprint
    before = (two.work / "packed" / "DFEW-fold2" / "manifest.parquet").stat().st_mtime_ns
    two.packed("DFEW", 2)
    assert (two.work / "packed" / "DFEW-fold2" / "manifest.parquet").stat().st_mtime_ns == before


def test_the_planted_truth_is_read_where_it_is_judged_against_or_asked_for_by_name_only():
    from pathlib import Path

    import audfer

    readers = [
        p.name
        for p in Path(audfer.__file__).parent.rglob("*.py")
        if "read_truth" in p.read_text() and p.parent.name != "synth"
    ]
    # landmarks of rendered clips, and the boxes that Lock and Check is taught with
    assert set(readers) <= {"action_units.py", "landmarks.py", "annotated.py"}
    # Study.truth, which planted_medians and planted_table ask: for comparisons and for cells with that source
    assert (Path(audfer.__file__).parent / "study" / "action_units.py").read_text().count("synth.read_truth(") == 1


@pytest.mark.parametrize("given", ["data", "./data", "~/data"])
def test_the_folder_of_the_datasets_stays_where_a_study_first_saw_it(given, monkeypatch, tmp_path):
    from audfer.study.profiles import load_profile

    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("AUDFER_DATA", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    profile = load_profile("paper")
    profile, seen = replace(profile, training=replace(profile.training, device="cpu")), []
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        seen.append(Study(profile, tmp_path / "work", tmp_path).data_root)
    assert seen == [tmp_path / "data"] * 2 and os.environ["AUDFER_DATA"] == str(tmp_path / "data")


def test_real_datasets_need_their_folder(monkeypatch, tmp_path):
    from audfer.study.profiles import load_profile

    monkeypatch.delenv("AUDFER_DATA", raising=False)
    profile = load_profile("paper")
    study = Study(replace(profile, training=replace(profile.training, device="cpu")), tmp_path, tmp_path)
    with pytest.raises(InputError, match="AUDFER_DATA: folder of the real datasets"):
        study.manifest("DFEW")
    with pytest.raises(AudferError, match="embedded benchmark only"):
        study.planted_medians()
