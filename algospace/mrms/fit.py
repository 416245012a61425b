"""Training of the risk ensemble."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from algospace import training
from algospace.errors import InputError
from algospace.mrms import model as ensemble
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.objective import Losses, risk_loss
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import States
from algospace.params import RuntimeParams


def fit(
    name: str,
    train: Lessons,
    validation: Lessons | None,
    n_units: int,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RiskEnsemble, training.Fit]:
    """Train an ensemble; without ``validation`` it trains all epochs and keeps the last weights.

    A batch is a run of consecutive events, each seen from one side, so that the Sortino of a batch is that of a
    stretch of time: it is no mean over samples, so it is never cut. ``seed`` is that of every random number, the first
    weights included.

    Raises
    ------
    InputError
        When there is nothing to train on, or a state is not finite.
    """
    for lessons, where in ((train, "train"), (validation, "select")):
        if lessons is not None:
            if len(lessons.net_r) < 2:
                raise InputError(f"mrms: expected candidates in {where}, found {len(lessons.net_r)}")
            require_finite(lessons.states)
    device = runtime.device
    torch.manual_seed(seed)
    x, r = (torch.from_numpy(array).to(device) for array in (train.states.values, train.net_r))
    model = ensemble.new(train.states.names, n_units, params).to(device)
    stops, rewards = (torch.tensor(grid, device=device) for grid in (params.stop_grid, params.reward_risk_grid))
    batch = min(params.optimizer.batch_size, len(x))

    def draw(generator: torch.Generator) -> Tensor:
        count = max(1, params.optimizer.samples_per_epoch // batch)
        starts = torch.randint(0, len(x) - batch + 1, (count,), generator=generator)
        events = (starts[:, None] + torch.arange(batch)).flatten()
        return 2 * events + torch.randint(0, 2, events.shape, generator=generator)

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        event, side = (part.to(device) for part in (chosen // 2, chosen % 2))
        return risk_loss(model(x[event, side]), r[event, side], stops, rewards, params).total

    def judge(x_val: Tensor, r_val: Tensor) -> dict[str, float]:
        judged = risk_loss(model(x_val), r_val, stops, rewards, params)
        return {"loss": judged.agents.item()} | _named(judged)

    validate = None
    if validation is not None:
        kept = (validation.states.values, validation.net_r)
        validate = partial(judge, *(torch.from_numpy(array).flatten(0, 1).to(device) for array in kept))
    run = params.optimizer.model_copy(update={"batch_size": batch})
    return model, training.fit(name, model, draw, loss, validate, run, runtime, seed, saver)


def _named(losses: Losses) -> dict[str, float]:
    return {name: getattr(losses, name).item() for name in ("sortino", "growth", "coordinator")}


def require_finite(states: States) -> None:
    """Raise `InputError` that names the first feature that is NaN or infinite, and the event that has it."""
    broken = np.argwhere(~np.isfinite(states.values))
    if len(broken):
        event, _, feature = broken[0]
        raise InputError(f"mrms: expected finite states, found NaN or inf in {states.names[feature]} of event {event}")
