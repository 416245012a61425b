"""The gradient of one batch: cut into parts, shared by processes, in any precision, as memory allows.

Every random number is a function of the seed and of the place where it is used, never of what was drawn before. A
sample's noise and the order of an epoch are the same however a batch is cut and on every process; only dropout masks
differ. So a training state holds no generator, and a run may be cut otherwise and still mean the same.
"""

import gc
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from algospace import distributed
from algospace.errors import InputError, out_of_memory
from algospace.params import RuntimeParams

Result = TypeVar("Result")

ORDER, NOISE, MASKS = range(3)  # the streams of a training run


def generator(*key: int) -> torch.Generator:
    """A generator of the stream that a key (seed, stream, place) names."""
    return torch.Generator().manual_seed(_seed(*key))


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


class Gradient:
    """Leaves the gradient of a batch's mean loss in a model.

    Parameters
    ----------
    name
        For the messages.
    loss
        (indices, noise of each (n, ``noise``), epoch) -> their mean loss.
    accumulation
        Parts a batch is cut into, twice as many whenever memory runs out. None when the loss is no mean over samples:
        then a batch is never cut.
    noise
        Standard normal numbers that the loss of a sample takes.

    Notes
    -----
    bfloat16 has the exponents of float32, so its gradients do not underflow and no scaler is needed.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        loss: distributed.Loss,
        runtime: RuntimeParams,
        seed: int,
        accumulation: int | None,
        noise: int,
    ) -> None:
        self.parts = accumulation or 1
        self._cuts = accumulation is not None
        self._name, self._model, self._runtime, self._seed, self._noise = name, model, runtime, seed, noise
        self._loss = distributed.share(model, loss)
        self._device = next(model.parameters()).device

    def __call__(self, chosen: Tensor, step: int, epoch: int) -> float:
        """Gradient and mean loss of the samples ``chosen`` over all processes.

        Raises
        ------
        InputError
            When memory is too small for one sample, for a batch that cannot be cut, or for one of several processes.
        """
        most = len(chosen) if self._cuts else 1
        value, self.parts = as_memory_allows(
            self._name, lambda parts: self._of_parts(chosen, step, epoch, parts), self.parts, len(chosen), most
        )
        return value

    def _of_parts(self, chosen: Tensor, step: int, epoch: int, count: int) -> float:
        torch.manual_seed(_seed(self._seed, MASKS, step, distributed.rank()))
        noise = torch.randn(len(chosen), self._noise, generator=generator(self._seed, NOISE, step))
        self._model.zero_grad()
        total = torch.zeros((), device=self._device)
        own = torch.arange(len(chosen)).tensor_split(distributed.processes())[distributed.rank()]
        parts = own.tensor_split(count)
        for number, part in enumerate(parts):
            # A short last batch may leave a part empty: it computes any sample, at no weight, and stays in step.
            rows = part if len(part) else torch.tensor([0])
            weight = len(part) / len(chosen)  # and the gradients of processes are averaged, not summed
            with distributed.apart(self._loss) if number + 1 < len(parts) else nullcontext():
                with torch.autocast(self._device.type, torch.bfloat16, self._runtime.precision == "bfloat16"):
                    value = self._loss(chosen[rows], noise[rows].to(self._device), epoch)
                (value * (weight * distributed.processes())).backward()  # type: ignore[no-untyped-call]
            total += weight * value.detach()
        return distributed.total(total).item()


def as_memory_allows(
    name: str, compute: Callable[[int], Result], parts: int, batch: int, most: int
) -> tuple[Result, int]:
    """Call ``compute(parts)``, with twice the parts whenever memory runs out, ``most`` of them; return those it took.

    Raises
    ------
    InputError
        When memory is too small for ``most`` parts of the batch, or for one of several processes.
    """
    while True:
        try:
            return compute(parts), parts
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if distributed.processes() > 1:
                # The others wait in the middle of this step: no process can repeat it alone.
                raise InputError(f"{name}: out of memory with {parts} parts of a batch: set smaller ones") from None
            if 2 * parts > most:
                raise InputError(f"{name}: out of memory with {parts} parts of a batch of {batch}") from None
        parts *= 2
        print(f"{name}: out of memory, going on with {parts} parts of a batch", file=sys.stderr)
        free_memory()  # here, where the error and the tensors of its frames are gone


def free_memory() -> None:
    """Collect garbage and give unused blocks of CUDA's cache back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
