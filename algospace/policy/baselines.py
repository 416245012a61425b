"""What a policy's trades are held against, on the same bars and at the same costs: rules that learn nothing, chance."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace import market
from algospace.mrms.track import Track
from algospace.policy.params import ExportParams
from algospace.policy.simulation import TRADE_COLUMNS, Order, Simulation, simulate
from algospace.settings import Settings

HOLD, EVERY_SYNERGY = "buy and hold", "every synergy, fixed risk"


def baselines(m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int) -> dict[str, Simulation]:
    """Never trading; holding one position from the second bar to the last; every synergy with fixed risk."""
    return {
        "flat": _untraded(m5, np.full(len(m5), settings.market.account.equity), first_row),
        HOLD: buy_and_hold(m5, settings, params, first_row),
        EVERY_SYNERGY: every_synergy(m5, settings, params, first_row),
    }


def _untraded(m5: pd.DataFrame, equity: np.ndarray, first_row: int) -> Simulation:
    """An equity curve without brackets: it has no R and no trade that could be counted."""
    curve = m5[["close_utc", "session_id"]].assign(equity=equity)
    return Simulation(pd.DataFrame(columns=list(TRADE_COLUMNS)), curve.iloc[first_row:].reset_index(drop=True))


def buy_and_hold(m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int) -> Simulation:
    """Bought at the open after the first bar, as early as any policy, and sold at the last close, without a stop.

    ``params.baseline_units`` units are held; none where there is but one bar.

    At a roll the old contract's last close is exchanged for the new one's first open: the gap between them is nobody's
    profit, and nothing is charged for it.
    """
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    close, money = m5["close"].to_numpy(), settings.contract.point_value * params.baseline_units
    held, bought = np.zeros(len(m5)), first_row + 1
    if bought < len(m5):
        open, contract = m5["open"].to_numpy(), m5["contract_id"].to_numpy()
        rolled = np.append(False, contract[1:] != contract[:-1])
        rolled[: bought + 1] = False
        gaps = np.cumsum(np.where(rolled, open - np.append(close[:1], close[:-1]), 0.0))
        entry = open[bought] + costs.slippage
        held[bought:] = (close - entry - gaps)[bought:] * money - costs.commission * params.baseline_units
        held[-1] -= costs.slippage * money + costs.commission * params.baseline_units
    return _untraded(m5, settings.market.account.equity + held, first_row)


def every_synergy(m5: pd.DataFrame, settings: Settings, params: ExportParams, first_row: int) -> Simulation:
    """Every synergy with fixed units, stop and target, under the account's own limits: the gates without learning."""
    events = np.flatnonzero(m5["gate1_type"].to_numpy() != 0)
    events = events[events >= first_row]
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    directions = m5["gate1_direction"].to_numpy()[events]
    stops = market.stop_distance(m5["m30_atr"].to_numpy()[events], params.baseline_stop_atr, costs.tick)

    def choose(k: int, account: market.Account, track: Track, is_open: bool) -> Order | None:
        if any(bool(hit) for hit in account.breaches(settings.market.limits).values()) or np.isnan(stops[k]):
            return None
        return Order(
            int(directions[k]), float(stops[k]), params.baseline_reward_risk, params.baseline_units, 0,
            params.baseline_stop_atr, 1.0,
        )  # fmt: skip

    return simulate(m5, events, choose, settings.contract, settings.market, first_row)


class Chance(NamedTuple):
    """Trades beside as many by chance."""

    mean_r: float  # of the random traders, the mean
    percentile: float  # of the real one among them, 0 to 100
    p_value: float  # share of traders, the real one counted, that earn as much or more


def random_traders(
    trades: pd.DataFrame, m5: pd.DataFrame, settings: Settings, first_row: int, draws: int, seed: int
) -> Chance:
    """Draw traders with as many trades, on the same sides, held as long, at moments of chance.

    A trade of theirs enters at the next open after a bar drawn from all those that leave it the time to be held within
    the session, and exits at the close of its last bar, both with slippage and commission. Its R is the real trade's
    stop, in ATR, at its own moment. Sides are dealt anew to the trades, which keeps their mix.
    """
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    bars = market.Bars.of(m5)
    atr = m5["m30_atr"].to_numpy()
    rows = np.arange(len(m5))
    usable = (rows >= first_row) & ~np.isnan(atr) & np.append(bars.tradable[1:], False)
    rng = np.random.default_rng(seed)
    side = rng.permuted(np.tile(trades["side"].to_numpy(np.float64), (draws, 1)), axis=1)
    total = np.zeros(draws)
    stops = trades["stop_distance"].to_numpy() / atr[trades["row"].to_numpy()]  # as proposed, or moved behind a level
    for k, (held, stop_atr) in enumerate(zip(trades["bars"], stops, strict=True)):
        pool = np.flatnonzero(usable & (rows + held <= bars.session_end))
        at = pool[rng.integers(0, len(pool), draws)]
        move = side[:, k] * (bars.close[at + held] - bars.open[at + 1]) - 2 * costs.slippage
        stop = market.stop_distance(atr[at], stop_atr, costs.tick)
        total += (move - 2 * costs.commission / costs.point_value) / stop
    means = total / len(trades)
    real = float(trades["net_r"].mean())
    as_good = int((means >= real).sum())
    return Chance(float(means.mean()), 100 * float((means < real).mean()), (1 + as_good) / (1 + draws))


def cost_ladder(
    trades: pd.DataFrame, m5: pd.DataFrame, settings: Settings, multipliers: tuple[float, ...]
) -> dict[str, float]:
    """Mean R of the same orders at other costs: multiplier -> R. What was ordered does not change with the costs."""
    bars = market.Bars.of(m5)
    found = {}
    for multiplier in multipliers:
        costs = market.Costs.of(settings.contract, multiplier)
        columns = ("row", "side", "stop_distance", "reward_risk", "delay")
        at, side, stop, reward_risk, delay = (trades[name].to_numpy() for name in columns)
        outcome = market.bracket(bars, at, side, stop, reward_risk, delay, costs, settings.market.max_bars)
        found[f"{multiplier:g}"] = float(outcome.net_r.mean())
    return found
