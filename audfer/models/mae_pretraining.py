"""MAE-DFER's self-supervised pre-training network: a masked autoencoder of appearance and motion.

Sun et al., "MAE-DFER: Efficient Masked Autoencoder for Self-supervised Dynamic Facial Expression Recognition", ACM MM
2023, on the model of VideoMAE (Tong et al., NeurIPS 2022). Most tokens of an unlabelled clip are hidden, the encoder
that fine-tuning starts from sees the rest, and a light decoder predicts what the hidden ones show and how it moves.
Parameter names, shapes and order at paper size are those of the official pre-training checkpoint (92,760,192
parameters).

What names and shapes leave open, and what was chosen:

- **Mask.** Tubes (the same places in every frame), drawn inside each region, so that every region keeps equally many
  tokens and the local attention stays one batch: 5 of 50 places at the official ratio 0.9.
- **Encoder.** Sees visible tokens and messengers only. Its final norm is applied to the visible tokens; they alone go
  on to the decoder, which is a plain transformer over all tokens with a sine table of its own, as VideoMAE's.
- **Targets.** The decoder's 1536 outputs a token are as many as the values of a tubelet (2 frames x 16 x 16 x 3), so
  they hold one frame of appearance and one frame difference. Appearance is the tubelet's first frame, less the mean and
  by the deviation of each colour of the tubelet (VideoMAE). Motion is the change to the tubelet's next frame, by the
  root mean square change of its clip: one number per clip, so that still places stay still, and both terms of the loss
  weigh alike.
- **Order of the outputs**: appearance, then motion; inside, frame, colour, row, column. Known to nobody but the head,
  which fine-tuning drops.
- **Loss.** Mean squared error over hidden tokens, (1 - lambda) of appearance and lambda of motion, lambda = 0.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from .attention import attention
from .mae_dfer import MAEDFER, Mlp, sine_positions
from .output import check_clips, local_contrast

#: decoder of each size; "paper" is what the official checkpoint's shapes say, heads of 64 as everywhere in it
DECODERS = {
    "paper": dict(decoder_dim=384, decoder_depth=4, decoder_heads=6),
    "tiny": dict(decoder_dim=64, decoder_depth=1, decoder_heads=4),
}


class Reconstruction(NamedTuple):
    """What the network made of a batch of masked clips.

    Attributes:
        appearance, motion: (B, M, values) predictions for the hidden tokens, in the units of ``targets``.
        masked: (B, M) their token numbers.
    """

    appearance: Tensor
    motion: Tensor
    masked: Tensor


class VisibleEncoder(MAEDFER):
    """MAE-DFER's encoder on some tokens of a clip, without heads, with a final norm.

    Where the network has no stem, a token's values are those of the fine-tuning network. The tiny network's
    convolutions and its contrast normalisation look beyond a token; here both see visible pixels only, so nothing
    hidden leaks.
    """

    def __init__(self, **settings):
        super().__init__(num_classes=1, num_aus=None, **settings)
        dim = self.fc_norm.weight.shape[0]
        del self.fc_norm, self.head
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, clips: Tensor, visible: Tensor) -> Tensor:
        """Encoded visible tokens.

        Args:
            clips: (B, T, 3, H, W) in [0, 1].
            visible: (B, V) token numbers, region after region, equally many of each.

        Returns:
            (B, V, dim), in the order of ``visible``.
        """
        batch, count = visible.shape
        # a tubelet is embedded as a clip of its own
        tubelets = pick(self.tubelets(clips), visible).flatten(0, 1)
        tubelets = (
            local_contrast(tubelets, side=self.image_size) if self.contrast else (tubelets - self.mean) / self.std
        )
        x = self.patch_embed(tubelets).view(batch, count, -1) + self.positions[visible]
        x = self.with_messengers(x.unflatten(1, (self.num_regions, -1)))
        for block in self.blocks:
            x = block(x)
        return self.norm(x.unflatten(0, (batch, -1))[:, :, 1:].flatten(1, 2))

    def tubelets(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, tokens, frames, 3, height, width) in the order of tokens: time, row, column."""
        times, rows, columns = self.grid
        x = clips.unflatten(4, (columns, -1)).unflatten(3, (rows, -1)).unflatten(1, (times, -1))
        return x.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(1, 3)  # from B, times, frames, 3, rows, height, columns, width


class DecoderAttention(nn.Module):
    """Multi-head self-attention (B, N, dim) with one query/key/value weight; keys have no bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        parts = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attention(*parts).transpose(1, 2).flatten(2))


class DecoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DecoderAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Blocks over all tokens, a norm, and a linear head on the hidden ones."""

    def __init__(self, dim: int, depth: int, heads: int, outputs: int):
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, outputs)

    def forward(self, x: Tensor, hidden: int) -> Tensor:
        """(B, N, dim), the last ``hidden`` tokens of which are to be predicted -> (B, hidden, outputs)."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -hidden:]))


class MAEPretraining(nn.Module):
    """The masked autoencoder on clips (B, num_frames, 3, image_size, image_size), RGB in [0, 1].

    Args:
        decoder_dim, decoder_depth, decoder_heads: of the decoder; its feed-forward width is four times ``decoder_dim``.
        **encoder: settings of :class:`MAEDFER`; stochastic depth is 0 unless given.

    Raises:
        AudferError: sizes that do not divide, or tubelets of one frame, which have no motion.
    """

    def __init__(self, *, decoder_dim: int = 384, decoder_depth: int = 4, decoder_heads: int = 6, **encoder):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.encoder = VisibleEncoder(**{"drop_path": 0.0, **encoder})
        length, height, width = self.encoder.tubelet
        if length < 2:
            raise AudferError(
                f"MAE pre-training: a tubelet has {length} frame, expected at least 2: motion is predicted too"
            )
        self.frame_values = 3 * height * width
        self.decoder = Decoder(decoder_dim, decoder_depth, decoder_heads, length * self.frame_values)
        self.encoder_to_decoder = nn.Linear(self.encoder.positions.shape[1], decoder_dim, bias=False)
        self.register_buffer("positions", sine_positions(math.prod(self.encoder.grid), decoder_dim), persistent=False)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.decoder, self.encoder_to_decoder):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, clips: Tensor, visible: Tensor) -> Reconstruction:
        """Predict the hidden tokens of clips from the visible ones.

        Args:
            clips: (B, T, 3, H, W), uint8 0..255 or floating point 0..1.
            visible: (B, V) token numbers, from ``tube_masks``.
        """
        clips = self.checked(clips)
        masked = hidden_tokens(visible, len(self.positions))
        seen = self.encoder_to_decoder(self.encoder(clips, visible)) + self.positions[visible]
        asked = self.mask_token + self.positions[masked]
        predicted = self.decoder(torch.cat((seen, asked.to(seen.dtype)), dim=1), masked.shape[1])
        return Reconstruction(*predicted.tensor_split([self.frame_values], -1), masked)

    def targets(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """What every token's prediction is compared with.

        Args:
            clips: (B, T, 3, H, W), uint8 0..255 or floating point 0..1.

        Returns:
            Appearance (B, tokens, values of one frame) and motion (B, tokens, values of the other frames): see the
            module's text.
        """
        tubelets = self.encoder.tubelets(self.checked(clips))
        mean, deviation, change = self.scales(tubelets)
        appearance = (tubelets[:, :, 0] - mean[:, :, 0]) / deviation[:, :, 0]
        return appearance.flatten(2), (tubelets.diff(dim=2) / change).flatten(2)

    def checked(self, clips: Tensor) -> Tensor:
        """Clips as float32 or wider in [0, 1]."""
        return check_clips(clips, self.encoder.num_frames, self.encoder.image_size, type(self).__name__)

    def scales(self, tubelets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and deviation of each tubelet and colour, root mean square change of each clip; broadcastable to the
        tubelets.

        Args:
            tubelets: (B, tokens, frames, 3, height, width).
        """
        mean = tubelets.mean(dim=(2, 4, 5), keepdim=True)
        count = tubelets[0, 0, :, 0].numel()
        deviation = ((tubelets - mean).square().sum(dim=(2, 4, 5), keepdim=True) / (count - 1)).sqrt() + 1e-6
        change = tubelets.diff(dim=2).flatten(1).square().mean(-1).sqrt() + 1e-6
        return mean, deviation, change[:, None, None, None, None, None]

    def losses(self, clips: Tensor, made: Reconstruction) -> tuple[Tensor, Tensor]:
        """Mean squared error of appearance and of motion over the hidden tokens, two scalars."""
        pairs = zip((made.appearance, made.motion), self.targets(clips), strict=True)
        return tuple(F.mse_loss(guess.float(), pick(target, made.masked)) for guess, target in pairs)


def tube_masks(model: MAEPretraining, count: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Visible tokens of ``count`` clips under tube masking: the same places at all times, equally many in every region.

    Args:
        ratio: share of places to hide, above 0 and below 1; the number of visible places of a region is rounded, and at
            least one is visible and one hidden.
        generator: CPU generator of the draw.

    Returns:
        (count, V) int64 token numbers, region after region.

    Raises:
        AudferError: a ratio that is no share.
    """
    if not 0 < ratio < 1:
        raise AudferError(f"MAE pre-training: mask ratio is {ratio}, expected a share above 0 and below 1")
    encoder = model.encoder
    length, rows, columns = encoder.region
    times = encoder.grid[0] // length
    places = rows * columns
    if places < 2:
        raise AudferError(
            f"MAE pre-training: a region has {places} place, expected at least 2: one to see and one to hide"
        )
    keep = min(max(round(places * (1 - ratio)), 1), places - 1)
    windows = encoder.num_regions // times
    chosen = torch.rand(count, windows, places, generator=generator).argsort(-1)[..., :keep].sort(-1).values
    # numbers of the tokens of each region, in the order of regions: times, windows, length, places
    numbers = encoder.to_regions(torch.arange(math.prod(encoder.grid))[None, :, None])[0, :, :, 0]
    numbers = numbers.view(1, times, windows, length, places).expand(count, -1, -1, -1, -1)
    wanted = chosen[:, None, :, None].expand(-1, times, -1, length, -1)
    return numbers.gather(-1, wanted).flatten(1)


def pick(values: Tensor, numbers: Tensor) -> Tensor:
    """Rows ``numbers`` (B, M) of ``values`` (B, N, ...): (B, M, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], numbers]


def hidden_tokens(visible: Tensor, tokens: int) -> Tensor:
    """The other token numbers (B, tokens - V), rising."""
    hidden = torch.ones(len(visible), tokens, dtype=torch.bool, device=visible.device).scatter(1, visible, False)
    return hidden.nonzero()[:, 1].view(len(visible), -1)
