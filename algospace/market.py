"""The exchange and the account: fills, costs, brackets, limits. It knows nothing of learning.

Execution rule, the same for training, evaluation and export. A decision falls at the close of a 5-minute bar. The
order fills at the open of a later bar of the same session (the next one, or up to four bars later), one slippage
worse. A bracket hangs on the fill: stop and target at fixed distances from it. Inside a bar the stop counts first; a
stop fills at the worse of stop and open, one slippage worse still; a target fills at its price. What neither ends
after ``max_bars`` bars, or at the end of the session, leaves at that bar's close, one slippage worse. Gap-filled bars
cannot be traded.
"""

from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import torch
from pydantic import Field

from algospace.data.contracts import Contract
from algospace.params import Params

NO_FILL, STOP, TARGET, TIME, SESSION, OPEN = range(6)
EXITS = ("no fill", "stop", "target", "time", "session end", "still open")


class AccountParams(Params):
    """The account that decisions are made for."""

    equity: float = Field(gt=0)


class LimitParams(Params):
    """Limits that no network can override."""

    max_units: int = Field(ge=1)
    max_trade_risk: float = Field(gt=0, le=1)
    max_session_loss: float = Field(gt=0, le=1)
    max_drawdown: float = Field(gt=0, le=1)
    max_losing_streak: int = Field(ge=1)
    max_session_trades: int = Field(ge=1)
    min_reward_risk: float = Field(ge=0)


class MarketParams(Params):
    """The `market` section: costs, account, limits."""

    cost_multiplier: float = Field(ge=0)
    max_bars: int = Field(ge=1)
    account: AccountParams
    limits: LimitParams


class Bars(NamedTuple):
    """What the exchange needs of n 5-minute bars, as arrays of shape (n,)."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    tradable: np.ndarray  # bool: not gap-filled
    session_end: np.ndarray  # int64: row of the session's last bar
    data_ends: np.ndarray  # bool: the session goes on beyond the last row

    @classmethod
    def of(cls, bars: pd.DataFrame) -> "Bars":
        """Take the exchange's view of a bars table (see `algospace.data.bars`)."""
        session = bars["session_id"].to_numpy()
        last = np.flatnonzero(np.append(session[1:] != session[:-1], True))
        session_end = last[np.searchsorted(last, np.arange(len(session)))]
        data_ends = np.zeros(len(session), dtype=bool)
        if len(session) and bars["close_utc"].iloc[-1] < bars["session_close_utc"].iloc[-1]:
            data_ends = session_end == len(session) - 1
        o, h, l, c = (bars[name].to_numpy(np.float64) for name in ("open", "high", "low", "close"))
        return cls(o, h, l, c, ~bars["is_synthetic"].to_numpy(bool), session_end, data_ends)


class Costs(NamedTuple):
    """Costs of one unit: slippage in price per market order, commission in USD per side."""

    slippage: float
    commission: float
    tick: float
    point_value: float

    @classmethod
    def of(cls, contract: Contract, multiplier: float) -> "Costs":
        """Costs of a contract, times a multiplier (the cost ladder)."""
        slippage = contract.slippage_ticks * contract.tick * multiplier
        return cls(slippage, contract.commission * multiplier, contract.tick, contract.point_value)

    def slipped(self, at_target: np.ndarray) -> np.ndarray:
        """Slippage of a trade's two orders, in price: a target is a limit order and has none."""
        distance: np.ndarray = (2 - at_target.astype(np.int64)) * self.slippage
        return distance

    def in_r(self, outcome: "Outcome", stop: np.ndarray) -> np.ndarray:
        """What brackets of these stop distances have paid, in R: two commissions and the slippage; 0 without a fill."""
        paid = (2 * self.commission / self.point_value + self.slipped(outcome.exit == TARGET)) / stop
        return np.where(outcome.entry_row >= 0, paid, 0.0)

    def break_even(self, reward_risk: np.ndarray | float, stop: np.ndarray | float) -> np.ndarray | float:
        """Probability of a winning trade at which a bracket of this stop distance earns nothing net.

        A win ends at the target, a loss at the stop; commissions and the stop's slippage are counted in R.
        """
        commission = 2 * self.commission / (stop * self.point_value)
        loss = 1 + self.slippage / stop + commission
        return loss / (reward_risk - commission + loss)


class Venue(NamedTuple):
    """Bars of one contract and the rules under which they are traded."""

    bars: Bars
    session: np.ndarray  # int64 (n,): session id of each bar
    contract: Contract
    costs: Costs
    params: MarketParams

    @classmethod
    def of(cls, bars: pd.DataFrame, contract: Contract, params: MarketParams) -> "Venue":
        """Take the venue of a bars table."""
        costs = Costs.of(contract, params.cost_multiplier)
        return cls(Bars.of(bars), bars["session_id"].to_numpy(), contract, costs, params)


class Outcome(NamedTuple):
    """Results of brackets: arrays of one shape."""

    net_r: np.ndarray  # net P&L over initial risk (stop distance times point value); 0 without a fill
    entry_row: np.ndarray  # -1 without a fill
    exit_row: np.ndarray  # the decision row itself without a fill
    entry_price: np.ndarray
    exit_price: np.ndarray
    exit: np.ndarray  # one of NO_FILL, STOP, TARGET, TIME, SESSION, OPEN


def stop_distance(atr: np.ndarray, multiple: np.ndarray | float, tick: float) -> np.ndarray:
    """Stop distance in price: a multiple of the ATR, rounded to the tick, at least one tick."""
    distance: np.ndarray = np.maximum(np.round(atr * multiple / tick), 1.0) * tick
    return distance


def target_distance(stop: np.ndarray, reward_risk: np.ndarray, tick: float) -> np.ndarray:
    """Target distance in price: a multiple of the stop's, rounded to the tick."""
    distance: np.ndarray = np.round(stop * reward_risk / tick) * tick
    return distance


def bracket(
    bars: Bars,
    rows: np.ndarray,
    side: np.ndarray,
    stop: np.ndarray,
    reward_risk: np.ndarray,
    delay: np.ndarray,
    costs: Costs,
    max_bars: int,
) -> Outcome:
    """Run one bracket per decision row through the bars that follow it.

    Parameters
    ----------
    rows, side, stop, reward_risk, delay
        Decision row, +1 or -1, stop distance in price, target over stop distance, bars to wait; broadcast together.
    max_bars
        Bars a trade may last.

    Notes
    -----
    This is the outcome, hence it reads the bars after the decision; nothing of it may reach a feature.
    """
    shape = np.broadcast_shapes(*(np.shape(a) for a in (rows, side, stop, reward_risk, delay)))
    flat = [np.broadcast_to(a, shape).ravel() for a in (rows, side, stop, reward_risk, delay)]
    distance = target_distance(flat[2], flat[3], costs.tick)
    results = _bracket(
        *bars, flat[0].astype(np.int64), flat[1].astype(np.float64), flat[2].astype(np.float64), distance,
        flat[4].astype(np.int64), costs.slippage, costs.commission / costs.point_value, max_bars,
    )  # fmt: skip
    return Outcome(*(array.reshape(shape) for array in results))


def known_row(bars: Bars, rows: np.ndarray, outcome: Outcome) -> np.ndarray:
    """Row at whose close the end of each bracket is known; ``rows`` are the decisions' rows.

    What ends a trade or an order without a fill may be the session's end, or the end of the data: neither is known to
    have come before the next session's first bar.
    """
    exits = outcome.exit
    ends: np.ndarray = np.select(
        [exits == OPEN, exits == NO_FILL, exits == SESSION],
        [np.full(exits.shape, len(bars.close)), bars.session_end[rows] + 1, outcome.exit_row + 1],
        outcome.exit_row,
    )
    return ends


@numba.njit(cache=True)
def _bracket(  # type: ignore[no-untyped-def]
    open_, high, low, close, tradable, session_end, data_ends, rows, side, stop, target, delay, slippage, commission,
    max_bars,
):  # fmt: skip
    n = len(rows)
    net_r = np.zeros(n)
    entry_row = np.full(n, -1, np.int64)
    exit_row = rows.copy()
    entry_price = np.full(n, np.nan)
    exit_price = np.full(n, np.nan)
    reason = np.zeros(n, np.int8)
    for i in range(n):
        last = session_end[rows[i]]
        ended, row, price, entry, entered, _, _ = follow(
            open_, high, low, close, tradable, rows[i] + 1, last + 1, side[i], stop[i], target[i], slippage, max_bars,
            delay[i], np.nan, 0,
        )  # fmt: skip
        if ended == NO_FILL:
            ended = OPEN if data_ends[rows[i]] else SESSION
            row, price = last, leaves_at(close[last], side[i], slippage)
        if np.isnan(entry):
            reason[i] = OPEN if ended == OPEN else NO_FILL
            continue
        reason[i] = ended
        entry_row[i] = entered
        exit_row[i] = row
        entry_price[i] = entry
        exit_price[i] = price
        net_r[i] = result(side[i], entry, price, stop[i], commission)
    return net_r, entry_row, exit_row, entry_price, exit_price, reason


@numba.njit(cache=True)
def follow(  # type: ignore[no-untyped-def]
    open_, high, low, close, tradable, first, end, side, stop, target, slippage, max_bars, wait, entry, held
):  # fmt: skip
    """Let bars ``first`` to ``end - 1`` of one session pass an order and its bracket.

    Parameters
    ----------
    open_, high, low, close, tradable
        Arrays of bars.
    side, stop, target, slippage, max_bars
        +1.0 or -1.0, distances in price, bars a trade may last.
    wait, entry, held
        Where it stands: bars it still lets pass before it fills, price it was filled at (NaN: not yet), bars since.

    Returns
    -------
    tuple
        STOP, TARGET or TIME, else NO_FILL: nothing has ended it; row and price of its end; price and row of its
        fill, -1 when it was filled before ``first`` or not at all; ``wait`` and ``held`` after the last bar.
    """
    entered = -1
    for t in range(first, end):
        if np.isnan(entry):
            if wait > 0:
                wait -= 1
                continue
            if not tradable[t]:
                continue
            entry, entered = open_[t] + side * slippage, t
        held += 1
        stop_at = entry - side * stop
        adverse = low[t] if side > 0 else high[t]
        favourable = high[t] if side > 0 else low[t]
        if side * (adverse - stop_at) <= 0:
            price = (min(open_[t], stop_at) if side > 0 else max(open_[t], stop_at)) - side * slippage
            return STOP, t, price, entry, entered, wait, held
        target_at = entry + side * target
        if side * (favourable - target_at) >= 0:
            return TARGET, t, target_at, entry, entered, wait, held
        if held >= max_bars and tradable[t]:
            return TIME, t, leaves_at(close[t], side, slippage), entry, entered, wait, held
    return NO_FILL, -1, np.nan, entry, entered, wait, held


@numba.njit(cache=True)
def leaves_at(close, side, slippage):  # type: ignore[no-untyped-def]
    """Price of a market order at a bar's close that ends a trade."""
    return close - side * slippage


@numba.njit(cache=True)
def result(side, entry, price, stop, commission):  # type: ignore[no-untyped-def]
    """Net result of a trade in R; ``commission`` a side, in price."""
    return (side * (price - entry) - 2.0 * commission) / stop


class Account(NamedTuple):
    """State of accounts at a moment without an open trade: tensors of one shape, money in USD."""

    equity: torch.Tensor
    peak: torch.Tensor  # highest equity so far
    session_start: torch.Tensor  # equity at the session's start
    session_trades: torch.Tensor
    losing_streak: torch.Tensor  # losses in a row within the session

    @classmethod
    def new(cls, equity: float, shape: tuple[int, ...], device: torch.device | str = "cpu") -> "Account":
        """Fresh accounts."""
        money = torch.full(shape, equity, dtype=torch.float64, device=device)
        count = torch.zeros(shape, dtype=torch.int64, device=device)
        return cls(money, money.clone(), money.clone(), count, count.clone())

    def begin_session(self, begins: torch.Tensor) -> "Account":
        """Reset the session's counters where `begins`."""
        none = torch.zeros_like(self.session_trades)
        return self._replace(
            session_start=torch.where(begins, self.equity, self.session_start),
            session_trades=torch.where(begins, none, self.session_trades),
            losing_streak=torch.where(begins, none, self.losing_streak),
        )

    def settle(self, pnl: torch.Tensor, traded: torch.Tensor) -> "Account":
        """Book the net P&L of a closed trade where `traded`."""
        equity = self.equity + torch.where(traded, pnl, torch.zeros_like(pnl))
        streak = torch.where(pnl < 0, self.losing_streak + 1, torch.zeros_like(self.losing_streak))
        return self._replace(
            equity=equity,
            peak=torch.maximum(self.peak, equity),
            session_trades=self.session_trades + traded.to(self.session_trades.dtype),
            losing_streak=torch.where(traded, streak, self.losing_streak),
        )

    def breaches(self, limits: LimitParams) -> dict[str, torch.Tensor]:
        """Which limits forbid an entry now: reason -> bool tensor."""
        return {
            "session loss": self.equity <= self.session_start * (1 - limits.max_session_loss),
            "drawdown": self.ruined(limits),
            "losing streak": self.losing_streak >= limits.max_losing_streak,
            "session trades": self.session_trades >= limits.max_session_trades,
        }

    def ruined(self, limits: LimitParams) -> torch.Tensor:
        """Where the drawdown limit ends the account."""
        return self.equity <= self.peak * (1 - limits.max_drawdown)

    def observe(self, limits: LimitParams, initial: float) -> torch.Tensor:
        """Five numbers of the account's state, float32 (..., 5), each about in [-1, 1]."""
        lost = torch.where(self.session_start > 0, 1 - self.equity / self.session_start, 0.0)  # nothing is left to lose
        return torch.stack(
            [
                self.equity / initial - 1,
                (1 - self.equity / self.peak) / limits.max_drawdown,
                lost / limits.max_session_loss,
                self.session_trades / limits.max_session_trades,
                self.losing_streak / limits.max_losing_streak,
            ],
            dim=-1,
        ).to(torch.float32)


ACCOUNT_FEATURES = 5


def affordable_units(equity: float, stop: float, point_value: float, limits: LimitParams) -> int:
    """Most units whose initial risk stays within the per-trade limit."""
    affordable = int(np.floor(equity * limits.max_trade_risk / (stop * point_value)))
    return max(0, min(limits.max_units, affordable))
