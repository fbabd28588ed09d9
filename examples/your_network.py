"""AU-DFER on a network that is not ours: ``python examples/your_network.py``, seconds on one core, no data needed.

The network below knows nothing of action units. Three lines of audfer give it an AU head, the AU loss with the paper's
knowledge matrix, and the total loss of Eq. 10. Put your network, your clips and your AU labels in their places. The
clips
here are a few rendered faces, and the network is judged on those it was trained on: the numbers say that both heads
    learn,
nothing else.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from audfer.knowledge import KnowledgeMatrix
from audfer.losses import AULoss, clip_au_labels, combined_loss, expression_loss, positive_class_weight
from audfer.models import attach_au_head
from audfer.synth import rendered_clips


class YourNetwork(nn.Module):
    """A convolution per frame, a transformer over frames, a classifier: clips (B, T, 3, H, W) in [0, 1] -> logits (B,
    7).
    """

    def __init__(self):
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=4, padding=2),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GroupNorm(4, 32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(288, 64),
        )
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.time = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(64, 7)

    def forward(self, clips):
        tokens = self.frame(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return self.fc(self.time(tokens).mean(dim=1))


def main() -> None:
    """Train on a few rendered clips; print both losses and accuracies before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--clips", type=int, default=42)
    arguments = parser.parse_args()
    torch.manual_seed(0)

    # your data: clips, expressions, and OpenFace's AU presence of every frame (audfer.openface reads it); Eq. 4 gives
    # the labels
    clips, expressions, presence = rendered_clips(arguments.clips, frames=8, size=48)
    clips, au_labels = clips.float() / 255, torch.from_numpy(clip_au_labels(presence))

    # the three lines: the head, the loss of Eq. 9 with the weights of Eq. 7, and, below, the total of Eq. 10
    model = attach_au_head(YourNetwork(), classifier="fc")
    au_loss = AULoss(KnowledgeMatrix.published(), positive_class_weight(au_labels, expressions, "distinct"))

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(arguments.steps + 1):
        output = model(clips)
        expression_part = expression_loss(output.expression_logits, expressions)
        au_part = au_loss(output.au_logits, au_labels, expressions)
        if step in (0, arguments.steps):
            right = (output.expression_logits.argmax(1) == expressions).float().mean()
            agree = ((output.au_logits > 0) == (au_labels > 0.5)).float().mean()
            print(
                f"step {step:3d}: expression loss {expression_part:.3f}, AU loss {au_part:.3f}, "
                f"expressions right {right:.0%}, AUs right {agree:.0%}"
            )
        optimizer.zero_grad()
        combined_loss(expression_part, au_part, au_ratio=0.25).backward()
        optimizer.step()

    # your own network again, trained and without the head; its state dict has the keys that it always had
    network = model.remove()
    print(
        f"{type(network).__name__}: {len(network.state_dict())} tensors, the first called "
        f"{next(iter(network.state_dict()))}"
    )


if __name__ == "__main__":
    main()
