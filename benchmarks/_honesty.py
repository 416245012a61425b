"""What the honesty benchmark judges: the entries of a finished pipeline on its test bars, and what many paths say.

A path is one synthetic market with the pipeline that was run on it. Two levels of it are judged: the deployed rule
(the bundle's: consensus, Gate 2, size of M-RMS), and the consensus of its team on every synergy, before Gate 2.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from algospace import market, performance, planted

YEAR = 252  # trading days
LEAST_TRADES = 30  # a path with fewer has abstained
DEFLATED = 0.95  # probability above which a net Sharpe ratio passes for real,
DEFLATED_SHARE = 3 / 20  # which it may on so many paths where there is no edge
GOAL, NO_LEARNING = 0.90, 0.50  # share of the planted edge: wanted, and what the gates alone must stay below
RANDOM_ENTRIES = 200  # for each entry
NEVER = 1e7  # price distance of a stop that no path reaches
CENT = 0.01  # "to rounding"


class Entries(NamedTuple):
    """Brackets that were entered: arrays (n,), as `algospace.market.bracket` takes them."""

    row: np.ndarray
    side: np.ndarray
    stop: np.ndarray
    reward_risk: np.ndarray
    delay: np.ndarray

    def run(self, venue: market.Venue, multiplier: float) -> market.Outcome:
        """Run them at a multiple of the costs."""
        costs = market.Costs.of(venue.contract, multiplier)
        return market.bracket(venue.bars, *self, costs, venue.params.max_bars)

    def timed(self) -> "Entries":
        """The same sides, rows and delays, with nothing but the clock to end them."""
        return self._replace(stop=np.full(len(self.row), NEVER), reward_risk=np.ones(len(self.row)))


def by_session(venue: market.Venue, first_row: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of the values at some rows in each session from ``first_row`` on."""
    sessions = np.unique(venue.session[first_row:])
    return np.bincount(np.searchsorted(sessions, venue.session[rows]), values, len(sessions))


def timed_sharpe(venue: market.Venue, first_row: int, entries: Entries) -> float:
    """Annual gross Sharpe ratio of next-open fills and time exits, one unit, in price points a session.

    Where the price is a martingale nobody who knows the past alone expects anything from it.
    """
    found = entries.timed().run(venue, 0.0)
    filled = found.entry_row >= 0
    points = (entries.side * (found.exit_price - found.entry_price))[filled]
    return performance.sharpe(by_session(venue, first_row, found.exit_row[filled], points), YEAR)


def against_random(venue: market.Venue, first_row: int, entries: Entries, seed: int) -> tuple[float, float]:
    """Mean gross R of some brackets, and of the same ones entered at random.

    That is on any day and either side, but at the same time of day: volatility depends on it, hence what a bracket
    earns or loses falsely inside its bars. The sides are drawn anew, since a side that follows from one day's past
    would be hindsight on an earlier day. Shortened sessions lack times of day, so that they are left out.
    """
    _, starts, lengths = np.unique(venue.session[first_row:], return_index=True, return_counts=True)
    days = first_row + starts[lengths == lengths.max()]
    begins = np.flatnonzero(np.append(True, venue.session[1:] != venue.session[:-1]))
    slot = entries.row - begins[np.searchsorted(begins, entries.row, side="right") - 1]
    rng, shape = np.random.default_rng(seed), (RANDOM_ENTRIES, len(slot))
    at_random = entries._replace(row=rng.choice(days, shape) + slot, side=rng.choice([-1.0, 1.0], shape))
    found = (given.run(venue, 0.0) for given in (entries, at_random))
    own, random = (float(outcome.net_r[outcome.entry_row >= 0].mean()) for outcome in found)
    return own, random


def accounts(venue: market.Venue, entries: Entries, units: np.ndarray, equity: np.ndarray) -> dict[str, float]:
    """Net result of an account beside gross result minus costs, both of these from the bars and the contract alone.

    Gross is what the same entries and exits earn at prices without slippage; costs are two commissions a unit, and a
    slippage for each order that is no target. ``units`` (n,) of each entry, ``equity`` the account's curve.
    """
    contract, bars = venue.contract, venue.bars
    found = entries.run(venue, venue.params.cost_multiplier)
    slip = contract.slippage_ticks * contract.tick * venue.params.cost_multiplier
    at_open = bars.open[found.entry_row]
    hit, clock = found.exit == market.TARGET, np.isin(found.exit, (market.TIME, market.SESSION))
    distance = np.round(entries.stop * entries.reward_risk / contract.tick) * contract.tick
    stop_at = at_open + entries.side * (slip - entries.stop)
    at_stop = entries.side * np.minimum(entries.side * bars.open[found.exit_row], entries.side * stop_at)
    leaves = np.select([hit, clock], [at_open + entries.side * (slip + distance), bars.close[found.exit_row]], at_stop)
    money = units * contract.point_value
    gross = float((entries.side * (leaves - at_open) * money).sum())
    commissions = 2 * contract.commission * venue.params.cost_multiplier * units.sum()
    costs = float(commissions + (slip * (2 - hit) * money).sum())
    net = float(equity[-1] - equity[0])
    return {"net_usd": net, "gross_usd": gross, "costs_usd": costs, "gap_usd": net - (gross - costs)}


def capture(taken: np.ndarray, win: np.ndarray) -> dict[str, float]:
    """How much of a planted edge is found by whoever takes these events, bool (n,), of known odds ``win`` (n,).

    All J are mean R an event before costs, paired on the same events: J_null takes a random half of them (its
    expectation), J* those that are worth it.
    """
    edge = (1.0 + planted.REWARD_RISK) * win - 1.0
    j, null, best = float((taken * edge).mean()), 0.5 * float(edge.mean()), float(np.maximum(edge, 0.0).mean())
    return {"j": j, "j_null": null, "j_star": best, "share": (j - null) / (best - null)}


def on_events(events: pd.DataFrame, row: np.ndarray, side: np.ndarray, net_r: np.ndarray) -> dict[str, float]:
    """`capture` of the planted events that were entered with the signal, and the mean net R an event of all entries.

    ``row`` (n,) of the bars at whose close an entry was decided, its ``side`` and what it came to.
    """
    found = pd.DataFrame({"side": side, "net_r": net_r}, index=row).reindex(events["row"])
    taken = (found["side"] == events["direction"].to_numpy()).to_numpy()
    realised = {"events": len(events), "taken": int(taken.sum()), "realised_r": float(found["net_r"].fillna(0).mean())}
    return realised | capture(taken, events["win"].to_numpy())


def bound(paths: int, years: float) -> float:
    """What the mean annual gross Sharpe ratio of so many paths, each so long, stays within in 95 of 100 cases."""
    return 1.96 / math.sqrt(paths * years)


def mean_interval(values: np.ndarray) -> dict[str, Any]:
    """Mean over paths, its standard error and the 95 % interval of Student's t; of one path the mean alone."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"mean": mean, "se": None, "low": None, "high": None}
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1)) * error
    return {"mean": mean, "se": error, "low": mean - half, "high": mean + half}


def abstained(level: dict[str, Any]) -> bool:
    """Whether a level of a path has too few trades to say anything."""
    return bool(level["trades"] < LEAST_TRADES)


def null_verdict(walks: list[dict[str, Any]], bets: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether one level finds nothing where there is nothing, judged on the paths that traded.

    ``walks`` are the level's figures on the random walks, ``bets`` on the planted paths. Never trading is no pass:
    every planted path must trade with the same params.
    """
    traded = [level for level in walks if not abstained(level)]
    idle = sum(abstained(level) for level in bets)
    found: dict[str, Any] = {"paths": len(walks), "abstained": len(walks) - len(traded), "planted_abstained": idle}
    why = [f"{idle} of {len(bets)} planted paths abstained"] if idle else []
    why += [] if bets else ["no planted path was run"]
    gap = max(abs(level.get("gap_usd", 0.0)) for level in walks + bets)
    why += [f"net is not gross minus costs, by {gap:.2f} USD"] if gap > CENT else []
    if traded:
        years = float(np.mean([level["years"] for level in traded]))
        sharpe = float(np.mean([level["gross_sharpe"] for level in traded]))
        allowed = bound(len(traded), years)
        paired = mean_interval(np.array([level["bracket_r"] - level["random_r"] for level in traded]))
        lucky = sum((level["deflated"] or 0.0) > DEFLATED for level in traded)
        found |= {
            "years": years, "gross_sharpe": sharpe, "gross_sharpe_bound": allowed,
            "paired_r": paired["mean"], "paired_r_se": paired["se"],
            "deflated_over_95": lucky, "deflated_allowed": math.floor(DEFLATED_SHARE * len(walks)),
        }  # fmt: skip
        why += [f"gross Sharpe {sharpe:.2f} beyond {allowed:.2f}"] if abs(sharpe) > allowed else []
        if paired["se"] is not None and not paired["low"] <= 0.0 <= paired["high"]:
            why += [f"brackets earn {paired['mean']:.3f} R more than at random entries"]
        why += [f"{lucky} paths with a deflated Sharpe over {DEFLATED}"] if lucky > found["deflated_allowed"] else []
    passed = not why
    if passed:
        why = ["nothing found where there is nothing" if traded else "every random walk abstained, planted did not"]
    return found | {"gap_usd": gap, "verdict": "pass" if passed else "no pass", "why": "; ".join(why)}


def planted_verdict(bets: list[dict[str, Any]], gates: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether one level finds a planted edge, beside every synergy with fixed risk (``gates``), which must not.

    That rule captures 0.27 where the regimes come as often as they should; on few or short paths chance may deal mostly
    the regime that has the edge, and then nothing is shown.
    """
    shares = mean_interval(np.array([level["share"] for level in bets]))
    rule = mean_interval(np.array([level["share"] for level in gates]))
    idle = sum(abstained(level) for level in bets)
    why = [f"share {shares['mean']:.2f} below {GOAL}"] if shares["mean"] < GOAL else []
    why += [f"{idle} of {len(bets)} paths abstained"] if idle else []
    why += (
        [f"every synergy captures {rule['mean']:.2f}: too few regimes were drawn"]
        if rule["mean"] >= NO_LEARNING
        else []
    )
    means = {key: float(np.mean([level[key] for level in bets])) for key in ("j", "j_null", "j_star", "realised_r")}
    return {"paths": len(bets), "abstained": idle, "share": shares["mean"], "share_low": shares["low"],
            "share_high": shares["high"], "every_synergy_share": rule["mean"]} | means | {
        "verdict": "no pass" if why else "pass", "why": "; ".join(why) or "the planted edge is found",
    }  # fmt: skip
