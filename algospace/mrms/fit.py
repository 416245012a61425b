"""Training of the risk ensemble."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from algospace import training
from algospace.errors import InputError
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.objective import risk_loss
from algospace.mrms.params import MRMSParams


def fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    n_units: int,
    params: MRMSParams,
    device: str,
    on_step: training.OnStep,
    resumed: dict[str, Any] | None,
) -> tuple[RiskEnsemble, training.Fit]:
    """Train on contexts (events, 2, n) and outcomes (events, 2, stops, rewards), in time order.

    A batch is a run of consecutive events, each seen from one side, so that the Sortino of a batch is that of a
    stretch of time. Raises `InputError` when there is nothing to train on.
    """
    if len(train[0]) < 2 or len(validation[0]) < 2:
        raise InputError(
            f"mrms: expected candidates in train and in select, found {len(train[0])} and {len(validation[0])}"
        )
    x, r = (torch.from_numpy(array).to(device) for array in train)
    x_val, r_val = (torch.from_numpy(array).flatten(0, 1).to(device) for array in validation)
    if not torch.isfinite(x).all() or not torch.isfinite(x_val).all():
        raise InputError("mrms: expected finite contexts, found NaN or inf")
    model = RiskEnsemble(
        x.shape[-1],
        params.hidden_dim,
        n_units,
        list(params.stop_grid),
        list(params.reward_risk_grid),
        params.dropout,
    ).to(device)
    stops, rewards = (
        torch.tensor(params.stop_grid, device=device),
        torch.tensor(params.reward_risk_grid, device=device),
    )
    batch = min(params.optimizer.batch_size, len(x))

    def draw() -> Tensor:
        starts = torch.randint(0, len(x) - batch + 1, (max(1, params.optimizer.samples_per_epoch // batch),))
        events = (starts[:, None] + torch.arange(batch)).flatten()
        return 2 * events + torch.randint(0, 2, events.shape)

    def loss(chosen: Tensor, epoch: int) -> Tensor:
        event, side = chosen // 2, chosen % 2
        units, stop, target = model(x[event, side])
        return risk_loss(units, stop, target, r[event, side], stops, rewards, params)[0]

    def validate() -> dict[str, float]:
        units, stop, target = model(x_val)
        value, sortino = risk_loss(units, stop, target, r_val, stops, rewards, params)
        return {"loss": value.item(), "sortino": sortino.item()}

    run = params.optimizer.model_copy(update={"batch_size": batch})
    return model, training.fit("mrms", model, draw, loss, validate, run, on_step, resumed)
