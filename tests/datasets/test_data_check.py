"""Readers of every layout and spelling, other projects' lists, and the check that says whether it is what the papers
used.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import small_layouts as small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from audfer import datasets, published, synth
from audfer.companion import cli
from audfer.datasets import lists
from audfer.errors import AudferError, InputError
from audfer.facs import EXPRESSIONS

HAPPY, SAD, NEUTRAL, ANGRY, SURPRISE, DISGUST, FEAR = range(7)


def by_clip(manifest) -> dict[str, int]:
    return dict(zip(manifest.table["clip_id"], manifest.table["expression"], strict=True))


# ---------------------------------------------------------------------------------------------------- every spelling


@pytest.mark.parametrize("name", small.WRITERS)
def test_every_layout_is_checked_and_its_deviations_named(name, tmp_path):
    root = small.WRITERS[name](tmp_path / name)
    check = datasets.check_dataset(name, root, progress=False)
    assert not check.as_published and check.deviations
    assert {f.kind for f in check.deviations} <= {"counts", "fold", "unconfirmed"}
    assert all(f.example.startswith(str(root)) or str(root) in f.sentence for f in check.deviations)
    assert (check.counts["listed"] == check.counts["usable"]).all()
    text = str(check)
    assert max(map(len, text.splitlines())) <= 79 or any(len(word) > 60 for word in text.split())
    assert json.loads(json.dumps(check.to_json()))["as_published"] is False


@pytest.mark.parametrize(
    "clips, kind, split",
    [
        ("Clip/clip_224x224", "frames", "{}(single-labeled)"),
        ("clip_224x224/clip_224x224", "frames", "{}(single_labeled)"),
        ("Clip/clip_224x224/clip_224x224", "frames", "{}(single_labeled)"),
        ("jpg_256", "frames", "{}(single-labeled)"),
        ("Clip/jpg_256", "frames", "{}(single_labeled)"),
        ("Clip/clip_224x224_16f", "16f", "{}(single_labeled)"),
        ("Clip/original", "video", "{}(single-labeled)"),
    ],
)
def test_dfew_copies(clips, kind, split, tmp_path):
    root = small.dfew(tmp_path / "DFEW", clips, split)
    found = datasets.read_dataset("DFEW", root, clips=kind)
    assert by_clip(found)["00001"] == HAPPY and by_clip(found)["00107"] == FEAR and len(found) == 14
    assert len(datasets.load_frames(found, 0)) == (5 if kind == "video" else 3)
    assert any(kind in note for note in found.notes)


def test_the_copy_asked_for_is_taken(tmp_path):
    root = small.dfew(tmp_path, "Clip/clip_224x224")
    shutil.copytree(root / "Clip" / "clip_224x224", root / "Clip" / "clip_224x224_16f")
    taken = lambda kind: datasets.read_dataset("DFEW", root, clips=kind).table["path"][0]  # noqa: E731
    assert taken("") == "Clip/clip_224x224/00001" and taken("16f") == "Clip/clip_224x224_16f/00001"
    with pytest.raises(InputError, match="original"):
        taken("video")
    with pytest.raises(InputError, match="frames, 16f, video"):
        taken("faces")


@pytest.mark.parametrize(
    "top, clips",
    [
        ("Train & Test Set", "data/faces"),
        ("split", "data/frames"),
        ("anno", "data/clips"),
        ("Train_&_Test_Set", "data/faces"),
    ],
)
def test_mafw_copies_and_classes(top, clips, tmp_path):
    root = small.mafw(tmp_path, top, clips)
    seven, every = datasets.read_dataset("MAFW", root), datasets.read_dataset("MAFW", root, classes="all")
    assert len(seven) == 14 and seven.dropped == {"contempt": 2} and seven.classes == EXPRESSIONS
    assert any("no split of this subset is published" in note for note in seven.notes)
    assert any("MAE-DFER#22" in note for note in seven.notes) == (clips != "data/faces")
    assert len(every) == 16 and every.classes[by_clip(every)["00008"]] == "contempt" and len(every.classes) == 11
    assert every.counts().loc["test", "contempt"] == 1


@pytest.mark.parametrize("form", ["former-dfer", "faces", "video"])
def test_afew_forms_and_spellings(form, tmp_path):
    root = small.afew(tmp_path / "AFEW", form)
    found = datasets.read_dataset("AFEW", root)
    assert sorted(found.table["expression"]) == sorted([*range(7)] * 2)
    assert found.counts()["total"].to_dict() == {"train": 7, "test": 7}
    assert any("validation" in note and "not public" in note for note in found.notes)
    assert len(datasets.load_frames(found, 0)) == (5 if form == "video" else 3)


def test_aligned_afew_faces_without_a_video_are_refused_or_counted(tmp_path):
    root = small.afew(tmp_path, "faces")
    small.clip(
        root / "Train_AFEW" / "AlignedFaces_LBPTOP_Points" / "AlignedFaces_LBPTOP_Points" / "Faces" / "777777777"
    )
    assert datasets.read_dataset("AFEW", root).dropped == {"aligned faces without a video that tells the emotion": 1}
    for path in (root / "Train_AFEW").glob("*/*.avi"):
        path.unlink()
    with pytest.raises(InputError, match="emotions of the aligned faces"):
        datasets.read_dataset("AFEW", root)


def test_affwild2_reads_both_folders_of_images_and_people_apart(tmp_path):
    found = datasets.read_dataset("AffWild2", small.affwild2(tmp_path))
    assert set(found.table["subject"]) == {"video1", "9_left", "2-right"}
    assert found.table.loc[found.table["subject"] == "2-right", "path"].unique() == [
        "cropped_aligned_new_50_vids/2-right"
    ]
    assert datasets.frame_numbers(found, "video1:00023-00029").tolist() == [22, 23, 25, 26, 27, 28]
    assert len(datasets.read_dataset("AffWild2", tmp_path, classes="all")) == len(found) + 3
    assert len(datasets.read_dataset("AffWild2", tmp_path, window=5).table) > len(found)


def test_affwild2_of_seven_classes_has_no_other(tmp_path):
    early = small.HEADER.removesuffix(",Other")
    assert len(datasets.read_dataset("AffWild2", small.affwild2(tmp_path / "a", (0, 4, 4), (), early))) == 6
    with pytest.raises(InputError, match="line 3, label: found '7'"):
        datasets.read_dataset("AffWild2", small.affwild2(tmp_path / "b", (0, 7), (), early))
    with pytest.raises(InputError, match="another label order"):
        datasets.read_dataset(
            "AffWild2", small.affwild2(tmp_path / "c", (0,), (), small.HEADER.replace("Anger,Disgust", "Disgust,Anger"))
        )


def test_affwild2_newer_annotations_name_the_image(tmp_path):
    old = datasets.read_dataset("AffWild2", small.affwild2(tmp_path)).table
    folder = tmp_path / "5th ABAW Annotations" / "EXPR_Recognition_Challenge"
    for part in ("Train_Set", "Validation_Set"):
        rows = []
        for path in sorted((folder / part).iterdir()):
            labels = path.read_text().split("\n")[1:-1]
            rows += [f"{path.stem}/{n:05d}.jpg,{label}" for n, label in enumerate(labels, 1) if n not in (3, 25)]
        shutil.rmtree(folder / part)
        random.Random(0).shuffle(rows)  # the image's name says which frame it is, not the row
        small.lines(folder / f"{part}.txt", f"image_location,{small.HEADER}", *rows)
    new = datasets.read_dataset("AffWild2", tmp_path).table
    # rows 3 and 25 are absent here rather than without an image: runs end at them and nothing is shifted
    frames = lambda table: {  # noqa: E731
        (r.subject, n, r.expression) for r in table.itertuples() for n in range(r.start, r.stop) if n not in (2, 24)
    }
    assert frames(new) == frames(old)


def test_ravdess_choices(tmp_path):
    root = small.ravdess(tmp_path)
    small.ravdess(tmp_path, ("01",), ("03", "04"), "02")
    assert len(datasets.read_dataset("RAVDESS", root)) == 6
    assert datasets.read_dataset("RAVDESS", root).dropped == {"calm": 2, "song": 2}
    assert by_clip(datasets.read_dataset("RAVDESS", root, classes="all"))["02-01-02-01-01-01-01"] == 7
    assert set(datasets.read_dataset("RAVDESS", root, channel="song").table["expression"]) == {HAPPY, SAD}
    assert len(datasets.read_dataset("RAVDESS", root, channel="both", classes="all")) == 10
    with pytest.raises(InputError, match="at least one clip"):
        datasets.read_dataset("RAVDESS", root, clips="audio-video")
    actors = datasets.read_dataset("RAVDESS", root).table.groupby("split")["subject"].unique().map(list).to_dict()
    assert actors == {"test": ["01"], "train": ["02"]}


def test_a_plain_folder_is_split_by_its_folders_by_person_or_by_a_hash(tmp_path):
    divided = datasets.read_dataset("folder", small.folder(tmp_path / "a", ("train", "val")))
    assert divided.table["split"].value_counts().to_dict() == {"train": 6, "test": 6} and "folders" in divided.notes[0]
    assert by_clip(divided)["val/Anger/clip1"] == ANGRY
    for person in ("anna", "ben", "cem"):
        for name in ("happy", "sad"):
            small.clip(tmp_path / "b" / name / person / "1")
    people = datasets.read_dataset("folder", tmp_path / "b", fold=2).table
    assert set(people.loc[people["split"] == "test", "subject"]) == {"ben"}
    loose = [datasets.read_dataset("folder", small.folder(tmp_path / "c", (), count=20), fold=1).table]
    loose += [datasets.read_dataset("folder", tmp_path / "c", fold=fold).table for fold in range(2, 6)]
    tests = [set(t.loc[t["split"] == "test", "clip_id"]) for t in loose]
    assert sum(map(len, tests)) == 60 == len(set.union(*tests))  # every clip is tested once in the five folds


def test_a_class_of_ones_own_needs_to_be_asked_for(tmp_path):
    root = small.folder(tmp_path, (), ("happy", "pain", "contempt"))
    with pytest.raises(InputError, match="'pain'.*--classes all"):
        datasets.read_dataset("folder", root)
    found = datasets.read_dataset("folder", root, classes="all")
    assert found.classes[7:] == ("contempt", "pain") and by_clip(found)["pain/clip0"] == 8
    shutil.rmtree(root / "pain")
    assert datasets.read_dataset("folder", root).dropped == {"contempt": 2}


def test_a_choice_that_a_dataset_does_not_offer_is_refused(tmp_path):
    with pytest.raises(InputError, match="FERV39k: channel.*no such choice"):
        datasets.read_dataset("FERV39k", small.ferv39k(tmp_path), channel="song")


# ----------------------------------------------------------------------------------------------- other projects' lists


def test_mae_dfer_lists_are_read_with_their_own_paths(tmp_path):
    root = small.dfew(tmp_path / "DFEW")
    for split, first in (("train", 101), ("test", 1)):  # the other way round than the dataset's own lists
        small.lines(
            tmp_path / "lists" / "dfew" / "org" / "split01" / f"{split}.csv",
            *[f"/mnt/data1/AC data/DFEW/Clip/jpg_256/{first + i:05d} {i}" for i in range(7)],
        )
    for where in ("lists", "lists/dfew/org/split01", "lists/dfew/org/split01/train.csv"):
        found = datasets.read_dataset("DFEW", root, splits=tmp_path / where)
        assert found.table["expression"].tolist() == list(range(7)) * 2
        assert found.table.loc[0, ["clip_id", "split"]].tolist() == ["00101", "train"]
    assert any("14 of 14 agree" in note for note in found.notes)


def test_former_dfer_lists_give_frame_counts_that_the_check_compares(tmp_path):
    root = small.ferv39k(tmp_path / "data")
    for split, number in (("train", "0001"), ("test", "0002")):
        small.lines(
            tmp_path / "annotation" / f"FERV39K_{split}.txt",
            *[
                f"/home/x/2_ClipsforFaceCrop/Action/{e}/{number} {4 if i == 0 else 3} {i}"
                for i, e in enumerate(small.FERV)
            ],
        )
    small.lines(tmp_path / "annotation" / "AFEW_train.txt", "/home/x/train/Happiness/000000001 3 0")
    check = datasets.check_dataset("FERV39k", root, progress=False, splits=tmp_path / "annotation")
    assert [f.count for f in check.notes if f.kind == "frame count" and "their list" in f.sentence] == [2]


def test_another_label_order_is_told_from_the_folder_names(tmp_path):
    root = small.ferv39k(tmp_path / "data")
    m3dfel = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
    wrong = ("Fear", "Angry", "Disgust", "Happy", "Sad", "Neutral", "Surprise")
    for name, order in (("good", m3dfel), ("bad", wrong)):
        for split, number in (("train", "0001"), ("test", "0002")):
            small.lines(
                tmp_path / name / f"{split}.txt", *[f"Action/{e}/{number} {order.index(e)}" for e in small.FERV]
            )
    found = datasets.read_dataset("FERV39k", root, splits=tmp_path / "good")
    assert by_clip(found)["Action/Fear/0001"] == FEAR and any("M3DFEL_replicate" in note for note in found.notes)
    with pytest.raises(InputError, match="another label order"):
        datasets.read_dataset("FERV39k", root, splits=tmp_path / "bad")


@pytest.mark.parametrize("columns, order, anger", [("{}", "MAE-DFER", 0), ("87 {}", "DFER-CLIP", 3)])
def test_mafw_lists_come_in_two_orders(columns, order, anger, tmp_path):
    root = small.mafw(tmp_path / "data")
    for own in (True, False):
        if not own:
            shutil.rmtree(root / "Train & Test Set")
        for split, clip in (("train", "00001"), ("test", "00051")):
            small.lines(tmp_path / "lists" / f"set_1_{split}.txt", f"/x/MAFW/data/faces/{clip} {columns.format(anger)}")
        found = datasets.read_dataset("MAFW", root, splits=tmp_path / "lists")
        assert found.table["expression"].tolist() == [ANGRY, ANGRY]
        assert any(order in note and ("agree" in note) == own for note in found.notes)


def test_dfew_lists_counted_from_one_are_noticed(tmp_path):
    root = small.dfew(tmp_path / "data")
    small.lines(tmp_path / "train.txt", *[f"x/{1 + i:05d} {i + 1}" for i in range(7)])
    found = datasets.read_dataset("DFEW", root, splits=tmp_path / "train.txt")
    assert found.table["expression"].tolist() == list(range(7)) and any("from 1" in note for note in found.notes)


def test_ravdess_and_afew_lists(tmp_path):
    root = small.ravdess(tmp_path / "R", ("01", "02", "03"), ("01", "03", "08"))
    small.lines(
        tmp_path / "split01" / "train.csv", "/x/RAVDESS/01-01-01-01-01-01-02.mp4 0", "/x/02-01-03-01-01-01-02.mp4 2"
    )
    small.lines(tmp_path / "split01" / "test.csv", "/x/RAVDESS/01-01-03-01-01-01-03.mp4 2")
    found = datasets.read_dataset("RAVDESS", root, splits=tmp_path / "split01")
    assert by_clip(found) == {
        "02-01-01-01-01-01-02": NEUTRAL,
        "02-01-03-01-01-01-02": HAPPY,
        "02-01-03-01-01-01-03": HAPPY,
    }
    assert found.dropped == {"on disk, in no list": 6}
    small.lines(tmp_path / "split01" / "test.csv", "/x/RAVDESS/01-01-03-01-01-01-03.mp4 0")
    with pytest.raises(InputError, match="label"):
        datasets.read_dataset("RAVDESS", root, splits=tmp_path / "split01")
    afew = small.afew(tmp_path / "A")
    small.lines(tmp_path / "AFEW_train.txt", "/home/x/AFEW/train/Happiness/000000001 1 0")
    small.lines(tmp_path / "AFEW_validation.txt", "/home/x/AFEW/validation/Sadness/000500002 1 1")
    found = datasets.read_dataset("AFEW", afew, splits=tmp_path / "AFEW_train.txt")
    assert found.table[["split", "expression"]].to_numpy().tolist() == [["train", HAPPY], ["test", SAD]]


def test_lists_that_do_not_say_what_they_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="train, test or val"):
        lists.find_lists(small.lines(tmp_path / "mine.csv", "a 0"), "DFEW", 1)
    with pytest.raises(InputError, match="fold of the split lists: found 2"):
        lists.find_lists(tmp_path / "split02", "DFEW", 1)
    for name in ("a", "b"):
        small.lines(tmp_path / "two" / name / "train.csv", "1 0")
    with pytest.raises(InputError, match="2 .*one: name its folder"):
        lists.find_lists(tmp_path / "two", "DFEW", 1)
    small.lines(tmp_path / "val" / "train.csv", "1 0")
    small.lines(tmp_path / "val" / "val.csv", "2 0")
    assert set(lists.find_lists(tmp_path / "val", "DFEW", 1)) == {"train", "test"}


# ------------------------------------------------------------------------------------------------------------- check


@pytest.fixture(scope="module")
def whole_afew(tmp_path_factory) -> Path:
    """A tree with the published number of clips of every class."""
    table = published.load("class_counts")
    table = table[table["dataset"] == "AFEW"]
    counts = {part: dict(zip(rows["label"], rows["clips"], strict=True)) for part, rows in table.groupby("split")}
    return small.afew(tmp_path_factory.mktemp("whole") / "AFEW", counts=counts)


def run(capsys, *arguments) -> tuple[int, str]:
    code = cli.main(["data", "check", *map(str, arguments), "--workers", "1"])
    return code, capsys.readouterr().out


def test_exit_code_0_only_for_what_the_papers_used(whole_afew, tmp_path, capsys):
    code, text = run(capsys, "AFEW", "--root", whole_afew)
    assert code == 0 and "this is what the papers used" in text and "1154 in 1154" in text
    assert max(map(len, text.splitlines())) <= 79 + len(str(whole_afew))
    copy = shutil.copytree(whole_afew, tmp_path / "AFEW", copy_function=shutil.os.link)
    lost = next((copy / "train" / "Fear").iterdir())
    shutil.rmtree(lost)
    code, text = run(capsys, "AFEW", "--root", copy)
    assert code == 1 and "fear 80 (published 81)" in " ".join(text.split())


def test_json_says_the_same(whole_afew, capsys):
    code, text = run(capsys, "AFEW", "--root", whole_afew, "--json")
    content = json.loads(text)
    assert code == 0 and content["as_published"] and content["deviations"] == [] and content["clips"] == 1154
    rows = {(r["split"], r["expression"]): (r["published"], r["usable"]) for r in content["counts"]}
    assert rows["test", "disgust"] == (40, 40) and rows["train", "happy"] == (150, 150)


def test_wrong_input_is_exit_code_2_and_the_embedded_benchmark_1(tmp_path, capsys):
    assert run(capsys, "AFEW", "--root", tmp_path)[0] == 2
    root = small.dfew(tmp_path / "DFEW")
    small.lines(root / synth.STAMP, "{}")
    code, text = run(capsys, "DFEW", "--root", root)
    assert code == 1 and "rendered faces, not the real dataset" in text


def kinds(name: str, root: Path, **options) -> dict[str, str]:
    check = datasets.check_dataset(name, root, (1,), progress=False, **options)
    found: dict[str, str] = {}
    for finding in check.deviations:
        found[finding.kind] = f"{found.get(finding.kind, '')}; {finding}"
    return found


def test_missing_empty_and_broken_frames_are_named_with_an_example(tmp_path):
    root = small.dfew(tmp_path)
    clips = root / "Clip" / "clip_224x224"
    shutil.rmtree(clips / "00001")
    for path in (clips / "00002").iterdir():
        path.unlink()
    (clips / "00003" / "2.jpg").write_bytes(b"")
    broken = clips / "00004" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    shutil.rmtree(clips / "00005")
    (small.clip(clips / "00005", count=5) / "3.jpg").unlink()
    (clips / "00006" / "1.jpg").write_bytes(b"no picture")
    found = kinds("DFEW", root)
    assert "1 of 14 listed clips are not on disk" in found["missing clip"] and found["missing clip"].endswith("00001")
    assert found["empty clip"].endswith("00002")
    assert "3 files cannot be read" in found["unreadable"] and "an empty file" in found["unreadable"]
    assert "1 frames" in found["missing frame"] and found["missing frame"].endswith("00005")
    assert "happy 0 (published 1956, listed 1)" in found["counts"]


def test_only_the_deep_check_finds_damaged_pixels(tmp_path):
    root = small.dfew(tmp_path)
    path = root / "Clip" / "clip_224x224" / "00003" / "4.png"
    Image.effect_noise((64, 64), 50).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # header and end are as they were
    path.write_bytes(content)
    assert "unreadable" not in kinds("DFEW", root)
    assert kinds("DFEW", root, deep=True)["unreadable"].endswith("4.png")


def test_duplicates_between_training_and_test_are_found(tmp_path):
    root = small.dfew(tmp_path)
    path = root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text() + "00003,1\n")
    shutil.copytree(root / "Clip" / "clip_224x224" / "00004", root / "Clip" / "clip_224x224" / "00900")
    path.write_text(path.read_text() + "900,4\n")
    check = datasets.check_dataset("DFEW", root, (1,), progress=False)
    found = [str(f) for f in check.deviations if f.kind == "duplicate"]
    assert len(found) == 2 and "1 clips listed twice, 1 of them in both splits, for example 00003" in found[0]
    assert "identical files" in found[1] and "00004" in found[1] and "00900" in found[1]


@pytest.mark.parametrize(
    "name, write, clips",
    [("DFEW", small.dfew, "Clip/original"), ("MAFW", small.mafw, "data/clips"), ("MAFW", small.mafw, "data/frames")],
)
def test_another_copy_of_the_clips_than_the_papers_used_is_a_deviation(name, write, clips, tmp_path):
    root = write(tmp_path, clips=clips)
    assert "the papers used" in kinds(name, root)["clips"]


def test_two_whole_actors_are_not_the_whole_ravdess(tmp_path):
    one = small.video(tmp_path / "one.mp4", 1).read_bytes()
    root = tmp_path / "RAVDESS"
    for actor in ("01", "02"):
        (root / f"Actor_{actor}").mkdir(parents=True)
        for emotion in range(1, 9):
            for intensity in ("01",) if emotion == 1 else ("01", "02"):
                for trial in ("01-01", "01-02", "02-01", "02-02"):
                    name = f"02-01-{emotion:02d}-{intensity}-{trial}-{actor}"
                    (root / f"Actor_{actor}" / f"{name}.mp4").write_bytes(one + name.encode())
    for classes in ("seven", "all"):
        check = datasets.check_dataset("RAVDESS", root, progress=False, classes=classes)
        assert set(check.counts["verdict"]) == {"as published"}
        assert [str(f).split(",")[0] for f in check.deviations] == ["2 of 24 actors"]


def test_two_people_of_one_video_in_both_splits_are_found(tmp_path):
    root = small.affwild2(tmp_path)
    folder = root / "5th ABAW Annotations" / "EXPR_Recognition_Challenge"
    shutil.copy(folder / "Train_Set" / "9_left.txt", folder / "Validation_Set" / "9_right.txt")
    shutil.copytree(root / "cropped_aligned" / "9_left", root / "cropped_aligned" / "9_right")
    assert "people in both splits" in kinds("AffWild2", root)["duplicate"]


def test_labels_counted_from_another_number_are_noticed(tmp_path):
    root = tmp_path / "DFEW"
    small.clip(root / "Clip" / "clip_224x224" / "00001")
    counts = list(published.class_counts("DFEW", "test", 1).values())
    labels = [label for label, count in enumerate(counts) for _ in range(count)]  # 0 to 6 instead of 1 to 7
    for part in ("train", "test"):
        first = 1 if part == "train" else 10_001
        small.lines(
            root / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / "set_1.csv",
            "video_name,label",
            *[f"{first + i},{label}" for i, label in enumerate(labels)],
        )
    found = kinds("DFEW", root)
    assert "labels are in another order or count from another number" in found["label order"]
    assert "happy has sad's" in found["label order"]


def test_labels_that_contradict_their_folder_are_noticed(tmp_path):
    root = small.ferv39k(tmp_path)
    path = root / "4_setups" / "All_scenes" / "test_All.csv"
    path.write_text(path.read_text().replace("Action/Sad/0002 Sad", "Action/Sad/0002 Fear"))
    assert "first: Action/Sad/0002" in kinds("FERV39k", root)["label order"]


def test_sizes_and_short_clips_are_notes(tmp_path):
    root = small.dfew(tmp_path)
    small.clip(root / "Clip" / "clip_224x224" / "00999", side=20)
    path = root / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text() + "999,1\n")
    check = datasets.check_dataset("DFEW", root, (1,), progress=False)
    notes = {f.kind: str(f) for f in check.notes}
    assert "15 of 15 clips have fewer than 16 frames" in notes["short clip"] and notes["image size"].endswith("00999")
    assert check.facts["image_sizes"] == {"12x12": 42, "20x20": 3}


def test_all_folds_are_read_and_a_missing_one_is_named(tmp_path):
    check = datasets.check_dataset("DFEW", small.dfew(tmp_path, folds=(1, 2, 4, 5)), progress=False)
    assert sorted(set(check.counts["fold"])) == [1, 2, 4, 5]
    assert any(f.kind == "fold" and "set_3.csv" in str(f) for f in check.deviations)


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    root = small.folder(tmp_path, count=20)
    one, two = (datasets.check_dataset("folder", root, progress=False, workers=n).to_json() for n in (1, 2))
    assert one == two and one["clips"] == 120


# --------------------------------------------------------------------------------------------------------- any bytes


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("trees")
    return {name: write(root / name) for name, write in small.WRITERS.items()}


_TEXTS = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.sampled_from(
            [
                "1,1",
                "00001,3",
                "Action/Happy/0001 Happy",
                "00001.mp4 anger",
                "-1",
                "7",
                "4",
                "8",
                small.HEADER,
                "video_name,label",
                "image_location," + small.HEADER,
                "video1/00003.jpg,4",
                "../../etc/passwd Happy",
                "/etc/passwd,1",
                "x" * 300 + ",1",
                "x" * 5000 + " anger",
                "\u00b2,1",
                "1,\u0661",
                "a b c 3 0",
                "/x/00001 97 0",
                "/x/00001 0",
                "/x/Action/Fear/0001 12 6",
                "\x00,1",
                "",
                "   ",
                "," * 50_000 + "x",
                " " * 9_000 + ",",
                "1;1",
                "1\t1",
                "99999999999999999999,1",
                "video1/99999999999999999999.jpg,1",
                "02-01-03-01-01-01-01 2",
            ]
        ),
        max_size=8,
    ).map(lambda parts: "\r\n".join(parts).encode()),
)
_FILES = {
    "DFEW": "EmoLabel_DataSplit/train(single-labeled)/set_1.csv",
    "FERV39k": "4_setups/All_scenes/train_All.csv",
    "MAFW": "Train & Test Set/single/no_caption/set_1/test.txt",
    "AffWild2": "5th ABAW Annotations/EXPR_Recognition_Challenge/Train_Set/video1.txt",
}


@pytest.mark.parametrize("missing", ["error", "drop", "keep"])
@pytest.mark.parametrize("name", _FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_TEXTS)
def test_any_bytes_in_a_list_end_in_a_manifest_or_a_sentence(trees, name, missing, content):
    path = trees[name] / _FILES[name]
    before = path.read_bytes()
    try:
        path.write_bytes(content)
        found = datasets.read_dataset(name, trees[name], missing=missing)
        assert len(found) and found.table["expression"].between(0, 6).all()
        assert not any(".." in p.split("/") for p in found.table["path"])
    except AudferError as error:
        assert "found" in str(error) and "\n" not in str(error)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", [n for n in small.WRITERS if n != "AffWild2"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=_TEXTS, test=_TEXTS)
def test_any_bytes_in_another_projects_lists_end_in_a_manifest_or_a_sentence(trees, tmp_path, name, train, test):
    (tmp_path / "train.txt").write_bytes(train)
    (tmp_path / "test.txt").write_bytes(test)
    try:
        found = datasets.read_dataset(name, trees[name], splits=tmp_path, missing="keep")
        assert len(found) and set(found.table["split"]) <= {"train", "test"}
    except AudferError as error:
        assert "found" in str(error)


_PARTS = st.sampled_from(
    [
        "train",
        "test",
        "Train_AFEW",
        "Val_AFEW",
        "happy",
        "Anger",
        "0001",
        "1.jpg",
        "2.mp4",
        "cropped_aligned",
        "data",
        "faces",
        "Clip",
        "clip_224x224",
        "EmoLabel_DataSplit",
        "train(single-labeled)",
        "set_1.csv",
        "Faces",
        "AlignedFaces_LBPTOP_Points",
        "2_ClipsforFaceCrop",
        "4_setups",
        "All_scenes",
        "train_All.csv",
        "ABAW",
        "EXPR_Recognition_Challenge",
        "Train_Set",
        "video.txt",
        "Actor_01",
        "02-01-03-01-01-01-01.mp4",
        "\u00e9 \u00df",
        ".hidden",
        "validation",
    ]
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.lists(st.tuples(st.lists(_PARTS, min_size=1, max_size=5), st.binary(max_size=30)), max_size=8))
def test_any_folder_tree_ends_in_a_check_or_a_sentence(tmp_path, tree):
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for parts, content in tree:
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content or small.jpeg(50))
        except OSError:
            continue  # a file where a folder would have to be
    for name in small.WRITERS:
        try:
            check = datasets.check_dataset(name, root, progress=False)
            assert str(check) and check.to_json()["deviations"]
        except AudferError as error:
            assert "found" in str(error)
