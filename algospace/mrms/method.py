"""How the ensemble is trained: by its differentiable Sortino ratio, or by PPO on the account."""

from algospace import market, training
from algospace.mrms import ppo
from algospace.mrms.fit import fit
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.params import RuntimeParams


def train(
    name: str,
    lessons: Lessons,
    select: Lessons | None,
    venue: market.Venue,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[RiskEnsemble, training.Fit]:
    """Train an ensemble on lessons by ``params.method``.

    ``select`` stops the Sortino variant; PPO takes all its steps and keeps its last weights, as the Sortino variant
    does without ``select``.
    """
    if params.method == "ppo":
        model, history = ppo.fit(name, lessons, venue, params, seed, runtime.device, saver)
        return model.cpu(), training.Fit(history, len(history) - 1)
    units = venue.params.limits.max_units
    model, run = fit(name, lessons, select, units, params, runtime, seed, saver)
    return model.cpu(), run
