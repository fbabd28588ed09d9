"""AU tables of a manifest: the estimator's, and the same values through OpenFace's CSV format and the disk profile."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from audfer.action_units.importing import import_openface
from audfer.errors import InputError
from audfer.facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from audfer.study.action_units import clips_with_aus
from audfer.study.study import Study


def write_openface(table, folder):
    """One CSV a clip as OpenFace 2.x writes it: frames from 1, spaced separators, two decimals."""
    folder.mkdir(parents=True, exist_ok=True)
    intensity, presence = [f"{a}_r" for a in INTENSITY_ACTION_UNITS], [f"{a}_c" for a in ACTION_UNITS]
    for clip_id, rows in table.frames.groupby("clip_id"):
        lines = [", ".join(["frame", "face_id", "timestamp", "confidence", "success", *intensity, *presence])]
        for row in rows.to_dict("records"):
            lines.append(
                ", ".join(
                    [
                        str(row["frame"] + 1),
                        "0",
                        f"{row['frame'] / 25:.3f}",
                        "0.98",
                        "1",
                        *(f"{row[c]:.2f}" for c in intensity + presence),
                    ]
                )
            )
        (folder / f"{clip_id.replace('/', '_')}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def real_layout(study, tmp_path_factory):
    """A folder as AUDFER_DATA wants it: the datasets, and OpenFace's CSVs beside them."""
    root = tmp_path_factory.mktemp("real")
    for name in study.dataset_names:
        (root / name).symlink_to(study.data_root / name)
        write_openface(study.au_table(name), root / "openface" / name)
    return root


def test_openface_files_give_the_table_they_were_written_from(study, real_layout):
    table = import_openface(study.manifest("FERV39k"), real_layout / "openface" / "FERV39k").frames
    expected = study.au_table("FERV39k").frames
    columns = [f"{a}_r" for a in INTENSITY_ACTION_UNITS]
    merged = table.merge(expected, on=["clip_id", "frame"], suffixes=("", "_expected"))
    assert len(merged) == len(table) == len(expected)
    np.testing.assert_allclose(merged[columns], merged[[f"{c}_expected" for c in columns]], atol=0.0051)
    np.testing.assert_array_equal(merged["AU12_c"], merged["AU12_c_expected"])


def test_a_clip_without_a_file_is_unknown_and_no_file_at_all_is_refused(study, real_layout, tmp_path):
    from audfer.action_units.table import clip_presence

    manifest = study.manifest("DFEW")
    clips = manifest.table["clip_id"].tolist()
    half = len(clips) // 2
    for clip in clips[:half]:
        shutil.copy(real_layout / "openface" / "DFEW" / f"{clip}.csv", tmp_path)
    labels = clip_presence(import_openface(manifest, tmp_path), clips)
    assert np.isfinite(labels[:half]).all() and np.isnan(labels[half:]).all()
    for clip in clips[1:half]:  # one clip of all of them is no set of action units
        (tmp_path / f"{clip}.csv").unlink()
    with pytest.raises(InputError, match="at most 75% of them without"):
        import_openface(manifest, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no CSV whose name is a clip's"):
        import_openface(manifest, tmp_path / "empty")


def test_the_disk_profile_reaches_a_trained_cell_from_files_alone(study, real_layout, monkeypatch, tmp_path):
    monkeypatch.setenv("AUDFER_DATA", str(real_layout))
    profile = replace(study.profile, data=replace(study.profile.data, source="disk"))
    disk = Study(profile, tmp_path / "work", tmp_path / "figures")
    np.testing.assert_allclose(disk.knowledge().values, study.knowledge().values, atol=0.01)
    cell = replace(disk.cell("former_dfer", "DFEW", 0.25), epochs=1)
    record = disk.run([cell])[0]
    assert len(record.scores) == len(study.packed("DFEW").split("test")) and record.au_scores is not None
    assert "Real datasets" in disk.caption
    clips = len(disk.manifest("DFEW"))
    known = {"dataset": "DFEW", "clips": clips, "with": clips, "partly": 0, "without": 0, "refused": 0}
    written = json.loads((record.path / "record.json").read_text())["inputs"]["au_coverage"]
    assert written == {**known, "no_file": "0 without a file"}
    inputs = disk.cell_inputs([cell])[cell.source]
    counted = replace(inputs, au_coverage={**known, "with": 1})
    assert disk.store.key(cell, inputs) == disk.store.key(cell, counted) == record.path.name
    for name in ("presence_rates", "knowledge_by_dataset", "au_coverage"):
        assert f"{clips} of {clips} clips of DFEW with action units, 0 partly" in disk.results(name).caption
    assert clips_with_aus(study, ("DFEW",)) == "" and study.au_table("DFEW").about["coverage"]["with"] == clips


def test_clip_by_clip_in_processes_gives_the_table_of_the_chain(study, tmp_path):
    from audfer.action_units.backends import Estimator
    from audfer.action_units.running import extract_manifest
    from audfer.action_units.table import AUTable

    manifest = study.manifest("FERV39k")
    manifest = replace(manifest, table=manifest.table.iloc[:6])
    study.estimator  # trained, and saved in its folder
    extract_manifest(
        manifest,
        tmp_path / "au.parquet",
        workers=1,
        backend=Estimator(str(study.work / "estimator"), study.profile.data.render_size),
    )
    table, expected = AUTable.load(tmp_path / "au.parquet"), study.au_table("FERV39k").frames
    expected = expected[expected["clip_id"].isin(table.clip_ids())].reset_index(drop=True)
    assert table.frames["frame"].tolist() == expected["frame"].tolist() and len(table.clip_ids()) == 6
    intensity, presence = [f"{a}_r" for a in INTENSITY_ACTION_UNITS], [f"{a}_c" for a in ACTION_UNITS]
    np.testing.assert_allclose(table.frames[intensity], expected[intensity], atol=1e-4)
    np.testing.assert_array_equal(table.frames[presence], expected[presence])
    assert set(table.frames["tool"]) == {"audfer"}
