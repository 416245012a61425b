"""M-RMS where the answer is known: the planted market's best cell, a random walk's size of 0, and the time it takes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _measure
import numpy as np
import pandas as pd
import torch

from algospace import market, performance, planted, synthetic
from algospace.data import contracts, splits
from algospace.data.params import DataParams
from algospace.features import fitted, windows
from algospace.features import table as table_module
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.mrms.fit import fit
from algospace.mrms.model import RiskEnsemble
from algospace.mrms.outcomes import Lessons, cells, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.trades import with_past_accounts
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from algospace.synergy import Gate1Params
from algospace.training import Unsaved

PARAMS = Path(__file__).parents[1] / "params.yaml"
YEAR = 252  # trading days
RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)
UNSEEN = 1000  # added to a seed: the market that a model is judged on
CONTRACT = contracts.resolve("MES", None)


class Sample(NamedTuple):
    """Candidates of one market, and the planted events among them."""

    train: Lessons
    select: Lessons
    every: Lessons  # of all splits
    venue: market.Venue
    planted: pd.DataFrame | None
    state: fitted.Fitted


def read(section: str, model: Any) -> Any:
    """Read a section of params.yaml."""
    return load_params(section, model, PARAMS)


def sample(kind: str, sessions: int, seed: int, state: fitted.Fitted | None = None) -> Sample:
    """Draw a market and make its lessons.

    No regime network is at hand: the scaled features that it would see at the event's 30-minute bar stand in for its
    vector. ``state`` is what was fitted on the market that was learned from; None fits it on this one's train rows.
    """
    data, indicators, gate1 = read("data", DataParams), read("indicators", IndicatorParams), read("gate1", Gate1Params)
    params = read("mrms", MRMSParams)
    shape = data.synthetic.model_copy(update={"market": kind, "sessions": sessions})
    events = None
    if kind == "planted":
        bars, events = planted.market(shape, CONTRACT, seed, indicators, gate1)
    else:
        bars = synthetic.market(shape, CONTRACT, seed)
    codes = splits.split(bars, data)
    if state is None:
        state = fitted.fit(bars, codes == splits.TRAIN, indicators, seed)
    table = table_module.build(bars, CONTRACT, indicators, gate1, state.reference)
    rows = windows.rows(table, state)
    whole = windows.complete(rows, read("features", FeatureParams))
    ends = np.flatnonzero(whole & (table.m5["candidate_direction"].to_numpy() != 0))
    venue = market.Venue.of(bars, CONTRACT, read("market", market.MarketParams))
    every = table.m5.iloc[ends].assign(row=ends).reset_index(drop=True)
    seen = rows.regime[rows.m30_row[ends]]

    def of(*chosen: int) -> Lessons:
        here = np.isin(codes[ends], chosen)
        return Lessons.new(every[here].reset_index(drop=True), seen[here], venue, params)

    return Sample(of(splits.TRAIN), of(splits.SELECT), of(*np.unique(codes)), venue, events, state)


def teach(given: Sample, seed: int) -> RiskEnsemble:
    """Fit the ensemble as the stage does."""
    params, limits = read("mrms", MRMSParams), read("market", market.MarketParams).limits
    lessons = with_past_accounts(given.train, given.venue, params, seed)
    return fit("risk", lessons, given.select, limits.max_units, params, RUNTIME, seed, Unsaved())[0]


def proposals(model: RiskEnsemble, lessons: Lessons) -> Proposal:
    """Propose for every event of some lessons."""
    return propose(model, lessons.states, lessons.events, CONTRACT.tick)


def planted_figures(model: RiskEnsemble, given: Sample) -> dict[str, Any]:
    """Executed cells against the known best cell of each hidden regime, on planted events of a market not learned from.

    The known best cell is the best of that market's own outcomes over all its paths.
    """
    params = read("mrms", MRMSParams)
    lessons = given.every
    regimes = given.planted.set_index("row")["regime"].reindex(lessons.events["row"]).to_numpy()
    result: dict[str, Any] = {}
    proposal = proposals(model, lessons)
    own = cells(params, proposal.stop_atr, proposal.reward_risk)
    for regime in range(len(planted.REGIMES)):
        here = regimes == regime
        paths = lessons.net_r[here, 0].reshape(here.sum(), -1).astype(np.float64)
        best = int(np.argmax([performance.sortino(column, 1.0) for column in paths.T]))
        known = paths[:, best]
        executed = realised(lessons.net_r, own)[here, 0]
        ratio = performance.sortino(executed, 1.0) / performance.sortino(known, 1.0)
        stop, reward = divmod(best, len(params.reward_risk_grid))
        name = f"regime_{regime}"
        result |= {
            f"{name}_events": len(paths),
            f"{name}_best_cell": [params.stop_grid[stop], params.reward_risk_grid[reward]],
            f"{name}_best_sortino": performance.sortino(known, 1.0),
            f"{name}_sortino": performance.sortino(executed, 1.0),
            f"{name}_ratio": ratio,
            f"{name}_mean_units": float(proposal.units[here, 0].mean()),
            f"{name}_mean_stop_atr": float(proposal.stop_atr[here, 0].mean()),
            f"{name}_mean_reward_risk": float(proposal.reward_risk[here, 0].mean()),
        }
    others = np.isnan(regimes)
    return performance.rounded(result | {"other_events_mean_units": float(proposal.units[others].mean())})


def walk_figures(model: RiskEnsemble, given: Sample) -> dict[str, Any]:
    """Size where no edge exists."""
    proposal = proposals(model, given.every)
    traded = proposal.units > 0
    return performance.rounded({"mean_units": proposal.units.mean(), "traded_rate": traded.mean()})


def speed(model: RiskEnsemble, given: Sample, days: int) -> dict[str, Any]:
    """Time of one proposal and of a year's; a year has as many candidates as ``days`` of the sample, scaled."""
    lessons = given.train
    one = lessons.of(np.arange(1))
    n = len(lessons.events) * YEAR // days
    year = lessons.of(np.arange(n) % len(lessons.events))
    return performance.rounded(
        {
            "one_ms": 1000 * _measure.seconds(lambda: proposals(model, one), 50),
            "year_events": n,
            "year_s": _measure.seconds(lambda: proposals(model, year), 3),
        }
    )


def rows(quick: bool) -> Iterator[Callable[[], dict[str, Any]]]:
    """Give one function a row."""
    torch.set_num_threads(1)
    sessions, seeds = (2 * YEAR, (0,)) if quick else (5 * YEAR, (0, 1, 2))
    for seed in seeds:
        held: dict[str, Any] = {}

        def planted_market(seed: int = seed, held: dict[str, Any] = held) -> dict[str, Any]:
            given = sample("planted", sessions, seed)
            held["model"], held["sample"] = teach(given, seed), given
            unseen = sample("planted", sessions, UNSEEN + seed, given.state)
            row = {"benchmark": "planted", "seed": seed, "sessions": sessions}
            return row | planted_figures(held["model"], unseen)

        def random_walk(seed: int = seed) -> dict[str, Any]:
            given = sample("random_walk", YEAR, seed)
            return {"benchmark": "random walk", "seed": seed, "sessions": YEAR} | walk_figures(
                teach(given, seed), given
            )

        yield planted_market
        if seed == seeds[-1]:
            yield (
                lambda held=held: (
                    {"benchmark": "speed"}
                    | speed(held["model"], held["sample"], round(sessions * read("data", DataParams).train_fraction))
                )
            )
        yield random_walk


if __name__ == "__main__":
    _measure.main(__doc__, rows)
