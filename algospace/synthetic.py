"""Synthetic bars: a market that is always at hand, on a real exchange calendar.

Two of three markets. ``regimes`` looks like an index future: a hidden Markov chain of market regimes, Student-t
returns, clustered volatility, the day's U-shape in volatility and volume, overnight gaps, and in trends a
drift and a momentum too small to be seen in a single bar. ``random_walk`` has none of that but the day's
shape: its price is a martingale on the tick grid, so whoever finds an edge in it has found a leak.

Every trading day has its own random stream, of (seed, day), and reads only what the day before left: a market
of fewer days is a prefix of a market of more.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data.bars import CLOCK, from_ms
from algospace.data.contracts import Contract
from algospace.data.params import SyntheticParams
from algospace.data.sessions import MINUTE_MS, regular_slots, sessions, slots
from algospace.errors import InputError

MINUTES = 5
DAYS_PER_YEAR = 252
GAP_SHARE = 0.15  # of a day's variance that falls between two sessions
MIN_TICKS = 1000  # a coarser price grid would dominate the returns

# The day's shape, in minutes of the US cash session: quiet outside, busiest at its open.
CASH_OPEN, CASH_CLOSE = 9 * 60 + 30, 16 * 60
NIGHT = 0.30  # standard deviation, in units of the middle of the cash session
OPENING, CLOSING = 1.5, 0.8  # what its open and its close add to that
OPENING_MINUTES, CLOSING_MINUTES = 30.0, 45.0
VOLUME_POWER = 1.5  # volume is more concentrated than volatility
VOLUME_NOISE = 0.35  # standard deviation of log volume around that
VOLUME_REACTION = 0.6  # power of the bar's volatility in its volume

REGIME_STEPS = 60  # price moves inside a bar
WALK_STEPS = 300
TAIL = 5.0  # degrees of freedom of the Student-t returns
CLUSTER_PERSISTENCE, CLUSTER_SD = 0.985, 0.35  # of the log volatility: an AR(1) over bars
MOMENTUM, MOMENTUM_DECAY = 0.05, 0.97  # share of the past moves' running mean that trends carry on


class Regime(NamedTuple):
    """A state of the hidden Markov chain, which moves between days."""

    name: str
    mean_days: float
    volatility: float  # relative
    drift: float  # of a day, in standard deviations of a mean day
    trends: bool  # momentum


REGIMES = (
    Regime("calm", 8.0, 0.65, 0.0, False),
    Regime("trending up", 6.0, 0.90, 0.15, True),
    Regime("trending down", 6.0, 1.05, -0.15, True),
    Regime("turbulent", 3.0, 2.00, 0.0, False),
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Canvas:
    """What every synthetic market has in common: its days and bars, their usual volatility and volume, its tick grid.

    Raises
    ------
    InputError
        The first price is less than 1000 ticks.
    """

    def __init__(self, params: SyntheticParams, contract: Contract) -> None:
        if params.price < MIN_TICKS * contract.tick:
            raise InputError(
                f"data.synthetic.price: expected at least {MIN_TICKS} ticks of {contract.tick:g}, "
                f"found {params.price:g}"
            )
        first = pd.Timestamp(params.start)
        span = pd.Timedelta(days=2 * params.sessions + 30)  # there are over 180 trading days in any year
        table = sessions(contract.calendar, first, first + span).head(params.sessions)
        laid = slots(table, MINUTES)
        regular = _shape(regular_slots(contract.calendar, MINUTES))
        shape = _shape(laid.start_ms)
        self.tick = contract.tick
        self.first_ticks = round(params.price / contract.tick)
        self.day_sd = params.annual_volatility / np.sqrt(DAYS_PER_YEAR)
        self.variance: FloatArray = (1.0 - GAP_SHARE) * shape**2 / (regular**2).sum()  # of each bar, in days
        ends = np.flatnonzero(np.diff(laid.session)) + 1
        self.days = np.split(np.arange(laid.start_ms.size), ends)  # rows of each day
        self._volume = params.daily_volume * shape**VOLUME_POWER / (regular**VOLUME_POWER).sum()
        self._start = laid.start_ms
        self._session_close = table["close_utc"].to_numpy("datetime64[ms]").astype(np.int64)[laid.session]
        self._session_id = table["session_id"].to_numpy()[laid.session]

    def volumes(self, rows: IntArray, activity: FloatArray | float, rng: np.random.Generator) -> FloatArray:
        """Draw the volume of bars that are so busy, 1 being usual."""
        noise = VOLUME_NOISE * rng.standard_normal(rows.size) - VOLUME_NOISE**2 / 2
        drawn: FloatArray = np.maximum(np.rint(self._volume[rows] * activity * np.exp(noise)), 1.0)
        return drawn

    def bars(self, rows: IntArray, prices: IntArray, volume: FloatArray) -> pd.DataFrame:
        """Make bars of their open, high, low and close in ticks (4, n).

        Raises
        ------
        InputError
            A price is 0 or less.
        """
        if prices[2].min() <= 0:
            raise InputError(
                "data.synthetic.annual_volatility: expected a market whose price stays above 0, "
                f"found a path that reached {prices[2].min() * self.tick:g}"
            )
        digits = max(0, 2 - int(np.floor(np.log10(self.tick))))  # 3 * 0.1 is no price, 0.3 is
        opens, highs, lows, closes = np.round(prices * self.tick, digits)
        close = self._session_close[rows]
        return pd.DataFrame(
            {
                "start_utc": from_ms(self._start[rows]),
                "close_utc": from_ms(np.minimum(self._start[rows] + MINUTES * MINUTE_MS, close)),
                "session_id": self._session_id[rows],
                "session_close_utc": from_ms(close),
                "contract_id": np.zeros(rows.size, np.int32),  # one contract, never rolled
                "open": opens,
                "high": highs,
                "low": lows,
                "close": closes,
                "volume": volume,
                "is_synthetic": np.zeros(rows.size, np.bool_),
            }
        )


def candles(path: IntArray) -> IntArray:
    """Open, high, low and close (4, n) of paths (n, steps) inside bars."""
    return np.stack([path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]])


def market(params: SyntheticParams, contract: Contract, seed: int) -> pd.DataFrame:
    """Draw a market, ``regimes`` or ``random_walk`` (`algospace.planted` draws the third).

    Parameters
    ----------
    params
        Section ``data.synthetic``.
    contract
        Gives the tick and the calendar.
    seed
        The one seed; equal arguments give equal bars.

    Returns
    -------
    DataFrame
        5-minute bars of `algospace.data.bars.SCHEMA`: every bar of ``params.sessions`` trading days from
        ``params.start`` on. Prices on the tick grid and above 0, volume at least 1.

    Raises
    ------
    InputError
        The first price is less than 1000 ticks, or the path reached 0.
    """
    canvas = Canvas(params, contract)
    draw = _Regimes(canvas.day_sd) if params.market == "regimes" else _Walk(canvas.day_sd)
    price = canvas.first_ticks
    prices, volumes = [], []
    for day, rows in enumerate(canvas.days):
        rng = day_stream(seed, day)
        path, activity = draw.day(price, canvas.variance[rows], rng, first=day == 0)
        volumes.append(canvas.volumes(rows, activity, rng))
        prices.append(candles(path))
        price = int(path[-1, -1])
    every = np.arange(canvas.variance.size)
    return canvas.bars(every, np.concatenate(prices, axis=1), np.concatenate(volumes))


def day_stream(seed: int, day: int) -> np.random.Generator:
    """Give each trading day a random stream of its own."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, day))))


class _Walk:
    """The price moves by ticks, as many up as down in expectation, at a rate known when the day begins."""

    def __init__(self, day_sd: float):
        self._day_sd = day_sd

    def day(
        self, price: int, variance: FloatArray, rng: np.random.Generator, *, first: bool
    ) -> tuple[IntArray, FloatArray | float]:
        """Draw a day's path (bars, steps) in ticks, and how busy each bar is."""
        day_variance = (self._day_sd * price) ** 2  # in ticks, and arithmetic: the price is the martingale
        if not first:
            price += ticks(rng, np.array([GAP_SHARE * day_variance]))[0]
        steps = ticks(rng, np.repeat(variance * day_variance / WALK_STEPS, WALK_STEPS))
        return price + np.cumsum(steps).reshape(-1, WALK_STEPS), 1.0


def ticks(rng: np.random.Generator, variance: FloatArray) -> IntArray:
    """Draw whole numbers of mean 0 and given variance: the difference of two Poisson counts (Skellam)."""
    return rng.poisson(variance / 2) - rng.poisson(variance / 2)


class _Regimes:
    """A hidden Markov chain over days; inside it a stochastic volatility that goes on from bar to bar."""

    def __init__(self, day_sd: float):
        # The chain leaves a regime for each other one equally often, so it spends time in each as that lasts.
        days = np.array([regime.mean_days for regime in REGIMES])
        share = days / days.sum()
        scale = np.sqrt((share * np.array([regime.volatility for regime in REGIMES]) ** 2).sum())
        self._day_sd = day_sd / scale
        self._drift_sd = day_sd
        self._share = share
        self._regime = -1
        self._log_price = 0.0
        self._cluster = 0.0
        self._trend = 0.0

    def day(
        self, price: int, variance: FloatArray, rng: np.random.Generator, *, first: bool
    ) -> tuple[IntArray, FloatArray | float]:
        """Draw a day's path (bars, steps) in ticks, and how busy each bar is."""
        move, which = rng.random(), rng.random()
        if first:
            self._log_price = float(np.log(price))
            self._regime = int(np.searchsorted(np.cumsum(self._share), which))
        elif move < 1.0 / REGIMES[self._regime].mean_days:
            others = [i for i in range(len(REGIMES)) if i != self._regime]
            self._regime = others[int(which * len(others))]
        regime = REGIMES[self._regime]

        tails = np.sqrt((TAIL - 2.0) / rng.chisquare(TAIL, variance.size + 1))
        shocks = rng.standard_normal(variance.size)
        gap = rng.standard_normal()
        steps = rng.standard_normal((variance.size, REGIME_STEPS)) / np.sqrt(REGIME_STEPS)
        spread = self._day_sd * regime.volatility * np.sqrt(variance)
        drift = regime.drift * self._drift_sd * variance / (1.0 - GAP_SHARE)
        mean, sd, self._cluster, self._trend = _bar_moves(
            spread,
            tails[1:],
            shocks,
            steps.sum(axis=1),
            drift,
            MOMENTUM if regime.trends else 0.0,
            self._cluster,
            self._trend,
        )
        if not first:
            self._log_price += self._day_sd * regime.volatility * np.sqrt(GAP_SHARE) * tails[0] * gap
        moves = (mean[:, None] / REGIME_STEPS + sd[:, None] * steps).ravel()
        log_price = self._log_price + np.cumsum(moves)
        self._log_price = float(log_price[-1])
        relative = sd / (self._day_sd * np.sqrt(variance))
        path = np.rint(np.exp(log_price)).astype(np.int64)
        return path.reshape(-1, REGIME_STEPS), relative**VOLUME_REACTION


@numba.njit(cache=True)
def _bar_moves(
    spread: FloatArray,
    tails: FloatArray,
    shocks: FloatArray,
    noise: FloatArray,
    drift: FloatArray,
    momentum: float,
    cluster: float,
    trend: float,
) -> tuple[FloatArray, FloatArray, float, float]:
    """Give each bar the mean and the standard deviation of its log return, all (n,).

    ``cluster`` is the AR(1) log volatility and ``trend`` the running mean of past moves in their standard
    deviations; both go on from where the day before left them.
    """
    n = spread.size
    mean, sd = np.empty(n), np.empty(n)
    kick = CLUSTER_SD * np.sqrt(1.0 - CLUSTER_PERSISTENCE**2)
    for t in range(n):
        cluster = CLUSTER_PERSISTENCE * cluster + kick * shocks[t]
        usual = spread[t] * np.exp(cluster - CLUSTER_SD**2)  # since E[exp(2 cluster)] = exp(2 CLUSTER_SD^2)
        mean[t] = drift[t] + momentum * trend * usual
        sd[t] = usual * tails[t]
        trend = MOMENTUM_DECAY * trend + (1.0 - MOMENTUM_DECAY) * (mean[t] + sd[t] * noise[t]) / usual
    return mean, sd, cluster, trend


def _shape(start_ms: IntArray) -> FloatArray:
    """Give each bar its usual volatility, 1 in the middle of the US cash session, by New York's clock."""
    clock = from_ms(start_ms).tz_convert(CLOCK)
    minute = clock.hour.to_numpy() * 60 + clock.minute.to_numpy() + MINUTES / 2
    since, until = minute - CASH_OPEN, CASH_CLOSE - minute
    cash = 1.0 + OPENING * np.exp(-np.abs(since) / OPENING_MINUTES) + CLOSING * np.exp(-np.abs(until) / CLOSING_MINUTES)
    return np.asarray(np.where((since > 0) & (until > 0), cash, NIGHT), np.float64)
