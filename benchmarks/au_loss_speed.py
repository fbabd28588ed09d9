"""What the AU head and the AU loss cost in time: ``python benchmarks/au_loss_speed.py``, about two minutes on two quiet
cores.

Three pieces of work, forward and backward, with weights of its own for every expression ("distinct", Eq. 7), at the
release's
batch of 64: audfer's AU loss; the same loss with its weights rebuilt in Python for every sample, as the release does it
(written from a description of its engines, reference RELEASE_FORENSICS.md section 3: for each of the two weights, the
largest entry of each target is compared with each class number, and rows of lists become tensors that are stacked); and
the AU head, one linear layer. They are set against a whole training step of the paper-size networks, ours (bfloat16,
fused), the fastest there is here, so the share is an upper bound. A step is timed without AU head at a batch that fits,
and scaled to 64 clips by its time a clip.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from model_speed import Clock, Trainee, arguments_for, batches, in_turns, prepare, spread, write_record
from torch import Tensor, nn

from audfer.knowledge import KnowledgeMatrix
from audfer.losses import AULoss, positive_class_weight

BATCH = 64


def rows_sample_by_sample(targets: Tensor, table: list[list[float]]) -> Tensor:
    """The row of the table that belongs to each sample's class, found by comparing with every class number."""
    rows = []
    for target in targets:
        label = target.argmax()
        for expression, row in enumerate(table):
            if label == expression:  # on a GPU, the processor waits for it here
                rows.append(torch.tensor(row))
    return torch.stack(rows).to(targets.device)


def loss_sample_by_sample(
    au_logits: Tensor, au_labels: Tensor, targets: Tensor, knowledge: list[list[float]], weights: list[list[float]]
) -> Tensor:
    """Eq. 9 with both weights rebuilt for every sample from Python lists; targets (B, 7), as the release's training has
    them.
    """
    return F.binary_cross_entropy_with_logits(
        au_logits,
        au_labels,
        weight=5 * rows_sample_by_sample(targets, knowledge),
        pos_weight=rows_sample_by_sample(targets, weights),
    )


def measure_loss(device: str, clock: Clock, repeats: int) -> dict:
    """Milliseconds of both losses and of AU heads of both widths, and how far the losses differ."""
    generator = torch.Generator().manual_seed(0)
    expressions = torch.randint(0, 7, (BATCH,), generator=generator)
    labels = (torch.rand(BATCH, 18, generator=generator) < 0.3).float()
    knowledge, weights = KnowledgeMatrix.published(), positive_class_weight(labels, expressions, "distinct")
    as_lists = torch.as_tensor(knowledge.values).tolist(), weights.tolist()
    logits = torch.randn(BATCH, 18, generator=generator).to(device).requires_grad_()
    expressions, labels, au_loss = expressions.to(device), labels.to(device), AULoss(knowledge, weights).to(device)
    heads = {
        f"head_{width}": (nn.Linear(width, 18).to(device), torch.randn(BATCH, width, device=device, requires_grad=True))
        for width in (512, 1024)
    }

    def head(name: str) -> None:
        layer, features = heads[name]
        layer(features).sum().backward()

    def loss(work) -> tuple[Tensor, Tensor]:
        logits.grad = None
        value = work()
        value.backward()
        return value.detach(), logits.grad

    targets = F.one_hot(expressions, 7).float()
    works = {
        "au_loss": lambda i: loss(lambda: au_loss(logits, labels, expressions)),
        "sample_by_sample": lambda i: loss(lambda: loss_sample_by_sample(logits, labels, targets, *as_lists)),
        **{name: lambda i, name=name: head(name) for name in heads},
    }
    seconds, results = in_turns(works, repeats, clock, warm_up=3)
    (ours, our_gradient), (theirs, their_gradient) = results["au_loss"][-1], results["sample_by_sample"][-1]
    ratio = spread([b / a for a, b in zip(seconds["au_loss"], seconds["sample_by_sample"], strict=True)])
    return {
        "milliseconds": {key: spread([1000 * spent for spent in values]) for key, values in seconds.items()},
        "times_faster_than_sample_by_sample": ratio,
        "target_times_faster": 20,
        "target_reached": ratio["median"] >= 20,
        "relative_difference": abs(float(ours / theirs) - 1),
        "largest_gradient_difference": float((our_gradient - their_gradient).abs().max()),
        "equal_to_1e-6": abs(float(ours / theirs) - 1) < 1e-6
        and float((our_gradient - their_gradient).abs().max()) < 1e-6,
    }


def measure_step(name: str, device: str, clock: Clock, batch: int, steps: int, loss: dict) -> dict:
    """Milliseconds of a training step of a network without AU head, a clip, and the share that head and loss add."""
    one = Trainee(name, "ours", device, compiled=False, num_aus=None)
    data = batches(name, 1, batch, device)[0]
    seconds, _ = in_turns({"step": lambda i: one.step(data, i)}, steps, clock, warm_up=1)
    step = spread([1000 * spent / batch for spent in seconds["step"]])
    whole = BATCH * step["median"]
    au_loss = loss["milliseconds"]["au_loss"]["median"] / whole
    head = loss["milliseconds"][f"head_{one.model.feature_dim}"]["median"] / whole
    return {
        "model": name,
        "batch": batch,
        "step_milliseconds_a_clip": step,
        "au_loss_percent_of_step": float(f"{100 * au_loss:.3g}"),
        "au_head_percent_of_step": float(f"{100 * head:.3g}"),
        "target_percent": 1,
        "target_reached": au_loss < 0.01,
    }


def main() -> None:
    """Measure the losses, then a step of every network; print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=100)
    parser.add_argument("--steps", type=int, default=4, help="timed training steps of every network")
    arguments = parser.parse_args()
    device, clock, where = prepare(arguments)
    loss = measure_loss(device, clock, arguments.repeats)
    print(json.dumps(loss), flush=True)
    record = {
        "benchmark": "au_loss_speed",
        **where,
        "loss_batch": BATCH,
        "timing": f"in turns; medians and quartiles of {arguments.repeats} forward and backward passes and "
        f"{arguments.steps} steps; "
        f"a step's time a clip, times {BATCH}, is what a percentage is of",
        "loss": loss,
        "results": [],
    }
    for name in arguments.models:
        record["results"].append(
            measure_step(
                name, device, clock, arguments.batch or (BATCH if device == "cuda" else 2), arguments.steps, loss
            )
        )
        print(json.dumps(record["results"][-1]), flush=True)
        write_record(record, arguments.out)


if __name__ == "__main__":
    main()
