"""Masked appearance and motion.

The official network, nothing hidden seen, and a loop that resumes and is loaded from.
"""

import json
import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fake_records import fake_record
from official import MANIFESTS

from audfer.companion import cli
from audfer.datasets.packing import rows_digest
from audfer.errors import AudferError, InputError
from audfer.evaluation import compare
from audfer.files import write_sealed
from audfer.models import NETWORKS, build_model, load_official_state_dict, read_checkpoint
from audfer.models.mae_dfer import MAEDFER
from audfer.models.mae_pretraining import MAEPretraining, VisibleEncoder, hidden_tokens, tube_masks
from audfer.results.pretraining import draw_reconstruction, motion_strength, pretraining, reconstruction_data
from audfer.training.pretraining import (
    Pretraining,
    build_pretraining,
    load_pretrained,
    multi_scale_crop,
    pretrain,
    reconstruct,
)

#: two frames, two by three places: small enough to write down
SMALL = dict(
    num_frames=4,
    image_size=24,
    tubelet=(2, 4, 4),
    region=(1, 3, 6),
    dim=16,
    depth=2,
    heads=2,
    hidden=32,
    decoder_dim=16,
    decoder_depth=1,
    decoder_heads=2,
)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_pretraining(Pretraining())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------- network


def test_the_paper_size_has_the_official_names_shapes_and_order():
    with torch.device("meta"):
        model = MAEPretraining()
    wanted = MANIFESTS["mae_dfer"]["pretraining_checkpoint"]
    assert [(name, list(value.shape)) for name, value in model.state_dict().items()] == list(wanted["keys"].items())
    assert sum(p.numel() for p in model.parameters()) == wanted["parameters"] == 92_760_192
    assert sum(p.numel() for p in model.encoder.parameters()) == wanted["encoder_parameters"] == 84_874_752


@pytest.mark.parametrize(("ratio", "seen"), [(0.9, 5), (0.5, 25), (0.999, 1), (0.001, 49)])
def test_masks_are_tubes_with_equally_many_places_in_every_region(ratio, seen):
    with torch.device("meta"):
        model = MAEPretraining()  # 8 x 10 x 10 tokens in regions of 2 x 5 x 10
    visible = tube_masks(model, 3, ratio, generator())
    shown = torch.zeros(3, 800).scatter(1, visible, 1).view(3, 8, 2, 5, 10)
    assert (shown == shown[:, :1]).all(), "the same places at all times"
    assert (shown.sum(dim=(3, 4)) == seen).all(), "equally many places in each of the two windows of every frame"
    assert visible.shape == (3, 16 * seen) and len(set(map(tuple, visible.tolist()))) == 3
    # region after region: times in pairs, windows inside
    region = (visible // 100 // 2) * 2 + visible % 100 // 50
    assert region.tolist() == [sorted(row) for row in region.tolist()]
    for tokens, rest in zip(visible.tolist(), hidden_tokens(visible, 800).tolist(), strict=True):
        assert sorted(tokens + rest) == list(range(800))


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 90])
def test_a_ratio_that_is_no_share_is_refused(tiny, ratio):
    with pytest.raises(AudferError, match="mask ratio"):
        tube_masks(tiny, 1, ratio)


def test_a_tubelet_of_one_frame_has_no_motion_and_is_refused():
    with pytest.raises(AudferError, match="at least 2: motion"):
        MAEPretraining(**{**SMALL, "tubelet": (1, 4, 4)})


@pytest.mark.parametrize("train", [True, False])
def test_hidden_pixels_change_nothing_that_the_encoder_sees(tiny, train):
    clips = torch.rand(2, 8, 3, 48, 48, generator=generator())
    visible = tube_masks(tiny, 2, 0.75, generator())
    shown = torch.zeros(2, 36).scatter(1, visible, 1).view(2, 4, 1, 3, 1, 3, 1).expand(2, 4, 2, 3, 16, 3, 16)
    shown = shown.reshape(2, 8, 1, 48, 48).bool()
    tiny.train(train)
    before = tiny.encoder(clips, visible)
    hidden_changed = torch.where(shown, clips, torch.rand(clips.shape, generator=generator(1)))
    assert torch.equal(tiny.encoder(hidden_changed, visible), before)
    one = clips.clone()
    one[shown.expand_as(clips).nonzero()[0].split(1)] += 0.1
    assert not torch.equal(tiny.encoder(one, visible), before)
    tiny.train()


def test_with_nothing_hidden_the_encoder_is_the_fine_tuning_network():
    torch.manual_seed(0)
    settings = {key: value for key, value in SMALL.items() if not key.startswith("decoder")}
    encoder, network = VisibleEncoder(**settings).eval(), MAEDFER(**settings).eval()
    network.load_state_dict(
        {key: value for key, value in encoder.state_dict().items() if not key.startswith("norm.")}, strict=False
    )
    seen = {}
    for name, model in (("encoder", encoder), ("network", network)):
        model.blocks[-1].register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    clips = torch.rand(2, 4, 3, 24, 24, generator=generator())
    every = encoder.to_regions(torch.arange(72)[None, :, None]).flatten().expand(2, -1)
    encoder(clips, every)
    network(clips)
    torch.testing.assert_close(seen["encoder"], seen["network"])


def test_targets_are_the_normalised_first_frame_and_the_change_in_units_of_the_clips_change():
    model = MAEPretraining(**SMALL)
    clips = torch.full((1, 4, 3, 24, 24), 0.25)
    # one tubelet, the second of the first row: red is 0, 1 by columns in its first frame and 0.5 brighter where 0 in
    # its second
    clips[0, 0, 0, :4, 4:8] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    clips[0, 1, 0, :4, 4:8] = torch.tensor([0.5, 1.0, 0.5, 1.0])
    appearance, motion = model.targets(clips)
    assert appearance.shape == motion.shape == (1, 72, 48)
    # the red values are 8 zeros, 8 halves, 16 ones: mean 0.625, variance (8 x 0.390625 + 8 x 0.015625 + 16 x 0.140625)
    # / 31
    deviation = (5.5 / 31) ** 0.5
    red = torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(4).sub(0.625).div(deviation)
    torch.testing.assert_close(appearance[0, 1, :16], red, rtol=1e-4, atol=1e-4)
    # 8 of all 2 x 24 x 24 x 3 changes are 0.5, so their root mean square is sqrt(2 / 3456)
    step = torch.tensor([0.5, 0.0, 0.5, 0.0]).repeat(4) / (2 / 3456) ** 0.5
    torch.testing.assert_close(motion[0, 1, :16], step, rtol=1e-3, atol=1e-4)
    motion[0, 1, :16] = 0
    assert not motion.any() and not appearance[0, 2:].any() and not appearance[0, 1, 16:].any()


def test_the_loss_is_the_mean_square_over_hidden_tokens_only():
    torch.manual_seed(0)
    model = MAEPretraining(**SMALL).eval()
    clips = torch.rand(2, 4, 3, 24, 24, generator=generator())
    visible = tube_masks(model, 2, 0.9, generator())
    made = model(clips, visible)
    wanted = torch.cat(model.targets(clips), -1)
    parts = []
    for b in range(2):
        for place, token in enumerate(made.masked[b].tolist()):
            assert token not in visible[b]
            parts.append((torch.cat((made.appearance[b, place], made.motion[b, place])) - wanted[b, token]) ** 2)
    by_hand = torch.stack(parts).mean(0)
    found = model.losses(clips, made)
    torch.testing.assert_close(torch.stack(found), torch.stack((by_hand[:48].mean(), by_hand[48:].mean())))


def test_a_few_clips_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = build_pretraining(Pretraining())
    x = torch.linspace(0, 1, 48)
    clips = (
        torch.stack(
            [
                (0.5 + 0.5 * torch.sin(6 * x[None, :, None] * (k + 1) + 4 * x + torch.arange(8)[:, None, None] / 2))
                for k in range(3)
            ]
        )[:, :, None]
        .expand(-1, -1, 3, -1, -1)
        .contiguous()
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    visible = tube_masks(model, 3, 0.75, generator())
    losses = []
    for _ in range(60):
        appearance, motion = model.losses(clips, model(clips, visible))
        optimizer.zero_grad()
        (appearance + motion).backward()
        optimizer.step()
        losses.append((appearance.item(), motion.item()))
    assert losses[-1][0] < 0.3 * losses[0][0] and losses[-1][1] < 0.3 * losses[0][1]


# ------------------------------------------------------------------------------------------------------------- loop


def test_crops_are_neighbouring_scales_at_the_thirteen_places():
    ramp = torch.linspace(0, 255, 33)[:32].round().to(torch.uint8)  # a picture that says where it was cut
    clips = torch.stack((ramp.expand(32, 32), ramp[:, None].expand(32, 32), ramp.expand(32, 32)))[None, None].expand(
        1000, 2, -1, -1, -1
    )
    cut = multi_scale_crop(clips, (1.0, 0.75, 0.5), generator(), 32)
    assert cut.shape == (1000, 2, 3, 32, 32) and cut.min() >= 0 and cut.max() <= 1
    assert torch.equal(cut[:, 0], cut[:, 1]), "one draw a clip"
    width = (cut[:, 0, 0, 16, 28] - cut[:, 0, 0, 16, 4]) / (24 / 32)
    height = (cut[:, 0, 1, 28, 16] - cut[:, 0, 1, 4, 16]) / (24 / 32)
    found = {(round(w * 4) / 4, round(h * 4) / 4) for w, h in zip(width.tolist(), height.tolist(), strict=True)}
    assert found == {(1, 1), (1, 0.75), (0.75, 1), (0.75, 0.75), (0.75, 0.5), (0.5, 0.75), (0.5, 0.5)}
    half = (width - 0.5).abs() + (height - 0.5).abs() < 0.05
    places = {(round(8 * x) / 8, round(8 * y) / 8) for x, y in (cut[half, 0, :2, 16, 16] - 0.25).tolist()}
    assert len(places) == 13 and {(0.0, 0.0), (0.5, 0.5), (0.25, 0.25), (0.125, 0.375), (0.25, 0.5)} <= places


@pytest.fixture(scope="module")
def made(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretraining") / "weights.safetensors"
    settings = Pretraining(epochs=2)
    return settings, out, pretrain(settings, study.pretraining_stores(), out)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(study, made, tmp_path):
    settings, out, history = made

    class Killed(Exception):
        pass

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    again = tmp_path / "weights.safetensors"
    with pytest.raises(Killed):
        pretrain(settings, study.pretraining_stores(), again, kill)
    assert not again.exists() and not again.with_suffix(".json").exists(), "nothing half-written"
    epochs = []
    resumed = pretrain(settings, study.pretraining_stores(), again, lambda row: epochs.append(row["epoch"]))
    assert epochs == [2]
    assert again.read_bytes() == out.read_bytes()
    assert resumed.drop(columns="seconds").equals(history.drop(columns="seconds"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.json", "weights.safetensors"]


def test_a_state_of_other_settings_is_not_gone_on_with(study, made, tmp_path):
    settings, out, _ = made
    other = tmp_path / "weights.safetensors"

    def kill(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(Pretraining(epochs=2, seed=5), study.pretraining_stores(), other, kill)
    pretrain(settings, study.pretraining_stores(), other)
    assert other.read_bytes() == out.read_bytes()


def test_finished_weights_are_found_and_not_made_again(study, made):
    settings, out, history = made
    before = out.stat().st_mtime_ns
    found = pretrain(settings, study.pretraining_stores(), out, lambda row: pytest.fail("trained again"))
    assert out.stat().st_mtime_ns == before
    assert found.equals(history)


def test_no_test_clip_and_no_label_is_read(study, made, tmp_path):
    settings, out, _ = made
    stores = []
    for number, store in enumerate(study.pretraining_stores()):
        copy = shutil.copytree(store, tmp_path / str(number))
        packed = study.packed(study.profile.grid.datasets[number])
        frames = np.load(copy / "frames.npy")
        frames[packed.split("test")] = 0
        np.save(copy / "frames.npy", frames)
        manifest = packed.manifest.assign(expression=-1)
        manifest.to_parquet(copy / "manifest.parquet", index=False)
        write_sealed(copy / "meta.json", packed.meta | {"rows": rows_digest(manifest, packed.frame_numbers)})
        stores.append(copy)
    again = tmp_path / "weights.safetensors"
    pretrain(settings, stores, again)
    assert again.read_bytes() == out.read_bytes()
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["clips"]["count"] == sum(
        len(study.packed(name).split("train")) for name in study.profile.grid.datasets
    )
    assert record["settings"]["mask_ratio"] == 0.75 and len(record["history"]) == 2


def test_fine_tuning_starts_from_the_written_file(study, made):
    _, out, _ = made
    model = build_model("mae_dfer", size="tiny")
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_official_state_dict(model, read_checkpoint(out))
    own = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias", "head_au.weight", "head_au.bias"}
    assert report.source == "MAE pre-training" and set(report.left_at_initialisation) == own
    assert all(key.startswith(("decoder.", "encoder_to_decoder.", "mask_token", "norm.")) for key in report.dropped)
    pretrained = load_pretrained(out).encoder.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, initial[key] if key in own else pretrained[key]), key


def test_a_cell_can_start_from_the_profiles_weights(study):
    scratch, started = (study.cell("mae_dfer", "DFEW", initialisation=start) for start in ("scratch", "mae"))
    inputs = study.cell_inputs([scratch, started])
    keys = [study.store.key(cell, inputs[cell.source]) for cell in (scratch, started)]
    assert keys[0] != keys[1] and "mae_dfer.safetensors" in inputs[started.source].initial_weights
    assert keys[0] == study.store.key(scratch, study.cell_inputs([scratch])["DFEW"])
    cells = study.cells("pretraining")
    assert [(c.au_ratio > 0, c.initialisation) for c in cells] == [
        (a, s) for a in (False, True) for s in ("scratch", "mae")
    ]
    assert study.pretrained_weights.is_file()


def test_a_reconstruction_keeps_what_was_seen_and_fills_the_rest(tiny):
    clips = (torch.rand(2, 8, 3, 48, 48, generator=generator()) * 255).to(torch.uint8)
    found = reconstruct(tiny.eval(), clips, 0.75, seed=3)
    tiny.train()
    first = clips[:, ::2].permute(0, 1, 3, 4, 2).numpy()
    np.testing.assert_array_equal(found["original"], first)
    hidden = np.isnan(found["predicted_motion"]) ^ True
    assert hidden.mean() == pytest.approx(7 / 9)
    np.testing.assert_array_equal(found["masked"][~hidden], first[~hidden])
    assert (found["masked"][hidden] == 128).all()
    np.testing.assert_array_equal(found["appearance"][~hidden], first[~hidden])
    assert (found["appearance"][hidden] != first[hidden]).mean() > 0.5
    change = (clips[:, 1::2].float() - clips[:, ::2].float()).mean(2).numpy() / 255
    np.testing.assert_allclose(found["motion"], change, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (dict(size="large"), "'large'"),
        (dict(epochs=0), "0"),
        (dict(mask_ratio=1.0), "1.0"),
        (dict(motion_weight=2), "2"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(wrong, found):
    with pytest.raises(InputError, match=f"pre-training: .*{found}"):
        Pretraining(**wrong)


def test_the_command_pre_trains_on_packed_clips_and_says_how_to_go_on(study, tmp_path, capsys):
    profile = study.work.parents[1] / "tests.toml"
    stores = list(map(str, study.pretraining_stores()))
    out = tmp_path / "own.safetensors"
    base = ["train", "--profile", str(profile), "--objective", "mae"]
    assert cli.main([*base, "--data", *stores, "--epochs", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert str(out) in printed and f"--initial-weights {out}" in printed and "motion" in printed
    assert json.loads(out.with_suffix(".json").read_text())["settings"]["epochs"] == 1
    for arguments, sentence in (
        ([*base, "--model", "m3dfel"], "'m3dfel', expected mae_dfer"),
        ([*base, "--epochs", "1"], "--out: found nothing"),
        ([*base, "--data", str(tmp_path), "--out", str(out)], "no meta.json"),
        ([*base, "--data", *stores, "--out", str(tmp_path / "x.pt")], "ends in .safetensors"),
        (["train", "--profile", str(profile), "--out", str(out)], "--objective mae"),
    ):
        assert cli.main(arguments) == 2
        assert sentence in capsys.readouterr().err


def test_the_tiny_encoder_is_the_tiny_network_and_its_file_names_are_official(tiny):
    names = set(build_model("mae_dfer", size="tiny", num_aus=None).state_dict())
    encoder = {key.removeprefix("encoder.") for key in tiny.state_dict() if key.startswith("encoder.")}
    assert encoder - {"norm.weight", "norm.bias"} == names - {
        "fc_norm.weight",
        "fc_norm.bias",
        "head.weight",
        "head.bias",
    }
    assert NETWORKS["mae_dfer"].sizes["tiny"]["stem"], "a stem looks beyond a token: why masks come before it"


# --------------------------------------------------------------------------------------------------- table and figure


def test_the_table_compares_equal_heads_on_equal_clips():
    cells = {}
    for number, (ratio, start) in enumerate((r, s) for r in (0.0, 0.25) for s in ("scratch", "mae")):
        record = fake_record("mae_dfer", au_ratio=ratio, noise=number, skill=0.6 if start == "mae" else 0.4)
        record.cell["initialisation"], record.path = start, record.path.with_name(f"{ratio}{start}")
        cells[ratio, start] = record
    grid = SimpleNamespace(strategy_dataset=record.cell["dataset"])
    study = SimpleNamespace(profile=SimpleNamespace(grid=grid, embedded=True))
    table = pretraining(study, list(cells.values()))
    rows = table.frame.set_index(["au_ratio", "start", "metric"])
    for ratio in (0.0, 0.25):
        paired = compare([cells[ratio, "scratch"]], [cells[ratio, "mae"]])
        row = rows.loc[(ratio, "masked pre-training", "WAR")]
        assert row["difference"] == pytest.approx(100 * paired.war.value) and row["p"] == pytest.approx(paired.war_p)
        assert row["difference_low"] == pytest.approx(100 * paired.war.low) and row["test"] == paired.test
        guess = cells[ratio, "mae"].scores.argmax(1)
        assert row["ours"] == pytest.approx(100 * (guess == cells[ratio, "mae"].expressions).mean())
        assert np.isnan(rows.loc[(ratio, "scratch", "WAR")]["difference"])
    assert list(table.display["Start"]) == ["scratch", "masked pre-training"] * 2 and "Holm" in table.caption
    assert set(table.digests) == {f"{r}{s}" for r in (0.0, 0.25) for s in ("scratch", "mae")}


def test_the_figures_numbers_are_those_of_its_pictures():
    truth = np.zeros((1, 2, 4, 4))
    truth[0, 1, 2:] = np.arange(8).reshape(2, 4) / 100
    hidden = np.zeros((4, 4), bool)
    hidden[2:] = True
    original = np.full((1, 2, 4, 4, 3), 100, np.uint8)
    sheet = {
        "clip_ids": ["a"],
        "expressions": ["happy"],
        "original": original,
        "masked": original,
        "appearance": np.where(hidden[..., None], np.uint8(110), original),
        "motion": truth,
        "predicted_motion": np.where(hidden, 2 * truth, np.nan),
    }
    data = reconstruction_data(sheet)
    assert data["hidden"].tolist() == [0.5, 0.5] and data["appearance_error"].tolist() == [10, 10]
    assert np.isnan(data["motion_r"][0]) and data["motion_r"][1] == pytest.approx(1)
    figure = draw_reconstruction(sheet).figure
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][0] == "clip"
    assert any("happy" in text.get_text() for text in figure.axes[0].texts)
    rows = {2.0: 5, 0.001: 3}  # motion that nobody could see is left out
    for strength, expected in rows.items():
        sheet["predicted_motion"] = np.where(hidden, strength * truth, np.nan)
        assert motion_strength(sheet) == pytest.approx(strength)
        assert len(draw_reconstruction(sheet).get_yticklabels()) == expected
    plt.close("all")
