"""Readers of the datasets as users have them on disk: layouts, labels, wrong input, packing, sampling."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_layouts import lines, video

from audfer import datasets, sampling, synth
from audfer.datasets import manifest
from audfer.datasets.readers import affwild2, ravdess
from audfer.errors import InputError
from audfer.facs import EXPRESSIONS

HAPPY, SAD, NEUTRAL, ANGRY, SURPRISE, DISGUST, FEAR = range(7)


def frames(folder: Path, names, size=(8, 8)) -> None:
    """Write pictures whose every pixel is the number in their name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        value = manifest.frame_number(name)[0][-1]
        Image.new("RGB", size, (value, value, value)).save(folder / name, quality=100)


def make_dfew(root: Path, clips="Clip/clip_224x224", split="{}(single-labeled)", count: int = 7) -> Path:
    for part, first in (("train", 1), ("test", 101)):
        lines(
            root / "EmoLabel_DataSplit" / split.format(part) / "set_1.csv",
            "video_name,label",
            *[f"{first + i},{i % 7 + 1}" for i in range(count)],
        )
        for i in range(count):
            frames(root / clips / f"{first + i:05d}", [f"{n}.jpg" for n in range(1, 4)])
    return root


# ----------------------------------------------------------------------------------------------------------- each set


def test_dfew_labels_count_from_one_in_its_own_order(tmp_path):
    found = datasets.read_dataset("DFEW", make_dfew(tmp_path / "DFEW"))
    assert found.table["clip_id"].tolist()[:2] == ["00001", "00002"]
    assert found.table["expression"].tolist() == [0, 1, 2, 3, 4, 5, 6] * 2
    assert (found.table["split"] == ["train"] * 7 + ["test"] * 7).all()
    assert datasets.load_frames(found, 0).shape == (3, 8, 8, 3)


def test_the_dataset_is_found_from_the_folder_above(tmp_path):
    make_dfew(tmp_path / "DFEW")
    assert len(datasets.read_dataset("dfew", tmp_path)) == 14


def test_dfew_clips_without_a_single_label_are_left_out_and_counted(tmp_path):
    root = make_dfew(tmp_path)
    path = root / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text() + "900,0\n")
    found = datasets.read_dataset("DFEW", root)
    assert len(found) == 14 and found.dropped == {"no single label": 1}


def test_ferv39k_keeps_the_first_line_and_enters_the_nested_archive_folder(tmp_path):
    clips = tmp_path / "2_ClipsforFaceCrop-002" / "2_ClipsforFaceCrop"
    for part, number in (("train", "0001"), ("test", "0002")):
        lines(
            tmp_path / "4_setups" / "All_scenes" / f"{part}_All.csv",
            f"Action/Happy/{number} Happy",
            f"Crime/Fear/{number} Fear",
        )
        for clip in (f"Action/Happy/{number}", f"Crime/Fear/{number}"):
            frames(clips / clip, ["1.jpg"])
    found = datasets.read_dataset("FERV39k", tmp_path)
    assert found.table["clip_id"].tolist() == [
        "Action/Happy/0001",
        "Crime/Fear/0001",
        "Action/Happy/0002",
        "Crime/Fear/0002",
    ]
    assert found.table["expression"].tolist() == [HAPPY, FEAR, HAPPY, FEAR]


def test_mafw_is_filtered_to_seven_classes(tmp_path):
    labels = ["anger", "contempt", "happiness", "anxiety", "sadness"]
    for part, first in (("train", 1), ("test", 11)):
        lines(
            tmp_path / "split" / "single" / "no_caption" / "set_1" / f"{part}.txt",
            *[f"{first + i:05d}.mp4 {label}" for i, label in enumerate(labels)],
        )
        for i in range(5):
            frames(tmp_path / "data" / "frames" / f"{first + i:05d}", ["00001.png", "00002.png"])
    found = datasets.read_dataset("MAFW", tmp_path)
    assert found.table["expression"].tolist() == [ANGRY, HAPPY, SAD] * 2
    assert found.dropped == {"contempt": 2, "anxiety": 2}


def make_affwild2(root: Path, labels, missing=()) -> Path:
    for part, name in (("Train_Set", "video1"), ("Validation_Set", "2-left")):
        lines(
            root / "5th ABAW Annotations" / "EXPR_Recognition_Challenge" / part / f"{name}.txt",
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
            *map(str, labels),
        )
        frames(root / "cropped_aligned" / name, [f"{n:05d}.jpg" for n in range(1, len(labels) + 1) if n not in missing])
    return root


def test_affwild2_windows_are_runs_of_one_label_and_missing_images_are_skipped_not_shifted(tmp_path):
    # rows 1-20 neutral (cut at 16), 21-23 ignored, 24-30 happy with image 25 missing, 31 other
    labels = [0] * 20 + [-1] * 3 + [4] * 7 + [7]
    found = datasets.read_dataset("AffWild2", make_affwild2(tmp_path, labels, missing=(3, 25)))
    first = found.table[found.table["subject"] == "video1"]
    assert list(zip(first["start"], first["stop"], first["expression"], strict=True)) == [
        (0, 16, NEUTRAL),
        (16, 20, NEUTRAL),
        (23, 30, HAPPY),
    ]
    assert first["clip_id"].tolist() == ["video1:00001-00016", "video1:00017-00020", "video1:00024-00030"]
    assert datasets.frame_numbers(found, 2).tolist() == [23, 25, 26, 27, 28, 29]
    # a picture's grey value is its number in the file name, one more than the 0-based frame number
    assert datasets.load_frames(found, 2)[:, 0, 0, 0].tolist() == [24, 26, 27, 28, 29, 30]
    assert found.dropped == {
        "frames to ignore (-1)": 6,
        "frames of other (7)": 2,
        "labelled frames without a face image": 4,
    }
    assert dict(zip(found.table["subject"], found.table["split"], strict=True)) == {"video1": "train", "2-left": "test"}


@pytest.mark.parametrize("by_image", [False, True])
@pytest.mark.parametrize("name", ["{:05d}.png", "{}.png", "frame_{:04d}.png"])
@pytest.mark.parametrize("first", [0, 1])
def test_affwild2_labels_meet_their_pictures_whatever_these_are_numbered_from(
    tmp_path, first, name, by_image, monkeypatch
):
    labels, header = [1, 2, 3, 4, 5, 6], "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    order = (NEUTRAL, ANGRY, DISGUST, FEAR, HAPPY, SAD, SURPRISE)
    # video2's first picture is lacking: what its pictures are numbered from is seen in video1 only
    have = {"video1": (0, 1, 2, 3, 5), "video2": (1, 2, 4, 5), "video10": (3,)}
    for part, videos in (("Train_Set", ("video1", "video2")), ("Validation_Set", ("video10",))):
        for take in videos:
            rows = [f"{take}/{name.format(first + i)},{label}" if by_image else label for i, label in enumerate(labels)]
            header_here = f"image_location,{header}" if by_image else header
            lines(tmp_path / "EXPR_Set" / part / f"{take}.txt", header_here, *map(str, rows))
            folder = tmp_path / "cropped_aligned" / take
            folder.mkdir(parents=True)
            for i in have[take]:  # a picture shows the label of its frame
                Image.new("RGB", (8, 8), (20 * labels[i],) * 3).save(folder / name.format(first + i))
    found = datasets.read_dataset("AffWild2", tmp_path)
    seen, before = {}, found.fingerprint()
    for row in found.table.itertuples():
        numbers, pictures = datasets.frame_numbers(found, row), datasets.load_frames(found, row)
        assert len(numbers) == 1 and pictures[0, 0, 0, 0] == 20 * order.index(row.expression)
        seen.setdefault(row.subject, []).append(int(numbers[0]))
    assert {take: tuple(numbers) for take, numbers in seen.items()} == have
    assert found.dropped["labelled frames without a face image"] == 18 - 10
    monkeypatch.setattr(manifest, "first_number", lambda folder: 1)
    assert (found.fingerprint() == before) == (first == 1)  # a store of frames that were taken for others is made again


def test_affwild2_windows_by_hand():
    labels = np.array([1, 1, 1, 1, 1, 2, 2])
    has_image = np.array([1, 1, 1, 1, 0, 1, 1], bool)
    # the window that holds only the missing row 5 is gone
    assert affwild2._windows(labels, has_image, 2) == [(0, 2), (2, 4), (5, 7)]


def test_ravdess_is_split_by_actor_and_calm_is_left_out(tmp_path):
    for actor in ("01", "02", "03"):
        for emotion in ("01", "02", "03", "08"):
            video(tmp_path / f"Actor_{actor}" / f"02-01-{emotion}-01-01-01-{actor}.mp4")
    video(tmp_path / "Actor_01" / "01-01-03-01-01-01-01.mp4")  # the same trial with sound
    found = datasets.read_dataset("RAVDESS", tmp_path)
    assert found.dropped == {"calm": 3, "second copy of a trial": 1}
    assert found.table["expression"].tolist() == [NEUTRAL, HAPPY, SURPRISE] * 3
    assert found.table.groupby("subject")["split"].unique().map(list).to_dict() == {
        "01": ["test"],
        "02": ["train"],
        "03": ["train"],
    }
    second = datasets.read_dataset("RAVDESS", tmp_path, fold=2).table
    assert set(second.loc[second["split"] == "test", "subject"]) == {"02"}


def test_video_frames_are_read_in_any_order(tmp_path):
    video(tmp_path / "Actor_01" / "02-01-03-01-01-01-01.mp4")
    found = datasets.read_dataset("RAVDESS", tmp_path)
    assert datasets.frame_numbers(found, 0).tolist() == [0, 1, 2, 3, 4]
    pictures = datasets.load_frames(found, 0, [4, 0, 0, 2], size=16)
    assert pictures.shape == (4, 16, 16, 3)
    assert pictures.mean(axis=(1, 2, 3)) == pytest.approx([160, 0, 0, 80], abs=4)


def make_disfa(root: Path, units=(1, 25), subjects=("SN001", "SN003", "SN006"), count: int = 5) -> Path:
    for subject in subjects:
        video(root / "Video_LeftCamera" / f"LeftVideo{subject}_comp.avi", count)
        for unit in units:
            lines(
                root / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt",
                *[f"{n + 1},{n % 6}" for n in range(count)],
            )
    return root


def test_disfa_gives_codes_per_frame_and_folds_by_subject(tmp_path):
    table = datasets.read_annotated("disfa", make_disfa(tmp_path))
    assert list(table.columns) == ["dataset", "subject", "sequence", "path", "frame", "fold", "AU01", "AU25"]
    assert table.loc[table["subject"] == "SN003", "frame"].tolist() == [0, 1, 2, 3, 4]
    assert table["AU25"].tolist() == [0, 1, 2, 3, 4] * 3
    assert table.drop_duplicates("subject")["fold"].tolist() == [3, 1, 2]  # as published
    chosen = table.iloc[[3, 10, 7]]
    pictures = datasets.load_annotated_frames(tmp_path, chosen)
    assert pictures.mean(axis=(1, 2, 3)) == pytest.approx(40.0 * chosen["frame"], abs=4)


# ------------------------------------------------------------------------------------------------------- frames, sort


def test_frames_are_sorted_by_number_not_by_text(tmp_path):
    names = [f"{n}.jpg" for n in range(1, 13)]
    random.Random(0).shuffle(names)
    frames(tmp_path, names)
    (tmp_path / "Thumbs.db").write_text("not a picture")
    assert datasets.list_frames(tmp_path) == [f"{n}.jpg" for n in range(1, 13)]


def test_two_numbers_in_a_frame_name_count_in_their_order(tmp_path):
    frames(tmp_path, ["7_10.jpg", "7_9.jpg", "6_11.jpg"])
    assert datasets.list_frames(tmp_path) == ["6_11.jpg", "7_9.jpg", "7_10.jpg"]


def test_frames_of_other_sizes_take_the_first_ones_size(tmp_path):
    root = make_dfew(tmp_path)
    frames(root / "Clip" / "clip_224x224" / "00001", ["2.jpg"], size=(20, 12))
    assert datasets.load_frames(datasets.read_dataset("DFEW", root), "00001").shape == (3, 8, 8, 3)


def test_shrinking_averages_instead_of_picking(tmp_path):
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    root = make_dfew(tmp_path)
    Image.fromarray(np.repeat(checks[..., None], 3, 2)).save(root / "Clip" / "clip_224x224" / "00001" / "1.png")
    small = datasets.load_frames(datasets.read_dataset("DFEW", root), "00001", [1], size=8)
    assert np.abs(small.astype(int) - 127).max() < 20


def test_uniform_indices_are_centres_of_equal_segments():
    # ten frames in five segments of two: the second of each pair is the centre rounded up
    assert sampling.uniform_indices(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert sampling.uniform_indices(16, 16).tolist() == list(range(16))
    assert sampling.uniform_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert sampling.uniform_indices(100, 1).tolist() == [50]


@pytest.mark.parametrize("available, wanted", [(1, 4), (5, 16), (16, 16), (77, 16)])
def test_jittered_indices_stay_in_their_segments(available, wanted):
    index = sampling.jittered_indices(available, wanted, np.random.default_rng(0))
    assert len(index) == wanted and (np.diff(index) >= 0).all()
    lower, upper = np.arange(wanted) * available / wanted, (np.arange(wanted) + 1) * available / wanted
    assert (index >= np.floor(lower)).all() and (index <= np.minimum(np.floor(upper), available - 1)).all()


# -------------------------------------------------------------------------------------------------------- wrong input


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.*no such folder"):
        datasets.read_dataset("DFEW", tmp_path / "nowhere")
    with pytest.raises(InputError, match="clip_224x224"):
        datasets.read_dataset("DFEW", tmp_path)


def test_an_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="'AFFEW'.*AFEW, AffWild2, DFEW"):
        datasets.read_dataset("AFFEW", tmp_path)


def test_a_label_outside_the_classes_names_file_line_and_label(tmp_path):
    root = make_dfew(tmp_path)
    path = lines(
        root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv", "video_name,label", "101,1", "102,9"
    )
    with pytest.raises(
        InputError, match=r"set_1\.csv: line 3, column label: found '9', expected one of DFEW's labels"
    ) as caught:
        datasets.read_dataset("DFEW", root)
    assert caught.value.where == str(path)


def test_listed_clips_that_are_not_on_disk_are_counted_and_three_are_named(tmp_path):
    root = make_dfew(tmp_path)
    path = root / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text() + "501,1\n502,1\n503,1\n504,1\n")
    with pytest.raises(InputError, match=r"4 of 18 listed clips missing \(first: 00501, 00502, 00503\)"):
        datasets.read_dataset("DFEW", root)
    found = datasets.read_dataset("DFEW", root, missing="drop")
    assert len(found) == 14 and found.dropped == {"not on disk": 4}


def test_a_clip_folder_without_frames_is_refused(tmp_path):
    root = make_dfew(tmp_path)
    for picture in (root / "Clip" / "clip_224x224" / "00003").iterdir():
        picture.unlink()
    with pytest.raises(InputError, match=r"00003: clip folder: found no frames in 1 of 14 clip folders"):
        datasets.read_dataset("DFEW", root)


def test_an_unreadable_picture_is_named(tmp_path):
    root = make_dfew(tmp_path)
    (root / "Clip" / "clip_224x224" / "00001" / "2.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"2\.jpg: image: found unreadable"):
        datasets.load_frames(datasets.read_dataset("DFEW", root), 0)


def test_a_clip_in_both_splits_is_refused(tmp_path):
    root = make_dfew(tmp_path)
    path = root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text() + "1,1\n")
    with pytest.raises(InputError, match="1 listed twice"):
        datasets.read_dataset("DFEW", root)


def test_a_ravdess_name_that_is_none_is_refused(tmp_path):
    video(tmp_path / "holiday.mp4")
    with pytest.raises(InputError, match="seven two-digit fields"):
        datasets.read_dataset("RAVDESS", tmp_path)
    with pytest.raises(InputError, match="'09'"):
        ravdess.parse_name("02-01-09-01-01-01-01.mp4")


def test_an_unreadable_video_is_named(tmp_path):
    path = lines(tmp_path / "Actor_01" / "02-01-03-01-01-01-01.mp4", "no video")
    with pytest.raises(InputError, match=f"{path.name}: video: found unreadable"):
        datasets.load_frames(datasets.read_dataset("RAVDESS", tmp_path), 0)


@pytest.mark.parametrize("line, found", [("1,6", "code: found 6"), ("1;2", "found '1;2'"), ("1", "found '1'")])
def test_wrong_disfa_lines_are_named(tmp_path, line, found):
    root = make_disfa(tmp_path)
    lines(root / "ActionUnit_Labels" / "SN001" / "SN001_au25.txt", line)
    with pytest.raises(InputError, match=f"SN001_au25.txt: line 1.*{found}"):
        datasets.read_annotated("DISFA", root)


def test_affwild2_without_a_header_is_refused(tmp_path):
    root = make_affwild2(tmp_path, [0, 0])
    lines(root / "5th ABAW Annotations" / "EXPR_Recognition_Challenge" / "Train_Set" / "video1.txt", "0", "0")
    with pytest.raises(InputError, match="video1.txt: line 1"):
        datasets.read_dataset("AffWild2", root)


# ------------------------------------------------------------------------------------------------- manifest and packs


def test_counts_are_checked_against_the_published_ones(tmp_path):
    check = datasets.read_dataset("DFEW", make_dfew(tmp_path)).check()
    row = check[(check["split"] == "test") & (check["expression"] == "disgust")].iloc[0]
    # fold 1 of DFEW has 29 clips of disgust in its test set
    assert (row["found"], row["expected"], row["difference"], row["verdict"]) == (1, 29, -28, "differs")


def test_the_fingerprint_follows_labels_and_pixels(tmp_path):
    root = make_dfew(tmp_path)
    first = datasets.read_dataset("DFEW", root).fingerprint()
    assert datasets.read_dataset("DFEW", root).fingerprint() == first
    frames(root / "Clip" / "clip_224x224" / "00001", ["4.jpg"])
    second = datasets.read_dataset("DFEW", root).fingerprint()
    path = root / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text().replace("\n1,1\n", "\n1,2\n"))
    assert len({first, second, datasets.read_dataset("DFEW", root).fingerprint()}) == 3


def test_packed_clips_hold_the_chosen_frames_in_manifest_order(tmp_path):
    found = datasets.read_dataset("DFEW", make_dfew(tmp_path / "data"))
    packed = datasets.pack(found, tmp_path / "packed", num_frames=6, size=4, progress=False)
    assert packed.frames.shape == (14, 6, 4, 4, 3) and packed.frames.dtype == np.uint8
    assert packed.frame_numbers[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert packed.frames[3, :, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert packed.split("test").tolist() == list(range(7, 14))
    assert packed.expressions.tolist() == found.table["expression"].tolist() and packed.clip_ids[0] == "00001"
    again = datasets.open_packed(tmp_path / "packed")
    assert np.array_equal(again.frames, packed.frames) and again.meta == packed.meta
    with pytest.raises(InputError, match="'validation'"):
        packed.split("validation")


def test_a_pack_of_the_same_data_is_reused_and_of_other_data_is_not(tmp_path):
    root = make_dfew(tmp_path / "data")
    datasets.pack(datasets.read_dataset("DFEW", root), tmp_path / "packed", 2, 4, progress=False)
    written = (tmp_path / "packed" / "frames.npy").stat().st_mtime_ns
    datasets.pack(datasets.read_dataset("DFEW", root), tmp_path / "packed", 2, 4, progress=False)
    assert (tmp_path / "packed" / "frames.npy").stat().st_mtime_ns == written
    frames(root / "Clip" / "clip_224x224" / "00001", ["4.jpg"])
    datasets.pack(datasets.read_dataset("DFEW", root), tmp_path / "packed", 2, 4, progress=False)
    assert (tmp_path / "packed" / "frames.npy").stat().st_mtime_ns != written


def test_a_folder_that_is_no_store_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="no meta.json"):
        datasets.open_packed(tmp_path)


# ------------------------------------------------------------------------------------------ the embedded counterparts


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> tuple[Path, synth.SynthConfig]:
    root = tmp_path_factory.mktemp("embedded")
    config = synth.SynthConfig(
        image_size=32,
        frames=(4, 11),
        minimum=(2, 1),
        ravdess_actors=1,
        affwild2_videos=2,
        affwild2_frames=50,
        disfa_subjects=3,
        disfa_frames=10,
        counts={name: {"train": 14, "test": 9} for name in ("DFEW", "FERV39k", "MAFW")},
    )
    synth.write_benchmark(root, config, progress=False)
    return root, config


@pytest.mark.parametrize("name", ["DFEW", "FERV39k", "MAFW"])
def test_the_embedded_sets_are_read_by_the_real_readers(embedded, name):
    root, config = embedded
    found = datasets.read_dataset(name, root)
    assert found.embedded
    planned = synth.planned_counts(name, config)
    for split in ("train", "test"):
        assert found.counts().loc[split, list(EXPRESSIONS)].to_dict() == planned[split][0]
    assert set(found.check()["verdict"]) <= {"as published", "raised to the minimum"}
    truth = synth.read_truth(root, name)
    lengths = truth.groupby("clip_id").size()
    for row in found.table.itertuples():
        assert len(datasets.frame_numbers(found, row)) == lengths[row.clip_id]
    expression = truth.drop_duplicates("clip_id").set_index("clip_id")["expression"]
    assert (found.table.set_index("clip_id")["expression"] == expression[found.table["clip_id"]]).all()
    if name == "MAFW":
        assert set(found.dropped) == {"contempt", "anxiety", "helplessness", "disappointment"}


def test_embedded_ravdess_has_eight_clips_an_actor_and_expression_neutral_four(embedded):
    found = datasets.read_dataset("RAVDESS", embedded[0])
    assert found.counts().loc["train", list(EXPRESSIONS)].tolist() == [8, 8, 4, 8, 8, 8, 8]
    assert set(found.check()["verdict"]) == {"as published"} and found.dropped == {"calm": 8}


def test_embedded_affwild2_is_mostly_neutral_and_matches_its_truth_frame_by_frame(embedded):
    root, _ = embedded
    found = datasets.read_dataset("AffWild2", root)
    truth = synth.read_truth(root, "AffWild2").set_index(["clip_id", "frame"])
    assert truth["expression"].value_counts().idxmax() == NEUTRAL
    for row in found.table.itertuples():
        video_name = row.clip_id.split(":")[0]
        for number in datasets.frame_numbers(found, row):
            assert truth.loc[(video_name, number), "expression"] == row.expression


def test_embedded_disfa_codes_are_the_rounded_truth(embedded):
    root, _ = embedded
    table, truth = datasets.read_annotated("DISFA", root), synth.read_truth(root, "DISFA")
    merged = table.merge(truth, left_on=["subject", "frame"], right_on=["clip_id", "frame"])
    assert len(merged) == len(table) == 30
    for unit in ("AU01", "AU28", "AU45"):
        assert (merged[unit] - merged[f"{unit}_r"]).abs().max() <= 0.5 + 1e-6
        assert ((merged[unit] >= 2) == merged[f"{unit}_c"]).all()
    assert datasets.load_annotated_frames(root, table.iloc[::7], size=16).shape == (5, 16, 16, 3)
    assert len(datasets.read_dataset("DISFA", root, fold=2).table) == 3
