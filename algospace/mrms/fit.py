"""Training of the risk ensemble."""

import numpy as np
import torch
from torch import Tensor

from algospace import training
from algospace.errors import InputError
from algospace.mrms import model as ensemble
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.objective import LEAST_WEALTH, Losses, risk_loss
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import States
from algospace.params import RuntimeParams

FIXED_LOGIT = 2.0  # of the best fixed answer before training; the others begin at 0


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
    stretch of time: it is no mean over samples, so it is never cut. Candidates are many and synergies few, yet only
    these are decided on in the end: a share of the batches holds synergies alone, and the validation loss weighs them
    alike. ``seed`` is that of every random number, the first weights included.

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
    model.scale_to(x.flatten(0, 1))
    start_from_the_best_fixed_answer(model, train.net_r, params)
    stops, rewards = (torch.tensor(grid, device=device) for grid in (params.stop_grid, params.reward_risk_grid))
    batch = min(params.optimizer.batch_size, len(x))
    every, synergies = torch.arange(len(x)), torch.from_numpy(_synergies(train))
    share = params.synergy_share if len(synergies) >= 2 else 0.0

    def draw(generator: torch.Generator) -> Tensor:
        runs = []
        for lot in torch.rand(max(1, params.optimizer.samples_per_epoch // batch), generator=generator):
            pool = synergies if lot < share else every
            start = torch.randint(0, max(1, len(pool) - batch + 1), (), generator=generator)
            runs.append(pool[(start + torch.arange(batch)) % len(pool)])
        events = torch.cat(runs)
        return 2 * events + torch.randint(0, 2, events.shape, generator=generator)

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        event, side = (part.to(device) for part in (chosen // 2, chosen % 2))
        return risk_loss(model(x[event, side]), r[event, side], stops, rewards, params).total

    def validate() -> dict[str, float]:
        judged = [(w, risk_loss(model(x), r, stops, rewards, params)) for w, (x, r) in sets]
        return {"loss": sum(w * losses.agents.item() for w, losses in judged)} | _named(judged[0][1])

    sets = []
    if validation is not None:
        completed = _synergies(validation)
        parts = [(1.0, validation)]
        if share and len(completed) >= 2:
            parts = [(1.0 - share, validation), (share, validation.of(completed))]
        sets = [
            (w, [torch.from_numpy(array).flatten(0, 1).to(device) for array in (part.states.values, part.net_r)])
            for w, part in parts
        ]
    run = params.optimizer.model_copy(update={"batch_size": batch})
    return model, training.fit(name, model, draw, loss, validate if sets else None, run, runtime, seed, saver)


def start_from_the_best_fixed_answer(model: RiskEnsemble, net_r: np.ndarray, params: MRMSParams) -> None:
    """Set the logits of all events: the cell of the best Sortino, and the units of the best growth in it.

    It is what an agent falls back on. Learning it by gradient takes longer than the states take to be learnt by heart.
    The best of a whole grid often earns something on the rows that chose it, so the units are those that both the
    earlier and the later half of the events bear.
    """
    flat = net_r.reshape(-1, net_r.shape[2] * net_r.shape[3]).astype(np.float64)
    downside = np.sqrt((np.minimum(flat, 0.0) ** 2).mean(0)) + 1e-9
    best = int((flat.mean(0) / downside).argmax())
    bet = params.unit_risk / params.kelly_fraction
    count = np.arange(model.config["n_units"] + 1)
    growth = np.log(np.maximum(1 + bet * count * flat[:, best, None], LEAST_WEALTH))
    units = min(int(half.mean(0).argmax()) for half in np.array_split(growth, 2))
    stop, reward = divmod(best, net_r.shape[3])
    with torch.no_grad():
        for agent, choice in ((model.position, units), (model.stop, stop), (model.target, reward)):
            agent.common[choice] = FIXED_LOGIT


def _synergies(lessons: Lessons) -> np.ndarray:
    return np.flatnonzero(lessons.events["gate1_type"].to_numpy() != 0)


def _named(losses: Losses) -> dict[str, float]:
    return {name: getattr(losses, name).item() for name in ("sortino", "growth", "coordinator")}


def require_finite(states: States) -> None:
    """Raise `InputError` that names the first feature that is NaN or infinite, and the event that has it."""
    broken = np.argwhere(~np.isfinite(states.values))
    if len(broken):
        event, _, feature = broken[0]
        raise InputError(f"mrms: expected finite states, found NaN or inf in {states.names[feature]} of event {event}")
