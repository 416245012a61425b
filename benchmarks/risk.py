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
from algospace.mrms.outcomes import Lessons, cells, outcome_table, realised
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import Proposal, propose
from algospace.mrms.trades import with_past_accounts
from algospace.mrms.walk_forward import borne_units, folds, out_of_fold, walk_forward
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from algospace.synergy import Gate1Params
from algospace.training import Unsaved

PARAMS = Path(__file__).parents[1] / "params.yaml"
YEAR = 252  # trading days
RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)
UNSEEN = 1000  # added to a seed: the market that a model is judged on
BOOTSTRAP_DRAWS = 2000
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
    every = (
        table.m5.iloc[ends].assign(row=ends, label_end_utc=lambda m5: m5["session_close_utc"]).reset_index(drop=True)
    )
    seen = rows.regime[rows.m30_row[ends]]

    def of(*chosen: int) -> Lessons:
        here = np.isin(codes[ends], chosen)
        return Lessons.new(every[here].reset_index(drop=True), seen[here], venue, params)

    return Sample(of(splits.TRAIN), of(splits.SELECT), of(*np.unique(codes)), venue, events, state)


def teach(given: Sample, seed: int) -> tuple[RiskEnsemble, int]:
    """Fit the ensemble as the stage does; return it before its size is limited, and the limit its record bears."""
    params, limits = read("mrms", MRMSParams), read("market", market.MarketParams).limits
    data, train, venue = read("data", DataParams), given.train, given.venue
    lessons = with_past_accounts(train, venue, params, seed)
    model, run = fit("risk", lessons, given.select, limits.max_units, params, RUNTIME, seed, Unsaved())
    parts = folds(train.events, params.folds, splits.embargo_bars(data))
    models = walk_forward(lessons, parts, run.best_epoch + 1, venue, params, RUNTIME, seed, lambda name: Unsaved())
    return model, borne_units(
        out_of_fold(models, parts, train, train.states, train.events, CONTRACT.tick), train, venue.session, params
    )


def proposals(model: RiskEnsemble, lessons: Lessons) -> Proposal:
    """Propose for every event of some lessons."""
    return propose(model, lessons.states, lessons.events, CONTRACT.tick)


def at_costs(given: Sample, multiplier: float) -> Sample:
    """Give the same sample with outcomes at another multiple of the costs."""
    rules = given.venue.params.model_copy(update={"cost_multiplier": multiplier})
    venue = given.venue._replace(costs=market.Costs.of(CONTRACT, multiplier), params=rules)
    params = read("mrms", MRMSParams)

    def of(lessons: Lessons) -> Lessons:
        return lessons._replace(net_r=outcome_table(venue, lessons.events, params))

    return given._replace(train=of(given.train), select=of(given.select), every=of(given.every), venue=venue)


class Executed(NamedTuple):
    """One unit with the signal at each planted event (n,) of a market not learned from."""

    regime: np.ndarray
    r: np.ndarray  # net R in the proposed cell
    known: np.ndarray  # in the known best cell
    asked: np.ndarray  # units that the position agent would propose
    units: np.ndarray  # proposed: what of it the out-of-fold record bears


def execute(asked: Proposal, proposal: Proposal, given: Sample) -> Executed:
    """Take the proposed and the known best cell at the planted events.

    The best cell is known from the construction, not chosen among 99 on the judged outcomes: the planted outcome is
    that of a stop one ATR away and a target two. A smaller stop pays the same R before costs and loses more often, a
    larger one pays less, and beyond the outcome the path is a martingale again. Where the odds are reversed no cell
    pays, and the best is no trade.
    """
    params, lessons = read("mrms", MRMSParams), given.every
    regime = given.planted.set_index("row")["regime"].reindex(lessons.events["row"]).to_numpy()
    here = ~np.isnan(regime)
    best = cells(params, *(np.full((len(regime), 2), value) for value in (1.0, planted.REWARD_RISK)))
    own = cells(params, proposal.stop_atr, proposal.reward_risk)
    r, known = (realised(lessons.net_r, cell)[here, 0] for cell in (own, best))
    return Executed(regime[here].astype(np.int64), r, known, asked.units[here, 0], proposal.units[here, 0])


def planted_figures(found: Executed) -> dict[str, Any]:
    """Sortino of one unit in the proposed cells beside the known best cell's, and the size, of each hidden regime.

    The interval of the ratio is at 0.95, of a bootstrap of the events: their outcomes are drawn independently.
    """
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for regime, (_, _, win) in enumerate(planted.REGIMES):
        r, known, asked, units = (part[found.regime == regime] for part in found[1:])
        sortinos = [performance.sortino(part, 1.0) for part in (r, known)]
        name = f"regime_{regime}"
        result |= {
            f"{name}_events": len(r), f"{name}_sortino": sortinos[0], f"{name}_known_sortino": sortinos[1],
            f"{name}_asked_mean_units": asked.mean(), f"{name}_mean_units": units.mean(),
            f"{name}_traded_rate": (units > 0).mean(), f"{name}_sized_mean_r": (units * r).mean(),
        }  # fmt: skip
        if win * (1 + planted.REWARD_RISK) > 1:
            drawn = rng.integers(0, len(r), (BOOTSTRAP_DRAWS, len(r)))
            ratios = [performance.sortino(r[i], 1.0) / performance.sortino(known[i], 1.0) for i in drawn]
            low, high = np.quantile(ratios, [0.025, 0.975])
            result |= {f"{name}_ratio": sortinos[0] / sortinos[1], f"{name}_ratio_low": low, f"{name}_ratio_high": high}
    return performance.rounded(result)


def walk_figures(asked: Proposal, proposal: Proposal) -> dict[str, Any]:
    """Size where no edge exists, before and after it is limited to what the out-of-fold record bears."""
    return performance.rounded(
        {
            "asked_mean_units": asked.units.mean(),
            "mean_units": proposal.units.mean(),
            "traded_rate": (proposal.units > 0).mean(),
        }
    )


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
    sessions, seeds, walks = (2 * YEAR, range(1), range(1)) if quick else (5 * YEAR, range(3), range(5))
    multipliers = (1.0, 0.0)
    held: dict[str, Any] = {}
    executed: dict[float, list[Executed]] = {multiplier: [] for multiplier in multipliers}
    sizes = []
    for seed in seeds:
        for multiplier in multipliers:

            def planted_market(seed: int = seed, multiplier: float = multiplier) -> dict[str, Any]:
                if multiplier == multipliers[0]:
                    held["sample"] = sample("planted", sessions, seed)
                    held["unseen"] = sample("planted", sessions, UNSEEN + seed, held["sample"].state)
                given, unseen = (at_costs(held[name], multiplier) for name in ("sample", "unseen"))
                held["model"], borne = teach(given, seed)
                asked = proposals(held["model"], unseen.every)
                held["model"].limit_units(borne)
                executed[multiplier].append(execute(asked, proposals(held["model"], unseen.every), unseen))
                row = {"benchmark": "planted", "costs": multiplier, "seed": seed, "sessions": sessions}
                return row | {"borne_units": borne} | planted_figures(executed[multiplier][-1])

            yield planted_market
    for multiplier in multipliers:

        def planted_markets(multiplier: float = multiplier) -> dict[str, Any]:
            found = Executed(*(np.concatenate(parts) for parts in zip(*executed[multiplier], strict=True)))
            return {"benchmark": "planted, all seeds", "costs": multiplier} | planted_figures(found)

        yield planted_markets

    def speeds() -> dict[str, Any]:
        days = round(sessions * read("data", DataParams).train_fraction)
        return {"benchmark": "speed"} | speed(held["model"], held["sample"], days)

    yield speeds
    for seed in walks:

        def random_walk(seed: int = seed) -> dict[str, Any]:
            given = sample("random_walk", YEAR, seed)
            model, borne = teach(given, seed)
            asked = proposals(model, given.every)
            model.limit_units(borne)
            found = {"borne_units": borne} | walk_figures(asked, proposals(model, given.every))
            sizes.append(found)
            return {"benchmark": "random walk", "seed": seed, "sessions": YEAR} | found

        yield random_walk

    def random_walks() -> dict[str, Any]:
        means = {key: float(np.mean([found[key] for found in sizes])) for key in sizes[0]}
        return {"benchmark": "random walk, all seeds"} | performance.rounded(means)

    yield random_walks


if __name__ == "__main__":
    _measure.main(__doc__, rows)
