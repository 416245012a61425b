"""Trade a sequence of events through one account: the same for the policy and for its baselines."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from algospace import market
from algospace.data.contracts import Contract
from algospace.mrms.track import Track, outcome_vector, risk_vector


class Order(NamedTuple):
    """An entry with its bracket."""

    side: int  # +1 or -1
    stop: float  # distance in price
    reward_risk: float
    units: int
    delay: int  # bars to wait beyond the next open
    stop_atr: float  # the stop in 30-minute ATR, as it was proposed
    confidence: float  # of the proposed size


class Simulation(NamedTuple):
    """What came of the orders."""

    trades: pd.DataFrame  # a row per filled order
    equity: pd.DataFrame  # close_utc, equity (marked at each close) from the first row on


# Asked at an event for an order: (number of the event, account, its closed trades, whether a trade is open) -> order
# or None.
Choose = Callable[[int, market.Account, Track, bool], Order | None]


def simulate(
    bars: pd.DataFrame,
    rows: np.ndarray,
    choose: Choose,
    contract: Contract,
    params: market.MarketParams,
    first_row: int = 0,
) -> Simulation:
    """Walk the events at ``rows`` (ascending) in time, one open trade at most.

    ``choose`` sees the account as it is at the event, and the trades that are known to be closed; an order it gives
    while a trade is open is not placed.
    """
    venue = market.Venue.of(bars, contract, params)
    view, costs, session = venue.bars, venue.costs, venue.session
    account = market.Account.new(params.account.equity, (1,))
    current = None
    busy_until, held = first_row, None  # held: P&L of what is open, and whether it was filled
    trades: list[dict[str, Any]] = []
    track, pending = Track.empty(), None  # the record so far; the trade that will be its next
    equity = np.full(len(bars), params.account.equity)
    for k, row in enumerate(rows):
        if held is not None and busy_until <= row:
            account, held = account.settle(*held), None
            if pending is not None:
                track, pending = track.then(pending), None
        if session[row] != current:
            account, current = account.begin_session(torch.tensor([True])), session[row]
        order = choose(k, account, track, held is not None)
        if order is None or held is not None:
            continue
        given = (row, order.side, order.stop, order.reward_risk, order.delay)
        at, side, stop, reward_risk, delay = (np.array([x]) for x in given)
        outcome = market.bracket(view, at, side, stop, reward_risk, delay, costs, params.max_bars)
        entry, end = int(outcome.entry_row[0]), int(outcome.exit_row[0])
        exit_reason = int(outcome.exit[0])
        busy_until = int(market.known_row(view, at, outcome)[0])
        held = torch.zeros(1, dtype=torch.float64), torch.tensor([False])
        if entry < 0:
            continue
        before = float(account.equity[0])
        money = order.units * contract.point_value
        pnl = float(outcome.net_r[0]) * order.stop * money
        marked = order.side * (view.close[entry : end + 1] - outcome.entry_price[0]) * money
        equity[entry : end + 1] = before + marked - costs.commission * order.units
        if exit_reason != market.OPEN:
            equity[end:] = before + pnl
        held = torch.tensor([pnl], dtype=torch.float64), torch.tensor([True])
        pending = Track(
            risk_vector(np.array([order.units]), order.stop_atr, order.reward_risk, order.confidence),
            outcome_vector(outcome.exit, outcome.net_r, outcome.exit_row - outcome.entry_row + 1),
            np.array([pnl]),
            session[outcome.exit_row].astype(np.int64),
        )
        trades.append(
            {
                "event": k, "row": row, "decided_utc": bars["close_utc"].iloc[row],
                "entry_utc": bars["start_utc"].iloc[entry],
                "exit_utc": bars["close_utc"].iloc[end], "side": order.side, "units": order.units,
                "entry": outcome.entry_price[0], "exit": outcome.exit_price[0], "stop_distance": order.stop,
                "stop_atr": order.stop_atr, "reward_risk": order.reward_risk, "delay": order.delay,
                "exit_reason": market.EXITS[exit_reason],
                "bars": end - entry + 1, "net_r": outcome.net_r[0], "pnl": pnl,
                "costs": 2 * costs.commission * order.units, "session_id": session[end],
            }
        )  # fmt: skip
    curve = pd.DataFrame({"close_utc": bars["close_utc"], "session_id": session, "equity": equity})
    return Simulation(pd.DataFrame(trades, columns=TRADE_COLUMNS), curve.iloc[first_row:].reset_index(drop=True))


TRADE_COLUMNS = (
    "event", "row", "decided_utc", "entry_utc", "exit_utc", "side", "units", "entry", "exit", "stop_distance",
    "stop_atr", "reward_risk", "delay", "exit_reason", "bars", "net_r", "pnl", "costs", "session_id",
)  # fmt: skip
