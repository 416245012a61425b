"""Trade a sequence of events through one account: the same for the policy and for its baselines."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from algospace import market
from algospace.data.bars import Columns, columns, from_ms, to_ms
from algospace.data.contracts import Contract
from algospace.mrms.track import Track, outcome_vector, risk_vector
from algospace.policy.account import AccountState, ClosedTrade, WorkingOrder


class Order(NamedTuple):
    """An entry with its bracket."""

    side: int  # +1 or -1
    stop: float  # distance in price
    reward_risk: float
    units: int
    delay: int  # bars to wait beyond the next open
    stop_atr: float  # the stop in 30-minute ATR, as it was proposed
    confidence: float  # of the proposed size


class Trade(NamedTuple):
    """A filled order and its end; moments in ms since 1970 UTC."""

    event: int  # number of the event, -1 for an order that the account began with
    row: int  # of the event's bar among all bars; -1 likewise
    decided_utc: int  # of an order that the account began with the account's own time
    entry_utc: int  # likewise of a trade
    exit_utc: int
    side: int
    units: int
    entry: float
    exit: float
    stop_distance: float
    stop_atr: float
    reward_risk: float
    delay: int
    exit_reason: str
    bars: int
    net_r: float
    pnl: float
    costs: float
    session_id: int


class Simulation(NamedTuple):
    """What came of the orders."""

    trades: pd.DataFrame  # a row per filled order
    equity: pd.DataFrame  # close_utc, equity (marked at each close) from the first row on


class _Working(NamedTuple):
    """An order that waits for its fill, or the trade that it has become."""

    order: Order
    event: int
    row: int
    decided: int
    wait: int
    entry: float = np.nan
    entered: int = 0  # start of the bar of the fill
    held: int = 0


class _Bar(NamedTuple):
    """The last bar that was seen."""

    close: float
    close_utc: int
    session_id: int
    session_close_utc: int


class Simulator:
    """One account and at most one order of it, as the bars come; what it knows is closed.

    What it remembers grows by its closed trades alone.
    """

    def __init__(self, contract: Contract, params: market.MarketParams, start: AccountState | None = None) -> None:
        self.contract, self.params = contract, params
        self.costs = market.Costs.of(contract, params.cost_multiplier)
        self.account = market.Account.new(params.account.equity, (1,))
        self.track = Track.empty()
        self._closed: list[ClosedTrade] = []
        self._working: _Working | None = None
        self._session: int | None = None
        self._last: _Bar | None = None
        if start is not None:
            self._go_on_from(start)

    @property
    def is_open(self) -> bool:
        """Whether an order waits or a trade is open, as far as is known."""
        return self._working is not None

    def update(self, bars: Columns) -> list[Trade]:
        """Let the next bars pass and return the trades that are now known to be closed."""
        session = bars["session_id"]
        if not session.size:
            return []
        closed = []
        if self._working is not None:
            own = session == self._session
            count = session.size if own.all() else int(own.argmin())
            trade = self._follow(bars, count)
            if trade is None and count < session.size:
                self._last = _bar(bars, count - 1) if count else self._last
                trade = self._end_session()
            if trade is not None:
                closed.append(trade)
        if session[-1] != self._session:
            self.account = self.account.begin_session(torch.tensor([True]))
            self._session = int(session[-1])
        self._last = _bar(bars, -1)
        return closed

    def place(self, order: Order, event: int, row: int) -> None:
        """Place an order at the close of the last bar; there is no other. ``event`` and ``row`` are its trade's."""
        assert self._working is None
        assert self._last is not None
        self._working = _Working(order, event, row, self._last.close_utc, order.delay)

    def finish(self) -> Trade | None:
        """The trade that is open when there are no more bars, at the last close.

        It does not count as closed, unless the session is over there.
        """
        working, last = self._working, self._last
        if working is None or np.isnan(working.entry):
            return None
        assert last is not None
        price = market.leaves_at(last.close, working.order.side, self.costs.slippage)
        over = last.close_utc >= last.session_close_utc
        return self._trade(working, market.SESSION if over else market.OPEN, price, last.close_utc)

    def state(self) -> AccountState:
        """Give what a simulation of the bars that follow begins with."""
        account, working = self.account, self._working
        last = self._last
        return AccountState(
            time=None if last is None else _iso(last.close_utc),
            close=None if last is None else last.close,
            session_close=None if last is None else _iso(last.session_close_utc),
            equity=float(account.equity[0]),
            peak=float(account.peak[0]),
            session_id=self._session,
            session_start=float(account.session_start[0]),
            session_trades=int(account.session_trades[0]),
            losing_streak=int(account.losing_streak[0]),
            trades=list(self._closed),
            working=None
            if working is None
            else WorkingOrder(
                direction="long" if working.order.side > 0 else "short",
                units=working.order.units,
                stop_distance=working.order.stop,
                reward_risk=working.order.reward_risk,
                stop_atr=working.order.stop_atr,
                confidence=working.order.confidence,
                wait=working.wait,
                entry=None if np.isnan(working.entry) else float(working.entry),
                held=working.held,
            ),
        )

    def _go_on_from(self, start: AccountState) -> None:
        since = start.equity if start.session_start is None else start.session_start
        numbers = (start.equity, start.peak, since)
        counts = (start.session_trades, start.losing_streak)
        self.account = market.Account(
            *(torch.tensor([x], dtype=torch.float64) for x in numbers), *(torch.tensor([x]) for x in counts)
        )
        self._session = start.session_id
        since = 0 if start.time is None else _ms(start.time)
        if start.close is not None and start.session_close is not None and start.session_id is not None:
            self._last = _Bar(start.close, since, start.session_id, _ms(start.session_close))
        for trade in start.trades:
            self._remember(trade)
        if start.working is not None:
            own = start.working
            order = Order(
                1 if own.direction == "long" else -1, own.stop_distance, own.reward_risk, own.units, own.wait,
                own.stop_atr, own.confidence,
            )  # fmt: skip
            entry = np.nan if own.entry is None else own.entry
            self._working = _Working(order, -1, -1, since, own.wait, entry, since, own.held)

    def _follow(self, bars: Columns, count: int) -> Trade | None:
        """Let the first ``count`` bars, of the order's own session, pass."""
        assert self._working is not None
        working, order = self._working, self._working.order
        target = market.target_distance(np.array(order.stop), np.array(order.reward_risk), self.costs.tick)
        ended, row, price, entry, entered, wait, held = market.follow(
            bars["open"], bars["high"], bars["low"], bars["close"], ~bars["is_synthetic"], 0, count, float(order.side),
            float(order.stop), float(target), self.costs.slippage, self.params.max_bars, working.wait, working.entry,
            working.held,
        )  # fmt: skip
        start = working.entered if entered < 0 else int(bars["start_utc"][entered])
        self._working = working._replace(wait=wait, entry=entry, entered=start, held=held)
        if ended == market.NO_FILL:
            return None
        trade = self._trade(self._working, ended, price, int(bars["close_utc"][row]))
        self._settle(trade, order.confidence)
        return trade

    def _end_session(self) -> Trade | None:
        """End what the last session left: its order is gone, its trade left at its last close."""
        working, last = self._working, self._last
        assert working is not None
        self._working = None
        if np.isnan(working.entry):
            return None
        assert last is not None
        price = market.leaves_at(last.close, working.order.side, self.costs.slippage)
        trade = self._trade(working, market.SESSION, price, last.close_utc)
        self._settle(trade, working.order.confidence)
        return trade

    def _trade(self, working: _Working, ended: int, price: float, exit_utc: int) -> Trade:
        order, costs = working.order, self.costs
        net_r = float(
            market.result(float(order.side), working.entry, price, order.stop, costs.commission / costs.point_value)
        )
        pnl = net_r * order.stop * (order.units * self.contract.point_value)
        session = self._session
        assert session is not None
        return Trade(
            working.event, working.row, working.decided, working.entered, exit_utc, order.side, order.units,
            float(working.entry), float(price), order.stop, order.stop_atr, order.reward_risk, order.delay,
            market.EXITS[ended], working.held, net_r, pnl, 2 * costs.commission * order.units, session,
        )  # fmt: skip

    def _settle(self, trade: Trade, confidence: float) -> None:
        self._working = None
        self.account = self.account.settle(torch.tensor([trade.pnl], dtype=torch.float64), torch.tensor([True]))
        given = {name: getattr(trade, name) for name in ClosedTrade.model_fields if name not in ("confidence", "exit")}
        self._remember(ClosedTrade.model_validate(given | {"confidence": confidence, "exit": trade.exit_reason}))

    def _remember(self, trade: ClosedTrade) -> None:
        self._closed.append(trade)
        exits = np.array([market.EXITS.index(trade.exit)])
        self.track = self.track.then(
            Track(
                risk_vector(np.array([trade.units]), trade.stop_atr, trade.reward_risk, trade.confidence),
                outcome_vector(exits, np.array([trade.net_r]), np.array([trade.bars])),
                np.array([trade.pnl]),
                np.array([trade.session_id]),
            )
        )


def _iso(ms: int) -> str:
    return str(from_ms(np.array([ms]))[0].isoformat())


def _ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1000)


def _bar(bars: Columns, row: int) -> _Bar:
    return _Bar(*(bars[name][row].item() for name in _Bar._fields))


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
    simulator, table = Simulator(contract, params), columns(bars)
    trades: list[Trade] = []
    at = 0
    for k, row in enumerate(rows):
        trades += simulator.update(part(table, at, row + 1))
        at = row + 1
        order = choose(k, simulator.account, simulator.track, simulator.is_open)
        if order is not None and not simulator.is_open:
            simulator.place(order, k, int(row))
    trades += simulator.update(part(table, at, len(bars)))
    return told(trades, simulator.finish(), bars, contract, params, params.account.equity, first_row)


def part(table: Columns, first: int, end: int) -> Columns:
    """Rows ``first`` to ``end - 1`` of a table."""
    return {name: values[first:end] for name, values in table.items()}


def told(
    trades: list[Trade],
    open_trade: Trade | None,
    bars: pd.DataFrame,
    contract: Contract,
    params: market.MarketParams,
    start: float,
    first_row: int = 0,
) -> Simulation:
    """The trades of an account that began with the equity ``start``, and its equity marked at each close.

    A trade that ends at a bar's close counts there, whenever its end was known.
    """
    costs = market.Costs.of(contract, params.cost_multiplier)
    starts, ends, close = to_ms(bars["start_utc"]), to_ms(bars["close_utc"]), bars["close"].to_numpy()
    equity = np.full(len(bars), start)
    before = start
    known = trades if open_trade is None else [*trades, open_trade]
    for trade in known:
        entry, end = (int(np.searchsorted(*pair)) for pair in ((starts, trade.entry_utc), (ends, trade.exit_utc)))
        money = trade.units * contract.point_value
        marked = trade.side * (close[entry : end + 1] - trade.entry) * money
        equity[entry : end + 1] = before + marked - costs.commission * trade.units
        if trade.exit_reason != market.EXITS[market.OPEN]:
            before += trade.pnl
            equity[end:] = before
    table = pd.DataFrame(known, columns=TRADE_COLUMNS)
    for name in ("decided_utc", "entry_utc", "exit_utc"):
        table[name] = from_ms(table[name].to_numpy(np.int64))
    curve = pd.DataFrame(
        {"close_utc": bars["close_utc"], "session_id": bars["session_id"].to_numpy(), "equity": equity}
    )
    return Simulation(table, curve.iloc[first_row:].reset_index(drop=True))


TRADE_COLUMNS = Trade._fields
