"""The training loop on tasks of seconds: what it draws, keeps, goes on from and refuses. The tasks that matter are
tested where they are."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from audfer.action_units.estimator import train_estimator
from audfer.errors import AudferError, InputError
from audfer.facs import ACTION_UNITS
from audfer.files import UNREADABLE
from audfer.losses import AU_LOSSES, AULoss
from audfer.recipes import Recipe
from audfer.training.engine import Task, epoch_bar, seeded, train
from audfer.training.loop import fit

RECIPE = Recipe("for tests", "adamw", 0.05, 0.0, batch_size=4, clip_gradient=1.0, warmup=0.2)


class Stop(Exception):
    pass


def stop_after(epoch):
    def report(row):
        if row["epoch"] == epoch:
            raise Stop

    return report


class Line(Task):
    """A straight line through noisy points; draws from NumPy, from a torch generator and from torch's global one."""

    label = "line"
    terms = ("loss", "loss_noise")

    def __init__(self, seed=0, epochs=3, learning_rate=0.05, failing=None):
        self.recipe, self.epochs, self.failing = replace(RECIPE, learning_rate=learning_rate), epochs, failing
        self.model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.generators = {"order": np.random.default_rng(seed), "noise": torch.Generator().manual_seed(seed)}
        self.looked = 0

    def batches(self, epoch):
        return np.array_split(self.generators["order"].permutation(12), 3)

    def read(self, rows):
        x = torch.from_numpy(rows).float()[:, None] / 12
        return x, 2 * x + 0.1 * torch.randn(x.shape, generator=self.generators["noise"]), 5 in rows

    def losses(self, batch):
        x, y, has_five = batch
        loss = (self.model(x) - y).square().mean()
        return loss * float("nan") if has_five and self.failing else loss, (y - 2 * x).abs().mean()

    def look(self, epoch):
        self.looked += 1
        return {"looked": self.looked}

    def state(self):
        return {"looked": self.looked}

    def load_state(self, state):
        self.looked = state["looked"]

    def named(self, rows):
        return f"points {', '.join(map(str, rows))}"


def run(scratch=None, key="", report=None, **options):
    with seeded(0, "cpu"):
        task = Line(**options)
        history, measured = train(task, scratch, key, report)
    return pd.DataFrame(history).drop(columns="seconds"), task, measured


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(whole, tmp_path, stopped_after):
    with pytest.raises(Stop):
        run(tmp_path, report=stop_after(stopped_after))
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == list(range(1, stopped_after + 1))
    epochs = []
    history, task, _ = run(tmp_path, report=lambda row: epochs.append(row["epoch"]))
    assert epochs == list(range(stopped_after + 1, 4))
    assert history.equals(whole[0]) and history["looked"].tolist() == [1, 2, 3]
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, whole[1].model.state_dict()[name])


def test_a_damaged_checkpoint_is_said_and_the_training_begins_again(whole, tmp_path, capsys):
    with pytest.raises(Stop):
        run(tmp_path, report=stop_after(2))
    raw = (tmp_path / "state.pt").read_bytes()
    for bad in (raw[: len(raw) // 2], b"", b"PK\x03\x04", raw[:60] + b"\0" * 20 + raw[80:]):
        (tmp_path / "state.pt").write_bytes(bad)
        assert run(tmp_path)[0].equals(whole[0])
        assert "state.pt: damaged (" in capsys.readouterr().err


def test_whatever_the_reader_of_a_damaged_checkpoint_raises_is_one_of_those_that_are_expected(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, report=stop_after(2))
    raw, chance, kinds = (tmp_path / "state.pt").read_bytes(), np.random.default_rng(0), set()
    pickled = raw.index(b"\x80\x02")
    for _ in range(300):
        bad = bytearray(raw)
        bad[pickled + int(chance.integers(0, 900))] ^= int(chance.integers(1, 256))
        try:
            torch.load(io.BytesIO(bytes(bad)), weights_only=True)  # what is read nevertheless is a number that changed
        except UNREADABLE as error:
            kinds.add(type(error))
    assert {pickle.UnpicklingError, RuntimeError, UnicodeDecodeError} <= kinds


def test_a_checkpoint_of_another_key_is_not_gone_on_with(whole, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, "mine", stop_after(2), seed=5)
    assert run(tmp_path, "yours")[0].equals(whole[0])


def test_the_history_has_the_means_of_the_terms_and_the_rate_of_the_last_step(whole):
    history, task, measured = whole
    assert list(history) == ["epoch", "loss", "loss_noise", "learning_rate", "looked"]
    noise = torch.Generator().manual_seed(0)
    wanted = [np.mean([0.1 * torch.randn(4, 1, generator=noise).abs().mean().item() for _ in range(3)]) for _ in "123"]
    np.testing.assert_allclose(history["loss_noise"], wanted, rtol=1e-5)
    assert history["learning_rate"].tolist() == [task.rate(step, 9) for step in (2, 5, 8)]
    assert measured["clips"] == 36 and measured["step_seconds"] > 0 and measured["peak_memory_mb"] > 50
    assert not (history["loss"] == run(seed=1)[0]["loss"]).any()


def test_a_loss_that_is_not_finite_is_a_sentence_with_the_batch():
    with pytest.raises(AudferError) as caught:
        run(failing=True)
    batch = next(
        (number, rows)
        for number, rows in enumerate(np.array_split(np.random.default_rng(0).permutation(12), 3), 1)
        if 5 in rows
    )
    assert str(caught.value) == (
        f"line: the loss became nan in epoch 1, batch {batch[0]} of 3 (points {', '.join(map(str, batch[1]))}); "
        "lower the learning rate (now at most 0.05) or train in float32"
    )


def test_a_bar_counts_epochs_and_passes_rows_on(monkeypatch, capsys):
    monkeypatch.setenv("AUDFER_PROGRESS", "lines")
    rows = []
    with epoch_bar(3, "lines", lambda row: f"loss {row['loss']:.1f}", rows.append) as shown:
        shown({"epoch": 2, "loss": 0.5})
        shown({"epoch": 3, "loss": 0.25})
    assert [row["epoch"] for row in rows] == [2, 3]
    assert "lines: 3/3 epoch" in capsys.readouterr().err


def test_the_estimator_goes_on_where_it_was_interrupted(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    codes = generator.integers(0, 6, (24, len(ACTION_UNITS))).astype(np.float32)
    arguments = dict(epochs=2, batch_size=8, progress=False)
    subjects = np.repeat(["a", "b", "c"], 8)
    estimator, history = train_estimator(images, codes, subjects, **arguments)
    with pytest.raises(Stop):
        train_estimator(images, codes, subjects, **arguments, scratch=tmp_path, report=stop_after(1))
    resumed, again = train_estimator(images, codes, subjects, **arguments, scratch=tmp_path)
    assert again.drop(columns="seconds").equals(history.drop(columns="seconds"))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in estimator.state_dict().items())


# ---------------------------------------------------------------------------------------------- an AU loss of one's own


class Doubled(AULoss):
    """Twice Eq. 9."""

    def forward(self, *arguments):
        return 2 * super().forward(*arguments)


def test_a_cell_is_trained_with_an_au_loss_of_ones_own(study, monkeypatch):
    cell, inputs = replace(study.cell("former_dfer", "DFEW", 0.25), epochs=1), study.inputs["DFEW"]
    with pytest.raises(InputError, match="au_loss: found 'doubled', expected one of"):
        replace(cell, au_loss="doubled")
    AU_LOSSES.add("doubled", Doubled)
    try:
        own = replace(cell, au_loss="doubled")
        assert own.label == f"{cell.label} loss doubled"
        with pytest.raises(InputError, match="au_loss without an AU head"):
            replace(own, au_ratio=0.0, strategy="none", weights="none")
        paper, mine = (fit(one, inputs)["history"].iloc[0] for one in (cell, own))
        # one step further the networks differ
        assert mine["loss_au"] == pytest.approx(2 * paper["loss_au"], rel=0.05)
        assert mine["loss"] == pytest.approx(0.75 * mine["loss_expression"] + 0.25 * mine["loss_au"], rel=1e-5)
        key = study.store.key(own, inputs)
        assert key != study.store.key(cell, inputs)
        monkeypatch.setattr(Doubled, "version", 2, raising=False)
        assert study.store.key(own, inputs) != key
    finally:
        del AU_LOSSES._entries["doubled"]
