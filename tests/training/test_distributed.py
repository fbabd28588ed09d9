"""Several processes that train one cell together give the numbers of one process."""

import os
import socket
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest
import torch
from paths import ROOT
from team import NETWORKS, batch_norms, cells_together, fail_together, member, record_or_assist

from audfer.companion import cli
from audfer.errors import AudferError
from audfer.models.mae_dfer import DropPath
from audfer.models.output import part_of_batch
from audfer.recipes import Augmentation
from audfer.training import distributed
from audfer.training.augmentation import augment
from audfer.training.loop import fit
from audfer.training.records import RunRecord, RunStore, make_record

# ----------------------------------------------------------------------------------------------- without any processes


def _as(monkeypatch, rank, size):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: size)


@pytest.mark.parametrize("count, size", [(16, 2), (17, 2), (42, 4), (7, 3), (5, 1)])
def test_every_clip_of_a_batch_is_one_processs_and_partners_stay_together(monkeypatch, count, size):
    everybody = []
    for rank in range(size):
        _as(monkeypatch, rank, size)
        own = distributed.places(count)
        assert (count - 1 - own[::-1] == own).all()  # the reverse of the own part is the reverse of the batch
        everybody += own.tolist()
        assert len(distributed.part(np.arange(count))) in (count // size, count // size + 1)
    assert sorted(everybody) == list(range(count))
    _as(monkeypatch, 0, count)
    if count > 1:
        with pytest.raises(
            AudferError, match=f"{count} processes for a batch of {count} clips: found fewer than two clips"
        ):
            distributed.places(count)
    with pytest.raises(AudferError, match="processes for 0 clips to be judged"):
        distributed.part(np.arange(0))


def test_parts_of_a_batch_are_augmented_as_in_the_whole_batch():
    everything = Augmentation("all", operations=4, crop="log", flip=0.5, colour_jitter=0.4, hue_jitter=0.4, erase=0.8)
    clips = torch.randint(0, 256, (6, 2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole_generator, part_generator = (torch.Generator().manual_seed(1) for _ in range(2))
    whole = augment(clips, everything, whole_generator, 16)
    own = np.array([0, 2, 3, 5])
    torch.testing.assert_close(augment(clips[own], everything, part_generator, 16, (6, own)), whole[own])
    assert torch.equal(whole_generator.get_state(), part_generator.get_state())


def test_paths_are_dropped_for_a_part_as_for_the_whole_batch():
    layer, x = DropPath(0.5).train(), torch.ones(6, 3)  # two entries a clip
    torch.manual_seed(0)
    whole = layer(x)
    torch.manual_seed(0)
    with part_of_batch(3, torch.tensor([0, 2])):
        part = layer(x[[0, 1, 4, 5]])
    assert torch.equal(part, whole[[0, 1, 4, 5]]) and whole.unique().tolist() == [0, 2]


# ----------------------------------------------------------------------------------------------------- two processes


def _team(fresh_process, work, out, size=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    team = [fresh_process(member, (rank, size, port, work, out)) for rank in range(size)]
    for process in team:
        process.start()
    for process in team:
        process.join()
    assert [process.exitcode for process in team] == [0] * size
    return [torch.load(f"{out}.{rank}", weights_only=False) for rank in range(size)]


@pytest.fixture(scope="module")
def alone_and_together(study, fresh_process, tmp_path_factory):
    """(cells, outcomes of one process, outcomes of both of two): in float32 at a low rate, and in float64 at the
    recipe's.
    """
    cells = [replace(study.cell(name, "DFEW", 0.25), epochs=2) for name in NETWORKS]
    # mixing, RandAugment, random erasing, stochastic depth, several views, an odd batch of all clips; random test
    # frames
    cells.append(study.cell("mae_dfer", "DFEW", 0.25, recipe="mae_dfer-release-dfew"))
    cells.append(study.cell("m3dfel", "DFEW", recipe="m3dfel-audfer"))
    cells[len(NETWORKS) :] = [replace(cell, epochs=1, validation=0.2) for cell in cells[len(NETWORKS) :]]
    cells.append(replace(cells[0], epochs=1, precision="bf16"))
    folder, work = tmp_path_factory.mktemp("team"), partial(cells_together, cells, study.cell_inputs(cells)["DFEW"])
    (alone,) = _team(fresh_process, work, folder / "one", size=1)
    return cells, alone, _team(fresh_process, work, folder / "two")


@pytest.mark.parametrize("place", range(len(NETWORKS) + 2))
def test_two_processes_give_the_loss_curve_and_the_metrics_of_one_with_twice_the_batch(alone_and_together, place):
    _, (alone, _), ((first, _), (second, _)) = alone_and_together
    _compare(alone[place], first[place])
    np.testing.assert_array_equal(first[place]["scores"], second[place]["scores"])
    assert (alone[place]["costs"]["processes"], first[place]["costs"]["processes"]) == (1, 2)


@pytest.mark.parametrize("place", range(len(NETWORKS)))
def test_at_the_recipes_own_rate_nothing_but_rounding_is_left_of_the_difference(alone_and_together, place):
    # in float32 Adam makes whole steps of rounding at ReLU's corners; in float64 the same curves agree to a millionth
    _, (_, alone), ((_, first), _) = alone_and_together
    _compare(alone[place], first[place])


def test_in_bfloat16_two_processes_differ_from_one_by_its_rounding(alone_and_together):
    cells, (alone, _), ((first, _), (second, _)) = alone_and_together
    assert cells[-1].precision == "bf16"
    one, two = alone[-1], first[-1]
    np.testing.assert_array_equal(two["scores"], second[-1]["scores"])
    # eight bits of mantissa: a thousand times float32's tolerance above, and still the same training
    np.testing.assert_allclose(two["history"]["loss"], one["history"]["loss"], rtol=0.01)
    np.testing.assert_allclose(two["scores"], one["scores"], atol=0.05)
    assert np.abs(two["scores"] - alone[0]["scores"]).max() > 0  # it was no float32


def _compare(one, two):
    assert one["clip_ids"] == two["clip_ids"] and one["scores"].shape == two["scores"].shape
    for name in one["history"].columns.drop("seconds"):
        np.testing.assert_allclose(two["history"][name], one["history"][name], atol=1e-5, rtol=0, err_msg=name)
    np.testing.assert_allclose(two["scores"], one["scores"], atol=1e-4)


def test_batch_norms_see_the_clips_of_all_processes(fresh_process, tmp_path):
    parts = _team(fresh_process, partial(batch_norms), tmp_path / "bn")
    for number, whole in enumerate(batch_norms()):  # torch's own, on the whole batch
        for part in parts:
            found = part[number]
            for name, values in found["split"].items():
                torch.testing.assert_close(values, whole["split"][name][found["own"]])
            for a, b in zip(found["same"], whole["same"], strict=True):
                torch.testing.assert_close(a, b)


# ---------------------------------------------------------------------------------------------------- records, errors


def test_rank_0_writes_the_record_and_goes_on_where_one_process_was_interrupted(study, fresh_process, tmp_path):
    cell, inputs, store = (
        replace(study.cell("m3dfel", "DFEW"), epochs=2, accumulate=2),
        study.inputs["DFEW"],
        RunStore(tmp_path),
    )
    key = store.key(cell, inputs)

    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cell, inputs, store.folder / ".unfinished" / key, interrupt)
    _team(fresh_process, partial(record_or_assist, (str(store.folder), key, cell, inputs)), tmp_path / "team")
    record = RunRecord.load(store.path(key))
    assert record.history["epoch"].tolist() == [1, 2] and record.costs["processes"] == 2
    assert record.clip_ids == [study.packed("DFEW").clip_ids[row] for row in study.packed("DFEW").split("test")]


def test_one_process_of_torchrun_gives_the_numbers_of_none(study, fresh_process, tmp_path):
    cell, inputs = replace(study.cell("former_dfer", "DFEW", 0.25), epochs=1), study.inputs["DFEW"]
    there, here = RunStore(tmp_path / "there"), RunStore(tmp_path / "here")
    key = there.key(cell, inputs)
    arguments = str(there.folder), key, cell, inputs
    _team(fresh_process, partial(record_or_assist, arguments), tmp_path / "team", size=1)
    make_record(str(here.folder), key, cell, inputs)
    one, none = RunRecord.load(there.path(key)), RunRecord.load(here.path(key))
    for name in ("scores", "au_scores", "features"):
        np.testing.assert_array_equal(getattr(one, name), getattr(none, name))
    assert one.history.drop(columns="seconds").equals(none.history.drop(columns="seconds"))


def test_a_loss_that_is_not_finite_stops_all_processes_with_the_same_sentence(study, fresh_process, tmp_path):
    work = partial(fail_together, study.cell("former_dfer", "DFEW"), study.inputs["DFEW"])
    first, second = _team(fresh_process, work, tmp_path / "out")
    assert first == second and "the loss became nan in epoch 1, batch 2 of" in first


def test_several_processes_from_the_command_line_or_from_python(study, tmp_path, monkeypatch, capfd):
    # what the study has made already lies where the command looks for it
    assert study.inputs
    os.symlink(study.work, tmp_path / study.profile.name)
    for name, value in (("AUDFER_WORK", str(tmp_path)), ("AUDFER_PROGRESS", "off")):
        monkeypatch.setenv(name, value)
    assert distributed.launch(["train", "--profile", str(_toml(study)), "--epochs", "1", "--processes", "2"], 2) == 0
    shown = capfd.readouterr().out
    assert shown.count("record: ") == 1 and "last, epoch 1: " in shown and "best-on-test, epoch 1: " in shown
    assert RunRecord.load(shown.split("record: ")[1].strip()).costs["processes"] == 2


def test_ranks_listen_on_loopback_alone_and_end_with_whoever_started_them(study, tmp_path):
    assert study.inputs
    os.symlink(study.work, tmp_path / study.profile.name)
    arguments = ["train", "--profile", str(_toml(study)), "--epochs", "500", "--processes", "2"]
    environment = {**os.environ, "AUDFER_WORK": str(tmp_path), "AUDFER_PROGRESS": "off"}
    launcher = psutil.Popen([sys.executable, "-m", "audfer", *arguments], env=environment, cwd=ROOT)
    until = time.monotonic() + 90
    while not (heard := _listening(ranks := launcher.children())) or len({pid for pid, _ in heard}) < 2:
        assert launcher.poll() is None and time.monotonic() < until, ranks
        time.sleep(0.1)
    assert {address for _, address in heard} <= {"127.0.0.1", "::1"}
    launcher.kill()
    launcher.wait()
    _, left = psutil.wait_procs(ranks, 5)
    assert not left


def _listening(processes) -> set[tuple[int, str]]:
    """(process, address) of every socket on which somebody could be heard."""
    sockets = [(process.pid, one) for process in processes for one in process.net_connections("inet")]
    return {(pid, one.laddr.ip) for pid, one in sockets if one.status == psutil.CONN_LISTEN}


def _toml(study):
    return study.work.parent.parent / "tests.toml"


@pytest.mark.parametrize(
    "arguments, environment, sentence",
    [
        (["--processes", "0"], {}, "--processes: found 0, expected at least 1"),
        (
            ["--processes", "3"],
            {"RANK": "0", "WORLD_SIZE": "2"},
            "--processes: found 3, expected 2, as torchrun started",
        ),
        (["--processes", "2", "--objective", "mae"], {}, "--processes with --objective mae: found 2, expected 1"),
        (["--validation", "0.7"], {}, "validation: found 0.7, expected a share"),
        (["--accumulate", "0"], {}, "accumulate: found 0, expected at least 1"),
        (["--au-ratio", "1"], {}, "au_ratio: found 1.0"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence_and_exit_code_2(
    arguments, environment, sentence, study, monkeypatch, capsys, tmp_path
):
    for name, value in {"AUDFER_WORK": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train", "--profile", str(_toml(study)), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(AudferError, match="2 processes on this machine with 1 GPUs: found fewer GPUs than processes"):
        distributed.check_gpus(2)
