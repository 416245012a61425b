"""The classical indicators of the Tactical agent, in TA-Lib's conventions, as streams.

Each indicator is a class whose ``update`` takes the next bars and returns their values; the function of the
same name feeds a new stream once with everything. Whole, in chunks or bar by bar the values are the same, to
the last bit. Averages are seeded with the simple mean; RSI, ATR and ADX are Wilder's. A recursion carries its
state from chunk to chunk; a window is summed afresh for each bar over the rows that a `Tail` has kept, since a
running sum leaves a residue that a flat market shows as signal.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from algospace.indicators.arrays import Floats, Ints, Tail, aligned, session_starts

NO_MOVE = 1e-14  # share of the price: moves that have decayed so far are none

# Columns of the tactical set in price units.
PRICES = (
    "ema_9", "ema_21", "ema_50", "sma_20", "macd", "macd_signal", "macd_hist", "bb_upper", "bb_middle", "bb_lower",
    "atr_14", "mom_10", "pivot", "r1", "s1",
)  # fmt: skip


class ATR:
    """Stream of Wilder's average true range; see `atr`."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._state = (0, 0.0, 0.0)

    def update(self, high: Floats, low: Floats, close: Floats) -> Floats:
        """Take the next bars, arrays (n,), and return their values (n,)."""
        high, low, close = aligned("atr", high=high, low=low, close=close)
        values: Floats
        values, self._state = _atr(high, low, close, self.length, self._state)
        return values


class RSI:
    """Stream of Wilder's relative strength index; see `rsi`."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._state = (0, 0.0, 0.0, 0.0)

    def update(self, close: Floats) -> Floats:
        """Take the next closes, array (n,), and return their values (n,)."""
        (close,) = aligned("rsi", close=close)
        values: Floats
        values, self._state = _rsi(close, self.length, self._state)
        return values


class VolumeRatio:
    """Stream of the volume against the mean of the bars before; see `volume_ratio`."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._past = Tail(window)

    def update(self, volume: Floats) -> Floats:
        """Take the next volumes, array (n,), and return their ratios (n,)."""
        (volume,) = aligned("volume_ratio", volume=volume)
        (joined,) = self._past.join(volume)
        mean = _lag(_mean(joined, self.window), 1)[self._past.front :]
        ratio = np.where(mean == 0.0, 1.0, np.nan)
        np.divide(volume, mean, out=ratio, where=mean > 0.0)
        return ratio


class Momentum:
    """Stream of the percent change inside a session; see `momentum`."""

    def __init__(self, bars: int) -> None:
        self.bars = bars
        self._past = Tail(bars)

    def update(self, close: Floats, session_id: ArrayLike) -> Floats:
        """Take the next closes and their sessions, arrays (n,), and return the changes (n,)."""
        close, ids = self._past.join(*aligned("momentum", close=close, session_id=session_id))
        session = np.cumsum(session_starts("momentum", ids, close.size), dtype=np.int64)
        change = 100.0 * (close / _lag(close, self.bars) - 1.0)
        change[session != _lag(session, self.bars)] = np.nan
        return change[self._past.front :]


class Tactical:
    """Stream of the tactical set; see `tactical`."""

    def __init__(self, volume_window: int, momentum_bars: int) -> None:
        self._emas = (_EMA(9), _EMA(21), _EMA(50))
        # The fast average of the MACD starts so late that both give their first value at the same bar.
        self._fast, self._slow, self._signal = _EMA(12, delay=26 - 12), _EMA(26), _EMA(9)
        self._rsi = RSI(14)
        self._atr = ATR(14)
        self._adx = (0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._flow = (0, 0.0, 0.0, 0.0)
        self._volume_ratio = VolumeRatio(volume_window)
        self._momentum = Momentum(momentum_bars)
        self._past = Tail(20)  # the longest window: 20 returns are made of 21 closes

    def update(
        self, open: Floats, high: Floats, low: Floats, close: Floats, volume: Floats, session_id: ArrayLike
    ) -> dict[str, Floats]:
        """Take the next bars, arrays (n,), and return the columns of `tactical` for them."""
        open, high, low, close, volume, session = aligned(
            "tactical", open=open, high=high, low=low, close=close, volume=volume, session_id=session_id
        )
        ema_9, ema_21, ema_50 = (average.update(close) for average in self._emas)
        macd = self._fast.update(close) - self._slow.update(close)
        macd_signal = self._signal.update(macd)
        macd[np.isnan(macd_signal)] = np.nan
        adx, self._adx = _adx(high, low, 14, self._adx)
        obv, ad, self._flow = _flow(high, low, close, volume, self._flow)
        pivot = (high + low + close) / 3.0

        o, h, l, c, v = self._past.join(open, high, low, close, volume)
        new = slice(self._past.front, None)
        sma_20, deviation = (x[new] for x in _moments(c, 20))
        bb_upper, bb_lower = sma_20 + 2.0 * deviation, sma_20 - 2.0 * deviation
        band = bb_upper - bb_lower
        stoch_k, stoch_d = (x[new] for x in _stochastic(h, l, c, 14, 3))
        hammer, doji, engulfing = (x[new] for x in _candles(o, h, l, c))
        before_10 = _lag(c, 10)
        returns = c / _lag(c, 1) - 1.0
        return {
            "ema_9": ema_9,
            "ema_21": ema_21,
            "ema_50": ema_50,
            "sma_20": sma_20,
            "macd": macd,
            "macd_signal": macd_signal,
            "macd_hist": macd - macd_signal,
            "rsi_14": self._rsi.update(close),
            "bb_upper": bb_upper,
            "bb_middle": sma_20,
            "bb_lower": bb_lower,
            "bb_width": band / sma_20,
            "bb_percent": np.divide(
                close - bb_lower,
                band,
                out=np.where(np.isnan(band), np.nan, 0.5),
                where=band > 0.0,
            ),
            "stoch_k": stoch_k,
            "stoch_d": stoch_d,
            "atr_14": self._atr.update(high, low, close),
            "adx_14": adx,
            "obv": obv,
            "ad": ad,
            "mom_10": (c - before_10)[new],
            "roc_10": 100.0 * (c / before_10 - 1.0)[new],
            "cdl_hammer": hammer,
            "cdl_doji": doji,
            "cdl_engulfing": engulfing,
            "pivot": pivot,
            "r1": 2.0 * pivot - low,
            "s1": 2.0 * pivot - high,
            "ema_9_ratio": close / ema_9 - 1.0,
            "ema_21_ratio": close / ema_21 - 1.0,
            "sma_20_ratio": close / sma_20 - 1.0,
            "returns": returns[new],
            "volatility_20": _moments(returns, 20)[1][new],
            "volume_sma_20": _mean(v, 20)[new],
            "volume_ratio": self._volume_ratio.update(volume),
            "momentum_5": self._momentum.update(close, session),
        }


def atr(high: Floats, low: Floats, close: Floats, length: int) -> Floats:
    """Compute Wilder's average true range.

    Returns
    -------
    array (n,)
        Price units; NaN for the first ``length`` bars.

    Notes
    -----
    Causal. The true range of a bar is the longest of ``high - low`` and the distances of high and low from the
    close before; ``avg_t = (avg_{t-1} (length - 1) + x_t) / length``, seeded with the mean of the first
    ``length`` ranges, of which the first bar has none (Wilder 1978).
    """
    return ATR(length).update(high, low, close)


def rsi(close: Floats, length: int) -> Floats:
    """Compute Wilder's relative strength index.

    Returns
    -------
    array (n,)
        0..100; 50 where the averages hold neither gain nor loss (TA-Lib says 0, as if the market had only
        fallen). NaN for the first ``length`` bars.

    Notes
    -----
    Causal. ``avg_t = (avg_{t-1} (length - 1) + x_t) / length`` of gains and of losses, seeded with the mean
    of the first ``length`` changes (Wilder 1978).
    """
    return RSI(length).update(close)


def volume_ratio(volume: Floats, window: int) -> Floats:
    """Compare the volume with the mean of the ``window`` bars before it, which it is not part of.

    Returns
    -------
    array (n,)
        NaN for the first ``window`` bars; 1 (neutral) where those before traded nothing.
    """
    return VolumeRatio(window).update(volume)


def momentum(close: Floats, bars: int, session_id: ArrayLike) -> Floats:
    """Measure the percent change over ``bars`` bars of one session; NaN in each session's first ``bars``."""
    return Momentum(bars).update(close, session_id)


def tactical(
    open: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    volume_window: int,
    momentum_bars: int,
    session_id: ArrayLike | None = None,
) -> dict[str, Floats]:
    """Compute the tactical set.

    Parameters
    ----------
    open, high, low, close, volume : array (n,)
        Raw bars: positive prices, volume not negative; sessions are concatenated.
    volume_window, momentum_bars : int
        Past bars in ``volume_ratio``; bars that ``momentum_5`` looks back.
    session_id : array (n,), optional
        Confines ``momentum_5`` to a session; without it all bars are one session.

    Returns
    -------
    dict of array (n,)
        Prices, except: ``macd*`` and ``mom_10`` differences of prices; ``rsi_14``, ``stoch_*``, ``adx_14``
        0..100; ``bb_percent`` 0 at the lower and 1 at the upper band; ``bb_width`` over the middle band;
        ``obv`` and ``ad`` cumulative volumes; ``roc_10`` and ``momentum_5`` percent; ``cdl_*`` -1, 0, +1;
        ``*_ratio`` of averages: close over average minus 1; ``returns`` simple, ``volatility_20`` their
        population standard deviation, neither annualised. NaN in warm-ups, never infinite. On flat prices
        ``rsi_14`` is 50, ``bb_percent`` 0.5, ``stoch_*`` and ``adx_14`` 0; without volume before
        ``volume_ratio`` is 1.

    Raises
    ------
    InputError
        When the arrays differ in length.

    Notes
    -----
    Causal: each row uses its own bar and earlier ones. ``pivot``, ``r1``, ``s1`` are those of the same bar,
    known at its close.

    """
    sessions = np.zeros(np.size(close)) if session_id is None else session_id
    return Tactical(volume_window, momentum_bars).update(open, high, low, close, volume, sessions)


class _EMA:
    def __init__(self, length: int, delay: int = 0) -> None:
        self.length = length
        self._state = (-delay, 0.0)

    def update(self, x: Floats) -> Floats:
        values: Floats
        values, self._state = _ema(x, self.length, self._state)
        return values


def _lag(x: Floats | Ints, bars: int) -> Floats:
    out = np.full(x.size, np.nan)
    out[bars:] = x[: max(x.size - bars, 0)]
    return out


# A recursion takes its state as a tuple, opened by the number of bars seen, and returns the next one.


@njit(cache=True)
def _ema(x, length, state):  # type: ignore[no-untyped-def]
    seen, average = state  # until the seed is complete, the sum of its values
    out = np.full(x.size, np.nan)
    for t in range(x.size):
        if np.isnan(x[t]):  # the signal line waits for the MACD
            continue
        seen += 1
        if seen > length:
            average += (x[t] - average) * (2.0 / (length + 1))
        elif seen > 0:
            average += x[t]
            if seen == length:
                average /= length
        if seen >= length:
            out[t] = average
    return out, (seen, average)


@njit(cache=True)
def _rsi(close, length, state):  # type: ignore[no-untyped-def]
    seen, gain, loss, before = state
    out = np.full(close.size, np.nan)
    for t in range(close.size):
        seen += 1
        change = close[t] - before
        before = close[t]
        if seen == 1:
            continue
        up = max(change, 0.0)
        down = max(-change, 0.0)
        if seen <= length + 1:
            gain += up / length
            loss += down / length
        else:
            gain = (gain * (length - 1) + up) / length
            loss = (loss * (length - 1) + down) / length
        if seen > length:
            out[t] = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
    return out, (seen, gain, loss, before)


@njit(cache=True)
def _atr(high, low, close, length, state):  # type: ignore[no-untyped-def]
    seen, average, before = state
    out = np.full(close.size, np.nan)
    for t in range(close.size):
        seen += 1
        span = max(high[t] - low[t], abs(high[t] - before), abs(low[t] - before))
        before = close[t]
        if seen == 1:
            continue
        if seen <= length + 1:
            average += span
            if seen == length + 1:
                average /= length
        else:
            average = (average * (length - 1) + span) / length
        if seen > length:
            out[t] = average
    return out, (seen, average, before)


@njit(cache=True)
def _adx(high, low, length, state):  # type: ignore[no-untyped-def]
    # The sums of directional moves are seeded over length - 1 bars, the index with the mean over the next length.
    # Wilder divides both sums by that of the true ranges, which cancels. Without any move the index stays.
    seen, plus, minus, index, high_before, low_before = state
    out = np.full(high.size, np.nan)
    for t in range(high.size):
        seen += 1
        up = high[t] - high_before
        down = low_before - low[t]
        high_before, low_before = high[t], low[t]
        if seen == 1:
            continue
        if seen > length:
            plus -= plus / length
            minus -= minus / length
        if up > 0.0 and up > down:
            plus += up
        elif down > 0.0 and down > up:
            minus += down
        if seen <= length:
            continue
        moved = plus + minus > NO_MOVE * high[t]
        directed = 100.0 * abs(plus - minus) / (plus + minus) if moved else 0.0
        if seen <= 2 * length:
            index += directed / length
        elif moved:
            index = (index * (length - 1) + directed) / length
        if seen >= 2 * length:
            out[t] = index
    return out, (seen, plus, minus, index, high_before, low_before)


@njit(cache=True)
def _flow(high, low, close, volume, state):  # type: ignore[no-untyped-def]
    seen, balance, distribution, before = state
    obv = np.empty(close.size)
    ad = np.empty(close.size)
    for t in range(close.size):
        seen += 1
        if seen == 1 or close[t] > before:
            balance += volume[t]
        elif close[t] < before:
            balance -= volume[t]
        span = high[t] - low[t]
        if span > 0.0:
            distribution += ((close[t] - low[t]) - (high[t] - close[t])) / span * volume[t]
        before = close[t]
        obv[t] = balance
        ad[t] = distribution
    return obv, ad, (seen, balance, distribution, before)


@njit(cache=True)
def _mean(x, window):  # type: ignore[no-untyped-def]
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        acc = 0.0
        for i in range(t - window + 1, t + 1):
            acc += x[i]
        out[t] = acc / window
    return out


@njit(cache=True)
def _moments(x, window):  # type: ignore[no-untyped-def]
    # Mean and population deviation, by differences from the newest value: flat prices deviate by exactly 0.
    mean = np.full(x.size, np.nan)
    deviation = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        shift = 0.0
        for i in range(t - window + 1, t):
            shift += x[i] - x[t]
        shift /= window
        acc = shift * shift
        for i in range(t - window + 1, t):
            acc += (x[i] - x[t] - shift) ** 2
        mean[t] = x[t] + shift
        deviation[t] = np.sqrt(acc / window)
    return mean, deviation


@njit(cache=True)
def _stochastic(high, low, close, window, smooth):  # type: ignore[no-untyped-def]
    raw = np.full(close.size, np.nan)
    for t in range(window - 1, close.size):
        top = high[t]
        bottom = low[t]
        for i in range(t - window + 1, t):
            top = max(top, high[i])
            bottom = min(bottom, low[i])
        raw[t] = 100.0 * (close[t] - bottom) / (top - bottom) if top > bottom else 0.0
    k = _mean(raw, smooth)
    d = _mean(k, smooth)
    k[np.isnan(d)] = np.nan
    return k, d


@njit(cache=True)
def _candles(open_, high, low, close):  # type: ignore[no-untyped-def]
    # A short body is below the mean of the 10 before; a very short shadow and the body of a doji are so against a
    # tenth of their mean range; near is a fifth of the mean range of 5. On prices in ticks equality is common and
    # its last bit decides, so each mean is a sum first, divided then, and scaled last, as TA-Lib has it.
    n = close.size
    hammer = np.zeros(n)
    doji = np.zeros(n)
    engulfing = np.zeros(n)
    for t in range(2, n):
        body = abs(close[t] - open_[t])
        bottom = min(open_[t], close[t])
        top = max(open_[t], close[t])

        if t >= 10:
            bodies = 0.0
            ranges = 0.0
            for i in range(t - 10, t):
                bodies += abs(close[i] - open_[i])
                ranges += high[i] - low[i]
            tiny = 0.1 * (ranges / 10.0)
            doji[t] = body <= tiny
        if t >= 11:
            ranges = 0.0
            for i in range(t - 6, t - 1):
                ranges += high[i] - low[i]
            near = 0.2 * (ranges / 5.0)
            long_tail = bottom - low[t] > body and high[t] - top < tiny
            hammer[t] = body < bodies / 10.0 and long_tail and bottom <= low[t - 1] + near

        side = 1.0 if close[t] >= open_[t] else -1.0
        side_before = 1.0 if close[t - 1] >= open_[t - 1] else -1.0
        bottom_before = min(open_[t - 1], close[t - 1])
        top_before = max(open_[t - 1], close[t - 1])
        covers = bottom <= bottom_before and top >= top_before
        if covers and side != side_before and (bottom < bottom_before or top > top_before):
            engulfing[t] = side
    return hammer, doji, engulfing
