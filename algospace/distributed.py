"""Several processes on one training run: which of them this is, and what they tell each other.

``torchrun`` starts them, `join` brings them together. Without `join` every function is that of a single process.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from algospace.errors import InputError

Loss = Callable[[Tensor, Tensor, int], Tensor]


def join(device: str) -> None:
    """Meet the other processes that ``torchrun`` started: gloo on the CPU, NCCL on CUDA with a device for each."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")


def leave() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def leads() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def from_leader(value: float) -> float:
    """The leader's number, on every process."""
    if processes() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=_device())
    dist.broadcast(shared, 0)
    return shared.item()


def total(value: Tensor) -> Tensor:
    """Sum of a tensor over the processes, the same bits on each."""
    if processes() > 1:
        value = value.to(_device())
        dist.all_reduce(value)
    return value


def own_seed(seed: int) -> int:
    """A seed for what every process draws for itself; the leader's is the one given, as that of a single process."""
    return seed if leads() else int(np.random.SeedSequence((seed, rank())).generate_state(1, np.uint64)[0])


def own_count(count: int, name: str) -> int:
    """Count of this process where all share ``count`` equally.

    Raises
    ------
    InputError
        When it does not divide.
    """
    if count % processes():
        raise InputError(f"{name}: expected a multiple of the {processes()} processes, found {count}")
    return count // processes()


def gathered(values: Tensor) -> Tensor:
    """Tensors (n, ...) of all processes, of one shape, as one (n * processes, ...) in their order."""
    if processes() == 1:
        return values
    own = values.to(_device()).contiguous()
    parts = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(parts, own)
    return torch.cat(parts).to(values.device)


def gathered_state(state: Any) -> Any:
    """Stack the tensors of a nested state over the processes (processes, ...): what `own_state` picks from."""
    return _each(state, lambda tensor: gathered(tensor[None])) if processes() > 1 else state


def own_state(state: Any) -> Any:
    """Pick this process's part of a `gathered_state`."""
    # A copy: torch's generators read the state they are given from where its storage begins.
    return _each(state, lambda tensor: tensor[rank()].clone()) if processes() > 1 else state


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over the processes, the same bits on each."""
    if processes() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = total(torch.cat([g.flatten() for g in gradients])) / processes()
    for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def share(model: nn.Module, loss: Loss) -> Loss:
    """Give a loss whose backward pass averages the gradients of ``model`` over the processes."""
    if processes() == 1:
        return loss
    wrapped: Loss = DistributedDataParallel(_Objective(model, loss), broadcast_buffers=False)
    return wrapped


def apart(loss: Loss) -> AbstractContextManager[None]:
    """A context in which the backward pass of a shared loss leaves the gradients to add up on their own process."""
    return loss.no_sync() if isinstance(loss, DistributedDataParallel) else nullcontext()


class _Objective(nn.Module):
    """A loss as a module, which is what `DistributedDataParallel` wraps."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        return self.loss(chosen, noise, epoch)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    match state:
        case Tensor():
            return change(state)
        case dict():
            return {key: _each(value, change) for key, value in state.items()}
        case list() | tuple():
            return [_each(value, change) for value in state]
    raise TypeError(f"processes share tensors, not {type(state).__name__}")
