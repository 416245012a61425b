"""Bar by bar: the decisions that `algospace.policy.decide.decide` makes of the same bars at once, to the last bit."""

import math
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace.data import bars as bars_module
from algospace.data.bars import M5_MINUTES, Columns
from algospace.data.sessions import MINUTE_MS, covering, locate, slots
from algospace.errors import InputError
from algospace.features.table import chunks
from algospace.policy.account import AccountState
from algospace.policy.decide import Decider, Policy
from algospace.policy.records import Decision

STEP_MS = M5_MINUTES * MINUTE_MS
FARTHEST = 2.0  # times the last close, or a fraction of it, that no price within one contract is believed to be


class Bar(NamedTuple):
    """A traded 5-minute bar, once it has closed."""

    start: datetime  # with its time zone; the bar covers [start, start + 5 minutes)
    open: float
    high: float
    low: float
    close: float
    volume: float
    contract: int = 0  # rolls so far: larger from the first bar of a new contract on


class _Day(NamedTuple):
    """One session of the calendar."""

    session_id: int
    close_ms: int
    slots: np.ndarray  # int64: start of every bar it has room for, ms since 1970 UTC


class Stream:
    """Decisions of one account, a bar at a time.

    Sessions, and the filling of holes inside them, are those of `algospace.data.bars`. A bar that is refused leaves
    the stream as it was; an error in the middle of one ends it, and it refuses whatever comes. What is remembered is
    the longest window and the account's closed trades.

    Parameters
    ----------
    policy
        Loaded from a bundle.
    account
        What the account begins with; a fresh one, from the first bar on, without.
    trade_from
        First close that may be decided on; bars before it only warm the features up.
    """

    def __init__(
        self, policy: Policy, account: AccountState | None = None, trade_from: pd.Timestamp | None = None
    ) -> None:
        first = None if trade_from is None else int(trade_from.timestamp() * 1000)
        self._decider = Decider(policy, account, first)
        self._contract = policy.settings.contract
        self._day: _Day | None = None
        self._last: Bar | None = None
        self._last_ms = 0
        self._within: int | None = None  # the bar that is passing

    @property
    def account(self) -> AccountState:
        """The account after the last bar: what another stream over the bars that follow can begin with."""
        return self._decider.simulator.state()

    def feed(self, bars: pd.DataFrame) -> list[Decision]:
        """Let a table of bars (see `algospace.data.bars`) pass at once, and return the decisions in it.

        It is a history to begin with, or the bars since the last one; sessions are whole but for its first and last. A
        hole between it and the last bar is filled.

        Raises
        ------
        InputError
            For bars that do not rise in time, that do not come after the last one, or whose contract is an earlier one
            or changes inside the last bar's session. The stream is as it was.
        """
        self._require_whole()
        if not len(bars):
            return []
        starts, contracts = bars_module.to_ms(bars["start_utc"]), bars["contract_id"].to_numpy()
        first = int(starts[0])
        if self._last is not None and first <= self._last_ms:
            raise InputError(f"bar {_iso(first)}: expected bars after {_iso(self._last_ms)}")
        if (np.diff(starts) <= 0).any():
            at = int((np.diff(starts) <= 0).argmax())
            raise InputError(f"bar {_iso(starts[at + 1])}: expected a bar after {_iso(starts[at])}")
        day = self._find_day(first)
        self._check_contract(first, int(contracts[0]), day)
        found = self._fill(day, first)
        for chunk in chunks(bars):
            found += self._pass(bars_module.columns(chunk))
        last = bars.iloc[-1]
        self._last_ms = int(starts[-1])
        o, h, l, c, v = (float(last[name]) for name in bars_module.VALUES)
        self._last = Bar(last["start_utc"], o, h, l, c, v, int(last["contract_id"]))
        self._day = self._find_day(self._last_ms)
        return found

    def update(self, bar: Bar) -> Decision | None:
        """Let one bar pass and return the decision at its close, None when no Gate-1 event falls on it.

        Raises
        ------
        InputError
            For a bar that cannot be: not after the last one, not on the five-minute grid of a session, prices that are
            not finite and positive or do not lie between low and high, a negative volume, a contract that changes
            inside a session. The stream is as it was.
        """
        self._require_whole()
        start = self._check(bar)
        day = self._day
        if day is None or start >= day.close_ms:
            day = self._find_day(start)
        slot = int(np.searchsorted(day.slots, start))
        if slot == day.slots.size or day.slots[slot] != start:
            raise InputError(f"bar {_iso(start)}: expected a bar inside a session of {self._contract.calendar}")
        self._check_contract(start, bar.contract, day)
        found = self._fill(day, start) + self._pass(self._columns(np.array([start]), day, bar))
        self._day, self._last, self._last_ms = day, bar, start
        return found[0] if found else None

    def _require_whole(self) -> None:
        if self._within is not None:
            raise InputError(
                f"stream: expected one that goes on, found one that an error has ended inside the bar "
                f"{_iso(self._within)}; begin another, from the account before"
            )

    def _pass(self, bars: Columns) -> list[Decision]:
        """Let bars that were checked pass; whatever stops it leaves the stream between two bars, so it is the end."""
        self._within = int(bars["start_utc"][0])
        found = self._decider.update(bars).decisions
        self._within = None
        return found

    def _fill(self, day: _Day, start: int) -> list[Decision]:
        """Let bars at the last close pass in the place of those that are missing in this session before ``start``."""
        if self._last is None or self._day is None or day.session_id != self._day.session_id:
            return []
        first, end = np.searchsorted(day.slots, [self._last_ms + 1, start])
        if first == end:
            return []
        price = self._last.close
        still = self._last._replace(open=price, high=price, low=price, volume=0.0)
        return self._pass(self._columns(day.slots[first:end], day, still, is_synthetic=True))

    def _check_contract(self, start: int, contract: int, day: _Day) -> None:
        """Refuse a contract that goes back, or changes inside a session."""
        if self._last is None:
            return
        if contract < self._last.contract:
            raise InputError(
                f"bar {_iso(start)}: contract: expected {self._last.contract} or a later one, found {contract}"
            )
        if self._day is not None and day.session_id == self._day.session_id and contract != self._last.contract:
            raise InputError(
                f"bar {_iso(start)}: contract: expected that of its session, {self._last.contract}, found {contract}"
            )

    def _check(self, bar: Bar) -> int:
        """The bar's start in ms, of a bar that can be."""
        if not isinstance(bar.start, datetime) or bar.start.tzinfo is None:
            raise InputError(f"bar {bar.start!r}: expected a start with a time zone")
        seconds = bar.start.timestamp()
        start = round(seconds * 1000)
        if seconds % (STEP_MS // 1000):
            raise InputError(f"bar {bar.start}: expected a start on a mark of {M5_MINUTES} minutes")
        if self._last is not None and start <= self._last_ms:
            raise InputError(f"bar {_iso(start)}: expected a bar after {_iso(self._last_ms)}")
        prices = (bar.open, bar.high, bar.low, bar.close)
        for name, value in zip(bars_module.VALUES, (*prices, bar.volume), strict=True):
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "volume"):
                raise InputError(f"bar {_iso(start)}: {name}: expected a finite, positive number, found {value!r}")
        if bar.high < max(prices) or bar.low > min(prices):
            raise InputError(
                f"bar {_iso(start)}: expected low <= open, close <= high, found open {bar.open:g}, high {bar.high:g}, "
                f"low {bar.low:g}, close {bar.close:g}"
            )
        last = self._last
        if (
            last is not None
            and bar.contract == last.contract
            and not (last.close / FARTHEST < bar.low and bar.high < last.close * FARTHEST)
        ):
            raise InputError(
                f"bar {_iso(start)}: expected prices within a factor of {FARTHEST:g} of the last close {last.close:g}, "
                f"found low {bar.low:g}, high {bar.high:g}; a new contract has a larger number, and what is true "
                "nevertheless passes by feed()"
            )
        return start

    def _find_day(self, start: int) -> _Day:
        """The session that a bar starts in."""
        calendar = self._contract.calendar
        table = covering(calendar, start, start)
        row = int(locate(table, np.array([start]), M5_MINUTES)[0])
        if row < 0:
            raise InputError(f"bar {_iso(start)}: expected a bar inside a session of {calendar}")
        one = table.iloc[[row]].reset_index(drop=True)
        close = int(bars_module.to_ms(one["close_utc"])[0])
        return _Day(int(one["session_id"].iloc[0]), close, slots(one, M5_MINUTES).start_ms)

    def _columns(self, starts: np.ndarray, day: _Day, bar: Bar, is_synthetic: bool = False) -> Columns:
        """Bars of one session that begin at ``starts`` and are all alike."""
        n = starts.size
        return {
            "start_utc": starts,
            "close_utc": np.minimum(starts + STEP_MS, day.close_ms),
            "session_id": np.full(n, day.session_id, np.int32),
            "session_close_utc": np.full(n, day.close_ms, np.int64),
            "contract_id": np.full(n, bar.contract, np.int32),
            **{name: np.full(n, float(getattr(bar, name))) for name in bars_module.VALUES},
            "is_synthetic": np.full(n, is_synthetic),
        }


def _iso(ms: int) -> str:
    return str(pd.Timestamp(ms, unit="ms", tz="UTC").isoformat())
