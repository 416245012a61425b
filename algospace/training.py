"""The supervised training loop of the frozen experts: shuffled batches, early stopping, a state to resume from."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from algospace import nets
from algospace.errors import InputError
from algospace.params import Params

History = list[dict[str, float]]
# A saver of training states: called after every optimiser step with the step and a function that makes the state.
OnStep = Callable[[int, Callable[[], dict[str, Any]]], None]


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


class Fit(NamedTuple):
    """What a training run leaves beside the model, which holds the best weights."""

    history: History
    best_epoch: int


def fit(
    name: str,
    model: nn.Module,
    draw: Callable[[], Tensor],
    loss: Callable[[Tensor, int], Tensor],
    validate: Callable[[], dict[str, float]],
    params: OptimizerParams,
    on_step: OnStep,
    resumed: dict[str, Any] | None,
) -> Fit:
    """Train ``model`` in place and leave the weights of its best epoch in it.

    Parameters
    ----------
    name
        For the progress bar and the messages.
    draw
        Sample indices of one epoch, in the order they are used; may draw from torch's generator.
    loss
        (indices of a batch, epoch) -> scalar loss; the model is in training mode.
    validate
        Named scalars of the validation set; ``"loss"`` decides. Must draw nothing.
    on_step, resumed
        Saver of the training state and the state to go on from: a resumed run ends with the same bytes.

    Raises
    ------
    InputError
        When the loss is not finite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), params.learning_rate, weight_decay=params.weight_decay)
    state: dict[str, Any] = resumed or {
        "epoch": 0, "batch": 0, "step": 0, "best": None, "best_epoch": -1, "history": [], "losses": [],
        "order": draw(), "best_model": weights(model),
    }  # fmt: skip
    batches = math.ceil(len(state["order"]) / params.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs * batches)
    if resumed:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        nets.set_rng_state(state["rng"])

    def snapshot() -> dict[str, Any]:
        return state | {
            "model": weights(model), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
            "rng": nets.rng_state(),
        }  # fmt: skip

    progress = tqdm(total=params.epochs, desc=name, unit="epoch", initial=state["epoch"], disable=None)
    while state["epoch"] < params.epochs and state["epoch"] - max(state["best_epoch"], 0) <= params.patience:
        model.train()
        while state["batch"] < batches:
            chosen = state["order"][state["batch"] * params.batch_size :][: params.batch_size]
            value = loss(chosen.to(device), state["epoch"])
            if not torch.isfinite(value):
                raise InputError(f"{name}: expected a finite loss, found {value.item()} at step {state['step']}")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)
            optimizer.step()
            schedule.step()
            state["losses"].append(value.item())
            state["batch"] += 1
            state["step"] += 1
            on_step(state["step"], snapshot)
        model.eval()
        with torch.no_grad():
            judged = validate()
        if not math.isfinite(judged["loss"]):
            raise InputError(f"{name}: expected a finite validation loss, found {judged['loss']}")
        state["history"].append(
            {"train/loss": float(np.mean(state["losses"]))} | {f"validation/{k}": v for k, v in judged.items()}
        )
        if state["best"] is None or judged["loss"] < state["best"] - params.min_delta:
            state |= {"best": judged["loss"], "best_epoch": state["epoch"], "best_model": weights(model)}
        state |= {"epoch": state["epoch"] + 1, "batch": 0, "losses": [], "order": draw()}
        progress.set_postfix(validation=f"{judged['loss']:.4f}")
        progress.update()
    progress.close()
    model.load_state_dict(state["best_model"])
    model.eval()
    return Fit(state["history"], state["best_epoch"])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
