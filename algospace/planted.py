"""A synthetic market with a planted edge: what follows a synergy is a bet with known odds.

Between synergies the price is a martingale. After one, its path is drawn so that a bracket entered at the next open
with the signal (stop one 30-minute ATR away, target two) wins with probability p, and the same bracket against the
signal earns nothing on average. In two thirds of the time p is 0.45, in one third 0.20; break-even is 1/3. Which of
the two it is shows in the volatility of the bars, which differs by a factor of 1.6, and changes every 20 days on
average. So the best policy is known, and how much of it a learner finds can be measured.

The outcome is drawn first, then a Brownian path that is conditioned to lead there (Doob's h-transform: to reach b
before a from x, add the drift sigma^2 / (x - a)). With p = 1/3 that is the unconditioned path.
"""

import copy
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace import synthetic
from algospace.data.contracts import Contract
from algospace.data.params import SyntheticParams
from algospace.indicators.params import IndicatorParams
from algospace.signals import SignalStream
from algospace.synergy import Gate1Params
from algospace.synergy import Stream as Gate1Stream

REWARD_RISK = 2.0  # target over stop; the stop is one ATR of the 30-minute bars
HORIZON = 36  # bars that a session must still hold: what comes later in it is not planted
STEPS = synthetic.WALK_STEPS  # price moves inside a bar
STOP_IN_SD = 2.0  # stop distance in standard deviations of a bar of a planted path: over after 8 bars on average


class Regime(NamedTuple):
    """A state of the market: how likely it is, how volatile, and how often a planted bracket wins there."""

    share: float
    volatility: float  # relative
    win: float


REGIMES = (Regime(2 / 3, 1.0, 0.45), Regime(1 / 3, 1.6, 0.20))
MEAN_DAYS = 20.0  # between two draws of the regime

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Market(NamedTuple):
    """Bars of `algospace.data.bars.SCHEMA` and a row per planted event.

    ``events``: ``row`` of the bar at whose close the synergy is known, ``direction``, ``regime`` (0 or 1), ``win``
    (the probability), ``won`` (the draw), ``stop`` (distance, price units).
    """

    bars: pd.DataFrame
    events: pd.DataFrame


def best_r(events: pd.DataFrame) -> float:
    """Mean R per event, before costs, of whoever knows the odds: take where ``(1 + reward_risk) p > 1``."""
    edge = (1.0 + REWARD_RISK) * events["win"].to_numpy() - 1.0
    return float(np.maximum(edge, 0.0).mean())


def market(
    params: SyntheticParams, contract: Contract, seed: int, indicators: IndicatorParams, gate1: Gate1Params
) -> Market:
    """Draw a market whose synergies, under ``indicators`` and ``gate1``, are bets with known odds.

    Every trading day has its own random stream, of (seed, day): a market of fewer days is a prefix of one of more.
    Errors as `algospace.synthetic.market`.
    """
    canvas = synthetic.Canvas(params, contract)
    mean_square = sum(regime.share * regime.volatility**2 for regime in REGIMES)
    signals, gate = SignalStream(indicators, gate1), Gate1Stream(gate1)
    price = canvas.first_ticks
    regime = 0
    prices, volumes, events = [], [], []
    for day, rows in enumerate(canvas.days):
        rng = synthetic.day_stream(seed, day)
        if day == 0 or rng.random() < 1.0 / MEAN_DAYS:
            regime = int(rng.random() >= REGIMES[0].share)
        relative = REGIMES[regime].volatility / np.sqrt(mean_square)
        variance = canvas.variance[rows] * (relative * canvas.day_sd * price) ** 2  # of each bar, in ticks
        if day > 0:
            gap = synthetic.GAP_SHARE * (relative * canvas.day_sd * price) ** 2
            price += int(synthetic.ticks(rng, np.array([gap]))[0])
        path = price + np.cumsum(synthetic.ticks(rng, np.repeat(variance / STEPS, STEPS))).reshape(-1, STEPS)
        volume = canvas.volumes(rows, relative**synthetic.VOLUME_REACTION, rng)
        settled = 0  # bars of the day whose path and signals are final
        free = 0  # bar from which a synergy may be planted: the last path is over
        while settled < len(rows):
            bars = canvas.bars(rows, synthetic.candles(path), volume).iloc[settled:]
            found = _first_synergy(copy.deepcopy((signals, gate)), bars, max(free - settled, 0))
            last = len(rows) if found is None else settled + found[0] + 1
            _advance(signals, gate, bars.iloc[: last - settled])
            if found is not None and len(rows) - last >= HORIZON:
                _, direction, atr = found
                stop = max(round(atr / contract.tick), 1)
                won, lasts = _plant(path, last, direction, stop, REGIMES[regime].win, rng)
                free = last + lasts
                event = (int(rows[0]) + last - 1, direction, regime, REGIMES[regime].win, won, stop * contract.tick)
                events.append(event)
            settled = last
        prices.append(synthetic.candles(path))
        volumes.append(volume)
        price = int(path[-1, -1])
    bars = canvas.bars(np.arange(canvas.variance.size), np.concatenate(prices, axis=1), np.concatenate(volumes))
    return Market(bars, pd.DataFrame(events, columns=["row", "direction", "regime", "win", "won", "stop"]))


def _advance(signals: SignalStream, gate: Gate1Stream, bars: pd.DataFrame) -> tuple[Any, Any]:
    """Let both streams see bars; return what they say of them."""
    seen = signals.update(bars)
    weightless = np.zeros(len(bars))
    session = bars["session_id"].to_numpy()
    return seen, gate.update(seen.mlmi, seen.nwrqk, seen.fvg, weightless, weightless, weightless, session)


def _first_synergy(
    streams: tuple[SignalStream, Gate1Stream], bars: pd.DataFrame, first: int
) -> tuple[int, int, float] | None:
    """Bar, direction and ATR of the first synergy from bar ``first`` on whose ATR is known."""
    seen, gate = _advance(*streams, bars)
    fired = np.flatnonzero((gate.type != 0) & np.isfinite(seen.m30_atr))
    fired = fired[fired >= first]
    return (int(fired[0]), int(gate.direction[fired[0]]), float(seen.m30_atr[fired[0]])) if fired.size else None


def _plant(
    path: IntArray, bar: int, direction: int, stop: int, win: float, rng: np.random.Generator
) -> tuple[bool, int]:
    """Draw an outcome and bend the day's path from ``bar`` on towards it; whether it won, and bars until it is over.

    The path before the outcome is a conditioned one; after it the day goes on as it was drawn, from the new price.
    """
    won = bool(rng.random() < win)
    # A loss that never was a stop ahead leaves the bracket against the signal one stop ahead, which it is in three
    # cases of four. From there it wins with the probability that makes it worth nothing over all.
    against = bool(rng.random() < (1.0 + (4.0 * win / (1.0 - win) + 1.0) / 3.0) / 3.0)
    shocks = rng.standard_normal((len(path) - bar) * STEPS) * stop / (STOP_IN_SD * np.sqrt(STEPS))
    shocks[0] = 0.0  # the next open, at which the bracket is entered, is where the barriers are measured from
    start = int(path[bar - 1, -1])
    moves, taken = _bend(shocks, float(stop), won, against, stop / (STOP_IN_SD * np.sqrt(STEPS)))
    flat = path[bar:].reshape(-1)  # a view: the path is changed in place
    rest = np.diff(flat)[taken - 1 :] if taken > 0 else np.diff(flat)
    # Towards the start, so that a barrier is touched only when the path has reached it.
    flat[:taken] = start + direction * np.trunc(moves[:taken]).astype(np.int64)
    flat[taken:] = flat[taken - 1] + np.cumsum(rest)
    return won, -(-taken // STEPS)


@numba.njit(cache=True)
def _bend(shocks: FloatArray, stop: float, won: bool, against: bool, sd: float) -> tuple[FloatArray, int]:
    """Positions in the signal's direction, from 0, and how many steps the planted path takes."""
    n = shocks.size
    position = np.empty(n)
    x = 0.0
    ahead = False  # has the path been a stop ahead: the bracket against the signal is over
    second = False  # the bracket with the signal has lost, the one against it is still open
    low, high = -stop, REWARD_RISK * stop
    up = won
    for i in range(n):
        room = x - low if up else high - x
        x += shocks[i] + (sd * sd / max(room, sd) if up else -sd * sd / max(room, sd))
        if x <= low and up:  # a discrete step over the wrong barrier: the continuous path would have turned
            x = low + 0.5 * sd
        elif x >= high and not up:
            x = high - 0.5 * sd
        position[i] = x
        ahead = ahead or x >= stop
        if (up and x >= high) or (not up and x <= low):
            if second or won or ahead:
                return position, i + 1
            second = True
            low, high = -REWARD_RISK * stop, stop
            up = not against
    return position, n
