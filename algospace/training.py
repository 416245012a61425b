"""The supervised training loop of the frozen experts: shuffled batches, early stopping, a state to resume from."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from tqdm import tqdm

from algospace import distributed
from algospace.errors import InputError
from algospace.gradient import ORDER, Gradient, free_memory, generator
from algospace.params import Params, RuntimeParams

History = list[dict[str, float]]
State = dict[str, Any]


class OptimizerParams(Params):
    """How a network is fitted: AdamW, cosine schedule, early stopping."""

    batch_size: int = Field(ge=2)  # of one sample there is no spread
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    epochs: int = Field(ge=1)
    samples_per_epoch: int = Field(ge=1)
    patience: int = Field(ge=1)
    min_delta: float = Field(ge=0)


class AccumulatingParams(OptimizerParams):
    """For a loss that is a mean over samples: its batches may be cut."""

    accumulation: int = Field(ge=1)

    @field_validator("accumulation")
    @classmethod
    def _a_part_holds_a_sample(cls, parts: int, info: ValidationInfo) -> int:
        if parts > info.data.get("batch_size", parts):
            raise ValueError(f"expected at most batch_size ({info.data['batch_size']}), found {parts}")
        return parts


class Saver(Protocol):
    """Keeps the state of a run; ``resumed`` is the one to go on from, None for a fresh start."""

    resumed: State | None

    def __call__(self, step: int, snapshot: Callable[[], State]) -> None:
        """Hear of every optimiser step; ``snapshot`` makes the state, at the same steps on all processes."""

    def epoch_ended(self, epoch: int) -> None:
        """Hear of every epoch, by its number."""

    def ended(self, step: int, snapshot: Callable[[], State]) -> None:
        """Save the final state, so that what is finished is not trained again."""


class Unsaved:
    """The saver of a run that starts anew after a kill."""

    resumed: State | None = None

    def __call__(self, step: int, snapshot: Callable[[], State]) -> None:
        """Save nothing."""

    def epoch_ended(self, epoch: int) -> None:
        """Note nothing."""

    def ended(self, step: int, snapshot: Callable[[], State]) -> None:
        """Save nothing."""


# Opens the saver of one of several trainings of a stage, by its name.
Part = Callable[[str], Saver]


class Fit(NamedTuple):
    """What a training run leaves beside the model, which holds the best weights."""

    history: History
    best_epoch: int


def unsaved(part: str) -> Unsaved:
    """Open the saver of a training that starts anew after a kill."""
    return Unsaved()


class Attempt(NamedTuple):
    """How far a configuration of a sweep has come."""

    score: float  # on the selecting half of validation; higher is better
    cut: dict[str, Any]  # keys of the stage's section in which what has been trained so far falls short of the params
    sharpe: float | None = None  # annual, on the reporting half, of daily net R; None where nothing trades yet
    daily: str = ""  # its daily net R, as `marl.figures.daily` has it


def fit(
    name: str,
    model: nn.Module,
    draw: Callable[[torch.Generator], Tensor],
    loss: distributed.Loss,
    validate: Callable[[], dict[str, float]] | None,
    params: OptimizerParams,
    runtime: RuntimeParams,
    seed: int,
    saver: Saver,
    accumulation: int | None = None,
    noise: int = 0,
) -> Fit:
    """Train ``model`` in place and leave the weights of its best epoch in it.

    Parameters
    ----------
    name
        For the progress bar and the messages.
    draw
        Sample indices of one epoch, in the order they are used; draws from the generator it is given only.
    loss
        (indices, noise, epoch) -> scalar loss of these samples; the model is in training mode.
    validate
        Named scalars of the validation set; ``"loss"`` decides. Must draw nothing. None trains all epochs and keeps
        the last weights.
    seed
        Of the order, the noise and the dropout masks; the first weights are those the model came with.
    saver
        Keeps the training state: a resumed run ends with the same bytes, a finished one returns at once.
    accumulation, noise
        As `Gradient` takes them.

    Raises
    ------
    InputError
        When the loss is not finite, or memory is too small.
    """
    gradient = Gradient(name, model, loss, runtime, seed, accumulation, noise)
    optimizer = torch.optim.AdamW(model.parameters(), params.learning_rate, weight_decay=params.weight_decay)
    state: State = saver.resumed or {
        "epoch": 0, "batch": 0, "step": 0, "parts": gradient.parts, "best": None, "best_epoch": -1, "history": [],
        "losses": [], "best_model": weights(model),
    }  # fmt: skip
    order = draw(generator(seed, ORDER, state["epoch"]))
    batches = math.ceil(len(order) / params.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs * batches)
    if saver.resumed:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        gradient.parts = state["parts"]

    def snapshot() -> State:
        trained = {"model": weights(model), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        return state | trained | {"parts": gradient.parts}

    progress = tqdm(
        total=params.epochs,
        desc=name,
        unit="epoch",
        initial=state["epoch"],
        disable=None if distributed.leads() else True,
    )
    while state["epoch"] < params.epochs and state["epoch"] - max(state["best_epoch"], 0) <= params.patience:
        model.train()
        while state["batch"] < batches:
            chosen = order[state["batch"] * params.batch_size :][: params.batch_size]
            value = gradient(chosen, state["step"], state["epoch"])
            if not math.isfinite(value):
                raise InputError(f"{name}: expected a finite loss, found {value} at step {state['step']}")
            nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)
            optimizer.step()
            schedule.step()
            state["losses"].append(value)
            state["batch"] += 1
            state["step"] += 1
            if runtime.clear_memory_interval and state["step"] % runtime.clear_memory_interval == 0:
                free_memory()
            saver(state["step"], snapshot)
        row = {"train/loss": float(np.mean(state["losses"]))}
        improved = validate is None
        if validate is not None:
            judged = _judge(name, model, validate)
            row |= {f"validation/{k}": v for k, v in judged.items()}
            improved = state["best"] is None or judged["loss"] < state["best"] - params.min_delta
            if improved:
                state["best"] = judged["loss"]
            progress.set_postfix(validation=f"{judged['loss']:.4f}")
        if improved:
            state |= {"best_epoch": state["epoch"], "best_model": weights(model)}
        state["history"].append(row)
        saver.epoch_ended(state["epoch"])
        state |= {"epoch": state["epoch"] + 1, "batch": 0, "losses": []}
        order = draw(generator(seed, ORDER, state["epoch"]))
        progress.update()
    progress.close()
    saver.ended(state["step"], snapshot)
    model.load_state_dict(state["best_model"])
    model.eval()
    return Fit(state["history"], state["best_epoch"])


@torch.no_grad()
def _judge(name: str, model: nn.Module, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Validate; every process takes the leader's figures, so that all stop at the same epoch."""
    model.eval()
    judged = {key: distributed.from_leader(value) for key, value in validate().items()}
    if not math.isfinite(judged["loss"]):
        raise InputError(f"{name}: expected a finite validation loss, found {judged['loss']}")
    return judged


def walk_forward_blocks(n: int, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut n samples in time order into blocks: (samples that may be learnt from, samples of the block) of each.

    A block learns from the blocks before it; the first, which has none, from the second: it has not seen the block
    either, but it knows what came later. What lies too near to the block is still among the samples to learn from.
    """
    parts = np.array_split(np.arange(n), folds)
    return [(np.concatenate(parts[:k]) if k else parts[1], part) for k, part in enumerate(parts)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
