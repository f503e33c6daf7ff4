"""Several processes as one: each takes its part of every batch, and all take the same step.

Started by torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK; gloo on CPUs, nccl on GPUs. A process's loss is the sum
over its samples divided by the size of the whole batch, so that gradients are summed. Batch statistics are those of the
whole batch (`SynchronisedBatchNorm`): the result is that of one process with the same batch.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Generator

    class FunctionCtx(Protocol):
        """What `forward` leaves for `backward`."""

        count: float
        saved_tensors: tuple[Tensor, ...]

        def save_for_backward(self, *tensors: Tensor) -> None: ...


Value = TypeVar("Value")
_PATIENCE = timedelta(hours=6)  # that one process waits for another, which may measure or write meanwhile


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes there are and which one this is; alone: (0, 1)."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This process's samples of a batch of `size`, in order."""
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], stop: bool) -> bool:
        """Sum the gradients over the processes; whether any of them was asked to stop."""
        if self.count == 1:
            return stop
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.reshape(-1) for g in gradients), gradients[0].new_tensor([float(stop)])])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients] + [1]), strict=False):
            gradient.copy_(summed.view_as(gradient))
        return bool(flat[-1] > 0)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def total(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums over the processes of these arrays, float64."""
        sums = [torch.from_numpy(np.array(array, np.float64)) for array in arrays]
        for values in sums if self.count > 1 else ():
            dist.all_reduce(values)
        return [values.numpy() for values in sums]

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def same(self, value: Value) -> Value:
        """The first process's value."""
        if self.count == 1:
            return value
        holder: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Generator[Processes]:
    """The processes that torchrun has started, for as long as they work together; one alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    _start(device)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def joined_for_good() -> Processes:
    """The processes that torchrun has started, until this one ends."""
    if not dist.is_initialized():
        _start("cuda" if torch.cuda.is_available() else "cpu")
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size())


def _start(device: str) -> None:
    """Gloo for what lies in memory, nccl for what lies on GPUs, one for each process of a machine."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)


class SynchronisedBatchNorm(torch.autograd.Function):
    """(x - mean) / sqrt(var + epsilon) * scale + bias with mean and variance over the batches of all processes.

    x: (n, c, ...); scale, bias: (c,). Means and squares about them are combined as in Chan et al. 1979, so that nothing
    cancels. The gradients of scale and bias are those of the process's own samples: they are summed with all others.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, count: float
    ) -> Tensor:
        shape = (1, -1, *(1,) * (x.dim() - 2))
        normal = (x.float() - mean.view(shape)) * inverse.view(shape)
        ctx.save_for_backward(normal, scale, inverse)
        ctx.count = count
        return (normal * scale.view(shape) + bias.view(shape)).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normal, scale, inverse = ctx.saved_tensors
        gradient = gradients[0].float()
        shape = (1, -1, *(1,) * (normal.dim() - 2))
        axes = [axis for axis in range(normal.dim()) if axis != 1]
        own = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        whole = own.clone()
        dist.all_reduce(whole)
        centred = gradient - (whole[0].view(shape) + normal * whole[1].view(shape)) / ctx.count
        towards_x = centred * (scale * inverse).view(shape)
        return towards_x.to(gradients[0].dtype), own[1], own[0], None, None, None


def batch_norm(  # noqa: PLR0913, PLR0917 - torch's own signature
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    scale: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over all processes; the running statistics are updated likewise."""
    if not training:
        return F.batch_norm(x, mean, var, scale, bias, training, momentum, epsilon)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    with torch.no_grad():
        own = x.detach().float()
        number = own.new_full((1,), own.numel() / own.shape[1])
        mine = torch.cat([number, own.mean(axes), own.var(axes, False)])
        every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(every, mine)
        table = torch.stack(every)
        numbers, means, variances = table[:, :1], table[:, 1 : 1 + own.shape[1]], table[:, 1 + own.shape[1] :]
        count = numbers.sum()
        whole = (numbers * means).sum(0) / count
        spread = (numbers * (variances + (means - whole).square())).sum(0) / count
        mean.lerp_(whole, momentum)
        var.lerp_(spread * count / (count - 1).clamp_min(1), momentum)
    return SynchronisedBatchNorm.apply(x, scale, bias, whole, torch.rsqrt(spread + epsilon), float(count))
