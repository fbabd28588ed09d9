"""KP-GCN: a ResNet with triplet attention, a graph over 18 facial key points, fusion by facial structure, attention
over time.

Huang, Zhu, Li and Yang, "Dynamic facial expression recognition based on spatial key-points optimized region feature
fusion and temporal self-attention", Engineering Applications of Artificial Intelligence, 2024. There is no official
release: written from the text. What the text leaves open, and what is done here:

- *Which points.* ``LANDMARK_POINTS`` and ``CHEEKS``: of each side three of the eyebrow and the eye's two corners, two
  of the nose bridge, four of the mouth; a cheek is the centroid of the nose wing, the lower lid and the mouth corner
  around it.
- *The adjacency* (``EDGES``, ``adjacency``): rings around each brow and eye and around the mouth, a cheek to its mouth
  corner, and the bridge. It is symmetric, 0 or 1, without self loops, since the formula adds V^l itself, and not
  normalised: W_a already weighs every point's sum (of three neighbours at most), and a neighbour that is hidden then
  takes away its own summand only.
- *Heat maps* have a mean of 1, so that GAP(F * A_j) is the Gaussian-weighted mean of F around the point, on the scale
  of GAP(F), wherever the point lies and whatever the map's side. ``sigma`` is in cells of the map.
- *The fully connected layer* behind ResNet's average pooling keeps the width of the map (its 1000 ImageNet classes do
  not fit the 512 of v_g): v_g = FC(GAP(F)).
- *Heads* are ``head_dim`` wide whatever their number, and their output is projected to the model's width (as vision
  transformers with a ``dim_head`` do): 6, 10 or 12 heads, which do not divide 512, are then as good as 8. A network
  with more heads has more weights.
- *Width of the blocks' hidden layer*: 512, which gives 16.5 million parameters, the printed 17; 1024 would give 18.1.
- *Hidden points.* A point whose landmarks are NaN or outside the frame is not there: it adds nothing to its neighbours
  and is left out of its region's mean. A region without any visible point contributes a learned vector.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..models.former_dfer import Transformer
from ..models.mae_dfer import IMAGENET_MEAN, IMAGENET_STD
from ..models.output import ClipModel, kaiming_init
from ..models.resnet import residual_stage

#: 16 of the 68 iBUG points (0-based), in the order of the nodes: left brow from outside in, left eye's corners; the
#: right ones; mouth: corner, upper lip, corner, lower lip; nose bridge. "Left" is the left of the image
LANDMARK_POINTS = (*(17, 19, 21, 39, 36), *(26, 24, 22, 42, 45), *(48, 51, 54, 57), *(27, 29))
#: nodes 16 and 17: centroids of three landmarks each (nose wing, lower lid, mouth corner; left, right)
CHEEKS = ((31, 41, 48), (35, 46, 54))
_BROW_AND_EYE = ("brow outer", "brow middle", "brow inner", "eye inner", "eye outer")
POINT_NAMES = (
    *(f"{side} {part}" for side in ("left", "right") for part in _BROW_AND_EYE),
    *("mouth left", "upper lip", "mouth right", "lower lip"),
    *("nose bridge upper", "nose bridge lower", "left cheek", "right cheek"),
)
NUM_POINTS = len(POINT_NAMES)
#: nodes of the three regions: 5 + 5 + 6; the nose bridge (14, 15) passes messages only
REGIONS = {"upper left": (0, 1, 2, 3, 4), "upper right": (5, 6, 7, 8, 9), "lower": (10, 11, 12, 13, 16, 17)}


def _ring(first: int, last: int) -> list[tuple[int, int]]:
    return [*pairwise(range(first, last + 1)), (last, first)]


#: neighbouring points of one facial part: left and right brow and eye, mouth, cheeks to its corners, nose bridge
EDGES = (*_ring(0, 4), *_ring(5, 9), *_ring(10, 13), (10, 16), (12, 17), (14, 15))

FUSIONS = ("structure", "mean", "lstm")
TIMES = ("attention", "lstm", "mean")


def adjacency() -> Tensor:
    """A of the graph: (18, 18) float32, 1 between neighbours (``EDGES``), 0 elsewhere and on the diagonal.

    Symmetric.
    """
    matrix = torch.zeros(NUM_POINTS, NUM_POINTS)
    for a, b in EDGES:
        matrix[a, b] = matrix[b, a] = 1
    return matrix


def region_membership() -> Tensor:
    """(3, 18) float32: 1 where a region (row, in the order of ``REGIONS``) has a point."""
    matrix = torch.zeros(len(REGIONS), NUM_POINTS)
    for row, members in enumerate(REGIONS.values()):
        matrix[row, list(members)] = 1
    return matrix


def key_points(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The 18 key points of 68 landmarks.

    Args:
        landmarks: (..., 68, 2) in units of the frame's side, x right, y down, NaN = unknown.

    Returns:
        Points (..., 18, 2), 0.5 where a point is hidden, and whether each is visible, bool (..., 18): known and inside
        the frame. A cheek is known where all its three landmarks are; these may lie outside.
    """
    cheeks = torch.stack([landmarks[..., list(three), :].mean(dim=-2) for three in CHEEKS], dim=-2)
    points = torch.cat((landmarks[..., list(LANDMARK_POINTS), :], cheeks), dim=-2)
    visible = ((points >= 0) & (points <= 1)).all(dim=-1)  # a comparison with NaN is false
    return points.where(visible[..., None], 0.5), visible


def heat_maps(points: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Gaussian heat maps A_j with a mean of 1.

    Args:
        points: (..., 2), finite, (x, y) in units of the frame's side.
        height, width: of the map, whose cells share the frame evenly; values are taken at their centres.
        sigma: of the Gaussian, in cells.

    Returns:
        (..., height, width).
    """

    def profile(place: Tensor, cells: int) -> Tensor:
        centres = torch.arange(cells, device=points.device, dtype=points.dtype) + 0.5
        return (-0.5 * ((place[..., None] * cells - centres) / sigma).square()).softmax(dim=-1)

    return height * width * profile(points[..., 1], height)[..., :, None] * profile(points[..., 0], width)[..., None, :]


class Gate(nn.Module):
    """A convolution over a Z-pooled map, batch norm and a sigmoid: how much of each place passes. (N, a, b, 2) -> (N,
    a, b).
    """

    def __init__(self, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.sigmoid(self.bn(self.conv(pooled.permute(0, 3, 1, 2)))).squeeze(1)


class TripletAttention(nn.Module):
    """Mean of three gated copies of a map, one for each pair of its axes (Misra et al., WACV 2021). (N, C, H, W) -> the
    same.

    Each branch pools one axis away (Z-pool: its maximum and its mean) and gates the map by a convolution over the other
    two. The paper rotates the map for it; here the pooled axis only changes. x * a + x * b + x * c is computed as x *
    (a + b + c).
    """

    def __init__(self, kernel: int = 7):
        super().__init__()
        self.height_channels, self.width_channels, self.height_width = (Gate(kernel) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # N, H, W, C: as it lies in memory

        def z_pool(axis: int) -> Tensor:
            return torch.stack((x.amax(dim=axis), x.mean(dim=axis)), dim=-1)

        passing = (
            self.height_channels(z_pool(2)).unsqueeze(2)
            + self.width_channels(z_pool(1)).unsqueeze(1)
            + self.height_width(z_pool(3)).unsqueeze(3)
        )
        return (x * (passing / 3)).permute(0, 3, 1, 2)


class Backbone(nn.Module):
    """ResNet whose last two stages keep the resolution; (N, colours, side, side) -> (N, channels[3], side / 8, side /
    8).

    At 112 pixels the map is 14 x 14 (the usual ResNet-18: 4 x 4), at 224 it is 28 x 28 (7 x 7). Names are
    torchvision's.
    """

    def __init__(self, colours: int, channels: tuple[int, ...], blocks: tuple[int, ...], stem_kernel: int):
        super().__init__()
        self.conv1 = nn.Conv2d(colours, channels[0], stem_kernel, stride=2, padding=stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_stage(channels[0], channels[0], blocks[0], 1)
        self.layer2 = residual_stage(channels[0], channels[1], blocks[1], 2)
        self.layer3 = residual_stage(channels[1], channels[2], blocks[2], 1)  # 2 in the usual network
        self.layer4 = residual_stage(channels[2], channels[3], blocks[3], 1)  # 2 in the usual network

    def forward(self, frames: Tensor) -> Tensor:
        x = self.maxpool(F.relu_(self.bn1(self.conv1(frames))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class KeyPointGraph(nn.Module):
    """One graph convolution over the key points, weighted by what each has to do with the whole face.

    W_a = ReLU(V^l W V^g^T), V = ReLU(FC([W_a * (A V^l) + V^l; V^g])).

    Args:
        in_dim: of the vectors. out_dim: of the nodes.
        messages: ``False`` leaves out W_a and A: V = ReLU(FC([V^l; V^g])), the ablation without GCN.
    """

    def __init__(self, in_dim: int, out_dim: int, messages: bool = True):
        super().__init__()
        self.messages = messages
        if messages:
            self.register_buffer("adjacency", adjacency(), persistent=False)
            # a product of two vectors of in_dim entries of about 1: W_a then begins at about 1, too
            self.similarity = nn.Parameter(torch.randn(in_dim, in_dim) / in_dim)
        self.fc = nn.Linear(in_dim, out_dim)

    def weights(self, local: Tensor, whole: Tensor) -> Tensor:
        """W_a (N, 18, 1) of V^l (N, 18, in_dim) and V^g (N, 1, in_dim)."""
        return F.relu(local @ (whole @ self.similarity.T).transpose(1, 2))

    def forward(self, local: Tensor, whole: Tensor) -> Tensor:
        """V^l (N, 18, in_dim), zero where a point is hidden, and V^g (N, 1, in_dim) -> V (N, 19, out_dim), V^g's node
        last.
        """
        if self.messages:
            local = self.weights(local, whole) * (self.adjacency.to(local.dtype) @ local) + local
        return F.relu(self.fc(torch.cat((local, whole), dim=1)))


class StructureFusion(nn.Module):
    """Means of the nodes of three facial regions and the whole face's node, one after another (the paper's fusion).

    The mean is over a region's visible points; where there is none, a learned vector stands in.
    """

    def __init__(self, node_dim: int):
        super().__init__()
        self.register_buffer("members", region_membership(), persistent=False)
        self.hidden = nn.Parameter(0.02 * torch.randn(len(REGIONS), node_dim))

    def forward(self, nodes: Tensor, visible: Tensor) -> Tensor:
        """Nodes (N, 19, node_dim) and visible points, bool (N, 18) -> (N, 4 * node_dim)."""
        shares = self.members.to(nodes.dtype) * visible[:, None]  # N, regions, 18
        counts = shares.sum(dim=2, keepdim=True)
        means = (shares / counts.clamp_min(1)) @ nodes[:, :-1]
        means = means.where(counts > 0, self.hidden.to(means.dtype))
        return torch.cat((means, nodes[:, -1:]), dim=1).flatten(1)


class MeanFusion(nn.Module):
    """The mean of all visible points' nodes beside the whole face's, brought to the width of the others (Table 10)."""

    def __init__(self, node_dim: int):
        super().__init__()
        self.hidden = nn.Parameter(0.02 * torch.randn(node_dim))
        self.project = nn.Linear(2 * node_dim, 4 * node_dim)

    def forward(self, nodes: Tensor, visible: Tensor) -> Tensor:
        """Nodes (N, 19, node_dim) and visible points, bool (N, 18) -> (N, 4 * node_dim)."""
        shares = visible[:, None].to(nodes.dtype)  # N, 1, 18
        counts = shares.sum(dim=2, keepdim=True)
        mean = (shares / counts.clamp_min(1)) @ nodes[:, :-1]
        mean = mean.where(counts > 0, self.hidden.to(mean.dtype))
        return self.project(torch.cat((mean, nodes[:, -1:]), dim=1).flatten(1))


class LSTMFusion(nn.Module):
    """The last state of an LSTM over the nodes, the whole face's last (Table 10); a learned vector in place of hidden
    points.
    """

    def __init__(self, node_dim: int):
        super().__init__()
        self.hidden = nn.Parameter(0.02 * torch.randn(NUM_POINTS, node_dim))
        self.lstm = nn.LSTM(node_dim, 4 * node_dim, batch_first=True)

    def forward(self, nodes: Tensor, visible: Tensor) -> Tensor:
        """Nodes (N, 19, node_dim) and visible points, bool (N, 18) -> (N, 4 * node_dim)."""
        points = nodes[:, :-1].where(visible[..., None], self.hidden.to(nodes.dtype))
        return _last_state(self.lstm, torch.cat((points, nodes[:, -1:]), dim=1))


class MeanInTime(nn.Module):
    """The mean of the frame vectors (Table 9, A and B). (B, T, dim) -> (B, dim)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class LSTMInTime(nn.Module):
    """The last state of an LSTM over the frame vectors (Table 9, C). (B, T, dim) -> (B, dim)."""

    def __init__(self, dim: int):
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return _last_state(self.lstm, x)


class AttentionInTime(nn.Module):
    """Class token, learned positions, pre-norm self-attention blocks, the token's output normed. (B, T, dim) -> (B,
    dim).
    """

    def __init__(self, num_frames: int, dim: int, depth: int, heads: int, head_dim: int, hidden: int):
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + num_frames, dim))
        self.blocks = Transformer(dim, depth, heads, hidden, head_dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        token = self.token.expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat((token, x), dim=1) + self.positions  # B, 1 + T, dim: the token comes first
        return self.norm(self.blocks(x)[:, 0])


def _last_state(lstm: nn.LSTM, x: Tensor) -> Tensor:
    # in reduced precision the CPU has no fused LSTM kernel: always float32
    with torch.autocast(x.device.type, enabled=False):
        return lstm(x.to(lstm.weight_ih_l0.dtype))[0][:, -1]


class KeyPointGCN(ClipModel):
    """KP-GCN on clips (B, num_frames, 3, image_size, image_size), RGB, and their landmarks (B, num_frames, 68, 2).

    The clips are normalised by ImageNet's mean and deviation inside. Landmarks that are NaN, or ``None`` for all of
    them, hide their points (see the module's text); without any the whole face's vectors are left.

    Args:
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` leaves it out.
        num_frames: frames of a clip; baked into the temporal positions.
        image_size: side of a frame, at least 16.
        channels: of the four ResNet stages; the last is the width of local and global vectors.
        blocks: basic blocks of the four stages; a stage of none is left out, the first only.
        stem_kernel: side of the first convolution.
        triplet_kernel: side of triplet attention's convolutions.
        sigma: of the heat maps, in cells of the feature map.
        node_dim: width of a node behind the graph; a frame's vector, and the temporal part, is four times as wide.
        graph: whether points pass messages (``False``: Table 9, A and D).
        fusion: "structure", "mean" or "lstm" (Table 10).
        time: "attention", "lstm" or "mean" (Table 9: E, C, and A and B).
        temporal_depth, temporal_heads: blocks over time, and heads in each (Tables 12 and 11).
        head_dim: width of a head.
        temporal_hidden: width of the blocks' feed-forward layer.
        auxiliary_weight: share of the auxiliary classifier, on the mean of the frame vectors, in the loss (0.2 as
            printed); 0 leaves it out. With ``time="mean"`` there is none: the clip's vector is that mean.
        contrast: local contrast normalisation of the frames (``local_contrast``) instead of ImageNet's statistics; what
            the tiny size uses, trained from scratch on few clips.
        grey: one channel of contrast instead of three (only with ``contrast``).

    Raises:
        AudferError: an unknown fusion or time, or sizes that do not fit together.
    """

    classifier_name, au_head_name = "fc", "fc_au"
    memory_format = torch.channels_last
    uses_landmarks = True

    def __init__(
        self,
        *,
        num_classes: int = 7,
        num_aus: int | None = 18,
        num_frames: int = 16,
        image_size: int = 112,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        stem_kernel: int = 7,
        triplet_kernel: int = 7,
        sigma: float = 1.0,
        node_dim: int = 128,
        graph: bool = True,
        fusion: str = "structure",
        time: str = "attention",
        temporal_depth: int = 3,
        temporal_heads: int = 8,
        head_dim: int = 64,
        temporal_hidden: int = 512,
        auxiliary_weight: float = 0.2,
        contrast: bool = False,
        grey: bool = False,
    ):
        super().__init__()
        for name, value, allowed in (("fusion", fusion, FUSIONS), ("time", time, TIMES)):
            if value not in allowed:
                raise AudferError(f"KP-GCN: {name} is {value!r}, expected one of {', '.join(allowed)}")
        for name, value, least in (
            ("num_frames", num_frames, 1),
            ("image_size", image_size, 16),
            ("temporal_heads", temporal_heads, 1),
            ("temporal_depth", temporal_depth, 1),
        ):
            if value < least:
                raise AudferError(f"KP-GCN: {name} is {value}, expected at least {least}")
        if min(blocks[1:]) < 1:
            raise AudferError(f"KP-GCN: blocks are {blocks}, expected at least 1 in every stage but the first")
        if not 0 <= auxiliary_weight < 1:
            raise AudferError(f"KP-GCN: auxiliary_weight is {auxiliary_weight}, expected at least 0 and less than 1")
        self.num_frames, self.image_size = num_frames, image_size
        self.see(contrast, grey)
        self.sigma = sigma
        self.auxiliary_weight = 0.0 if time == "mean" else auxiliary_weight
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

        self.backbone = Backbone(self.colours, channels, blocks, stem_kernel)
        self.triplet = TripletAttention(triplet_kernel)
        kaiming_init(self)
        width, dim = channels[3], 4 * node_dim
        self.whole = nn.Linear(width, width)  # ResNet's fully connected layer
        self.graph = KeyPointGraph(width, node_dim, messages=graph)
        # keeps the scale of the map, as the convolutions do; the default would make the frames' vectors ten times
        # smaller
        for layer, gain in ((self.whole, 1.0), (self.graph.fc, 2**0.5)):
            nn.init.normal_(layer.weight, std=gain / width**0.5)
            nn.init.zeros_(layer.bias)
        self.fusion = {"structure": StructureFusion, "mean": MeanFusion, "lstm": LSTMFusion}[fusion](node_dim)
        if time == "attention":
            self.time = AttentionInTime(num_frames, dim, temporal_depth, temporal_heads, head_dim, temporal_hidden)
        else:
            self.time = LSTMInTime(dim) if time == "lstm" else MeanInTime()
        self.add_heads(dim, num_classes, num_aus)

    def frame_vectors(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Normalised frames (N, 3 or 1, side, side) and their landmarks (N, 68, 2) -> (N, 4 * node_dim)."""
        features = self.triplet(self.backbone(frames))  # N, width, h, w
        points, visible = key_points(landmarks)
        maps = heat_maps(points, *features.shape[-2:], self.sigma) * visible[..., None, None]
        cells = features.flatten(2).transpose(1, 2)  # N, h * w, width
        local = (
            maps.flatten(2).to(cells.dtype) @ cells / cells.shape[1]
        )  # N, 18, width: GAP(F * A_j); zero where hidden
        whole = self.whole(cells.mean(dim=1, keepdim=True))  # N, 1, width
        return self.fusion(self.graph(local, whole), visible)

    def encode(self, clips: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        clips = clips if self.contrast else (clips - self.mean) / self.std
        frames = self.frame_vectors(clips.flatten(0, 1), landmarks.flatten(0, 1))
        frames = frames.unflatten(0, clips.shape[:2])  # B, T, 4 * node_dim
        return self.time(frames), frames.mean(dim=1)
