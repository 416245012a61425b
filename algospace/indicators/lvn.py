"""LVN, low volume nodes: prices between busier ones at which little was traded in the last sessions."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from pydantic import Field

from algospace.errors import InputError
from algospace.indicators.arrays import Floats, Ints, SessionStarts, aligned
from algospace.params import Params

MAX_BINS = 4_000_000  # of a window: more are a wrong price, or a wrong tick
MARGIN = 64  # bins kept free around a window, at least


class LVNParams(Params):
    """Bin width in ticks, window in sessions, node threshold as a share of the peak volume.

    ``heiken_ashi`` tells the caller which prices to pass; ``test_band`` is a share of the price.
    """

    bin_ticks: int = Field(ge=1)
    window_sessions: int = Field(ge=1)
    threshold: float = Field(gt=0, le=1)
    heiken_ashi: bool
    test_band: float = Field(gt=0)
    bounce_bars: int = Field(ge=1)


class LVN(NamedTuple):
    """Nodes after each bar, arrays (n,).

    Support is the highest node at or below the raw close, resistance the lowest above it, nearest the one of
    the two that is nearer (``distance_points``, in price units; support when equal). Strength is 0..100.
    Without a node prices, distance and strength are NaN. ``count`` is the number of all nodes.
    """

    nearest_price: Floats
    nearest_strength: Floats
    distance_points: Floats
    support_price: Floats
    support_strength: Floats
    resistance_price: Floats
    resistance_strength: Floats
    count: Ints  # type: ignore[assignment]


def lvn(
    high: Floats,
    low: Floats,
    close: Floats,
    raw_close: Floats,
    volume: Floats,
    session_id: ArrayLike,
    is_synthetic: ArrayLike,
    bin_width: float,
    params: LVNParams,
) -> LVN:
    """Find the low volume nodes around each 30-minute close.

    The volume profile of the window (the last ``window_sessions`` sessions, the current one included, without
    synthetic bars) spreads each bar's volume evenly over ``[low, high]`` on bins ``[k, k+1) * bin_width`` and
    is smoothed by (1, 2, 1) / 4. A node is the middle of a run of equal bins, lower than both neighbours of
    the run and below ``threshold`` times the highest bin. Its strength is
    ``min(10 tests, 30) + min(500 bounce, 25) + min(5 recency, 20) + 15 max(0, 1 - v / mean v)``, over 90 and
    times 100: ``tests`` counts the bars of the window whose high or low lies within ``test_band`` of the
    node, ``recency`` sums their weights (0.5 for the oldest bar of the window to 1 for the newest),
    ``bounce`` is the mean share by which the close has moved ``bounce_bars`` bars after a test, over tests at
    least so old.

    Parameters
    ----------
    high, low, close : array (n,)
        Prices of the profile, Heiken Ashi or traded (``params.heiken_ashi``).
    raw_close, volume : array (n,)
        Traded closes, from which distance and side are taken; volume.
    session_id, is_synthetic : array (n,)
        Trading day, and whether the bar only fills a hole.
    bin_width : float
        ``params.bin_ticks`` times the tick of the contract, price units.

    Raises
    ------
    InputError
        When the arrays differ in length, prices are not finite, ``bin_width`` is not positive, or the window's
        prices span more than `MAX_BINS` bins.

    Notes
    -----
    Causal. Nothing is ever subtracted from the histogram: it is refilled when a session begins, so that a row
    depends on the bars of its window alone. Source: the predecessor's data preparation, without
    the part of its strength that counted touches of the next 48 bars.
    """
    return Stream(bin_width, params).update(high, low, close, raw_close, volume, session_id, is_synthetic)


class Stream:
    """`lvn` of bars that come one after the other; it remembers the bars of one window."""

    def __init__(self, bin_width: float, params: LVNParams) -> None:
        if not (np.isfinite(bin_width) and bin_width > 0):
            raise InputError(f"lvn: bin_width is {bin_width}, expected a positive price difference")
        self.bin_width, self.params = bin_width, params
        self._starts = SessionStarts("lvn")
        self._session = 0  # number of the last bar's session
        self._window = (*(np.empty(0) for _ in range(4)), np.empty(0, np.int64))

    def update(
        self,
        high: Floats,
        low: Floats,
        close: Floats,
        raw_close: Floats,
        volume: Floats,
        session_id: ArrayLike,
        is_synthetic: ArrayLike,
    ) -> LVN:
        """Return the nodes after each of the next bars (n,)."""
        high, low, close, raw_close, volume, synthetic = aligned(
            "lvn", high=high, low=low, close=close, raw_close=raw_close, volume=volume, is_synthetic=is_synthetic
        )
        if not (np.isfinite(high).all() and np.isfinite(low).all()):
            raise InputError("lvn: high and low must be finite, found NaN or infinity")
        session = self._session + np.cumsum(self._starts.update(session_id, high.size))
        real = synthetic == 0.0
        known = self._window[0].size
        window = tuple(
            np.concatenate((old, new[real]))
            for old, new in zip(self._window, (high, low, close, volume, session), strict=True)
        )
        p = self.params
        top, bottom, last, traded, sessions = window
        columns, count, start = _nodes(
            top, bottom, last, traded, sessions, known, raw_close, session, real, self.bin_width, p.window_sessions,
            p.threshold, p.test_band, p.bounce_bars,
        )  # fmt: skip
        if start < 0:
            raise InputError(
                f"indicators.lvn.bin_ticks: expected a window of at most {MAX_BINS} bins of {self.bin_width:g}, found "
                f"prices from {bottom.min():g} to {top.max():g}"
            )
        if session.size:
            self._session = int(session[-1])
        self._window = tuple(column[start:].copy() for column in window)
        return LVN._make([*columns, count])


@njit(cache=True)
def _nodes(  # type: ignore[no-untyped-def]
    high, low, close, volume, real_session, end, raw_close, session, real, width, window_sessions, threshold, band,
    bounce_bars,
):  # fmt: skip
    """Nodes of each row; real bars before ``end`` are known from earlier calls. Start of the window, -1: too wide."""
    n = raw_close.size
    out = np.full((7, n), np.nan)
    count = np.zeros(n, dtype=np.int64)
    histogram = np.zeros(0)
    smooth = np.zeros(0)
    origin = 0  # number of the histogram's first bin
    start = 0  # real bars of the window: start <= i < end
    bottom = np.inf
    top = -np.inf
    filled = False  # does the histogram hold the bars of the window
    for t in range(n):
        if t == 0 or session[t] != session[t - 1]:
            while start < end and real_session[start] <= session[t] - window_sessions:
                start += 1
            filled = False
        if real[t]:
            end += 1
        if start == end:
            continue
        if filled and real[t]:
            bottom = min(bottom, low[end - 1])
            top = max(top, high[end - 1])
            first, last = _bins(bottom / width, top / width)
            if first <= origin or last >= origin + histogram.size - 1:
                filled = False
            else:
                _spread(low[end - 1] / width, high[end - 1] / width, volume[end - 1], origin, histogram)
        if not filled:  # bars in their order, so that the sums are those of adding them one by one
            bottom = low[start:end].min()
            top = high[start:end].max()
            first, last = _bins(bottom / width, top / width)
            if top / width - bottom / width > MAX_BINS:
                return out, count, -1
            margin = (last - first) // 2 + MARGIN
            origin = first - margin
            if last + margin - origin + 1 > histogram.size:
                histogram = np.zeros(last + margin - origin + 1)
                smooth = np.zeros(histogram.size)
            else:
                histogram[:] = 0.0
            for i in range(start, end):
                _spread(low[i] / width, high[i] / width, volume[i], origin, histogram)
            filled = True

        first, last = _bins(bottom / width, top / width)
        peak = 0.0
        total = 0.0
        for b in range(first - origin, last - origin + 1):
            smooth[b] = (histogram[b - 1] + 2.0 * histogram[b] + histogram[b + 1]) / 4.0
            peak = max(peak, smooth[b])
            total += smooth[b]
        mean = total / (last - first + 1)

        support = -np.inf
        resistance = np.inf
        support_volume = 0.0
        resistance_volume = 0.0
        b = first + 1 - origin
        end_bin = last - origin
        while b < end_bin:
            run = b  # last bin of the run of equal volume that starts at b
            if smooth[b] < smooth[b - 1] and smooth[b] < threshold * peak:
                while run < end_bin and smooth[run + 1] == smooth[b]:
                    run += 1
                if run < end_bin and smooth[run + 1] > smooth[b]:
                    price = (origin + (b + run + 1) / 2.0) * width
                    count[t] += 1
                    if price <= raw_close[t]:
                        support = price
                        support_volume = smooth[b]
                    elif resistance == np.inf:
                        resistance = price
                        resistance_volume = smooth[b]
            b = run + 1

        if support > -np.inf:
            out[3, t] = support
            void = max(0.0, 1.0 - support_volume / mean)
            out[4, t] = _strength(support, void, high, low, close, start, end, band, bounce_bars)
        if resistance < np.inf:
            out[5, t] = resistance
            void = max(0.0, 1.0 - resistance_volume / mean)
            out[6, t] = _strength(resistance, void, high, low, close, start, end, band, bounce_bars)
        if count[t] > 0:
            near = 3 if raw_close[t] - support <= resistance - raw_close[t] else 5
            out[0, t] = out[near, t]
            out[1, t] = out[near + 1, t]
            out[2, t] = abs(raw_close[t] - out[near, t])
    return out, count, start


@njit(cache=True)
def _bins(low, high):  # type: ignore[no-untyped-def]
    """First and last bin of a price range given in bins; a top on a border is below it."""
    first = int(np.floor(low))
    return first, max(first, int(np.ceil(high)) - 1)


@njit(cache=True)
def _spread(low, high, volume, origin, histogram):  # type: ignore[no-untyped-def]
    # Prices in bins. Whole bins all receive the very same number, so that valleys stay exactly level.
    first, last = _bins(low, high)
    if first == last:
        histogram[first - origin] += volume
        return
    share = volume / (high - low)
    histogram[first - origin] += share * (first + 1 - low)
    for b in range(first + 1, last):
        histogram[b - origin] += share
    histogram[last - origin] += share * (high - last)


@njit(cache=True)
def _strength(level, void, high, low, close, start, end, band, bounce_bars):  # type: ignore[no-untyped-def]
    tests = 0
    recency = 0.0
    bounces = 0
    bounce = 0.0
    reach = band * level
    for i in range(start, end):
        if abs(low[i] - level) < reach or abs(high[i] - level) < reach:
            tests += 1
            recency += 0.5 + 0.5 * (i - start) / (end - start - 1) if end - start > 1 else 1.0
            if i + bounce_bars < end:
                bounces += 1
                bounce += abs(close[i + bounce_bars] - close[i]) / close[i]
    points = min(10.0 * tests, 30.0) + min(5.0 * recency, 20.0) + 15.0 * void
    if bounces > 0:
        points += min(500.0 * bounce / bounces, 25.0)
    return min(points / 0.9, 100.0)
