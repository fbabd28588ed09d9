"""Eqs. 4 to 10 against hand arithmetic and torch's own binary cross entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from audfer import losses
from audfer.errors import InputError
from audfer.losses import AULoss, clip_au_labels, combined_loss, positive_class_weight

NAN = float("nan")


def hot(*rows):
    """(n, 18) presence whose first columns are the given rows; the other AUs are absent."""
    presence = np.zeros((len(rows), 18))
    presence[:, : len(rows[0])] = rows
    return presence


# ---- Eq. 4


def test_exactly_half_of_the_frames_is_active_and_less_is_not():
    labels = clip_au_labels(hot([1, 1], [1, 0], [0, 0], [0, 0]))
    assert labels[0] == 1 and labels[1] == 0 and labels[2] == 0
    assert labels.dtype == np.float32


def test_an_odd_number_of_frames_needs_more_than_half():
    assert clip_au_labels(hot([1, 1], [0, 1], [0, 0]))[:2].tolist() == [0, 1]


def test_a_clip_without_any_known_frame_is_unknown_and_not_all_active():
    assert np.isnan(clip_au_labels(np.full((5, 18), NAN))).all()
    assert np.isnan(clip_au_labels(np.zeros((0, 18)))).all()


def test_unknown_frames_are_left_out_or_counted_as_inactive():
    presence = hot([1], [NAN], [NAN], [0], [1])  # 2 of 3 known frames, 2 of all 5
    assert clip_au_labels(presence)[0] == 1
    assert clip_au_labels(presence, unknown="inactive")[0] == 0


def test_many_clips_at_once_equal_clip_by_clip():
    presence = (np.random.default_rng(0).random((6, 9, 18)) < 0.5).astype(float)
    assert np.array_equal(clip_au_labels(presence), np.stack([clip_au_labels(p) for p in presence]))


def test_presence_must_be_zero_or_one():
    with pytest.raises(InputError, match="found 0.5"):
        clip_au_labels(hot([0.5]))


# ---- Eqs. 6 to 8. Eight clips: AU01 active in clips 0, 1, 4; happy = clips 0-3, sad 4-5, fear 6, outside the seven 7
LABELS = hot([1], [1], [0], [0], [1], [0], [0], [1])
EXPRESSION = np.array([0, 0, 0, 0, 1, 1, 6, -1])


def test_global_weight_is_inactive_over_active_over_all_clips():
    weights = positive_class_weight(LABELS, EXPRESSION, "global")
    assert weights.shape == (18,) and weights.dtype == torch.float32
    assert weights[0] == pytest.approx(4 / 3)  # clips 2 3 5 6 over 0 1 4; clip 7 has no expression


def test_distinct_weight_counts_within_each_expression():
    weights = positive_class_weight(LABELS, EXPRESSION, "distinct")
    assert weights.shape == (7, 18)
    assert weights[0, 0] == pytest.approx(2 / 2) and weights[1, 0] == pytest.approx(1 / 1)


def test_a_never_active_au_gets_the_cap_instead_of_infinity():
    weights = positive_class_weight(LABELS, EXPRESSION, "distinct", cap=50.0)
    assert weights[6, 0] == 50 and weights[0, 5] == 50  # fear's one clip lacks AU01; AU06 is active nowhere
    assert torch.isfinite(weights).all()


def test_smoothing_adds_to_both_counts():
    assert positive_class_weight(LABELS, EXPRESSION, "distinct", smoothing=1.0)[6, 0] == pytest.approx(2 / 1)


def test_an_absent_expression_takes_the_global_row():
    weights = positive_class_weight(LABELS, EXPRESSION, "distinct")
    assert torch.equal(weights[3], positive_class_weight(LABELS, EXPRESSION, "global"))


def test_minor_weight_is_one_for_expressions_with_more_than_a_seventh():
    expressions = np.repeat(np.arange(7), [3, 2, 2, 2, 2, 2, 1])  # 14 clips: only happy has more than 2
    labels = np.zeros((14, 18))
    labels[::2, 0] = 1
    weights = positive_class_weight(labels, expressions, "minor")
    assert (weights[0] == 1).all()
    assert torch.equal(weights[1:], positive_class_weight(labels, expressions, "distinct")[1:])


@pytest.mark.parametrize(
    "dataset, major",
    [
        ("DFEW", ["happy", "sad", "neutral", "angry"]),
        ("FERV39k", ["happy", "sad", "neutral", "angry"]),
        ("MAFW", ["happy", "sad", "neutral", "angry"]),
    ],
)
def test_the_one_seventh_rule_gives_the_papers_four_major_classes(dataset, major):
    from audfer import published

    counts = published.class_counts(dataset, "train", 1)
    found = losses.major_expressions(list(counts.values()))
    assert [name for name, is_major in zip(counts, found, strict=True) if is_major] == major


def test_unknown_labels_are_not_counted():
    labels = LABELS.copy()
    labels[2:4] = NAN
    assert positive_class_weight(labels, EXPRESSION)[0] == pytest.approx(2 / 3)
    labels[:, 3] = NAN
    assert positive_class_weight(labels, EXPRESSION)[3] == 1


def test_release_rates_come_back_from_frames():
    # frames of one class with the released DFEW rate of happy AU12 give its released weight back
    from audfer import published

    weight = published.released_pos_weight("DFEW", "distinct")[0, 8]
    active = round(100000 / (1 + weight))
    labels = np.zeros((100000, 18))
    labels[:active, 8] = 1
    assert positive_class_weight(labels, np.zeros(100000, int), "distinct")[0, 8] == pytest.approx(weight, rel=1e-4)


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="strategy"):
        positive_class_weight(LABELS, EXPRESSION, "rare")
    with pytest.raises(InputError, match="shape of au_labels"):
        positive_class_weight(LABELS[:3], EXPRESSION)
    with pytest.raises(InputError, match="-1 to 6"):
        positive_class_weight(LABELS, EXPRESSION + 1)


# ---- Eq. 9


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(5, 18, generator=generator),
        (torch.rand(5, 18, generator=generator) < 0.4).float(),
        torch.tensor([0, 6, 2, 2, 5]),
        torch.rand(7, 18, generator=generator),
        20 * torch.rand(7, 18, generator=generator),
    )


def test_one_term_by_hand():
    knowledge, weight = torch.full((7, 18), 0.3), torch.full((18,), 4.0)
    logits, labels = torch.zeros(1, 18), torch.zeros(1, 18)
    logits[0, 0], labels[0, 0] = 1.0, 1.0
    # positive: 5*0.3*4*log(1+e^-1); 17 negatives at logit 0: 5*0.3*log 2 each
    expected = 1.5 * (4 * math.log(1 + math.exp(-1)) + 17 * math.log(2))
    expressions = torch.tensor([4])
    total = AULoss(knowledge, weight, "sum_over_aus")(logits, labels, expressions)
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert AULoss(knowledge, weight)(logits, labels, expressions).item() == pytest.approx(expected / 18, rel=1e-6)


def test_equals_torchs_weighted_binary_cross_entropy(batch):
    logits, labels, expressions, knowledge, weight = batch
    row = expressions
    expected = F.binary_cross_entropy_with_logits(logits, labels, weight=5 * knowledge[row], pos_weight=weight[row])
    assert AULoss(knowledge, weight)(logits, labels, expressions).item() == pytest.approx(expected.item(), rel=1e-6)


def test_reductions_differ_by_the_number_of_aus(batch):
    logits, labels, expressions, knowledge, weight = batch
    mean = AULoss(knowledge, weight, "mean")(logits, labels, expressions)
    total = AULoss(knowledge, weight, "sum_over_aus")(logits, labels, expressions)
    assert total.item() == pytest.approx(18 * mean.item(), rel=1e-6)


def test_each_clip_gets_the_row_of_its_own_expression():
    knowledge = torch.zeros(7, 18)
    knowledge[3] = 0.2
    loss = AULoss(knowledge)(torch.zeros(7, 18), torch.zeros(7, 18), torch.arange(7))
    assert loss.item() == pytest.approx(math.log(2) / 7, rel=1e-6)  # only the angry clip weighs anything


def test_without_knowledge_it_is_plain_binary_cross_entropy(batch):
    logits, labels, expressions, *_ = batch
    assert AULoss()(logits, labels, expressions).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, labels).item(), rel=1e-6
    )


def test_unknown_labels_take_no_part_in_value_or_gradient(batch):
    logits, labels, expressions, knowledge, weight = batch
    masked = labels.clone()
    masked[0] = NAN
    masked[1, :9] = NAN
    logits = logits.clone().requires_grad_()
    loss = AULoss(knowledge, weight)(logits, masked, expressions)
    loss.backward()
    full = F.binary_cross_entropy_with_logits(
        logits, labels, weight=5 * knowledge[expressions], pos_weight=weight[expressions], reduction="none"
    )
    known = ~torch.isnan(masked)
    assert loss.item() == pytest.approx(full[known].mean().item(), rel=1e-6)
    assert (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).all()


def test_sum_over_aus_averages_over_clips_with_a_record(batch):
    logits, labels, expressions, *_ = batch
    masked = labels.clone()
    masked[2:] = NAN
    expected = F.binary_cross_entropy_with_logits(logits[:2], labels[:2], reduction="none").sum(1).mean()
    assert torch.isclose(AULoss(reduction="sum_over_aus")(logits, masked, expressions), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum_over_aus"])
@pytest.mark.parametrize("size", [0, 3])
def test_nothing_known_gives_zero_with_a_gradient(reduction, size):
    logits = torch.randn(size, 18, requires_grad=True)
    loss = AULoss(reduction=reduction)(logits, torch.full((size, 18), NAN), torch.zeros(size, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(size, 18))


def test_a_clip_without_expression_is_left_out(batch):
    logits, labels, expressions, knowledge, weight = batch
    some = expressions.clone()
    some[0] = -1
    loss = AULoss(knowledge, weight)
    assert torch.isclose(loss(logits, labels, some), loss(logits[1:], labels[1:], expressions[1:]))


def test_soft_expressions_give_the_expected_loss(batch):
    logits, labels, expressions, knowledge, weight = batch
    loss = AULoss(knowledge, weight)
    assert torch.isclose(loss(logits, labels, F.one_hot(expressions, 7).float()), loss(logits, labels, expressions))
    other = torch.tensor([1, 1, 0, 3, 4])
    mixed = 0.3 * F.one_hot(expressions, 7) + 0.7 * F.one_hot(other, 7)
    assert torch.isclose(
        loss(logits, labels, mixed), 0.3 * loss(logits, labels, expressions) + 0.7 * loss(logits, labels, other)
    )


def test_autocast_computes_the_loss_in_full_precision(batch):
    logits, labels, expressions, knowledge, weight = batch
    loss = AULoss(knowledge, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(logits.bfloat16(), labels, expressions)
        soft = loss(logits.bfloat16(), labels, F.one_hot(expressions, 7).float())
    exact = loss(logits.bfloat16().float(), labels, expressions)
    assert half.dtype == torch.float32
    assert torch.isclose(half, exact, rtol=1e-6) and torch.isclose(soft, exact, rtol=1e-6)


def test_weights_move_with_the_module_and_are_saved():
    loss = AULoss(torch.rand(7, 18), torch.rand(18))
    assert loss.double().positive.dtype == torch.float64
    assert loss.to("meta").negative.device.type == "meta"
    assert set(AULoss().state_dict()) == {"negative", "positive"}


def test_later_changes_of_the_given_matrix_do_not_leak_in():
    knowledge = torch.full((7, 18), 0.2)
    loss = AULoss(knowledge)
    knowledge.zero_()
    assert (loss.negative == 1).all()


def test_wrong_matrices_are_named():
    with pytest.raises(InputError, match=r"shape of knowledge: found \(18, 7\)"):
        AULoss(torch.ones(18, 7))
    with pytest.raises(InputError, match="pos_weight"):
        AULoss(None, torch.full((18,), float("inf")))
    with pytest.raises(InputError, match="reduction"):
        AULoss(reduction="sum")


# ---- Eqs. 5 and 10


def test_the_printed_factor_five_shifts_the_value_and_no_gradient():
    logits = torch.randn(4, 7, requires_grad=True)
    expressions = torch.tensor([0, 3, 6, 2])
    printed = losses.expression_loss(logits, expressions, printed_offset=True)
    by_hand = -torch.log(5 * logits.softmax(1)[torch.arange(4), expressions]).mean()
    assert torch.isclose(printed, by_hand)
    plain = torch.autograd.grad(losses.expression_loss(logits, expressions), logits)[0]
    assert torch.equal(torch.autograd.grad(printed, logits)[0], plain)


def test_combined_loss_by_hand():
    assert combined_loss(torch.tensor(2.0), torch.tensor(6.0), 0.25).item() == 3.0
    assert combined_loss(torch.tensor(2.0), torch.tensor(6.0), 0.0).item() == 2.0


@pytest.mark.parametrize("ratio", [-0.1, 1.1, NAN])
def test_a_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(InputError, match="au_ratio"):
        combined_loss(torch.tensor(1.0), torch.tensor(1.0), ratio)


def test_weights_that_are_loaded_are_the_weights_that_count():
    generator = torch.Generator().manual_seed(0)
    knowledge, ratio = torch.rand(7, 18, generator=generator), 1 + torch.rand(7, 18, generator=generator)
    logits, labels = torch.randn(9, 18, generator=generator), (torch.rand(9, 18, generator=generator) < 0.4).float()
    expressions = torch.arange(9) % 7
    saved, other = AULoss(knowledge, ratio), AULoss(1 - knowledge, 3.0 - ratio)
    assert set(saved.state_dict()) == {"negative", "positive"}
    assert other(logits, labels, expressions) != saved(logits, labels, expressions)
    other.load_state_dict(saved.state_dict())
    assert other(logits, labels, expressions) == saved(logits, labels, expressions)


@pytest.mark.parametrize("code", [-1.0, 9.0, 2.0, 5.0, 999.0, -0.001, float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_what_is_no_au_label_is_refused_wherever_labels_go_in(code, dtype):
    if dtype == torch.int64 and (code % 1 or abs(code) == float("inf")):
        pytest.skip("no integer")
    labels, expressions = torch.zeros(4, 18), torch.arange(4)
    labels[0, 0] = 1.0
    labels[3, 17] = code
    labels, loss = labels.to(dtype), AULoss()
    with pytest.raises(InputError, match="AULoss: au_labels: found .*, expected 0 to 1 or NaN"):
        loss(torch.zeros(4, 18), labels, expressions)
    for refusing in (clip_au_labels, lambda values: positive_class_weight(values, expressions)):
        with pytest.raises(InputError, match=r"found .*, expected 0, 1 or NaN \(unknown\)"):
            refusing(labels.double().numpy())
    labels[3, 17] = 0
    assert loss(torch.zeros(4, 18), labels, expressions) > 0


def test_mixed_labels_are_targets_and_no_counts():
    labels = torch.full((4, 18), 0.3)
    assert AULoss()(torch.zeros(4, 18), labels, torch.arange(4)) > 0
    with pytest.raises(InputError, match="au_labels: found 0.3"):
        positive_class_weight(labels, np.arange(4))
