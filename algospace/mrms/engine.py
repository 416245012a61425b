"""The risk subsystem put together: ensemble, out-of-fold models, the size they bear, communication layer, figures."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from algospace import market, training
from algospace.data.params import DataParams
from algospace.data.splits import embargo_bars
from algospace.errors import InputError
from algospace.mrms import communication, method
from algospace.mrms.communication import TrackNet
from algospace.mrms.figures import figures
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.outcomes import Lessons, cells, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.state import States
from algospace.mrms.track import Track
from algospace.mrms.trades import proposed_trades, with_past_accounts
from algospace.mrms.walk_forward import Fold, borne_units, folds, out_of_fold, shift, walk_forward
from algospace.params import RuntimeParams


class Engine(NamedTuple):
    """What the stage leaves; splits are train, select and report."""

    model: RiskEnsemble
    layer: TrackNet
    fit: training.Fit
    layer_fit: training.Fit
    folds: list[Fold]
    fold_models: list[RiskEnsemble]
    borne_units: int  # the limit on a size
    unseen: Proposal  # for train's candidates, from models that have not seen them
    final: dict[str, Proposal]  # for each split's candidates, from the final model
    tracks: dict[str, Track]  # trades of each split's proposals, out of fold on train


def train(
    splits: dict[str, Lessons],
    venue: market.Venue,
    data: DataParams,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
    part: training.Part,
) -> Engine:
    """Fit on train, stop on select; ``data`` has the embargo between the folds.

    Raises
    ------
    InputError
        For too few candidates in a split.
    """
    if len(splits["report"].events) < 2:
        raise InputError(f"mrms: expected 2 candidates or more in report, found {len(splits['report'].events)}")
    taught, select, tick = splits["train"], splits["select"], venue.costs.tick
    lessons = with_past_accounts(taught, venue, params, seed)
    model, run = method.train("mrms", lessons, select, venue, params, runtime, seed, part("ensemble"))
    parts = folds(taught.events, params.folds, embargo_bars(data))
    models = walk_forward(lessons, parts, run.best_epoch + 1, venue, params, runtime, seed, part)
    unlimited = out_of_fold(models, parts, taught, taught.states, taught.events, tick)
    borne = borne_units(unlimited, taught, venue.session, params)
    for each in (model, *models):
        each.limit_units(borne)
    unseen = out_of_fold(models, parts, taught, taught.states, taught.events, tick)
    final = {name: propose(model, given.states, given.events, tick) for name, given in splits.items()}
    tracks = {
        name: proposed_trades(venue, given.events, unseen if name == "train" else final[name]).track
        for name, given in splits.items()
    }
    layer, layer_run = communication.fit(
        tracks["train"], tracks["select"], params.communication, runtime, seed, part("communication")
    )
    return Engine(model, layer, run, layer_run, parts, models, borne, unseen, final, tracks)


def attempts(
    splits: dict[str, Lessons],
    venue: market.Venue,
    params: MRMSParams,
    runtime: RuntimeParams,
    seed: int,
) -> Iterator[training.Attempt]:
    """Fit the ensemble as a sweep tries it; arguments as those of `train`.

    The score is the mean net R, on select, of one unit in the proposed bracket of every event and side.
    """
    lessons, select = with_past_accounts(splits["train"], venue, params, seed), splits["select"]
    model, _ = method.train("mrms", lessons, select, venue, params, runtime, seed, training.Unsaved())
    proposal = propose(model, select.states, select.events, venue.costs.tick)
    chosen = cells(params, proposal.stop_atr, proposal.reward_risk)
    yield training.Attempt(float(realised(select.net_r, chosen).mean()), {})


def unseen_proposals(engine: Engine, taught: Lessons, seen: States, events: pd.DataFrame, tick: float) -> Proposal:
    """Proposals for any bars of train, by models that have not seen them; arguments as those of `out_of_fold`."""
    return out_of_fold(engine.fold_models, engine.folds, taught, seen, events, tick)


def examine(
    engine: Engine, splits: dict[str, Lessons], venue: market.Venue, params: MRMSParams, seed: int
) -> dict[str, Any]:
    """Figures on the reporting half of validation; arguments as `train`'s."""
    found: dict[str, Any] = {
        "train_candidates": len(splits["train"].events),
        "best_epoch": engine.fit.best_epoch,
        "epochs": len(engine.fit.history),
        "borne_units": engine.borne_units,
    }
    found |= figures(engine.model, engine.final["report"], splits["report"], splits["train"].net_r, venue, params, seed)
    found["shift"] = shift(engine.unseen, engine.final["train"], params)
    found["next_trade"] = communication.figures(engine.layer, engine.tracks["report"])
    return found
