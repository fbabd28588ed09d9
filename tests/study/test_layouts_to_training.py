"""Every layout, from files on disk through check, pack and extraction to a trained epoch with the AU head."""

from __future__ import annotations

import numpy as np
import pytest
import small_layouts as small
import torch

from audfer import datasets
from audfer.action_units import AUTable, clip_presence
from audfer.action_units.backends import Estimator
from audfer.action_units.estimator import ActionUnitEstimator
from audfer.action_units.running import extract_manifest
from audfer.companion import cli
from audfer.knowledge import KnowledgeMatrix
from audfer.training.loop import Cell, CellInputs
from audfer.training.records import RunRecord, RunStore, run_cells

FRAMES, SIDE = 4, 32


@pytest.fixture(scope="module")
def estimator(tmp_path_factory) -> Estimator:
    """One with fresh weights: what it says of grey pictures means nothing, and is a number for every frame."""
    folder = tmp_path_factory.mktemp("estimator")
    torch.manual_seed(0)
    ActionUnitEstimator().save(folder)
    return Estimator(str(folder), size=SIDE)


@pytest.mark.parametrize("name", small.WRITERS)
def test_every_layout_goes_from_files_to_a_trained_epoch(name, estimator, tmp_path, capsys):
    root, packed, out = small.WRITERS[name](tmp_path / name), tmp_path / "packed", tmp_path / "aus.parquet"
    assert cli.main(["data", "check", name, "--root", str(root)]) == 1  # read, and not what the papers used
    assert (
        cli.main(["data", "pack", name, str(packed), "--root", str(root), "--frames", str(FRAMES), "--size", str(SIDE)])
        == 0
    )
    clips = datasets.open_packed(packed)
    assert len(clips.split("train")) > 1 and len(clips.split("test")) > 0

    manifest = datasets.read_dataset(name, root)
    states = extract_manifest(manifest, out, estimator, workers=1)
    assert set(states["state"]) == {"done"}
    labels = clip_presence(AUTable.load(out), clips.clip_ids)
    assert np.isfinite(labels).all()  # every packed clip has its AU labels

    np.savez(tmp_path / "labels.npz", clip_ids=np.array(clips.clip_ids), labels=labels)
    KnowledgeMatrix.published().save(tmp_path / "knowledge.json")
    inputs = CellInputs(str(packed), str(tmp_path / "labels.npz"), str(tmp_path / "knowledge.json"), "clips", "labels")
    cell = Cell(
        "m3dfel",
        name,
        au_ratio=0.25,
        strategy="global",
        weights="knowledge",
        epochs=1,
        num_frames=FRAMES,
        image_size=SIDE,
    )
    (row,) = run_cells([cell], {cell.source: inputs}, RunStore(tmp_path / "runs"), workers=1).to_dict("records")
    assert row["error"] is None
    record = RunRecord.load(row["path"])
    assert len(record.scores) == len(clips.split("test")) and np.isfinite(record.history["loss"]).all()
    assert record.clip_ids == [clips.clip_ids[place] for place in clips.split("test")]
