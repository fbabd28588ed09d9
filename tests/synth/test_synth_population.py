"""What is planted: rates, medians, class frequencies, people, and that only read_truth opens the truth."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audfer import datasets, synth
from audfer.errors import AudferError, InputError
from audfer.facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from audfer.sampling import uniform_indices
from audfer.synth import SynthConfig, face, layouts, population

TINY = SynthConfig(
    seed=3,
    image_size=32,
    frames=(4, 12),
    minimum=(2, 1),
    ravdess_actors=2,
    affwild2_videos=3,
    affwild2_frames=60,
    disfa_subjects=3,
    disfa_frames=12,
    counts={name: {"train": 16, "test": 8} for name in ("DFEW", "FERV39k", "MAFW")},
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    synth.write_benchmark(folder, TINY, progress=False)
    return folder


def draw(dataset: str, clips: int = 140, length: int = 15, seed: int = 0):
    """Intensities of evenly spread expressions, with the expression of each frame."""
    generator = np.random.default_rng(seed)
    expressions = np.arange(clips) % 7
    intensities, shown = population.sample_intensities(dataset, expressions, np.full(clips, length), generator)
    return intensities, np.repeat(expressions, length), shown


def tree_digest(folder: Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        hasher.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return hasher.hexdigest()


# -------------------------------------------------------------------------------------------------- rates and medians


def test_dfew_rates_are_those_of_the_released_weights_and_fear_is_ferv39ks():
    rates = synth.source_presence_rates("DFEW")
    # 1 / (1 + 4.648862512363996) from release_pos_weight_dfew.csv, Happy AU01, whose implied_rate column says
    # 0.177027
    assert rates[0, 0] == pytest.approx(0.177027, abs=5e-7)
    assert np.array_equal(rates[6], synth.source_presence_rates("FERV39k")[6])


@pytest.mark.parametrize("dataset", population.DATASETS)
def test_few_cells_of_the_rates_are_moved_and_never_far(dataset):
    changes = synth.rate_adjustments(dataset)
    assert len(changes) <= 6
    assert changes["change"].abs().max() < 0.15
    assert changes["planted"].between(0.49, 0.51).all()
    planted, source = synth.planted_presence_rates(dataset), synth.source_presence_rates(dataset)
    assert np.count_nonzero(planted != source) == len(changes)


@pytest.mark.parametrize("dataset", population.DATASETS)
def test_medians_order_the_action_units_as_figure_4_prints_them(dataset):
    path = Path(population.published.__file__).parent / "audfer_fig4_knowledge.csv"
    figure = pd.read_csv(path).pivot(index="expression", columns="au", values="printed").rename(index=str.lower)
    medians = pd.DataFrame(synth.planted_medians(dataset), index=EXPRESSIONS, columns=ACTION_UNITS)
    assert medians["AU28"].isna().all()
    for expression in EXPRESSIONS:
        printed = figure.loc[expression, list(INTENSITY_ACTION_UNITS)]
        ordered = medians.loc[expression, list(INTENSITY_ACTION_UNITS)].sort_values()
        assert (np.diff(ordered) > 0).all()
        assert (np.diff(printed[ordered.index]) >= 0).all()
        assert ordered.iloc[0] > 0.15 and ordered.iloc[-1] < 3.5


@pytest.mark.parametrize("dataset", population.DATASETS)
def test_a_median_is_present_exactly_where_the_rate_is_at_least_one_half(dataset):
    medians, rates = synth.planted_medians(dataset), synth.planted_presence_rates(dataset)
    known = ~np.isnan(medians)
    assert np.array_equal(medians[known] >= synth.PRESENT, rates[known] >= 0.5)


@pytest.mark.parametrize("dataset", ["DFEW", "AffWild2"])
def test_drawn_frames_have_the_planted_rates_and_medians(dataset):
    intensities, expressions, _ = draw(dataset)
    medians, rates = synth.planted_medians(dataset), synth.planted_presence_rates(dataset)
    for expression in range(7):
        frames = intensities[expressions == expression]
        assert (frames >= synth.PRESENT).mean(axis=0) == pytest.approx(rates[expression], abs=1 / len(frames))
        known = ~np.isnan(medians[expression])
        # between the two frames in the middle: exact up to one rank (where the rate is near one half the step is
        # wide)
        below, above = np.sort(frames, axis=0)[[len(frames) // 2 - 1, len(frames) // 2]][:, known]
        assert (below <= medians[expression][known] + 1e-5).all() and (medians[expression][known] <= above + 1e-5).all()
    assert intensities.min() == 0 and intensities.max() <= 5


def test_quantile_meets_its_knots():
    assert population.quantile(np.array([0.0, 0.5, 0.8, 1.0]), rate=0.2, median=0.7, peak=4.0) == pytest.approx(
        [0, 0.7, 1.5, 4.0]
    )
    assert population.quantile(np.array([0.0, 0.4, 0.5, 1.0]), rate=0.6, median=2.0, peak=5.0) == pytest.approx(
        [0, 1.5, 2.0, 5.0]
    )
    assert population.quantile(np.array([0.5, 0.98]), rate=0.02, median=np.nan) == pytest.approx([0, 1.5])


def test_characteristic_units_rise_and_fall_with_the_clip():
    intensities, expressions, _ = draw("DFEW", length=15)
    smile = intensities[expressions == 0][:, ACTION_UNITS.index("AU12")].reshape(-1, 15).mean(axis=0)
    assert smile[6:9].mean() > 1.3 * smile[[0, 14]].mean()


def test_some_frames_do_not_show_their_label():
    _, _, shown = draw("DFEW")
    assert 0.05 < 1 - shown.mean() < 0.4


def test_lips_that_are_sucked_in_are_not_apart_and_blinks_are_short():
    codes = population.codes(population.sample_annotated(4000, np.random.default_rng(0)))
    code = {name: codes[:, column] for column, name in enumerate(ACTION_UNITS)}
    assert not ((code["AU28"] >= 2) & (code["AU25"] >= 2)).any()
    closed = np.diff(np.flatnonzero(np.diff(np.r_[0, code["AU45"] >= 2, 0])))[::2]
    assert np.median(closed) <= 4
    for name in ACTION_UNITS:  # every unit at every intensity, or an estimator cannot learn it
        assert set(range(6)) <= set(code[name].tolist()), name


def test_codes_round_half_up():
    assert population.codes(np.array([0.49, 0.5, 1.49, 1.5, 2.5, 5.0])).tolist() == [0, 1, 1, 2, 3, 5]


def test_poses_stay_readable():
    scenes = population.sample_scenes(population.STYLES["AffWild2"], np.full(300, 10), np.random.default_rng(0))
    assert np.mean(np.abs(scenes["yaw"]) < 0.4) > 0.9 and np.abs(scenes["yaw"]).max() <= 0.5


# -------------------------------------------------------------------------------------------------- class frequencies


def test_largest_remainder_by_hand():
    # 11 clips over 50:30:20 are 5.5, 3.3, 2.2: the one left over goes to the largest remainder
    assert population.scaled_counts([50, 30, 20], 11, 0) == ([6, 3, 2], 0)
    assert population.scaled_counts([98, 1, 1], 10, 2) == ([10, 2, 2], 4)


@pytest.mark.parametrize("dataset", ["DFEW", "FERV39k", "MAFW"])
def test_class_frequencies_match_the_published_ones(dataset):
    table = pd.read_csv(Path(population.published.__file__).parent / "class_counts.csv")
    stored = "MAFW-7" if dataset == "MAFW" else dataset
    names = {"Happiness": "happy", "Sadness": "sad", "Anger": "angry"}
    plan = synth.planned_counts(dataset, SynthConfig())
    for split in ("train", "test"):
        rows = table[
            (table.dataset == stored)
            & (table.split == split)
            & table.fold.isin(["1", "-"])
            & table.source.str.startswith("MAE")
        ]
        real = {names.get(label, label.lower()): clips for label, clips in zip(rows.label, rows.clips, strict=True)}
        counts, plus = plan[split]
        assert plus == 0 and sum(counts.values()) == SynthConfig().counts[dataset][split]
        for expression, count in counts.items():
            assert abs(count - real[expression] / sum(real.values()) * sum(counts.values())) < 1


def test_rare_classes_are_raised_to_the_minimum_and_the_plus_is_said():
    counts, plus = synth.planned_counts("DFEW", SynthConfig(counts={"DFEW": {"train": 50, "test": 20}}))["train"]
    assert counts["disgust"] == 6 and plus > 0 and sum(counts.values()) == 50 + plus


# ------------------------------------------------------------------------------------------------------------ writing


def test_written_frames_carry_the_planted_rates(root):
    truth = synth.read_truth(root, "RAVDESS")
    rates = synth.planted_presence_rates("RAVDESS")
    for expression in range(7):
        frames = truth[truth.expression == expression]
        assert frames[[f"{au}_c" for au in ACTION_UNITS]].mean().to_numpy() == pytest.approx(
            rates[expression], abs=1 / len(frames)
        )


@pytest.mark.parametrize("dataset", synth.ALL)
def test_truth_has_a_row_and_landmarks_for_every_frame(root, dataset):
    truth, points = synth.read_truth(root, dataset), synth.read_truth_landmarks(root, dataset)
    assert points.shape == (len(truth), 68, 2)
    # eye corners, nose tip and mouth lie inside the picture
    assert ((points[:, [36, 45, 30, 48, 54]] > 0) & (points[:, [36, 45, 30, 48, 54]] < TINY.image_size)).mean() > 0.99
    assert not truth.duplicated(["clip_id", "frame"]).any()
    present = truth[[f"{au}_c" for au in ACTION_UNITS]].to_numpy()
    assert np.array_equal(present, truth[[f"{au}_r" for au in ACTION_UNITS]].to_numpy() >= 1.5)


@pytest.mark.parametrize("dataset", ["DFEW", "FERV39k", "MAFW", "AffWild2"])
def test_identities_do_not_cross_splits(root, dataset):
    sides = synth.read_truth(root, dataset).groupby("subject")["split"].nunique()
    assert sides.max() == 1


def test_people_return_within_a_split(root):
    truth = synth.read_truth(root, "DFEW").drop_duplicates("clip_id")
    assert truth["subject"].nunique() < len(truth)


def test_same_seed_same_bytes_and_another_seed_others(root, tmp_path):
    chosen = ("DFEW", "DISFA")
    synth.write_benchmark(tmp_path / "again", TINY, datasets=chosen, progress=False)
    for part in (*chosen, "truth/DFEW.parquet"):
        first, second = root / part, tmp_path / "again" / part
        if first.is_dir():
            assert tree_digest(first) == tree_digest(second)
        else:
            assert first.read_bytes() == second.read_bytes()
    other = layouts._draw("DFEW", SynthConfig(**{**TINY.__dict__, "seed": 4}))
    same = layouts._draw("DFEW", TINY)
    assert not np.array_equal(other.intensities[:50], same.intensities[:50])


@pytest.mark.parametrize("missing", [(0,), (2,), (0, 1, 2)])
def test_a_stretch_may_begin_with_a_frame_that_is_left_out(tmp_path, missing):
    from audfer.synth import layouts

    paths = [None if n in missing else tmp_path / "take" / f"{n:05d}.jpg" for n in range(3)]
    layouts._write_clip(paths, np.zeros((3, 8, 8, 3), np.uint8), 90)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == [path.name for path in paths if path]


def test_of_test_clips_only_the_frames_that_networks_see_are_rendered(root, tmp_path):
    few = replace(TINY, test_frames=3)
    synth.write_benchmark(tmp_path, few, ("DFEW",), progress=False)
    every, kept = (synth.read_truth(folder, "DFEW") for folder in (root, tmp_path))
    units = [name for name in every if name.endswith("_r")]
    for clip, whole in every.groupby("clip_id"):
        part = kept[kept["clip_id"] == clip]
        wanted = np.arange(len(whole)) if whole["split"].iloc[0] == "train" else uniform_indices(len(whole), 3)
        assert part["frame"].tolist() == list(range(len(np.unique(wanted))))
        np.testing.assert_array_equal(part[units], whole[units].iloc[np.unique(wanted)])
    assert (kept.groupby("clip_id")["split"].first() == every.groupby("clip_id")["split"].first()).all()


def test_a_second_call_leaves_written_datasets_alone(root):
    before = {p: p.stat().st_mtime_ns for p in (root / "DFEW").rglob("*.jpg")}
    synth.write_benchmark(root, TINY, progress=False)
    assert {p: p.stat().st_mtime_ns for p in (root / "DFEW").rglob("*.jpg")} == before
    assert not synth.is_written(root, "DFEW", SynthConfig())


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(face, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        synth.write_benchmark(tmp_path, TINY, datasets=("MAFW",), progress=False)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_nothing_but_read_truth_needs_the_truth(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "truth")
    for name in synth.ALL:
        with_truth, without = datasets.read_dataset(name, root), datasets.read_dataset(name, copy)
        pd.testing.assert_frame_equal(with_truth.table, without.table)
        assert with_truth.fingerprint() == without.fingerprint()
        assert np.array_equal(datasets.load_frames(with_truth, 0), datasets.load_frames(without, 0))
        columns = set(with_truth.table.columns)
        assert not columns & {"ambiguous", "second", "shown"} and not any(c.startswith("AU") for c in columns)
    with pytest.raises(AudferError, match="no planted truth"):
        synth.read_truth(copy, "DFEW")


def test_no_truth_lies_inside_a_dataset_folder(root):
    for name in synth.ALL:
        extra = {p.suffix for p in (root / name).rglob("*") if p.is_file()} - {
            ".jpg",
            ".png",
            ".csv",
            ".txt",
            ".mp4",
            ".avi",
            ".json",
        }
        assert not extra
        assert [p.name for p in (root / name).rglob("*.json")] == [synth.STAMP]


@pytest.mark.parametrize(
    "setting, value",
    [
        ("frames", (9, 4)),
        ("image_size", 15),
        ("ravdess_actors", 30),
        ("affwild2_videos", 1),
        ("counts", {"DFEW": {"train": 0, "test": 3}}),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(InputError, match=setting):
        SynthConfig(**{setting: value})


def test_unknown_settings_and_datasets_are_refused(tmp_path):
    with pytest.raises(InputError, match="image_sise"):
        SynthConfig.from_dict({"image_sise": 64})
    with pytest.raises(InputError, match="AFEW"):
        synth.write_benchmark(tmp_path, TINY, datasets=("AFEW",), progress=False)
    with pytest.raises(InputError, match="DISFA"):
        synth.planted_medians("DISFA")
