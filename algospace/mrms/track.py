"""The track record of one account: its closed trades, and the ten numbers that M-RMS sees of the account."""

from typing import NamedTuple

import numba
import numpy as np
import torch

from algospace import market

ACCOUNT = (
    "balance", "drawdown", "max_drawdown", "win_rate", "profit_factor", "sortino", "trades", "session_trades",
    "win_rate_5", "win_rate_10",
)  # fmt: skip
# The numbers of an account that has not traded.
FRESH = np.array([1.0, 0.0, 0.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.5, 0.5], np.float32)
MIN_TRADES = 5  # below it the whole record's win rate, profit factor and Sortino ratio say nothing


class Track(NamedTuple):
    """Closed trades of one account, oldest first."""

    risk: np.ndarray  # float32 (n, 4): units / 5, stop in ATR / 3, reward-risk / 5, confidence
    outcome: np.ndarray  # float32 (n, 4): hit the stop (0/1), hit the target (0/1), net R, bars held / 100
    pnl: np.ndarray  # float64 (n,): net, USD
    session_id: np.ndarray  # int64 (n,): session in which the trade was closed

    @classmethod
    def empty(cls) -> "Track":
        """Of a fresh account."""
        four = np.empty((0, 4), np.float32)
        return cls(four, four, np.empty(0), np.empty(0, np.int64))

    def then(self, later: "Track") -> "Track":
        """Append the trades of a later record."""
        return Track(*(np.concatenate(parts) for parts in zip(self, later, strict=True)))


def risk_vector(
    units: np.ndarray | int, stop_atr: np.ndarray | float, reward_risk: np.ndarray | float,
    confidence: np.ndarray | float,
) -> np.ndarray:  # fmt: skip
    """Units / 5, stop / 3 ATR, reward-risk / 5, confidence, on a new last axis, float32."""
    parts = np.broadcast_arrays(np.divide(units, 5), np.divide(stop_atr, 3), np.divide(reward_risk, 5), confidence)
    return np.stack(parts, axis=-1).astype(np.float32)


def outcome_vector(exits: np.ndarray, net_r: np.ndarray, bars_held: np.ndarray) -> np.ndarray:
    """Hit the stop, hit the target, net R, bars held / 100, on a new last axis, float32."""
    return np.stack([exits == market.STOP, exits == market.TARGET, net_r, bars_held / 100], -1).astype(np.float32)


def account_state(track: Track, account: market.Account, initial: float, limits: market.LimitParams) -> np.ndarray:
    """Ten numbers of an account, float32 (10,), named by `ACCOUNT`.

    Parameters
    ----------
    track
        The closed trades of the account so far.
    account
        Its state now: tensors of one element.
    initial
        Equity in USD that a fresh account starts with.

    Notes
    -----
    Equity / initial; drawdown and deepest drawdown over the limit; win rate; min(profit factor, 10) / 10; Sortino
    ratio of the net R a trade, clipped to +-3, / 3; trades / 100, at most 1; the session's trades / 20; win rate of
    the last 5 and of the last 10 trades. Where the trades are too few (`MIN_TRADES`, 5, 10) a win rate is 0.5, the
    profit factor counts as 1 and the Sortino ratio as 0. It knows closed trades only.
    """
    whole = np.zeros(1, np.int64), np.full(1, len(track.pnl))
    state: np.ndarray = account_states(track, *whole, account, initial, limits)[0]
    return state


def account_states(
    track: Track,
    first: np.ndarray,
    last: np.ndarray,
    accounts: market.Account,
    initial: float,
    limits: market.LimitParams,
) -> np.ndarray:
    """`account_state` of m accounts, float32 (m, 10): account i has made the trades ``first[i]:last[i]`` of a track.

    ``accounts`` holds tensors (m,): the state of each after those trades (see `accounts_after`). Records of several
    accounts are passed as one track, one after the other.
    """
    equity, peak = accounts.equity.cpu().numpy(), accounts.peak.cpu().numpy()
    states: np.ndarray = _states(
        track.outcome[:, 2].astype(np.float64), track.pnl, np.asarray(first, np.int64), np.asarray(last, np.int64),
        equity, peak, accounts.session_trades.cpu().numpy(), initial, limits.max_drawdown,
    )  # fmt: skip
    return states.astype(np.float32)


def accounts_after(
    track: Track, first: np.ndarray, last: np.ndarray, session: np.ndarray, initial: float
) -> market.Account:
    """Accounts (m,) that start with ``initial`` USD, make the trades ``first[i]:last[i]`` and are in ``session[i]``."""
    first, last, session = (np.asarray(array, np.int64) for array in (first, last, session))
    found = _accounts(track.pnl, track.session_id, first, last, session, float(initial))
    return market.Account(*(torch.from_numpy(array) for array in found))


@numba.njit(cache=True)
def _states(net_r, pnl, first, last, equity, peak, session_trades, initial, max_drawdown):  # type: ignore[no-untyped-def]
    states = np.empty((len(first), 10))
    for i in range(len(first)):
        trades = last[i] - first[i]
        money = equity[i] - pnl[first[i] : last[i]].sum()
        top, deepest = money, 0.0
        won = won_5 = won_10 = 0
        gain = loss = total = square = 0.0
        for t in range(first[i], last[i]):
            money += pnl[t]
            top = max(top, money)
            if top > 0:  # what was withdrawn since may make the past look like none
                deepest = max(deepest, 1 - money / top)
            if pnl[t] > 0:
                gain += pnl[t]
                won += 1
                won_5 += last[i] - t <= 5
                won_10 += last[i] - t <= 10
            loss -= min(pnl[t], 0.0)
            total += net_r[t]
            square += min(net_r[t], 0.0) ** 2
        drawdown = 1 - equity[i] / peak[i]
        few = trades < MIN_TRADES
        factor = 1.0 if few or gain == loss else (10.0 if loss == 0 else min(gain / loss, 10.0))
        ratio = 0.0
        if not few and total != 0:
            # Of n trades: (total / n) / sqrt(square / n).
            ratio = 3.0 * np.sign(total) if square == 0 else total / np.sqrt(square * trades)
        states[i, 0] = equity[i] / initial
        states[i, 1] = drawdown / max_drawdown
        states[i, 2] = max(deepest, drawdown) / max_drawdown
        states[i, 3] = 0.5 if few else won / trades
        states[i, 4] = factor / 10
        states[i, 5] = max(-3.0, min(ratio, 3.0)) / 3
        states[i, 6] = min(trades / 100, 1.0)
        states[i, 7] = session_trades[i] / 20
        states[i, 8] = won_5 / 5 if trades >= 5 else 0.5
        states[i, 9] = won_10 / 10 if trades >= 10 else 0.5
    return states


@numba.njit(cache=True)
def _accounts(pnl, session_id, first, last, session, initial):  # type: ignore[no-untyped-def]
    n = len(first)
    equity, peak, start = np.full(n, initial), np.full(n, initial), np.full(n, initial)
    trades, streak = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for i in range(n):
        for t in range(first[i], last[i]):
            if session_id[t] == session[i]:
                if trades[i] == 0:
                    start[i] = equity[i]
                trades[i] += 1
                streak[i] = streak[i] + 1 if pnl[t] < 0 else 0
            equity[i] += pnl[t]
            peak[i] = max(peak[i], equity[i])
        if trades[i] == 0:
            start[i] = equity[i]
    return equity, peak, start, trades, streak
