"""Change anything that a step was made of and it is made again; change nothing and it is not."""

import ast
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import small_layouts

from audfer import datasets
from audfer.facs import ACTION_UNITS
from audfer.files import digest
from audfer.lock_and_check import study as lac
from audfer.plugins import COMPONENTS
from audfer.study import action_units, inputs, scores
from audfer.study.profiles import EstimatorSettings
from audfer.study.steps import cached_step, file_states

# ------------------------------------------------------------------------------------------- the one way to keep a step


def _files(folder: Path) -> dict[str, Path]:
    for name, text in (("a.csv", "1"), ("b/c.csv", "2"), ("b/d.csv", "3")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {path.name: path for path in folder.rglob("*.csv")}


def _same_size_later(folder: Path) -> None:
    (folder / "a.csv").write_text("9")
    os.utime(folder / "a.csv", ns=(0, time.time_ns() + 1))


CHANGES = {
    "content and size": lambda folder: (folder / "b/c.csv").write_text("22"),
    "content alone": _same_size_later,
    "time alone": lambda folder: os.utime(folder / "a.csv", ns=(0, 1)),
    "one more": lambda folder: (folder / "b/e.csv").write_text(""),
    "one less": lambda folder: (folder / "b/d.csv").unlink(),
    "another name": lambda folder: (folder / "b/d.csv").rename(folder / "b/f.csv"),
    "another folder": lambda folder: (folder / "b").rename(folder / "g"),
    "none left": lambda folder: folder.rename(folder.with_name("elsewhere")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_step_is_made_again_when_a_file_of_its_changes_and_not_otherwise(change, tmp_path):
    made, read = [], tmp_path / "read"
    _files(read)

    def step() -> int:
        cached_step(tmp_path / "work" / "p" / "step", {"read": file_states(read), "settings": [1]}, made.append)
        return len(made)

    assert [step(), step(), step()] == [1, 1, 1]
    change(read)
    assert [step(), step()] == [2, 2]
    (tmp_path / "work" / "p" / "step" / "stamp.json").write_text("{")  # half a stamp is none
    assert [step(), step()] == [3, 3]


# ------------------------------------------------------------------------------------------------------ every such step


class Asked(Exception):
    """What a step says that it would be made of."""


def _annotated(root: Path) -> pd.DataFrame:
    rows = [
        {"subject": f"SN00{1 + i % 3}", "path": f"Left/SN00{1 + i % 3}/{i}.jpg", "fold": 1 + i % 3, "frame": i}
        for i in range(6)
    ]
    for row in rows:
        (root / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (root / row["path"]).write_bytes(small_layouts.jpeg(row["frame"]))
    table = pd.DataFrame(rows).assign(dataset="DISFA", **dict.fromkeys(ACTION_UNITS, 1.0))
    table.attrs.update(dataset="DISFA", folds="by subject", clips="frames")
    return table


@pytest.fixture
def study(tmp_path, monkeypatch):
    """What the steps ask a study for, on real files; ``study.asks(step)`` is the digest of what the step is made of."""
    for name, value in (("happy/clip", 10), ("sad/clip", 60)):
        small_layouts.clip(tmp_path / "folder" / name, value)
        csv = tmp_path / "openface" / "folder" / f"{name}.csv"
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_text(f"frame,AU01_r\n1,{value}\n")
    packed = SimpleNamespace(content="clips")
    study = SimpleNamespace(
        work=tmp_path / "work",
        data_root=tmp_path,
        device="cpu",
        precision="float32",
        landmark_source="",
        has_annotated_set=True,
        annotated_table=_annotated(tmp_path / "DISFA"),
        trained_estimator=SimpleNamespace(stamp="estimator"),
        synth_config=EstimatorSettings(epochs=1),  # any dataclass
        profile=SimpleNamespace(
            embedded=False,
            estimator=EstimatorSettings(epochs=1),
            data=SimpleNamespace(render_size=48, seed=0),
            grid=SimpleNamespace(strategy_dataset="folder", models=("m3dfel",)),
            training=SimpleNamespace(workers=1),
        ),
        record=SimpleNamespace(path=Path("record")),
        manifest=lambda name, fold=0: datasets.read_dataset("folder", tmp_path / "folder"),
        packed=lambda name, fold=0: packed,
        packed_folder=lambda name, fold=0: tmp_path / "work" / "packed" / name,
        cell=lambda model, dataset: model,
        run=lambda cells: [study.record],
        clips=packed,
    )

    def look(folder, made_of, make):
        raise Asked(digest(made_of))

    for module in (action_units, inputs, scores, lac):
        monkeypatch.setattr(module, "cached_step", look)
    monkeypatch.setattr(lac, "final_record", lambda study: study.record)
    monkeypatch.setattr(lac.Recogniser, "load", lambda path: SimpleNamespace(save=None))

    def asks(step: str) -> str:
        with pytest.raises(Asked) as asked:
            STEPS[step](study)
        return str(asked.value)

    study.asks = asks
    return study


def _lac_table(study):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lac, "recogniser", lambda study: SimpleNamespace(window=4, image_size=48))
        return lac.lac_table(study, "folder")


STEPS = {
    "estimator": action_units.trained_estimator,
    "action units": lambda study: action_units.extracted_table(study, "folder"),
    "landmarks": lambda study: inputs._landmarks(study, "folder", 0, study.landmark_source),
    "frame scores": lambda study: scores.frame_scores(study, "folder"),
    "recogniser": lac.recogniser,
    "recogniser's action units": _lac_table,
}


def _set(*path: str):
    """A change: the value at the end of the path becomes another."""
    *parents, last = path

    def change(study) -> None:
        where = study
        for name in parents:
            where = getattr(where, name)
        before = getattr(where, last)
        after = {bool: lambda: not before, str: lambda: before + "x"}.get(type(before), lambda: before + 1)()
        setattr(where, last, after)

    return change


def _setting(name: str):
    def change(study) -> None:
        before = study.profile.estimator
        study.profile.estimator = replace(before, **{name: getattr(before, name) * 2})

    return change


def _touched(pattern: str):
    """A file's content changes and neither its name nor its size."""

    def change(study) -> None:
        path = sorted(study.data_root.glob(pattern))[0]
        raw, state = path.read_bytes(), path.stat()
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        os.utime(path, ns=(0, state.st_mtime_ns + 1))

    return change


def _gone(pattern: str):
    return lambda study: sorted(study.data_root.glob(pattern))[0].unlink()


def _code(name: str):
    def change(study) -> None:
        before = COMPONENTS[name]
        study.patch.setitem(COMPONENTS._entries, name, replace(before, version=before.version + 1))

    return change


def _recoded(study) -> None:
    study.annotated_table.loc[3, "AU12"] = 2.0


def _ready(study) -> None:
    (study.data_root / "openface" / "folder.parquet").write_text("a table")


def _given_landmarks(study) -> None:
    study.landmark_source = str(study.data_root / "openface" / "folder" / "happy")


def _stamped(study) -> None:
    (study.work / "lac").mkdir(parents=True)
    (study.work / "lac" / "stamp.json").write_text('{"stamp": "another"}')


def _other_record(study) -> None:
    study.record.path = Path("another")


CLIPS = [_touched("folder/happy/clip/*.jpg"), _gone("folder/happy/clip/*.jpg")]
CSVS = [_touched("openface/folder/happy/*.csv"), _gone("openface/folder/*/*.csv")]
INPUTS = {
    "estimator": [
        *(_setting(name) for name in ("epochs", "batch_size", "learning_rate", "held_out_fold")),
        *(_set("profile", "data", name) for name in ("render_size", "seed")),
        *(_set(name) for name in ("device", "precision")),
        *(_touched("DISFA/Left/*/*.jpg"), _gone("DISFA/Left/*/*.jpg")),
        *(_recoded, _code("annotated frames"), _code("estimator")),
    ],
    "action units": [*CLIPS, *CSVS, _ready, *map(_code, ("import", "extraction", "estimator"))],
    "landmarks": [*CSVS, _set("clips", "content"), _given_landmarks, _code("landmarks")],
    "frame scores": [_other_record, _set("clips", "content"), _code("frame scores")],
    "recogniser": [_other_record],
    "recogniser's action units": [*CLIPS, _stamped, *map(_code, ("extraction", "lock and check"))],
}


@pytest.mark.parametrize(
    "step, change",
    [pytest.param(step, change, id=f"{step}-{n}") for step in INPUTS for n, change in enumerate(INPUTS[step])],
)
def test_every_input_of_every_step_is_in_its_stamp(step, change, study, monkeypatch):
    study.patch = monkeypatch
    before = study.asks(step)
    assert study.asks(step) == before
    change(study)
    assert study.asks(step) != before


def test_a_rendered_studys_steps_follow_what_they_are_made_of(study):
    study.profile.embedded = True
    for step, change in (("action units", _set("trained_estimator", "stamp")), ("landmarks", _setting("epochs"))):
        before = study.asks(step)
        if step == "landmarks":
            study.synth_config = replace(study.synth_config, epochs=7)
        else:
            change(study)
        assert study.asks(step) != before


def test_no_step_is_kept_that_is_not_looked_at_here():
    callers = set()
    package = Path(datasets.__file__).parents[1]
    for path in package.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name != "cached_step":
                calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(isinstance(call, ast.Name) and call.id == "cached_step" for call in calls):
                    callers.add(function.name)
    expected = {"trained_estimator", "extracted_table", "_landmarks", "frame_scores", "recogniser", "lac_table"}
    assert callers == expected and len(STEPS) == len(INPUTS) == len(expected)


def test_a_store_that_was_cut_by_landmarks_follows_them(tmp_path):
    from audfer.datasets.packing import _times, tracks_of

    small_layouts.clip(tmp_path / "folder" / "happy" / "clip")
    csv = tmp_path / "csvs" / "happy" / "clip.csv"
    csv.parent.mkdir(parents=True)
    csv.write_text("frame\n1\n")
    manifest = datasets.read_dataset("folder", tmp_path / "folder")
    before, sizes = _times(manifest, tmp_path / "csvs"), tracks_of(manifest, tmp_path / "csvs")
    assert before == _times(manifest, tmp_path / "csvs")
    csv.write_text("frame\n2\n")
    os.utime(csv, ns=(0, np.int64(csv.stat().st_mtime_ns) + 5))
    assert before != _times(manifest, tmp_path / "csvs") and sizes == tracks_of(manifest, tmp_path / "csvs")
