"""The run store: nothing is trained twice, nothing is half there."""

import json
import os
import pickle
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from audfer import files
from audfer.action_units.table import clip_presence
from audfer.companion import cli
from audfer.datasets import open_packed
from audfer.errors import AudferError, InputError
from audfer.jobs import workers
from audfer.jobs.executors import Pool, opened
from audfer.jobs.workers import Task
from audfer.progress import GridProgress
from audfer.study.study import Study
from audfer.training import records as experiments
from audfer.training.records import FORMAT, RunRecord, RunStore, load_records, run_cells, write_meta

needs_slurm = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed")


@pytest.fixture(scope="module")
def cells(study):
    short = [study.cell("former_dfer", "DFEW"), study.cell("former_dfer", "DFEW", 0.25)]
    return [replace(cell, epochs=1) for cell in short]


@pytest.fixture(scope="module")
def store(tmp_path_factory, study, cells):
    store = RunStore(tmp_path_factory.mktemp("runs"))
    run_cells(cells, study.inputs, store, workers=1)
    return store


def test_a_record_holds_what_tables_need(store, study, cells):
    frame = run_cells(cells, study.inputs, store, workers=1)
    record = load_records(frame)[1]
    packed = study.packed("DFEW")
    test = packed.split("test")
    assert record.clip_ids == [packed.clip_ids[i] for i in test]
    np.testing.assert_array_equal(record.expressions, packed.expressions[test])
    np.testing.assert_allclose(record.scores.sum(1), 1, rtol=1e-5)
    assert record.scores.shape == (len(test), 7) and record.au_scores.shape == (len(test), 18)
    assert record.cell["au_ratio"] == 0.25 and len(record.history) == 1 and record.flops["parameters"] > 1000
    meta = json.loads((record.path / "record.json").read_text())
    assert meta["classes"][0] == "happy" and "middle frame" in meta["frame_sampling"]
    assert meta["recipe"]["optimizer"] == "adamw" and meta["recipe"]["augmentation"]["crop_area"] == [0.85, 1.0]
    assert (record.path / "weights.safetensors").stat().st_size > 1000
    assert not (store.folder / ".unfinished" / meta["key"]).exists()


def test_a_second_call_trains_nothing(store, study, cells):
    times = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.npz")}
    assert not run_cells(cells, study.inputs, store, workers=1)["trained"].any()
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.npz")} == times


def test_deleting_a_record_remakes_only_that_one_with_the_same_numbers(store, study, cells):
    before = load_records(run_cells(cells, study.inputs, store, workers=1))
    shutil.rmtree(before[0].path)
    frame = run_cells(cells, study.inputs, store, workers=1)
    assert frame["trained"].tolist() == [True, False]
    np.testing.assert_array_equal(load_records(frame)[0].scores, before[0].scores)


def test_au_labels_change_the_key_only_where_an_au_head_uses_them(store, study, cells):
    other = replace(study.inputs["DFEW"], au_fingerprint="something else")
    alone, joined = ((store.key(c, study.inputs["DFEW"]), store.key(c, other)) for c in cells)
    assert alone[0] == alone[1] and joined[0] != joined[1]
    clips = replace(study.inputs["DFEW"], fingerprint="other clips")
    assert store.key(cells[0], clips) != store.key(cells[0], study.inputs["DFEW"])


@pytest.mark.parametrize("field, value", [("seed", 1), ("epochs", 2), ("num_frames", 4), ("precision", "bf16")])
def test_every_setting_changes_the_key(store, study, cells, field, value):
    inputs = study.inputs["DFEW"]
    assert store.key(replace(cells[0], **{field: value}), inputs) != store.key(cells[0], inputs)


def test_a_recipe_counts_by_its_numbers_not_by_its_name(store, study, cells):
    cell, inputs = replace(cells[0], recipe="former_dfer-tiny"), study.inputs["DFEW"]
    assert store.key(cell, inputs) == store.key(cells[0], inputs)
    assert store.key(replace(cell, recipe="former_dfer-release"), inputs) != store.key(cell, inputs)


def test_initial_weights_change_the_key_of_cells_that_start_from_them(store, study, cells):
    first, second = (
        replace(study.inputs["DFEW"], initial_weights="w.pt", initial_fingerprint=text) for text in ("a", "b")
    )
    assert store.key(cells[0], first) == store.key(cells[0], second)
    warm = replace(cells[0], initialisation="mae")
    assert len({store.key(warm, first), store.key(warm, second), store.key(cells[0], first)}) == 3
    with pytest.raises(InputError, match="initialisation: found 'mae' without a digest of the weights"):
        store.key(warm, study.inputs["DFEW"])


def test_a_failed_cell_is_a_row_and_the_others_go_on(study, cells, tmp_path):
    broken, store = replace(cells[0], image_size=8), RunStore(tmp_path)  # no network takes that
    frame = run_cells([broken, cells[0]], study.inputs, store, workers=1)
    assert "image_size is 8" in frame["error"][0] and frame["error"].isna()[1]
    assert "failed: " in store.state(frame["key"][0]) and "image_size is 8" in store.state(frame["key"][0])
    with pytest.raises(AudferError, match="1 of 2 cells failed: former_dfer DFEW"):
        load_records(frame)


# ---- the record


def test_a_record_keeps_the_positive_class_weights_of_its_loss(store, study, cells):
    record = load_records(run_cells(cells[1:], study.inputs, store, workers=1))[0]
    train = study.manifest("DFEW").table.query("split == 'train'")["clip_id"].tolist()
    labels = clip_presence(study.au_table("DFEW"), train)
    active = labels.sum(0)
    some = active > 0
    expected = ((len(labels) - active)[some] / active[some]).clip(max=200)
    np.testing.assert_allclose(record.positive_weights[:, some], np.tile(expected, (7, 1)), rtol=1e-5)


def test_a_damaged_record_is_named(store, study, cells, tmp_path):
    source = load_records(run_cells(cells, study.inputs, store, workers=1))[0].path
    shutil.copytree(source, tmp_path / "damaged")
    (tmp_path / "damaged" / "test.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="damaged: run record: found .*delete the folder"):
        RunRecord.load(tmp_path / "damaged")


@pytest.fixture
def copied(store, study, cells, tmp_path):
    """A copy of the store, and the folder of its first record."""
    shutil.copytree(store.folder, tmp_path / "copy")
    copy = RunStore(tmp_path / "copy")
    return copy, copy.path(copy.key(cells[0], study.inputs["DFEW"]))


@pytest.mark.parametrize(
    "name, how",
    [
        ("test.npz", "cut"),
        ("test.npz", "changed"),
        ("history.csv", "changed"),
        ("weights.safetensors", "cut"),
        ("weights.safetensors", "gone"),
        ("weights.safetensors", "changed"),
        ("record.json", "cut"),
        ("record.json", "[]"),
        ("record.json", "[" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_damaged_record_is_not_taken_for_one(copied, name, how):
    store, path = copied
    content = (path / name).read_bytes()
    if how == "gone":
        (path / name).unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        (path / name).write_bytes({"cut": content[:middle], "changed": flipped}.get(how, how.encode()))
    if name != "weights.safetensors":
        assert not store.has(path.name) and (name == "record.json" or name in store.state(path.name))
        with pytest.raises(InputError, match=f"{path.name}: run record: found .*delete the folder"):
            RunRecord.load(path)
    else:
        assert store.has(path.name) == (how == "changed")
        with pytest.raises(InputError, match=f"{path.name}/weights.safetensors: weights: found .*delete the record"):
            RunRecord.load(path).load_weights()


def _changed_number(content: bytes) -> bytes:
    """JSON that means something else: one digit of a number changed."""
    place = content.index(b'"seconds": ') + 11
    return content[:place] + (b"2" if content[place : place + 1] != b"2" else b"3") + content[place + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["sad", "happy", "neutral", "angry", "surprise", "disgust", "fear"]},
        {"cell": {"seed": 7}},
        {"key": "0123456789abcdef"},
        _changed_number,
    ],
)
def test_a_record_of_something_else_is_not_taken_for_the_one_that_is_asked_for(copied, study, cells, change):
    store, path = copied
    meta = json.loads((path / "record.json").read_text())
    if callable(change):
        (path / "record.json").write_bytes(change((path / "record.json").read_bytes()))
    else:  # a record of before there was a digest: nothing else gives the change away
        meta.pop("digest")
        change = {name: meta[name] | new if isinstance(new, dict) else new for name, new in change.items()}
        (path / "record.json").write_text(json.dumps(meta | change))
    frame = run_cells(cells, study.inputs, store, workers=1)
    assert frame["trained"].tolist() == [True, False]
    assert RunRecord.load(path).cell == json.loads(json.dumps(asdict(cells[0])))
    assert {name: bool(value.numel()) for name, value in RunRecord.load(path).load_weights().items()}


def test_a_store_that_is_deleted_while_it_is_worked_with_is_an_error(copied, study, cells, tmp_path):
    store, path = copied
    shutil.rmtree(path)

    class Deletes(RunStore):
        def note_failure(self, key, error):  # called when a cell is through
            shutil.rmtree(self.path(store.key(cells[1], study.inputs["DFEW"])))

    frame = run_cells(cells, study.inputs, Deletes(store.folder), workers=1)
    assert frame["error"].isna().tolist() == [True, False] and "its record has gone" in frame["error"][1]
    with pytest.raises(AudferError, match="1 of 2 cells failed"):
        load_records(frame)


def test_a_copy_without_the_weights_is_whole_for_tables_and_not_for_training(copied):
    store, path = copied
    (path / "weights.safetensors").unlink()
    assert store.has(path.name, weights=False) and not store.has(path.name)
    (path / "weights.safetensors").write_bytes(b"cut")
    assert not store.has(path.name, weights=False)


def test_a_damaged_record_is_named_and_made_again(copied, study, cells, capfd):
    store, path = copied
    before = RunRecord.load(path).scores
    (path / "test.npz").write_bytes(b"PK")
    frame = run_cells(cells, study.inputs, store, workers=1)
    assert frame["trained"].tolist() == [True, False]
    np.testing.assert_array_equal(load_records(frame)[0].scores, before)
    assert f"{path}: damaged run record (ValueError: test.npz has 2 of" in capfd.readouterr().err


def test_the_first_format_is_read_and_an_unknown_one_refused(copied, study, cells):
    store, path = copied
    meta = json.loads((path / "record.json").read_text())
    assert meta["format"] == FORMAT
    (path / "record.json").write_text(json.dumps({**meta, "format": FORMAT + 1}))
    for attempt in (lambda: RunRecord.load(path), lambda: run_cells(cells, study.inputs, store, workers=1)):
        with pytest.raises(
            InputError, match=f"record.json: format: found {FORMAT + 1}, expected {FORMAT} or 1: another version"
        ):
            attempt()
    first = {
        key: value
        for key, value in meta.items()
        if key not in ("format", "files", "digest", "protocols", "costs", "validation")
    }
    (path / "record.json").write_text(json.dumps({**first, "best_epoch": 1}))
    with np.load(path / "test.npz") as arrays:
        kept = {name: arrays[name] for name in ("clip_ids", "expressions", "scores", "best_scores", "features")}
    np.savez(path / "test.npz", **kept)
    record = RunRecord.load(path)
    assert record.best_epoch == 1 and record.groups is None and record.costs == {} and store.has(path.name)


def test_folders_that_are_no_record_of_ours_are_left_alone(copied, study, cells):
    store, path = copied
    other = store.folder / "0123456789abcdef"  # a cell that nobody asks for
    shutil.copytree(path, other)
    write_meta(other, {**json.loads((other / "record.json").read_text()), "key": other.name})
    (store.folder / "notes").mkdir()
    frame = run_cells(cells, study.inputs, store, workers=1)
    assert not frame["trained"].any() and len(store.records()) == 3 and (store.folder / "notes").is_dir()


# ---- a full disk


def _room(folder: Path, size: str):
    """Mount a small file system on ``folder`` of this process's own, if the system lets us."""
    script = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def _can_mount(folder) -> bool:
    try:
        return subprocess.run([*_room(folder, "100k"), "true"], capture_output=True).returncode == 0
    except OSError:
        return False


_SCRIPT = """
import os, pickle, sys
from audfer.training.records import RunStore, run_cells
cells, inputs, folder = pickle.load(open(sys.argv[1], "rb"))
frame = run_cells(cells, inputs, RunStore(folder), workers=1)
print(*sorted(os.listdir(folder)))
print(frame[["trained", "error"]].to_json())
"""


def _elsewhere(tmp_path, cells, study, folder, before=()):
    """``run_cells`` in another process, which prints what then is in the store and what came out."""
    (tmp_path / "job").write_bytes(pickle.dumps((cells, study.inputs, str(folder))))
    return subprocess.Popen(
        [*before, sys.executable, "-c", _SCRIPT, str(tmp_path / "job")],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_file_that_may_not_be_written_leaves_no_record_and_the_next_run_goes_on(study, cells, tmp_path):
    store, before = RunStore(tmp_path / "runs"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the record's weights are larger
    try:
        frame = run_cells(cells[:1], study.inputs, store, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "DiskFull" in frame["error"][0] and "a file may not be that large here" in frame["error"][0]
    assert store.records() == [] and not [
        p for p in store.folder.iterdir() if not p.name.startswith(".") and p.is_dir()
    ]
    assert run_cells(cells[:1], study.inputs, store, workers=1)["error"].isna().all()
    assert len(store.records()) == 1 and store.failure(frame["key"][0]) == ""


def test_a_full_disk_is_said_once_and_no_further_cell_is_begun(study, cells, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if not _can_mount(folder):
        pytest.skip("no small file system can be mounted here")
    out, error = _elsewhere(tmp_path, cells, study, folder, before=_room(folder, "150k")).communicate(timeout=120)
    errors = json.loads(out.splitlines()[-1])["error"]
    assert sorted("not begun, for " in text for text in errors.values()) == [False, True], out + error
    assert all("the disk is full" in text and "free some space" in text for text in errors.values())
    assert not any(name.isalnum() for name in out.splitlines()[0].split())  # no record, whole or half


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "quota"),
        RuntimeError(
            "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3: file write "
            "failed"
        ),
        RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 1234624 vs 1234518"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_librarys_word_for_a_full_disk_becomes_one_sentence(tmp_path, error):
    with pytest.raises(files.DiskFull, match="the disk is full"), files.atomic_file(tmp_path / "x"):
        raise error
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "y"):
        1 / 0
    assert list(tmp_path.iterdir()) == []


# ---- several runs, several workers, and what becomes of them


def _log(store) -> list[dict]:
    path = store.folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _wait_for(condition, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def test_two_runs_on_one_store_train_each_cell_once(study, cells, tmp_path):
    store = RunStore(tmp_path / "runs")
    grid = [replace(cell, seed=seed) for seed in (0, 1) for cell in cells]
    other = _elsewhere(tmp_path, grid, study, store.folder)
    _wait_for(lambda: _log(store))  # it is at its first cell now
    frame = run_cells(grid, study.inputs, store, workers=1)
    out, error = other.communicate(timeout=120)
    theirs = json.loads(out.splitlines()[-1])
    assert frame["error"].isna().all() and not any(theirs["error"].values()), error
    begun = [line for line in _log(store) if line["event"] == "begin"]
    assert Counter(line["key"] for line in begun) == dict.fromkeys(frame["key"], 1)
    assert {line["pid"] for line in begun} == {os.getpid(), other.pid}
    assert [here != there for here, there in zip(frame["trained"], theirs["trained"].values(), strict=True)] == [
        True
    ] * 4


def test_a_cell_that_another_run_holds_is_waited_for_and_taken_over_when_that_run_is_gone(
    study, cells, tmp_path, monkeypatch
):
    monkeypatch.setattr(workers, "LOOK", 0.05)
    store = RunStore(tmp_path)
    key = store.key(cells[0], study.inputs["DFEW"])
    with store.claim(key) as mine:
        assert mine
        result = {}
        run = threading.Thread(target=lambda: result.update(frame=run_cells(cells, study.inputs, store, workers=1)))
        run.start()
        _wait_for(lambda: [line["event"] for line in _log(store)] == ["begin", "end"])  # the other cell
        time.sleep(0.2)
        assert run.is_alive() and not store.has(key)
    run.join(60)
    assert result["frame"]["trained"].all() and result["frame"]["error"].isna().all()


def test_a_killed_worker_and_then_an_interrupt_cost_an_epoch_each(study, cells, tmp_path):
    """Two processes, one killed in the middle of a cell; then Ctrl-C. Numbers are those of one undisturbed process."""
    grid = [replace(cell, epochs=8) for cell in cells]
    here = load_records(run_cells(grid, study.inputs, RunStore(tmp_path / "here"), workers=1))
    store = RunStore(tmp_path / "there")
    key = store.key(grid[1], study.inputs["DFEW"])
    begun = lambda: [line["pid"] for line in _log(store) if (line["key"], line["event"]) == (key, "begin")]  # noqa: E731

    def disturb():
        _wait_for(lambda: (store.scratch(key) / "history.csv").is_file())
        os.kill(begun()[0], signal.SIGKILL)
        _wait_for(lambda: len(begun()) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=disturb, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_cells(grid, study.inputs, store, workers=2)
    _wait_for(lambda: not any(_alive(line["pid"]) for line in _log(store)), 10)
    assert os.getpid() not in begun() and not store.has(key) and "unfinished, after epoch" in store.state(key)
    frame = run_cells(grid, study.inputs, store, workers=1)
    assert frame["error"].isna().all() and frame["trained"][1]
    for mine, theirs in zip(here, load_records(frame), strict=True):
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        np.testing.assert_array_equal(mine.history["loss"], theirs.history["loss"])


def _alive(pid) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_of_another_version_and_a_disk_that_is_not_shared_are_sentences(study, cells, tmp_path, monkeypatch):
    inputs, store = study.inputs["DFEW"], RunStore(tmp_path / "here")
    with pytest.raises(AudferError, match="other versions of audfer or torch than the run"):
        experiments.do_cell(store, "0123", cells[0], inputs)
    monkeypatch.setattr(experiments, "_LATE", 0.3)
    monkeypatch.setattr(experiments, "do_cell", lambda *_, **__: "made")  # it wrote somewhere else
    frame = run_cells(cells[:1], study.inputs, store, workers=1)
    assert "has to lie on a disk that all workers share" in frame["error"][0] and not frame["trained"][0]


def test_a_dry_run_makes_nothing_and_counts_what_an_earlier_run_has_made(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "work"))
    profile = str(study.work.parent.parent / "tests.toml")

    def counted() -> list[str]:
        assert cli.main(["grid", "fig5", "table1", "pretraining", "--profile", profile, "--dry-run"]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]

    first = counted()
    assert not (tmp_path / "work").exists() and [row[0] for row in first] == ["fig5", "table1", "pretraining"]
    assert all(row[-1] == "0" and int(row[1]) > 0 for row in first)
    own = Study(study.profile, tmp_path / "work", tmp_path / "figures")
    own.store.note_grid(
        {"profile": own.profile.to_dict(), "device": own.device, "precision": own.precision},
        {"fig5": own.cells("fig5")},
        {cell: f"{number:016x}" for number, cell in enumerate(own.cells("fig5"))},
    )
    monkeypatch.setattr(RunStore, "has", lambda self, key, **_: key == f"{0:016x}")  # no cell has been trained here
    assert counted()[0][-1] == "1"


def test_the_command_line_trains_the_cells_of_a_figure_and_says_what_failed(study, tmp_path, capsys, monkeypatch):
    command = ["grid", "fig7", "--profile", str(study.work.parents[1] / "tests.toml"), "--work", str(study.work.parent)]
    assert cli.main(command) == 0
    assert "2 of 2 cells" in capsys.readouterr().out
    assert cli.main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["fig7", "2", "2", "2"]
    monkeypatch.setattr(experiments, "fit", lambda *_: 1 / 0)
    assert cli.main(["grid", "fig8", *command[2:]]) == 1
    said = capsys.readouterr()
    assert (
        "2 of 3 cells, 0 of them trained now" in said.out
        and "failed: m3dfel DFEW +AU 0.25 global no K, seed 0: Zero" in said.err
    )
    assert cli.main(["grid", "fig9", *command[2:]]) == 2 and "table1, table2, " in capsys.readouterr().err


# ---- Dask


def test_a_dask_worker_killed_in_the_middle_of_a_cell_costs_its_epoch(study, cells, store, tmp_path):
    distributed = pytest.importorskip("distributed")
    longer, there = replace(cells[1], epochs=3), RunStore(tmp_path / "runs")
    here = load_records(run_cells([cells[0], longer], study.inputs, store, workers=1))
    key, result = there.key(longer, study.inputs["DFEW"]), {}
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        run = threading.Thread(
            target=lambda: result.update(frame=run_cells([cells[0], longer], study.inputs, there, client))
        )
        run.start()
        _wait_for(lambda: (there.scratch(key) / "state.pt").is_file())
        os.kill(next(line["pid"] for line in _log(there) if line["key"] == key), signal.SIGKILL)
        run.join(120)
        # what would mix or hang is refused
        with pytest.raises(InputError, match="resources: found 1 workers, none with the resource GPU"):
            with opened(cluster.scheduler_address, gpu=True):
                pass
        with opened(client.get_executor()) as pool:
            assert (pool.at_once(), pool.tries, pool.killable) == (1, 1, False)
    assert result["frame"]["error"].isna().all() and result["frame"]["trained"].all()
    assert Counter(line["event"] for line in _log(there)) == {"begin": 3, "end": 2}
    for mine, theirs in zip(here, load_records(result["frame"]), strict=True):
        np.testing.assert_array_equal(mine.scores, theirs.scores)


@needs_slurm
def test_the_example_for_slurm_prints_its_job(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slurm_grid.py", "--dry-run", "--queue", "a100"])
    runpy.run_path(str(ROOT / "examples" / "slurm_grid.py"))
    shown = capsys.readouterr().out
    assert "#SBATCH -p a100" in shown and "--resources GPU=1" in shown


# ---- progress


def test_a_grids_progress_is_one_line_of_80_columns_with_all_it_says(monkeypatch, capsys):
    monkeypatch.setenv("AUDFER_PROGRESS", "lines")
    with GridProgress(12, "table1 table2 table3") as grid:
        grid.bar.last = -1e9
        grid.show(
            3, running=2, failed=1, elsewhere=1, left=754, note="WAR 43 UAR 32 former_dfer FERV39k +AU 0.25 global"
        )
    first, last = capsys.readouterr().err.splitlines()
    assert (
        first.startswith("table1 table2 table3: 3/12 cells, 0 s, about 12 min 34 s left, 2 running, 1 fai")
        and len(first) <= 79
    )
    assert "left" not in last
    monkeypatch.setenv("AUDFER_PROGRESS", "bar")
    with GridProgress(12, "training") as grid:
        grid.bar.ncols, grid.bar.dynamic_ncols = 79, None
        grid.show(0, running=2)
        grid.show(3, running=2, failed=1, left=754)
        text = str(grid.bar)
    assert "3/12" in text and "12 min 34 s left, 2 running, 1 failed" in text and len(text) <= 79


def test_the_time_left_follows_what_finished_cells_took(store, study, cells):
    grid = {"a": cells[0], "b": replace(cells[0], epochs=2), "c": replace(cells[0], epochs=4)}
    run = experiments._Grid(grid, study.inputs, store, Pool(None, lambda: 2), None)
    assert list(run.waiting()) == ["c", "b", "a"] and run.left() is None
    run.took, run.outcomes = {"a": 10.0}, {"a": "made"}
    run.run.running = {object(): Task("c", begun=time.monotonic() - 15)}
    assert abs(run.left() - 25) < 1  # c: 40 - 15 s; b: 20 s beside it


def test_a_budget_reads_records_once_and_learns_from_the_cells_that_end(study, cells, tmp_path, monkeypatch):
    read, spent = [], RunStore.spent
    monkeypatch.setattr(RunStore, "spent", lambda self: read.append(self) or spent(self))
    grid = {"a": cells[0], "b": replace(cells[0], epochs=4), "c": replace(cells[0], seed=9), "d": cells[0]}
    grid = {name: cell if name == "b" else replace(cell, epochs=2) for name, cell in grid.items()}
    pool, until = Pool(None, lambda: 1), time.time() + 100
    run = experiments._Grid(grid, study.inputs, RunStore(tmp_path), pool, None, until)
    waiting = run.waiting()
    assert next(waiting) == "a"  # nothing is known of it
    run.took["a"] = 60.0
    assert list(waiting) == ["c", "d", "b"] and len(read) == 1  # b takes 120 s: it gets what is left


def test_records_of_the_old_form_are_taken_over_or_refused_by_name(store, study, tmp_path, capsys):
    old, names = tmp_path / "old", []
    for number, record in enumerate(store.records()):
        folder = old / f"{number:016x}"
        shutil.copytree(record.path, folder)
        meta = json.loads((folder / "record.json").read_text())
        packed = open_packed(meta["inputs"]["packed"])
        of_old = files.digest({name: packed.meta[name] for name in ("fingerprint", "num_frames", "size", "rule")})
        meta["inputs"]["fingerprint"] = of_old if number else "of other clips"
        meta.pop("digest")
        (folder / "record.json").write_text(json.dumps({**meta, "key": folder.name}))
        names.append(folder.name)
    assert cli.main(["records", "migrate", str(old), str(tmp_path / "new")]) == 1
    said = capsys.readouterr()
    assert f"{len(names) - 1} of {len(names)} records taken over" in said.out
    assert said.err.startswith(f"refused: {names[0]}: ") and said.err.count("\n") == 1
    taken = {record.path.name for record in RunStore(tmp_path / "new").records()}
    assert taken == {record.path.name for record in store.records()[1:]}
    assert cli.main(["records", "list", str(tmp_path / "new")]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == taken
