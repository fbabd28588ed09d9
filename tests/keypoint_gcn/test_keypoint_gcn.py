"""KP-GCN on hand-made tensors: key points, heat maps, triplet attention, graph, fusion, hidden points, variants,
weights.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from audfer.errors import AudferError
from audfer.keypoint_gcn.network import (
    CHEEKS,
    EDGES,
    LANDMARK_POINTS,
    POINT_NAMES,
    REGIONS,
    KeyPointGraph,
    LSTMFusion,
    MeanFusion,
    StructureFusion,
    TripletAttention,
    adjacency,
    heat_maps,
    key_points,
    region_membership,
)
from audfer.losses import AULoss, combined_loss, expression_loss
from audfer.models import (
    NETWORKS,
    attach_au_head,
    build_model,
    count_flops,
    inspect_checkpoint,
    load_official_state_dict,
)
from audfer.published import load
from audfer.training.augmentation import MIRRORED, augment_with_points
from audfer.training.recipes import RECIPES, build_optimizer, learning_rate

#: every part, small enough for numerical derivatives
SMALL = dict(
    num_frames=3,
    image_size=24,
    channels=(3, 4, 5, 6),
    stem_kernel=3,
    node_dim=3,
    head_dim=2,
    temporal_hidden=5,
    temporal_heads=2,
    temporal_depth=1,
    num_aus=3,
)


def tiny(**settings) -> nn.Module:
    torch.manual_seed(0)
    return build_model("keypoint_gcn", size="tiny", **settings).eval()


def problem(batch: int = 2, frames: int = 8, side: int = 48, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, T, 3, side, side) in [0, 1] and landmarks (B, T, 68, 2) well inside."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(batch, frames, 3, side, side, generator=generator),
        0.1 + 0.8 * torch.rand(batch, frames, 68, 2, generator=generator),
    )


# ---------------------------------------------------------------------------------------------- points and heat maps


def test_eighteen_points_five_five_and_six_of_them_fused():
    assert len(LANDMARK_POINTS) == 16 and len(set(LANDMARK_POINTS)) == 16 and len(POINT_NAMES) == 18
    assert int(load("kpgcn_text_claims").set_index("quantity")["printed"]["key points"]) == 18
    assert [len(members) for members in REGIONS.values()] == [5, 5, 6]
    fused = [node for members in REGIONS.values() for node in members]
    assert sorted(set(range(18)) - set(fused)) == [14, 15] and len(set(fused)) == 16
    assert all(POINT_NAMES[node].startswith("nose bridge") for node in (14, 15))
    assert region_membership().sum(1).tolist() == [5, 5, 6]


def test_left_and_right_are_mirror_images():
    landmarks = torch.rand(68, 2)
    flipped = landmarks[list(MIRRORED)] * torch.tensor([-1.0, 1]) + torch.tensor([1.0, 0])
    names = [name.replace("left", "x").replace("right", "left").replace("x", "right") for name in POINT_NAMES]
    other = [
        POINT_NAMES.index({"mouth left": "mouth left", "mouth right": "mouth right"}.get(name, name)) for name in names
    ]
    expected = key_points(landmarks)[0][other] * torch.tensor([-1.0, 1]) + torch.tensor([1.0, 0])
    torch.testing.assert_close(key_points(flipped)[0], expected)
    matrix = adjacency()
    assert torch.equal(matrix[other][:, other], matrix)


def test_cheeks_are_centroids_and_unknown_or_outside_points_are_hidden():
    landmarks = torch.rand(2, 68, 2)
    points, visible = key_points(landmarks)
    assert points.shape == (2, 18, 2) and visible.all()
    for node, three in zip((16, 17), CHEEKS, strict=True):
        torch.testing.assert_close(points[:, node], sum(landmarks[:, i] for i in three) / 3)
    torch.testing.assert_close(points[:, :16], landmarks[:, list(LANDMARK_POINTS)])
    landmarks[0, LANDMARK_POINTS[3]] = math.nan
    landmarks[1, LANDMARK_POINTS[4], 1] = 1.2
    landmarks[1, CHEEKS[1][0]] = math.nan
    points, visible = key_points(landmarks)
    assert torch.isfinite(points).all()
    assert visible.logical_not().nonzero().tolist() == [[0, 3], [1, 4], [1, 17]]


def test_heat_maps_peak_at_their_point_fall_as_a_gaussian_and_average_to_one():
    maps = heat_maps(torch.tensor([[2.5 / 6, 1.5 / 6], [0.0, 1.0]]), 6, 6, sigma=1.0)
    assert maps.shape == (2, 6, 6) and maps[0].argmax() == 1 * 6 + 2 and maps[1].argmax() == 5 * 6
    torch.testing.assert_close(maps.mean((1, 2)), torch.ones(2))
    assert maps[0, 1, 3] / maps[0, 1, 2] == pytest.approx(math.exp(-0.5))  # one cell away: one sigma
    assert maps[0, 3, 3] / maps[0, 1, 2] == pytest.approx(math.exp(-0.5 * (1 + 4)))
    narrow = heat_maps(torch.tensor([0.1, 0.9]), 50, 40, sigma=0.01)  # no underflow to 0 / 0
    assert torch.isfinite(narrow).all() and narrow.mean() == pytest.approx(1)


# ---------------------------------------------------------------------------------------------- triplet attention


def triplet(seed: int = 0, kernel: int = 3) -> TripletAttention:
    torch.manual_seed(seed)
    layer = TripletAttention(kernel).double().eval()
    for _name, parameter in layer.named_parameters():
        nn.init.normal_(parameter)
    return layer


def test_triplet_attention_is_the_mean_of_three_rotated_branches():
    """The branches as the paper describes them: rotate, pool over the first axis, convolve, gate, rotate back."""
    layer, x = triplet(), torch.randn(2, 5, 4, 6, dtype=torch.float64)

    def branch(gate, rotated):
        pooled = torch.stack((rotated.max(dim=1).values, rotated.sum(dim=1) / rotated.shape[1]), dim=1)
        return rotated * torch.sigmoid(gate.bn(gate.conv(pooled)))

    height_channels = branch(layer.height_channels, x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)  # W first
    width_channels = branch(layer.width_channels, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # H first
    torch.testing.assert_close(layer(x), (height_channels + width_channels + branch(layer.height_width, x)) / 3)


def test_rotating_the_map_by_90_degrees_permutes_the_branches():
    layer, x = triplet(), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    rotated = copy.deepcopy(layer)
    # a quarter turn makes rows of columns, the columns in reverse order: the two branches with channels change places,
    # and the kernels turn with the map
    rotated.height_channels, rotated.width_channels = (
        copy.deepcopy(layer.width_channels),
        copy.deepcopy(layer.height_channels),
    )
    with torch.no_grad():
        rotated.height_channels.conv.weight.copy_(layer.width_channels.conv.weight.flip(2))
        rotated.height_width.conv.weight.copy_(layer.height_width.conv.weight.rot90(1, (2, 3)))
    torch.testing.assert_close(rotated(x.rot90(1, (2, 3))), layer(x).rot90(1, (2, 3)))
    assert not torch.allclose(layer(x.rot90(1, (2, 3))), layer(x).rot90(1, (2, 3)))


def test_the_maps_layout_in_memory_does_not_matter():
    layer, x = triplet(), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), layer(x))


# ---------------------------------------------------------------------------------------------- graph and fusion


def test_adjacency_is_symmetric_without_self_loops_and_stays_inside_facial_parts():
    matrix = adjacency()
    assert matrix.shape == (18, 18) and torch.equal(matrix, matrix.T) and matrix.diag().sum() == 0
    assert set(matrix.unique().tolist()) == {0, 1} and matrix.sum() == 2 * len(EDGES)
    part = {node: name for name, members in [*REGIONS.items(), ("bridge", (14, 15))] for node in members}
    assert all(part[a] == part[b] for a, b in EDGES)
    assert matrix.sum(1).min() >= 1  # every point has a neighbour


def test_the_graph_is_the_papers_formula_entry_by_entry():
    torch.manual_seed(0)
    graph = KeyPointGraph(4, 3).double()
    local, whole = torch.rand(2, 18, 4, dtype=torch.float64), torch.rand(2, 1, 4, dtype=torch.float64)
    found, weights = graph(local, whole), graph.weights(local, whole)
    assert found.shape == (2, 19, 3) and weights.shape == (2, 18, 1)
    neighbours = {node: {b if a == node else a for a, b in EDGES if node in (a, b)} for node in range(18)}
    for clip in range(2):
        for node in range(18):
            vector = local[clip, node]
            weight = max(0.0, float(vector @ graph.similarity.detach() @ whole[clip, 0]))
            assert weights[clip, node].item() == pytest.approx(weight)
            message = sum(local[clip, other] for other in neighbours[node])
            torch.testing.assert_close(
                found[clip, node], (graph.fc.weight @ (weight * message + vector) + graph.fc.bias).relu()
            )
        torch.testing.assert_close(found[clip, 18], (graph.fc.weight @ whole[clip, 0] + graph.fc.bias).relu())
    assert weights.min() == 0 and weights.max() > 0  # both sides of the ReLU were there
    without = KeyPointGraph(4, 3, messages=False).double()
    torch.testing.assert_close(without(local, whole), without.fc(torch.cat((local, whole), 1)).relu())
    assert set(without.state_dict()) == {"fc.weight", "fc.bias"}


def test_fusion_by_structure_is_the_means_of_the_regions_and_ignores_order_within_one():
    fusion, nodes, visible = StructureFusion(3), torch.rand(2, 19, 3), torch.ones(2, 18, dtype=torch.bool)
    fused = fusion(nodes, visible)
    parts = [nodes[:, list(members)].mean(1) for members in REGIONS.values()] + [nodes[:, 18]]
    torch.testing.assert_close(fused, torch.cat(parts, dim=1))
    order = list(range(19))
    for members in REGIONS.values():
        for node, other in zip(members, members[1:] + members[:1], strict=True):
            order[node] = other
    torch.testing.assert_close(fusion(nodes[:, order], visible), fused)
    order[0], order[5] = order[5], order[0]  # from one region to another: not the same
    assert not torch.allclose(fusion(nodes[:, order], visible), fused)
    bridge = nodes.clone()
    bridge[:, 14:16] += 5
    assert torch.equal(fusion(bridge, visible), fused)  # dropped


def test_hidden_points_leave_the_mean_and_an_empty_region_is_the_learned_vector():
    fusion, nodes, visible = StructureFusion(3), torch.rand(2, 19, 3), torch.ones(2, 18, dtype=torch.bool)
    visible[0, [0, 1]] = False
    visible[1, list(REGIONS["lower"])] = False
    fused = fusion(nodes, visible).unflatten(1, (4, 3))
    torch.testing.assert_close(fused[0, 0], nodes[0, 2:5].mean(0))
    for row, name in ((1, "upper right"), (2, "lower")):
        torch.testing.assert_close(fused[0, row], nodes[0, list(REGIONS[name])].mean(0))
    assert torch.equal(fused[1, 2], fusion.hidden[2]) and fusion.hidden.abs().min() > 0
    assert torch.equal(MeanFusion(3)(nodes, visible).isfinite().all(), torch.tensor(True))


@pytest.mark.parametrize("fusion", [StructureFusion, MeanFusion, LSTMFusion])
def test_no_fusion_sees_what_stands_at_a_hidden_point(fusion):
    torch.manual_seed(0)
    layer, nodes, visible = fusion(3), torch.rand(4, 19, 3), torch.rand(4, 18) < 0.6
    visible[0] = False
    changed = torch.where(torch.cat((visible, torch.ones(4, 1, dtype=torch.bool)), 1)[..., None], nodes, 7.0)
    assert torch.equal(layer(nodes, visible), layer(changed, visible))
    assert layer(nodes, visible).shape == (4, 12)
    assert not torch.allclose(layer(nodes, ~visible), layer(nodes, visible))


# ---------------------------------------------------------------------------------------------- the whole network


def test_an_occluded_point_changes_its_own_share_only():
    model, (clips, landmarks) = tiny(), problem()
    seen = {}
    model.graph.register_forward_hook(lambda module, inputs, nodes: seen.update(local=inputs[0], nodes=nodes))

    def through(landmarks):
        with torch.no_grad():
            frames = model.frame_vectors(
                clips.flatten(0, 1)[:, :1], landmarks.flatten(0, 1)
            )  # the tiny size: one channel
        return dict(seen), frames.unflatten(1, (4, -1))

    before, regions = through(landmarks)
    hidden = landmarks.clone()
    hidden[0, 2, LANDMARK_POINTS[1]] = math.nan  # middle of the left brow in one frame of one clip
    after, changed = through(hidden)
    local = (before["local"] != after["local"]).any(-1).nonzero().tolist()
    assert local == [[2, 1]] and (after["local"][2, 1] == 0).all()
    nodes = (before["nodes"] != after["nodes"]).any(-1).nonzero().tolist()
    assert [2, 1] in nodes and all(
        frame == 2 and node in (0, 1, 2) for frame, node in nodes
    )  # itself and its neighbours
    assert (regions != changed).any(-1).nonzero().tolist() == [[2, 0]]  # that frame's upper left; not the whole face


def test_without_landmarks_everything_local_is_hidden_and_the_network_still_works():
    model, (clips, landmarks) = tiny(), problem()
    with torch.no_grad():
        absent, unknown, there = (
            model(clips),
            model(clips, torch.full_like(landmarks, math.nan)),
            model(clips, landmarks),
        )
    assert torch.equal(absent.features, unknown.features) and absent.expression_logits.isfinite().all()
    assert not torch.allclose(absent.features, there.features)
    with torch.no_grad():
        assert not torch.allclose(model(1 - clips).features, absent.features)  # the whole face is seen


def test_nan_reaches_neither_outputs_nor_gradients():
    model, (clips, landmarks) = tiny().train(), problem(4)
    landmarks[0] = math.nan
    landmarks[1, 3] = math.nan
    landmarks[2, :, 36:48] = math.nan
    landmarks[3, :, 48:] = 9.0
    landmarks.requires_grad_()
    output = model(clips, landmarks)
    sum(part.square().sum() for part in output).backward()
    assert all(part.isfinite().all() for part in output)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    known = landmarks.detach().isfinite()
    assert landmarks.grad[known].isfinite().all() and landmarks.grad[0].abs().nansum() == 0


def test_auxiliary_logits_are_of_the_mean_frame_and_inference_is_the_tokens():
    model, (clips, landmarks) = tiny(), problem()
    seen = {}
    model.time.register_forward_hook(lambda module, inputs, result: seen.update(frames=inputs[0], token=result))
    with torch.no_grad():
        output = model(clips, landmarks)
        torch.testing.assert_close(output.auxiliary_logits, model.fc_auxiliary(seen["frames"].mean(1)))
        assert torch.equal(output.features, seen["token"])
        torch.testing.assert_close(output.expression_logits, model.fc(seen["token"]))
    printed = float(load("kpgcn_text_claims").set_index("quantity")["printed"]["lambda"])
    assert build_model("keypoint_gcn", num_aus=None).auxiliary_weight == model.auxiliary_weight == printed
    for settings in (dict(auxiliary_weight=0.0), dict(time="mean")):
        without = tiny(**settings)
        assert without.auxiliary_weight == 0 and without(clips, landmarks).auxiliary_logits is None
        assert not any("auxiliary" in key for key in without.state_dict())


def test_time_is_ordered_by_attention_and_lstm_and_not_by_the_mean():
    clips, landmarks = problem()
    for time, ordered in (("attention", True), ("lstm", True), ("mean", False)):
        model = tiny(time=time)
        with torch.no_grad():
            same = torch.allclose(
                model(clips.flip(1), landmarks.flip(1)).features, model(clips, landmarks).features, atol=1e-5
            )
        assert same != ordered, time


def test_the_paper_size_has_the_printed_parameters_and_the_larger_map():
    printed = load("kpgcn_table8").query("row == 4 and column == 'Params_M'")["printed"].astype(float).item()
    with torch.device("meta"):
        model = build_model("keypoint_gcn", num_aus=None)
        assert model.backbone(torch.empty(1, 3, 112, 112)).shape == (1, 512, 14, 14)
        assert model.backbone(torch.empty(1, 3, 224, 224)).shape == (1, 512, 28, 28)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(printed * 1e6, rel=0.05) and round(count / 1e6) == printed
    assert (model.feature_dim, model.num_frames, len(model.time.blocks.layers)) == (512, 16, 3)


@pytest.mark.parametrize("heads", [6, 8, 10, 12])
def test_any_number_of_heads_is_64_wide(heads):
    with torch.device("meta"):
        model = build_model("keypoint_gcn", temporal_heads=heads)
        attention = model.time.blocks.layers[0][0].fn.fn
    assert attention.to_qkv.weight.shape == (3 * 64 * heads, 512) and attention.to_out[0].weight.shape == (
        512,
        64 * heads,
    )
    assert tiny(temporal_heads=heads)(*problem(1)).expression_logits.shape == (1, 7)


@pytest.mark.parametrize("name", NETWORKS["keypoint_gcn"].variants)
def test_variants_run_differ_and_cost_what_they_consist_of(name):
    settings = NETWORKS["keypoint_gcn"].variants[name]
    model, (clips, landmarks) = tiny(**settings), problem()
    output = model(clips, landmarks)
    assert output.expression_logits.shape == (2, 7) and output.au_logits.shape == (2, 18)
    with torch.device("meta"):
        variant, whole = build_model("keypoint_gcn", **settings), build_model("keypoint_gcn")
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (variant, whole)]
    assert (sizes[0] == sizes[1]) == (name.startswith("auxiliary") and settings["auxiliary_weight"] > 0)


def test_the_printed_ablations_all_have_a_variant():
    names = set(NETWORKS["keypoint_gcn"].variants)
    assert set(load("kpgcn_table9")["model"]) == {"A", "B", "C", "D", "E"} and {"A", "B", "C", "D"} <= names
    for table, word, whole in (("kpgcn_table11", "heads", 8), ("kpgcn_table12", "depth", 3)):
        column = load(table)["method"].astype(int)
        assert {f"{word} {number}" for number in column if number != whole} <= names


def test_cost_counts_the_graph_and_does_not_depend_on_landmarks():
    with_graph, without = (count_flops(tiny(graph=graph), (8, 3, 48, 48))["gflops"] * 1e9 for graph in (True, False))
    width = tiny().whole.in_features
    # W V^g and its product with V^l; A V^l; two operations a multiply-add, 8 frames
    assert with_graph - without == pytest.approx(8 * 2 * (width * width + 18 * width + 18 * 18 * width))
    lstm = count_flops(tiny(fusion="lstm"), (8, 3, 48, 48))["gflops"] * 1e9
    node = tiny().fusion.hidden.shape[1]
    # 19 steps of four gates instead of the means of three regions
    assert lstm - with_graph == pytest.approx(8 * 2 * (19 * 4 * 4 * node * (node + 4 * node) - 3 * 18 * node))


@pytest.mark.parametrize(
    "settings", [{}, dict(fusion="lstm", time="lstm"), dict(fusion="mean", time="mean", graph=False)]
)
def test_gradients_in_training_are_the_numerical_ones(settings):
    torch.manual_seed(0)
    model = build_model("keypoint_gcn", **SMALL, **settings).double().train()
    parameters = dict(model.named_parameters())
    clips, landmarks = (x.double() for x in problem(2, 3, 24))
    landmarks[0, 1, :40] = math.nan

    def forward(clips, *values):
        output = functional_call(model, dict(zip(parameters, values, strict=True)), (clips, landmarks))
        return tuple(part for part in output if part is not None)

    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in (clips, *parameters.values()))
    assert gradcheck(forward, inputs, fast_mode=True)


def test_copies_compilation_and_bfloat16_give_the_same():
    model, (clips, landmarks) = tiny(), problem(3)
    with torch.no_grad():
        expected = model(clips, landmarks)
        for other in (copy.deepcopy(model), torch.compile(model, backend="aot_eager")):
            for ours, theirs in zip(other(clips, landmarks), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            model(clips[1:2], landmarks[1:2]).features, expected.features[1:2], rtol=1e-4, atol=1e-5
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(clips, landmarks)
    assert nn.functional.cosine_similarity(rough.features.float(), expected.features).min() > 0.99
    torch._dynamo.reset()


def test_it_learns_from_what_is_at_a_key_point_with_and_without_the_plug_in():
    """The expression is the brightness at one key point, which is somewhere else in every clip; the AU is its sign."""
    generator = torch.Generator().manual_seed(0)
    clips, landmarks = problem(28, 8, 48)
    clips = 0.4 + 0.05 * clips
    # a fixed face, shifted in every clip; the pattern sits at the left mouth corner
    landmarks = (0.3 + 0.4 * torch.rand(1, 1, 68, 2, generator=generator)).expand(28, 8, -1, -1)
    landmarks = landmarks + 0.2 * (torch.rand(28, 1, 1, 2, generator=generator) - 0.5)
    expressions = torch.arange(28) % 2
    for clip, (x, y) in enumerate((48 * landmarks[:, 0, 48]).round().int().tolist()):
        clips[clip, :, int(expressions[clip]), y - 3 : y + 4, x - 3 : x + 4] += 0.5
    aus = expressions[:, None].float().expand(-1, 18)
    au_loss = AULoss(torch.full((7, 18), 0.3), torch.full((7, 18), 1.0))
    for build in (lambda: tiny(), lambda: attach_au_head(tiny(num_aus=None), "fc")):
        torch.manual_seed(0)
        model = build().train()
        assert model.uses_landmarks and model.auxiliary_weight == 0.2
        optimizer, history = torch.optim.Adam(model.parameters(), lr=3e-3), []
        for _ in range(15):
            output = model(clips, landmarks)
            losses = expression_loss(output.expression_logits, expressions), au_loss(output.au_logits, aus, expressions)
            auxiliary = expression_loss(output.auxiliary_logits, expressions)
            optimizer.zero_grad()
            combined_loss(0.8 * losses[0] + 0.2 * auxiliary, losses[1], au_ratio=0.25).backward()
            optimizer.step()
            history.append([losses[0].item(), auxiliary.item(), losses[1].item()])
        assert all(last < 0.5 * first for first, last in zip(history[0], history[-1], strict=True))


@pytest.mark.parametrize(
    "settings,words",
    [
        (dict(fusion="max"), "fusion is 'max', expected one of structure, mean, lstm"),
        (dict(time="gru"), "time is 'gru', expected one of attention, lstm, mean"),
        (dict(temporal_heads=0), "temporal_heads is 0, expected at least 1"),
        (dict(auxiliary_weight=1.0), "auxiliary_weight is 1.0, expected at least 0 and less than 1"),
        (dict(image_size=8), "image_size is 8, expected at least 16"),
        (dict(contrast=False), "grey is True, expected False without contrast"),
        (dict(blocks=(1, 0, 1, 1)), r"blocks are \(1, 0, 1, 1\), expected at least 1 in every stage but the first"),
    ],
)
def test_impossible_settings_get_a_sentence(settings, words):
    with pytest.raises(AudferError, match=words):
        tiny(**settings)


def test_landmarks_of_another_shape_get_a_sentence():
    model, (clips, landmarks) = tiny(), problem()
    words = r"KeyPointGCN: landmarks have the shape .*, expected \(2, 8, 68, 2\), floating point"
    for wrong in (landmarks[:, :5], landmarks[:, :, :51], landmarks.long()):
        with pytest.raises(AudferError, match=words):
            model(clips, wrong)


# ---------------------------------------------------------------------------------------------- weights and recipes


def test_torchvisions_imagenet_weights_fill_the_backbone():
    with torch.device("meta"):
        model = build_model("keypoint_gcn")
    model = model.to_empty(device="cpu")
    state = model.state_dict()
    shapes = {key.removeprefix("backbone."): value.shape for key, value in state.items() if key.startswith("backbone.")}
    assert len(shapes) == 120 and shapes["layer4.0.downsample.0.weight"] == (
        512,
        256,
        1,
        1,
    )  # as torchvision's ResNet-18
    state = {
        key: torch.full(shape, float(i)) if shape else torch.tensor(i) for i, (key, shape) in enumerate(shapes.items())
    }
    state |= {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    report = load_official_state_dict(model, state)
    assert report.source == "ImageNet ResNet-18" and report.dropped == ["imagenet.fc.weight", "imagenet.fc.bias"]
    assert report.loaded == [f"backbone.{key}" for key in shapes]
    assert {key.split(".")[0] for key in report.left_at_initialisation} == {
        "triplet",
        "whole",
        "graph",
        "fusion",
        "time",
        "fc",
        "fc_au",
        "fc_auxiliary",
    }
    assert (model.backbone.layer2[1].bn2.running_var == list(shapes).index("layer2.1.bn2.running_var")).all()


def test_there_is_no_official_release_and_own_files_load(tmp_path):
    model = tiny()
    with pytest.raises(
        AudferError, match="KP-GCN's authors have released no weights: what fits are audfer's own files and"
    ):
        load_official_state_dict(model, {"resnet.conv1.weight": torch.ones(3)})
    with pytest.raises(AudferError, match="they are for FormerDFER .*; KP-GCN's authors have released no weights"):
        load_official_state_dict(model, build_model("former_dfer", size="tiny").state_dict())
    torch.manual_seed(5)
    other = build_model("keypoint_gcn", size="tiny", num_aus=12, num_classes=11)
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    report = inspect_checkpoint(tmp_path / "weights.pth")
    assert report.kind == "fine-tuned KP-GCN" and report.load.left_at_initialisation == []
    assert report.fits == 'build_model("keypoint_gcn", size="tiny", num_classes=11, num_aus=12)'
    with pytest.raises(
        AudferError,
        match=r"fc.weight is for 11 expressions, this network for 7 .*; fc_au.weight is for 12 AUs, "
        r"this network for 18 [^;]*$",
    ):
        load_official_state_dict(model, other.state_dict())
    report = load_official_state_dict(model, other.state_dict(), heads=False)
    assert {key.split(".")[0] for key in report.left_at_initialisation} == {"fc", "fc_au", "fc_auxiliary"}
    assert torch.equal(model.time.token, other.time.token)
    # the auxiliary classifier may be absent on either side
    without = tiny(auxiliary_weight=0.0)
    assert load_official_state_dict(without, model.state_dict()).dropped == ["fc_auxiliary.weight", "fc_auxiliary.bias"]
    report = load_official_state_dict(model, without.state_dict())
    assert report.left_at_initialisation == ["fc_auxiliary.weight", "fc_auxiliary.bias"]


def test_the_paper_recipe_is_the_printed_one():
    printed = load("kpgcn_text_claims").set_index("quantity")["printed"]
    recipe = RECIPES["keypoint_gcn-paper"]
    assert (recipe.batch_size, recipe.epochs, recipe.learning_rate) == (
        int(printed["batch size"]),
        int(printed["epochs"]),
        float(printed["learning rate"]),
    )
    # the first epochs with a tenth and a hundredth of the rate, of 10 steps each
    rates = [learning_rate(recipe, 10 * epoch, 800) for epoch in range(80)]
    assert (
        rates == pytest.approx([1e-3] * 40 + [1e-4] * 20 + [1e-5] * 20)
        and printed["lr decay x0.1 at epochs"] == "40 and 60"
    )
    optimizer = build_optimizer(nn.Linear(2, 2), recipe)
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def test_augmented_points_are_where_the_network_expects_them():
    """A bright spot at a landmark is still at that landmark after the tiny recipe's crops and flips."""
    clips, landmarks = torch.zeros(16, 1, 3, 48, 48), torch.full((16, 1, 68, 2), 0.5)
    landmarks[:, :, 36], landmarks[:, :, 45] = (
        torch.tensor([14.5 / 48, 20.5 / 48]),
        torch.tensor([33.5 / 48, 20.5 / 48]),
    )
    clips[..., 20, 14] = 255
    moved, points = augment_with_points(
        clips.byte(), landmarks, RECIPES["keypoint_gcn-tiny"].augmentation, torch.Generator().manual_seed(0)
    )
    flips = 0
    for clip, known in zip(moved, points, strict=True):
        y, x = divmod(int(clip[0].sum(0).argmax()), 48)
        away = (48 * known[0, [36, 45]] - torch.tensor([x + 0.5, y + 0.5])).abs().amax(1)
        flips += int(away[1] < away[0])
        assert away.min() < 1
    assert 0 < flips < 16
