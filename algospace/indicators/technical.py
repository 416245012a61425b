"""The classical indicators of the Tactical agent, by TA-Lib where it is well defined, in its conventions.

Every TA-Lib function used here walks forward from the first bar, so that the values of a prefix are those of
the whole, bit for bit (tested). Averages are seeded with the simple mean; RSI, ATR and ADX are Wilder's.
"""

import numpy as np
import talib
from numba import njit
from numpy.typing import ArrayLike

from algospace.indicators.arrays import Floats, aligned, session_starts


def atr(high: Floats, low: Floats, close: Floats, length: int) -> Floats:
    """Compute Wilder's average true range, shape (n,), price units; NaN for the first ``length`` bars."""
    high, low, close = aligned("atr", high=high, low=low, close=close)
    return talib.ATR(high, low, close, timeperiod=length)


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
    (close,) = aligned("rsi", close=close)
    values: Floats = _rsi(close, length)
    return values


def volume_ratio(volume: Floats, window: int) -> Floats:
    """Compare the volume with the mean of the ``window`` bars before it, which it is not part of.

    Returns
    -------
    array (n,)
        NaN for the first ``window`` bars; 1 (neutral) where those before traded nothing.
    """
    (volume,) = aligned("volume_ratio", volume=volume)
    mean = np.full(volume.size, np.nan)
    mean[1:] = _mean(volume, window)[:-1]
    ratio = np.where(mean == 0.0, 1.0, np.nan)
    np.divide(volume, mean, out=ratio, where=mean > 0.0)
    return ratio


def momentum(close: Floats, bars: int, session_id: ArrayLike) -> Floats:
    """Measure the percent change over ``bars`` bars of one session; NaN in each session's first ``bars``."""
    (close,) = aligned("momentum", close=close)
    change = np.full(close.size, np.nan)
    session = np.cumsum(session_starts("momentum", session_id, close.size))
    inside = session[bars:] == session[: max(close.size - bars, 0)]
    change[bars:][inside] = 100.0 * (close[bars:] / close[: max(close.size - bars, 0)] - 1.0)[inside]
    return change


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
    open, high, low, close, volume = aligned("tactical", open=open, high=high, low=low, close=close, volume=volume)
    ema_9, ema_21, ema_50 = (talib.EMA(close, timeperiod=length) for length in (9, 21, 50))
    sma_20 = talib.SMA(close, timeperiod=20)
    macd, macd_signal, macd_hist = talib.MACD(close, fastperiod=12, slowperiod=26, signalperiod=9)
    upper, middle, lower = talib.BBANDS(close, timeperiod=20, nbdevup=2.0, nbdevdn=2.0)
    stoch_k, stoch_d = talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3)
    pivot = (high + low + close) / 3.0
    returns = np.full(close.size, np.nan)
    returns[1:] = close[1:] / close[:-1] - 1.0
    band = upper - lower
    one_session = np.zeros(close.size)
    return {
        "ema_9": ema_9,
        "ema_21": ema_21,
        "ema_50": ema_50,
        "sma_20": sma_20,
        "macd": macd,
        "macd_signal": macd_signal,
        "macd_hist": macd_hist,
        "rsi_14": rsi(close, 14),
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
        "bb_width": band / middle,
        "bb_percent": np.divide(
            close - lower,
            band,
            out=np.where(np.isnan(band), np.nan, 0.5),
            where=band > 0.0,
        ),
        "stoch_k": stoch_k,
        "stoch_d": stoch_d,
        "atr_14": atr(high, low, close, 14),
        "adx_14": talib.ADX(high, low, close, timeperiod=14),
        "obv": talib.OBV(close, volume),
        "ad": talib.AD(high, low, close, volume),
        "mom_10": talib.MOM(close, timeperiod=10),
        "roc_10": talib.ROC(close, timeperiod=10),
        "cdl_hammer": talib.CDLHAMMER(open, high, low, close) / 100.0,
        "cdl_doji": talib.CDLDOJI(open, high, low, close) / 100.0,
        "cdl_engulfing": np.sign(talib.CDLENGULFING(open, high, low, close)).astype(np.float64),
        "pivot": pivot,
        "r1": 2.0 * pivot - low,
        "s1": 2.0 * pivot - high,
        "ema_9_ratio": close / ema_9 - 1.0,
        "ema_21_ratio": close / ema_21 - 1.0,
        "sma_20_ratio": close / sma_20 - 1.0,
        "returns": returns,
        "volatility_20": _deviation(returns, 20),
        "volume_sma_20": _mean(volume, 20),
        "volume_ratio": volume_ratio(volume, volume_window),
        "momentum_5": momentum(close, momentum_bars, one_session if session_id is None else session_id),
    }


@njit(cache=True)
def _rsi(close, length):  # type: ignore[no-untyped-def]
    out = np.full(close.size, np.nan)
    gain = 0.0
    loss = 0.0
    for t in range(1, close.size):
        change = close[t] - close[t - 1]
        up = max(change, 0.0)
        down = max(-change, 0.0)
        if t <= length:
            gain += up / length
            loss += down / length
        else:
            gain = (gain * (length - 1) + up) / length
            loss = (loss * (length - 1) + down) / length
        if t >= length:
            out[t] = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
    return out


@njit(cache=True)
def _mean(x, window):  # type: ignore[no-untyped-def]
    # Summed afresh for each bar: a running sum leaves a residue where the volume has become zero.
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        acc = 0.0
        for i in range(t - window + 1, t + 1):
            acc += x[i]
        out[t] = acc / window
    return out


@njit(cache=True)
def _deviation(x, window):  # type: ignore[no-untyped-def]
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        mean = 0.0
        for i in range(t - window + 1, t + 1):
            mean += x[i]
        mean /= window
        acc = 0.0
        for i in range(t - window + 1, t + 1):
            acc += (x[i] - mean) ** 2
        out[t] = np.sqrt(acc / window)
    return out
