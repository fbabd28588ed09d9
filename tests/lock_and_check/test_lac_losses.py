"""The losses of Lock and Check on hand-made tensors: where their gradients push, what teaches nothing, the printed
formulas.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from audfer.errors import AudferError
from audfer.lock_and_check.losses import (
    RECALL_FLOOR,
    SHARE_FLOOR,
    DynamicWeights,
    activation_loss,
    local_to_global_loss,
    localisation_loss,
    region_cover,
    share_weights,
    weighted_loss,
)

#: one AU whose two regions are the upper left and the lower right quarter of a 4 x 4 map
CORNERS = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]).reshape(1, 1, 2, 4)
INSIDE = torch.zeros(4, 4, dtype=torch.bool)
INSIDE[:2, :2] = INSIDE[2:, 2:] = True


def random(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def known_boxes(frames: int, aus: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    corner = torch.rand(frames, aus, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.6
    return torch.cat((corner, corner + 0.35), dim=-1)


# -------------------------------------------------------------------------------------------------------------- Lock


def test_cover_of_whole_cells_is_those_cells_and_overlaps_count_once():
    torch.testing.assert_close(region_cover(CORNERS, 4, 4)[0], INSIDE.float())
    torch.testing.assert_close(region_cover(CORNERS.repeat(1, 3, 1, 1), 4, 4)[0], INSIDE.float())
    cover = region_cover(known_boxes(5, 4), 6, 7)
    assert cover.shape == (5, 6, 7) and cover.min() >= 0 and cover.max() <= 1


def test_bounded_localisation_is_the_share_inside_and_moves_energy_there():
    features = torch.ones(1, 3, 4, 4, requires_grad=True)
    loss = localisation_loss(features, CORNERS)
    torch.testing.assert_close(loss, torch.tensor(-0.5))  # half of the cells
    loss.backward()
    assert (features.grad[0, :, INSIDE] < 0).all() and (features.grad[0, :, ~INSIDE] > 0).all()
    everywhere = localisation_loss(random(4, 3, 6, 6), known_boxes(4, 2))
    assert -1 <= everywhere <= 0
    torch.testing.assert_close(localisation_loss(1000 * random(4, 3, 6, 6), known_boxes(4, 2)), everywhere)
    only = torch.zeros(1, 3, 4, 4).masked_fill(INSIDE, -2.0)
    torch.testing.assert_close(localisation_loss(only, CORNERS), torch.tensor(-1.0))
    torch.testing.assert_close(localisation_loss(torch.zeros(1, 3, 4, 4), CORNERS), torch.tensor(0.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_that_are_all_zero_get_no_gradient_and_spoil_no_others(dtype):
    features = random(3, 2, 4, 4).to(dtype)
    features[1] = 0
    features.requires_grad_()
    localisation_loss(features, CORNERS.expand(3, -1, -1, -1)).backward()
    assert torch.isfinite(features.grad).all() and (features.grad[1] == 0).all() and (features.grad[[0, 2]] != 0).any()


def test_printed_localisation_is_a_sum_and_has_no_lower_bound():
    features = random(2, 3, 4, 4).requires_grad_()
    loss = localisation_loss(features, CORNERS.repeat(2, 1, 1, 1), "paper")
    torch.testing.assert_close(localisation_loss(100 * features, CORNERS.repeat(2, 1, 1, 1), "paper"), 100 * loss)
    loss.backward()
    assert ((features.grad * features)[:, :, INSIDE] <= 0).all() and loss < 0
    # 9 bins of 1 in each of the two regions and three channels
    torch.testing.assert_close(localisation_loss(torch.ones(1, 3, 4, 4), CORNERS, "paper"), torch.tensor(-9.0 * 2 * 3))
    with pytest.raises(AudferError, match="bounded"):
        localisation_loss(features, CORNERS, "other")


@pytest.mark.parametrize("variant", ["balanced", "paper"])
def test_activation_raises_similarity_inside_for_an_active_au_and_lowers_it_for_an_inactive_one(variant):
    similarity = torch.zeros(2, 1, 4, 4, requires_grad=True)
    activation_loss(similarity, CORNERS.repeat(2, 1, 1, 1), torch.tensor([[1.0], [0.0]]), variant).backward()
    step = -similarity.grad[:, 0]
    assert (step[0][INSIDE] > 0).all() and (step[1][INSIDE] < 0).all()
    assert (step[:, ~INSIDE].abs() < step[:, INSIDE].abs().amax()).all()
    assert step[0, 0, 3] == step[1, 3, 0] == 0  # far from both regions


def test_activation_raises_cosine_of_class_weights_and_features():
    """Through the cosine: after a step the class vector is more like the features inside, for an active AU."""
    features, weight = random(1, 5, 4, 4, seed=1), random(5, seed=2).requires_grad_()

    def inside(vector: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(features, vector[None, :, None, None], dim=1)[:, None]

    for label, sign in ((1.0, 1), (0.0, -1)):
        (gradient,) = torch.autograd.grad(activation_loss(inside(weight), CORNERS, torch.tensor([[label]])), weight)
        moved = (weight - 0.05 * gradient).detach()
        assert sign * (inside(moved) - inside(weight))[0, 0, INSIDE].mean() > 0


def test_values_of_the_activation_loss():
    similarity = torch.where(INSIDE, 0.8, -0.3).expand(4, 1, 4, 4)
    boxes, labels = CORNERS.repeat(4, 1, 1, 1), torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    inside = -activation_loss(similarity[:1], boxes[:1], labels[:1], "paper")
    torch.testing.assert_close(activation_loss(similarity, boxes, labels, "paper"), inside * (3 - 1) / 4)
    # a constant map gains nothing in the balanced form, however rare the AU
    torch.testing.assert_close(activation_loss(similarity, boxes, labels), torch.tensor(0.0), atol=1e-7, rtol=0)
    with pytest.raises(AudferError, match="balanced"):
        activation_loss(similarity, boxes, labels, "other")


def test_local_to_global_is_the_squared_difference_of_the_means():
    # 1 in the left half of 8 columns; the known box lies well inside it, the other region is unknown
    similarity = torch.zeros(1, 1, 8, 8)
    similarity[..., :4] = 1
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.9], [torch.nan] * 4]).reshape(1, 1, 2, 4)
    torch.testing.assert_close(local_to_global_loss(similarity, boxes), torch.tensor((1 - 0.5) ** 2))
    outside = boxes + torch.tensor([0.5, 0.0, 0.5, 0.0])
    both = torch.stack((boxes[0, 0, 0], outside[0, 0, 0])).reshape(1, 1, 2, 4)
    torch.testing.assert_close(local_to_global_loss(similarity, outside), torch.tensor((0 - 0.5) ** 2))
    torch.testing.assert_close(local_to_global_loss(similarity, both), torch.tensor(0.0))
    torch.testing.assert_close(local_to_global_loss(torch.full((1, 1, 4, 4), 0.4), CORNERS), torch.tensor(0.0))


def test_unknown_regions_and_labels_teach_nothing():
    features, similarity = random(2, 3, 4, 4), random(2, 2, 4, 4, seed=1)
    boxes, labels = known_boxes(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    half_known, half_labelled = boxes.clone(), labels.clone()
    half_known[1], half_labelled[1] = torch.nan, torch.nan
    for loss in (
        lambda b, f, m, y: localisation_loss(f, b),
        lambda b, f, m, y: localisation_loss(f, b, "paper"),
        lambda b, f, m, y: activation_loss(m, b, y),
        lambda b, f, m, y: activation_loss(m, b, y, "paper"),
        lambda b, f, m, y: local_to_global_loss(m, b),
    ):
        f, m = features.clone().requires_grad_(), similarity.clone().requires_grad_()
        value = loss(half_known, f, m, labels)
        value.backward()
        torch.testing.assert_close(value, loss(boxes[:1], features[:1], similarity[:1], labels[:1]))
        given = f.grad if f.grad is not None else m.grad
        assert given.isfinite().all() and given[1].abs().sum() == 0 and given[0].abs().sum() > 0
        nothing = loss(
            torch.full_like(boxes, torch.nan),
            features.clone().requires_grad_(),
            similarity.clone().requires_grad_(),
            labels,
        )
        assert nothing == 0
        nothing.backward()
    torch.testing.assert_close(
        activation_loss(similarity, boxes, half_labelled), activation_loss(similarity[:1], boxes[:1], labels[:1])
    )
    single = boxes.clone()
    single[:, :, 1] = torch.nan  # one known region of two counts alone
    torch.testing.assert_close(
        local_to_global_loss(similarity, single), local_to_global_loss(similarity, boxes[:, :, :1])
    )


def test_losses_take_windows_as_they_take_frames_and_half_precision():
    features, similarity, boxes = random(6, 3, 5, 5), random(6, 2, 5, 5).tanh(), known_boxes(6, 2)
    labels = (random(6, 2, seed=3) > 0).float()
    flat = (
        localisation_loss(features, boxes),
        activation_loss(similarity, boxes, labels),
        local_to_global_loss(similarity, boxes),
    )
    features, similarity, boxes, labels = (x.unflatten(0, (2, 3)) for x in (features, similarity, boxes, labels))
    assert flat == (
        localisation_loss(features, boxes),
        activation_loss(similarity, boxes, labels),
        local_to_global_loss(similarity, boxes),
    )
    half = localisation_loss(features.bfloat16(), boxes)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, flat[0], atol=5e-3, rtol=0)
    with pytest.raises(AudferError, match="boxes"):
        activation_loss(similarity, boxes[:1], labels)


def test_gradients_of_the_lock_losses_are_exact():
    boxes = known_boxes(2, 2, dtype=torch.float64)
    features = (random(2, 3, 4, 4, dtype=torch.float64) + 3).requires_grad_()  # away from the corner of |F|
    similarity = random(2, 2, 4, 4, seed=1, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[1.0, 0.0], [torch.nan, 1.0]], dtype=torch.float64)
    for variant in ("bounded", "paper"):
        assert torch.autograd.gradcheck(lambda f: localisation_loss(f, boxes, variant), features)
    for variant in ("balanced", "paper"):
        assert torch.autograd.gradcheck(lambda m: activation_loss(m, boxes, labels, variant), similarity)
    assert torch.autograd.gradcheck(lambda m: local_to_global_loss(m, boxes), similarity)


# ---------------------------------------------------------------------------------------------------- classification


def test_weighted_asymmetric_loss_is_the_formula():
    logits, labels = 3 * random(7, 4, dtype=torch.float64), (random(7, 4, seed=1, dtype=torch.float64) > 0).double()
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    p = logits.sigmoid()
    formula = -(weights * (labels * p.log() + (1 - labels) * p * (1 - p).log())).mean()
    torch.testing.assert_close(weighted_loss(logits, labels, weights), formula, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        weighted_loss(logits, labels, asymmetric=False), binary_cross_entropy_with_logits(logits, labels)
    )
    assert torch.autograd.gradcheck(lambda x: weighted_loss(x, labels, weights), logits.requires_grad_())


def test_the_factor_is_part_of_the_gradient():
    logit = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    weighted_loss(logit, torch.zeros(1, 1)).backward()
    p = logit.detach().sigmoid()
    torch.testing.assert_close(logit.grad, p * (p - (1 - p) * (1 - p).log()))  # without it: p * p


def test_weighted_loss_of_large_logits_is_finite_and_of_unknown_labels_nothing():
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    labels = torch.tensor([[0.0, 1.0], [1.0, torch.nan]])
    loss = weighted_loss(logits, labels)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(400.0 / 3))
    assert logits.grad.isfinite().all() and logits.grad[1, 1] == 0
    assert weighted_loss(logits, torch.full_like(labels, torch.nan)) == 0


def test_dynamic_weights_follow_the_printed_recursion():
    weights = DynamicWeights(2, beta1=0.9, beta2=0.8, delta=0.25, normalise=False)
    torch.testing.assert_close(weights.weights, torch.ones(2))
    epochs = [((0.5, 0.8), (0.2, 0.1)), ((0.6, 0.9), (0.25, 0.1)), ((0.9, 0.4), (0.2, 0.3))]
    difficulty = distribution = None
    for recall, share in epochs:
        weights.update(torch.tensor(recall), torch.tensor(share))
        hard, rare = [1 / x for x in recall], [1 / x for x in share]
        difficulty = (
            hard if difficulty is None else [0.9 * old + 0.1 * new for old, new in zip(difficulty, hard, strict=True)]
        )
        distribution = (
            rare
            if distribution is None
            else [0.8 * old + 0.2 * new for old, new in zip(distribution, rare, strict=True)]
        )
        expected = [0.25 * a + 0.75 * b for a, b in zip(difficulty, distribution, strict=True)]
        torch.testing.assert_close(weights.weights, torch.tensor(expected))
    scaled = DynamicWeights(2, beta1=0.9, beta2=0.8, delta=0.25)
    for recall, share in epochs:
        scaled.update(torch.tensor(recall), torch.tensor(share))
    torch.testing.assert_close(scaled.weights, torch.tensor(expected) / (sum(expected) / 2))


def test_zero_recall_and_absent_classes_give_large_weights_but_no_infinite_ones():
    weights = DynamicWeights(3, normalise=False)
    weights.update(torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([0.3, 0.0, 0.5]))
    assert weights.weights.isfinite().all()
    assert weights.weights[0] == pytest.approx(0.5 / RECALL_FLOOR + 0.5 / 0.3)
    known = (1 / RECALL_FLOOR + 1) / 2  # the unknown recall takes the others' mean
    assert weights.weights[1] == pytest.approx(0.5 * known + 0.5 / SHARE_FLOOR)
    before = weights.difficulty.clone()
    weights.update(torch.full((3,), torch.nan), torch.full((3,), torch.nan))
    torch.testing.assert_close(weights.difficulty, before, equal_nan=True)


def test_shares_known_before_training_weight_the_first_epoch():
    share = torch.tensor([0.1, 0.2, 0.4])
    torch.testing.assert_close(share_weights(share), torch.tensor([10.0, 5.0, 2.5]) / (17.5 / 3))
    weights = DynamicWeights(3, share=share, delta=0.0)
    torch.testing.assert_close(weights.weights, share_weights(share))
    assert share_weights(torch.tensor([0.0, torch.nan, 1.0])).isfinite().all()
    assert math.isclose(float(DynamicWeights(3, share=share).weights.mean()), 1, rel_tol=1e-6)
    with pytest.raises(AudferError, match="3 AUs"):
        weights.update(torch.ones(2), torch.ones(2))


def test_dynamic_weights_go_on_from_their_state():
    first = DynamicWeights(2)
    first.update(torch.tensor([0.5, 0.25]), torch.tensor([0.1, 0.2]))
    second = DynamicWeights(2)
    second.load_state_dict(first.state_dict())
    for weights in (first, second):
        weights.update(torch.tensor([0.7, 0.3]), torch.tensor([0.1, 0.3]))
    assert torch.equal(first.weights, second.weights)
