"""What the processes of ``training/test_distributed.py`` do; a module of its own, which they import in no time."""

import os
from dataclasses import replace

import torch
from torch import nn

from audfer.errors import AudferError
from audfer.models import NETWORKS as REGISTERED
from audfer.training import distributed
from audfer.training import loop as training
from audfer.training.loop import fit
from audfer.training.records import make_record

NETWORKS = ("m3dfel", "former_dfer", "mae_dfer")


def _double(cell, inputs, _initial=training._initial_model):
    """The network in float64, so that nothing is left of the order of additions."""
    model = _initial(cell, inputs).double()
    # landmarks stay as they are
    model.register_forward_pre_hook(
        lambda _, args: (args[0].double() / (255 if args[0].dtype == torch.uint8 else 1), *args[1:])
    )
    return model


def _scale_rates(factor):
    for network in REGISTERED.values():
        for name, recipe in network.recipes.items():
            network.recipes[name] = replace(recipe, learning_rate=factor * recipe.learning_rate)


def _train(cells, inputs):
    """What some cells come to; run alike in one process and in several."""
    _scale_rates(0.01)
    gentle = [_small(fit(cell, inputs)) for cell in cells]
    _scale_rates(100)
    training._initial_model, training.count_flops = _double, lambda *_: {}
    return gentle, [_small(fit(replace(cell, epochs=1), inputs)) for cell in cells[: len(NETWORKS)]]


def _small(outcome):
    return {name: outcome[name] for name in ("history", "scores", "features", "au_scores", "clip_ids", "costs")}


def member(rank, size, port, work, out):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with distributed.together("cpu"):
        torch.save(work(), f"{out}.{rank}")
        if rank and work.func is not record_or_assist:
            distributed.serve(None)  # rank 0 sends it home


def cells_together(cells, inputs):
    # every process asks for every cell, so none has to be announced
    distributed.announce = lambda *_: None
    return _train(cells, inputs)


def batch_norms():
    """Output, gradients and running statistics of batch norms over a batch of which each process has a part."""
    results = []
    for kind, shape in ((nn.BatchNorm1d, (7, 4)), (nn.BatchNorm2d, (7, 4, 3, 5)), (nn.BatchNorm3d, (7, 4, 2, 3, 2))):
        generator = torch.Generator().manual_seed(0)
        whole = 5 + 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        layer = nn.Sequential(kind(4)).double()
        with torch.no_grad():
            layer[0].weight.copy_(torch.arange(1, 5))
        distributed.share_batch_norms(layer)
        own = distributed.places(7)
        x = whole[own].requires_grad_()
        y = layer(x)
        (y.square() * weights[own]).sum().backward()
        distributed.add_gradients(layer)
        evaluated = layer.eval()(x)
        results.append(
            {
                "own": own,
                "split": {"y": y.detach(), "grad": x.grad, "evaluated": evaluated.detach()},
                "same": [
                    layer[0].weight.grad,
                    layer[0].bias.grad,
                    layer[0].running_mean,
                    layer[0].running_var,
                    layer[0].num_batches_tracked,
                ],
            }
        )
    return results


def record_or_assist(arguments):
    if distributed.rank():
        training.assist()
    else:
        make_record(*arguments)


def fail_together(cell, inputs):
    recipes = REGISTERED["former_dfer"].recipes
    recipes["tiny"] = replace(recipes["tiny"], batch_size=16, learning_rate=1e30, clip_gradient=0.0, warmup=0.0)
    distributed.announce = lambda *_: None
    try:
        fit(cell, inputs)
    except AudferError as error:
        return str(error)
