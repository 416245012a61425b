"""Training of the risk ensemble."""

import numpy as np
import torch
from torch import Tensor

from algospace import forecast, training
from algospace.errors import InputError
from algospace.mrms import model as ensemble
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.objective import FLOOR, LEAST_WEALTH, Losses, risk_loss
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import States
from algospace.params import RuntimeParams

# Standard errors that a foreseen gain must lie above 0: 5 % for the best of eleven stops (Bonferroni). The targets of
# one stop lose the same trades, so that they hardly add to the choice.
EVIDENCE = 2.6
FIRST_LOGIT = 2.0  # of the choices that training begins with, and of a size that is worth 1 R; the others' are 0


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
    for lessons, where, least in ((train, "train", forecast.PARTS), (validation, "select", 2)):
        if lessons is not None:
            if len(lessons.net_r) < least:
                raise InputError(f"mrms: expected {least} candidates or more in {where}, found {len(lessons.net_r)}")
            require_finite(lessons.states)
    device = runtime.device
    torch.manual_seed(seed)
    x, r = (torch.from_numpy(array).to(device) for array in (train.states.values, train.net_r))
    model = ensemble.new(train.states.names, n_units, params)
    model.scale_to(torch.from_numpy(train.states.values).flatten(0, 1))
    start_from_the_best_linear_answer(model, train, params)
    model.to(device)
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
    return model, training.fit(
        name, model, draw, loss, validate if sets else None, run, runtime.in_float32(), seed, saver
    )


def start_from_the_best_linear_answer(model: RiskEnsemble, lessons: Lessons, params: MRMSParams) -> None:
    """Set the linear logits: the cell that is worth most to whoever may pass, the units by Kelly on its forecast.

    It is what the agents fall back on: learning it by gradient takes longer than the states take to be learnt by heart.
    Cells are compared on what is decided on in the end, completed synergies with the signal, by their Sortino ratio
    where a linear forecast made at other times expects a gain: a bracket that loses on all events may be the best where
    it pays, and elsewhere one passes. A size u is worth u f - b s u^2 / 2 at a forecast f that is linear in the state
    of each side (the second order of its log growth; b the bet of a unit, s the mean square of r).

    Where not even the best cell earns `EVIDENCE` standard errors in this way there is nothing to pass by. Then it is
    the cell of the best ratio over all events, and the units that both the earlier and the later half of them bear
    there, since the best of a whole grid often earns something on the rows that chose it.
    """
    flat = lessons.net_r.reshape(-1, lessons.net_r.shape[2] * lessons.net_r.shape[3]).astype(np.float64)
    decided = _synergies(lessons)
    if len(decided) < forecast.PARTS or not params.synergy_share:
        decided = np.arange(len(lessons.net_r))
    x = model.scaled(torch.from_numpy(lessons.states.values[decided])).double()
    r = lessons.net_r[decided].reshape(len(decided), 2, -1).astype(np.float64)
    taken = np.where(forecast.out_of_sample(x[:, 0].numpy(), r[:, 0]) > 0, r[:, 0], 0.0)
    best = int(_sortinos(taken).argmax())
    foreseen = taken[:, best].mean() > EVIDENCE * taken[:, best].std() / np.sqrt(len(taken)) > 0
    if not foreseen:
        best = int(_sortinos(flat).argmax())
    stop, reward = divmod(best, lessons.net_r.shape[3])
    bet = params.unit_risk / params.kelly_fraction
    units = np.arange(model.config["n_units"] + 1)
    with torch.no_grad():
        model.stop.linear.bias[stop] = model.target.linear.bias[reward] = FIRST_LOGIT
        if foreseen:
            sided = model.sided(x.flatten(0, 1)).numpy()
            expected = forecast.Forecast.fit(sided, r[..., best].reshape(-1, 1))
            worth = units * expected.bias - bet * (r**2).mean() * units**2 / 2
            model.position.linear.weight.copy_(torch.from_numpy(FIRST_LOGIT * np.outer(units, expected.weights)))
            model.position.linear.bias.copy_(torch.from_numpy(FIRST_LOGIT * worth))
        else:
            growth = np.log(np.maximum(1 + bet * units * flat[:, [best]], LEAST_WEALTH))
            borne = min(int(half.mean(0).argmax()) for half in np.array_split(growth, 2))
            model.position.linear.bias[borne] = FIRST_LOGIT


def _sortinos(r: np.ndarray) -> np.ndarray:
    """Sortino ratio (cells,) of what each cell earned at n events (n, cells), with the floor of `risk_loss`."""
    downside = (np.minimum(r, 0.0) ** 2).mean(0)
    ratio: np.ndarray = r.mean(0) / np.sqrt(downside + FLOOR * (r**2).mean() + 1e-12)
    return ratio


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
