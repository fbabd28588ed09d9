"""A dataset that only this file knows goes through reading, check, packing and a training cell."""

from __future__ import annotations

import numpy as np
import pytest
import small_layouts as small

from audfer import datasets
from audfer.companion import cli
from audfer.datasets import DATASETS, Dataset, Finding
from audfer.datasets.common import Listing, OwnLists, on_disk
from audfer.datasets.lists import add_clips
from audfer.errors import InputError
from audfer.facs import EXPRESSIONS, LabelSpace
from audfer.knowledge import KnowledgeMatrix
from audfer.training.loop import Cell, CellInputs
from audfer.training.records import RunRecord, RunStore, run_cells

LABELS = LabelSpace("Diary", {name[:3]: place for place, name in enumerate(EXPRESSIONS)} | {"???": None})
LISTS = OwnLists(
    lambda base, fold: {split: base / "lists" / f"{split}{fold}.txt" for split in ("train", "test")},
    lambda name, path, line: name.split("/")[-1],
    "monday_1 sad",
)


def read(listing: Listing, *, clips: str = "", splits=None) -> None:
    """``lists/<split><fold>.txt`` names the clips in ``scenes`` or ``takes``."""
    _, folder = listing.choose_clips(clips)
    add_clips(listing, LISTS, splits, on_disk(folder))


@pytest.fixture
def diary(tmp_path, monkeypatch):
    described = Dataset(
        read,
        LABELS,
        folds=2,
        folders=("my-diary",),
        published_folds=True,
        clips={"frames": ("scenes",), "video": ("takes",)},
        orders={"its own": EXPRESSIONS},
        expected=lambda manifest, split: dict.fromkeys(EXPRESSIONS, 2 if split == "train" else 1),
        look=lambda manifest: [Finding("weather", "it rained")] * (manifest.fold == 2),
    )
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._read()))
    monkeypatch.setattr(DATASETS, "_modules", dict(DATASETS._modules))
    DATASETS.add("Diary", described)
    root = tmp_path / "My Diary"
    for day in range(21):
        small.clip(root / "scenes" / f"day_{day}", 5 * day, 4, side=32)
    for fold in (1, 2):
        for split, days in (("train", range(14)), ("test", range(14, 21))):
            lines = [f"day_{day} {EXPRESSIONS[day % 7][:3]}" for day in days]
            small.lines(root / "lists" / f"{split}{fold}.txt", *lines, *["day_0 ???"] * (split == "train"))
    return tmp_path


def test_it_is_read_and_checked_against_its_own_counts(diary, capsys):
    manifest = datasets.read_dataset("diary", diary, fold=2)
    assert manifest.counts()["total"].to_dict() == {"train": 14, "test": 7} and manifest.root.name == "My Diary"
    assert manifest.dropped == {"no single label": 1} and manifest.fold == 2
    check = datasets.check_dataset("diary", diary, progress=False)
    assert check.as_published and set(check.counts["fold"]) == {1, 2}
    assert "0/hap" not in str(check) and "hap happy" in str(check)
    (diary / "My Diary" / "scenes" / "day_20" / "3.jpg").write_bytes(b"")
    check = datasets.check_dataset("diary", diary, folds=(2,), progress=False)
    assert [finding.kind for finding in check.deviations] == ["unreadable", "weather", "counts"]


def test_wrong_input_to_it_is_named(diary):
    with pytest.raises(InputError, match="dataset: found 'diaries', expected one of AFEW, .*, RAVDESS, Diary$"):
        datasets.read_dataset("diaries", diary)
    with pytest.raises(InputError, match="Diary: fold: found 3, expected 1 to 2"):
        datasets.read_dataset("Diary", diary, fold=3)
    with pytest.raises(InputError, match="Diary: channel.*Diary offers no such choice, only clips, splits"):
        datasets.read_dataset("Diary", diary, channel="song")
    with pytest.raises(InputError, match="folder of Diary's clips: found no such folder, expected one of takes"):
        datasets.read_dataset("Diary", diary, clips="video")


def test_other_projects_lists_of_it_are_read(diary):
    lists = [
        small.lines(diary / f"{split}.txt", *[f"/x/day_{n} 4 {n % 7}" for n in days])
        for split, days in (("train", range(7)), ("test", range(7, 14)))
    ]
    manifest = datasets.read_dataset("Diary", diary, splits=lists[0])
    assert manifest.table["expression"].tolist() == [*range(7)] * 2 and set(manifest.listed_frames.values()) == {4}


def test_it_is_packed_by_the_command_and_trains_a_cell(diary):
    packed = diary / "packed"
    command = ["data", "pack", "diary", str(packed), "--root", str(diary), "--frames", "4", "--size", "32"]
    assert cli.main([*command, "--workers", "1"]) == 0
    clips = datasets.open_packed(packed)
    labels = np.random.default_rng(0).integers(0, 2, (len(clips), 18)).astype(np.float32)
    np.savez(diary / "labels.npz", clip_ids=np.array(clips.clip_ids), labels=labels)
    KnowledgeMatrix.published().save(diary / "knowledge.json")
    inputs = CellInputs(str(packed), str(diary / "labels.npz"), str(diary / "knowledge.json"), "clips", "labels")
    head = {"au_ratio": 0.25, "strategy": "global", "weights": "knowledge"}
    cell = Cell("former_dfer", "Diary", epochs=1, num_frames=4, image_size=32, **head)
    (row,) = run_cells([cell], {cell.source: inputs}, RunStore(diary / "runs"), workers=1).to_dict("records")
    assert row["error"] is None
    record = RunRecord.load(row["path"])
    assert record.clip_ids == [clips.clip_ids[place] for place in clips.split("test")]
