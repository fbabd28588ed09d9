"""Several processes training one cell together: plain ``torch.distributed``, one process per GPU (or CPU core).

Started by ``torchrun --nproc-per-node N -m audfer train ...`` or by ``audfer train --processes N``. The first process
(rank 0) is the driver: it prepares data, keeps the store and writes records; the others wait in ``serve`` until it
begins a cell.

The number of processes changes no number beyond rounding: every random draw is one of the whole batch, made alike in
all processes, each of which keeps what concerns its own clips (``places``); sums are added up over processes before
they are divided; batch norms see the whole batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import AudferError, InputError
from ..files import scratch_folder
from ..jobs.processes import following

#: the others wait this long for rank 0, which may render and pack first; a process that dies ends all of them at once
#: anyway
_PATIENCE = timedelta(days=7)
#: environment variable with the file that the processes of ``launch`` meet in
_MEETING = "AUDFER_MEETING"


# ---------------------------------------------------------------------------------------------------------- processes


def rank() -> int:
    """Number of this process among those that train together; 0 without others."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 without others."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> int:
    """How many processes ``torchrun`` (or ``launch``) has started; 0 if this process was started alone."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else 0


@contextmanager
def together(device: str) -> Iterator[int]:
    """Join the processes that torchrun started, for the block; gives this one's rank. Alone, nothing happens and it is
    0.

    Rank 0 sends the others home at the end of the block; after an error it does not, for they may be in the middle of a
    cell: the launcher ends them.

    Args:
        device: "cpu" or "cuda"; on GPUs each process takes the one of its local rank.

    Raises:
        AudferError: more processes on this machine than it has GPUs.
    """
    if not launched() or dist.is_initialized():
        yield rank()
        return
    local, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda":
        check_gpus(here)
        torch.cuda.set_device(local)
    # objects travel by gloo in any case: it waits without occupying the GPU
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    place = f"file://{os.environ[_MEETING]}" if _MEETING in os.environ else "env://"
    dist.init_process_group(backend, place, timeout=_PATIENCE, world_size=launched(), rank=int(os.environ["RANK"]))
    try:
        yield rank()
        if rank() == 0:
            _broadcast(None)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def check_gpus(processes: int) -> None:
    """Refuse more processes than GPUs.

    Raises:
        AudferError: there are fewer GPUs.
    """
    if processes > torch.cuda.device_count():
        raise AudferError(
            f"{processes} processes on this machine with {torch.cuda.device_count()} GPUs: found fewer GPUs than "
            "processes, expected one each; start as many processes as there are GPUs"
        )


def serve(work: Callable[..., object]) -> None:
    """What all ranks but 0 do: ``work`` with the arguments of each call that rank 0 announces, until it sends them
    home.

    An error that a user can mend is rank 0's to report: it meets the same one.
    """
    while (arguments := _broadcast(None)) is not None:
        with suppress(AudferError):
            work(*arguments)


def announce(*arguments) -> None:
    """On rank 0: have the others do their part of the same work; on the others and alone nothing."""
    if world_size() > 1 and rank() == 0:
        _broadcast(arguments)


def _broadcast(content):
    """Rank 0's object, in all processes."""
    holder = [content]
    dist.broadcast_object_list(holder, src=0, device=torch.device("cpu"))
    return holder[0]


@contextmanager
def agreed() -> Iterator[None]:
    """A block that only rank 0 does something in, such as writing; if it fails there, it fails in all processes.

    Raises:
        AudferError: rank 0's.
    """
    error = None
    try:
        yield
    except AudferError as failure:
        error = failure
    if world_size() > 1:
        error = _broadcast(error)
    if error is not None:
        raise error


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run ``audfer ARGUMENTS`` in several processes of this machine that train together; from a notebook as well.

    Args:
        arguments: of the command line, for example ``["train", "--model", "m3dfel"]``.
        processes: how many; on GPUs at most one each.

    Returns:
        The exit code: 0, or that of the first process that failed, whereupon the others are ended.

    Raises:
        InputError: a number below 1.

    Example:
        >>> launch(["train", "--model", "m3dfel", "--au-ratio", "0.25"], processes=2)      # doctest: +SKIP
        0
    """
    if processes < 1:
        raise InputError("command line", "--processes", processes, "at least 1")
    with scratch_folder(Path(tempfile.gettempdir(), "audfer")) as meeting:
        return _together_in(meeting, arguments, processes)


def _together_in(meeting: Path, arguments: Sequence[str], processes: int) -> int:
    # nobody outside this machine is to be heard: they meet in a file and talk over loopback
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    shared = {
        **os.environ,
        _MEETING: str(meeting / "store"),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    # a notebook shows what this process prints, not what its children do
    shown = subprocess.PIPE if "ipykernel" in sys.modules else None
    team = [
        subprocess.Popen(
            [sys.executable, "-m", "audfer", *arguments],
            text=True,
            env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.DEVNULL if number else shown,
            stderr=None if number else shown and subprocess.STDOUT,
            **following(),
        )
        for number in range(processes)
    ]
    try:
        if shown:
            for line in team[0].stdout:
                print(line, end="")
        while (codes := [process.poll() for process in team]) and not any(codes) and None in codes:
            time.sleep(0.1)
        failed = next((code for code in codes if code), 0)
        return failed if failed >= 0 else 128 - failed  # killed by a signal, as shells count
    finally:
        for process in team:
            process.terminate()
        for process in team:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # in the middle of a collective operation, where no signal is heard
                process.kill()
                process.wait()


# --------------------------------------------------------------------------------------------------- who has which
# clips


def places(count: int) -> np.ndarray:
    """Places of this process's clips in a batch of ``count``, rising.

    A clip and its partner of mixup (the one at its place in the reversed batch) are of one process, and stay partners
    in the process's own part.

    Raises:
        AudferError: too few clips for every process to have one.

    Example:
        >>> places(4).tolist()
        [0, 1, 2, 3]
    """
    pairs = np.arange(count // 2)
    own = np.array_split(pairs, world_size())[rank()]
    middle = [count // 2] if count % 2 and rank() == world_size() - 1 else []
    if world_size() > 1 and count // 2 < world_size():
        raise AudferError(
            f"{world_size()} processes for a batch of {count} clips: found fewer than two clips for each; start "
            "fewer processes, or take a recipe with larger batches"
        )
    return np.concatenate((own, middle, count - 1 - own[::-1])).astype(np.int64)


def part(rows: np.ndarray) -> np.ndarray:
    """This process's share of ``rows``: consecutive ones, none twice, none left out.

    Raises:
        AudferError: fewer rows than processes.
    """
    if len(rows) < world_size():
        raise AudferError(
            f"{world_size()} processes for {len(rows)} clips to be judged: found too few, expected one for each; "
            "start fewer processes"
        )
    return np.array_split(rows, world_size())[rank()]


def joined(own):
    """Everybody's list of ``part`` after one another, in all processes: of arrays (n, ...) one array."""
    if world_size() == 1:
        return own
    gathered: list = [None] * world_size()
    dist.all_gather_object(gathered, own)
    return np.concatenate(gathered)


def total(values: Tensor, how: str = "sum") -> Tensor:
    """The sum (or "min") of a tensor over all processes, in all of them; it is changed in place."""
    if world_size() > 1:
        dist.all_reduce(values, getattr(dist.ReduceOp, how.upper()))
    return values


# ------------------------------------------------------------------------------------------------------------- networks


def share_batch_norms(model: nn.Module) -> None:
    """Have the batch norms of a network see the clips of all processes, in place; names in the state dict stay."""
    if world_size() == 1:
        return
    if next(model.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = BatchNormOverProcesses


def add_gradients(model: nn.Module) -> None:
    """Add up the gradients of all processes, in all of them; alone they stay as they are.

    Sums, not means as ``DistributedDataParallel`` gives: each process's loss is its share of the whole batch's already.
    """
    if world_size() > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        together = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, added in zip(
            gradients, together.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(added.view_as(gradient))


class _Sum(torch.autograd.Function):
    """Sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.apply(gradient)


class BatchNormOverProcesses(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the mean and the deviation of all processes' clips, on CPUs (``nn.SyncBatchNorm`` is for GPUs
    only).

    Takes (N, C, ...) of any number of axes; processes may have different N.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = total(torch.tensor([float(x.numel() // x.shape[1])], dtype=torch.float64)).to(wide.dtype)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        # two passes: a difference of squares would lose digits
        mean = _Sum.apply(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)
