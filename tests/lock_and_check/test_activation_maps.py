"""Activation maps are what their definition says, and localisation counts what lies in the regions."""

import numpy as np
import pytest
import torch

from audfer.action_units.estimator import ActionUnitEstimator
from audfer.errors import InputError
from audfer.facs import ACTION_UNITS
from audfer.lock_and_check import activation_maps as room
from audfer.lock_and_check.network import build_lac

C = len(ACTION_UNITS)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)


def make_lac(lock):
    torch.manual_seed(1)
    return build_lac("tiny", lock=lock).eval()


def features_of(network, frames):
    with torch.no_grad():
        return network.backbone(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)


def test_evidence_of_the_baseline_is_the_classic_class_activation_map(frames):
    network = make_lac(lock=False)
    features = features_of(network, frames)
    classic = torch.einsum("cn,bnhw->bchw", network.classifier.weight, features).clamp(min=0) / features[0, 0].numel()
    np.testing.assert_allclose(room.activation_maps(network, frames), classic.detach().numpy(), atol=1e-7)


def test_evidence_of_lac_adds_up_to_its_first_logit_but_for_the_bias(frames):
    network = make_lac(lock=True)
    with torch.no_grad():  # nothing negative, so nothing is cut off
        network.classifier.weight.abs_()
        first = network(torch.from_numpy(frames).permute(0, 3, 1, 2)[:, None]).first[:, 0] - network.classifier.bias
    maps = room.activation_maps(network, frames)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), first.numpy(), rtol=1e-4)
    assert maps.std() > 0


def test_evidence_of_the_estimator_adds_up_to_its_logits_but_for_constants(frames):
    torch.manual_seed(2)
    network = ActionUnitEstimator(48).eval()
    with torch.no_grad():  # without a bias on the way, the logit is the sum of what the places add
        network.presence.bias.zero_()
        network.squeeze[1].bias.zero_()
        network.presence.weight.abs_()
        network.squeeze[0].weight.abs_()
    logits, _ = network.raw(torch.from_numpy(frames).permute(0, 3, 1, 2))
    np.testing.assert_allclose(
        room.activation_maps(network, frames).sum(axis=(2, 3)), logits.detach().numpy(), rtol=1e-4
    )


def test_similarity_is_the_cosine_where_it_is_positive(frames):
    for lock in (True, False):
        network = make_lac(lock)
        expected = network.similarity(features_of(network, frames)).clamp(min=0).detach().numpy()
        np.testing.assert_allclose(room.activation_maps(network, frames, "similarity"), expected, atol=1e-7)


def test_maps_do_not_depend_on_the_batch_nor_on_other_pictures(frames):
    network = make_lac(True)
    whole = room.activation_maps(network, frames, batch_size=64)
    np.testing.assert_allclose(room.activation_maps(network, frames, batch_size=2), whole, atol=1e-7)
    np.testing.assert_allclose(room.activation_maps(network, frames[3:4])[0], whole[3], atol=1e-7)


def test_chosen_action_units_and_no_pictures(frames):
    network = make_lac(True)
    some = room.activation_maps(network, frames, action_units=("AU12", "AU01"))
    whole = room.activation_maps(network, frames)
    np.testing.assert_array_equal(some, whole[:, [ACTION_UNITS.index("AU12"), 0]])
    assert room.activation_maps(network, frames[:0]).shape == (0, C, 1, 1)
    assert not network.backbone._forward_hooks and not any(p.grad is not None for p in network.parameters())


def test_what_cannot_be_mapped_is_refused(frames):
    network = make_lac(True)
    with pytest.raises(InputError, match="frames"):
        room.activation_maps(network, frames / 255)
    with pytest.raises(InputError, match="AU24"):
        room.activation_maps(network, frames, action_units=("AU24",))
    with pytest.raises(InputError, match="similarity only of Lock and Check"):
        room.activation_maps(ActionUnitEstimator(48).eval(), frames, "similarity")


# ------------------------------------------------------------------------------------------------------ localisation
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def boxes(*pairs):
    return np.array(pairs, float)[None]  # one picture


def test_all_inside_all_outside_and_half():
    spot = np.zeros((1, 1, room.GRID, room.GRID), np.float32)
    spot[0, 0, 10, 10] = 3
    assert room.energy_shares(spot, boxes((LEFT, LEFT))) == 1
    assert room.energy_shares(spot, boxes((RIGHT, RIGHT))) == 0
    spot[0, 0, 20, 50] = 3
    assert room.energy_shares(spot, boxes((LEFT, LEFT))) == pytest.approx(0.5)
    assert room.energy_shares(1000 * spot, boxes((LEFT, LEFT))) == pytest.approx(0.5)


def test_overlapping_regions_count_once():
    flat = np.ones((1, 1, 4, 4), np.float32)
    assert room.energy_shares(flat, boxes((LEFT, LEFT)))[0, 0] == pytest.approx(0.5)
    assert room.energy_shares(flat, boxes((LEFT, RIGHT)))[0, 0] == pytest.approx(1)
    assert room.energy_shares(flat, boxes((LEFT, (0.25, 0, 0.75, 1))))[0, 0] == pytest.approx(0.75)


def test_a_coarse_and_a_fine_map_of_the_same_thing_get_the_same_share():
    coarse = np.array([[[[1.0, 0.0], [0.0, 0.0]]]], np.float32)
    fine = room.resized_maps(coarse, 28)
    region = boxes((LEFT, (0.0, 0.0, 0.4, 0.4)))
    assert room.energy_shares(fine, region)[0, 0] == pytest.approx(room.energy_shares(coarse, region)[0, 0], abs=0.01)


def test_a_flat_map_gets_what_the_regions_cover():
    region = boxes(((0.1, 0.1, 0.6, 0.6), (0.5, 0.5, 0.9, 1.4)))
    assert room.area_shares(region)[0, 0] == pytest.approx(
        0.25 + 0.4 * 0.5 - 0.01, abs=0.02
    )  # beyond the picture counts as nothing


def test_unknown_regions_have_no_share_and_empty_maps_that_of_a_flat_one():
    maps = np.ones((1, 3, 4, 4), np.float32)
    maps[0, 1] = 0
    region = np.broadcast_to(np.array(LEFT), (1, 3, 2, 4)).copy()
    region[0, 2, 1] = np.nan
    np.testing.assert_allclose(room.energy_shares(maps, region), [[0.5, 0.5, np.nan]])
    with pytest.raises(InputError, match="maps and boxes"):
        room.energy_shares(maps, region[:, :2])


def test_localisation_counts_only_pictures_that_show_the_au_and_means_are_of_aus():
    units = ("AU01", "AU02")
    shares = np.array([[0.2, 0.9], [0.4, 0.9], [1.0, 0.7], [0.0, np.nan]])
    labels = np.array([[1, 0], [1, 0], [0, 1], [np.nan, 1]])
    found = room.localisation({"a": shares}, labels, list("ppqq"), action_units=units).set_index("action_unit")
    assert (
        found.loc["AU01", "share"] == pytest.approx(0.3)
        and found.loc["AU01", "pictures"] == 2
        and found.loc["AU01", "subjects"] == 1
    )
    assert found.loc["AU02", "share"] == pytest.approx(0.7) and found.loc["AU02", "pictures"] == 1
    assert found.loc["mean", "share"] == pytest.approx(0.5) and np.isnan(found.loc["mean", "difference"])


def test_localisation_compares_pairwise_over_subjects():
    generator = np.random.default_rng(3)
    subjects = np.repeat(np.arange(30), 4)
    person = generator.normal(0, 0.2, 30)[subjects]  # people differ far more than the networks do
    first = np.clip(0.5 + person + generator.normal(0, 0.01, 120), 0, 1)[:, None]
    labels = np.ones((120, 1))
    better = np.clip(first + 0.03, 0, 1)
    found = room.localisation(
        {"a": first, "b": better, "same": first}, labels, subjects, action_units=("AU01",)
    ).set_index(["network", "action_unit"])
    row = found.loc[("b", "AU01")]
    assert (
        row.difference == pytest.approx((better - first).mean()) and 0 < row.difference_low < row.difference_high < 0.04
    )
    assert row.p < 0.01 and found.loc[("same", "mean"), "p"] == 1
    assert row.high - row.low > 3 * (row.difference_high - row.difference_low)


def test_one_person_proves_nothing():
    first = np.full((50, 1), 0.1)
    found = room.localisation({"a": first, "b": first + 0.5}, np.ones((50, 1)), ["p"] * 50, action_units=("AU01",))
    assert found.loc[found["network"] == "b", "p"].tolist() == [1, 1]


def test_a_picture_without_a_share_in_one_network_counts_in_none():
    shares = np.array([[0.2], [0.6]])
    other = np.array([[0.5], [np.nan]])
    found = room.localisation({"a": shares, "b": other}, np.ones((2, 1)), [1, 2], action_units=("AU01",)).set_index(
        ["network", "action_unit"]
    )
    assert found.loc[("a", "AU01"), "share"] == pytest.approx(0.2)
    assert found.loc[("b", "AU01"), "difference"] == pytest.approx(0.3)
