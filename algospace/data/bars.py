"""Bars: the one table that everything downstream reads, and the steps that build it.

A bar is a half-open interval [start, close) of one session. The table has a RangeIndex and the columns of
`SCHEMA`, in that order. Everything here is causal: the result for the first n bars equals the first rows of
the result for all of them.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data.sessions import MINUTE_MS, covering, locate, slots

UTC_MS = "datetime64[ms, UTC]"
SCHEMA = {
    "start_utc": UTC_MS,  # the bar covers [start, close)
    "close_utc": UTC_MS,  # the bar may be known from here on
    "session_id": "int32",  # trading date, YYYYMMDD
    "session_close_utc": UTC_MS,
    "open": "float64",  # prices in points
    "high": "float64",
    "low": "float64",
    "close": "float64",
    "volume": "float64",  # units traded
    "is_synthetic": "bool",  # filled in where the source had no bar
}
PRICES = ("open", "high", "low", "close")

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class HeikenAshi(NamedTuple):
    """Heiken Ashi candles, each (n,) in price points. Not tradable prices."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def to_ms(column: pd.Series) -> IntArray:
    """Turn a column of moments into ms since 1970 UTC."""
    return np.asarray(column.to_numpy("datetime64[ms]").astype(np.int64))


def from_ms(ms: IntArray) -> pd.DatetimeIndex:
    """Turn ms since 1970 into moments, datetime64[ms, UTC]."""
    return pd.DatetimeIndex(ms.astype("datetime64[ms]")).tz_localize("UTC")


def assign_sessions(raw: pd.DataFrame, calendar: str, minutes: int) -> pd.DataFrame:
    """Put raw bars into the sessions of a calendar.

    Parameters
    ----------
    raw
        ``start_utc, open, high, low, close, volume`` in time order, ``minutes`` long each.
    calendar
        Name of a calendar of pandas_market_calendars.
    minutes
        Length of a bar.

    Returns
    -------
    DataFrame
        Bars of `SCHEMA`. Rows outside every session are left out: whoever reads a file counts them first.
    """
    start = to_ms(raw["start_utc"])
    if not start.size:
        return _table(start, start, start, start, np.empty((5, 0)), np.empty(0, np.bool_))
    table = covering(calendar, int(start.min()), int(start.max()))
    session = locate(table, start, minutes)
    inside = session >= 0
    start, session = start[inside], session[inside]
    close = to_ms(table["close_utc"])[session]
    return _table(
        start,
        np.minimum(start + minutes * MINUTE_MS, close),
        table["session_id"].to_numpy()[session],
        close,
        raw.loc[inside, [*PRICES, "volume"]].to_numpy(np.float64).T,
        np.zeros(start.size, np.bool_),
    )


def fill_gaps(bars: pd.DataFrame, calendar: str, minutes: int) -> pd.DataFrame:
    """Fill the missing bars between two bars of one session (domain.md 1.4).

    A filled bar has open = high = low = close = the previous close, volume 0 and ``is_synthetic``. Nothing is
    filled before the first or after the last bar of a session, in a break, or across a session's end, so a
    filled bar is known when the next real one is.
    """
    start = to_ms(bars["start_utc"])
    if not start.size:
        return bars
    table = covering(calendar, int(start[0]), int(start[-1]))
    laid = slots(table, minutes)
    session = locate(table, start, minutes)
    first = np.searchsorted(session, np.arange(len(table)), side="left")
    last = np.searchsorted(session, np.arange(len(table)), side="right") - 1
    traded = (last >= first)[laid.session]
    keep = traded.copy()
    keep[traded] &= laid.start_ms[traded] >= start[first[laid.session[traded]]]
    keep[traded] &= laid.start_ms[traded] <= start[last[laid.session[traded]]]
    grid = laid.start_ms[keep]

    source = np.searchsorted(start, grid, side="right") - 1  # the bar itself, else the one before the gap
    synthetic = start[source] != grid
    values = bars[[*PRICES, "volume"]].to_numpy(np.float64).T[:, source]
    values[:4, synthetic] = values[3, synthetic]
    values[4, synthetic] = 0.0
    close = to_ms(bars["session_close_utc"])[source]
    return _table(
        grid,
        np.minimum(grid + minutes * MINUTE_MS, close),
        bars["session_id"].to_numpy()[source],
        close,
        values,
        synthetic | bars["is_synthetic"].to_numpy()[source],
    )


def resample(bars5: pd.DataFrame, minutes: int = 30) -> pd.DataFrame:
    """Build longer bars from shorter ones, inside sessions (domain.md 1.4).

    A bucket is [floor(start, minutes), + minutes), cut at the session's close: open first, high max, low min,
    close last, volume sum, over its real bars; a bucket of filled bars alone stays synthetic. The last bucket
    is left out until its last bar is there: every other one is complete, since a later bar exists. So
    ``resample(bars[:n])`` is a prefix of ``resample(bars)``, and a row may be used from its ``close_utc`` on.

    Parameters
    ----------
    bars5
        Bars of `SCHEMA`, of any length that divides ``minutes``.
    minutes
        Length of the new bars.

    Returns
    -------
    DataFrame
        Bars of `SCHEMA`.
    """
    step = minutes * MINUTE_MS
    start = to_ms(bars5["start_utc"])
    session_id = bars5["session_id"].to_numpy()
    slot = start // step * step
    new = np.ones(start.size, np.bool_)
    new[1:] = (slot[1:] != slot[:-1]) | (session_id[1:] != session_id[:-1])
    first = np.flatnonzero(new)
    session_close = to_ms(bars5["session_close_utc"])[first]
    close = np.minimum(slot[first] + step, session_close)
    if first.size and to_ms(bars5["close_utc"])[-1] < close[-1]:
        stop = int(first[-1])
        first, session_close, close = first[:-1], session_close[:-1], close[:-1]
    else:
        stop = start.size

    real = ~bars5["is_synthetic"].to_numpy()[:stop]
    bucket = np.cumsum(new[:stop]) - 1
    filled = np.bincount(bucket[real], minlength=first.size) == 0
    rows = np.flatnonzero(real | filled[bucket])
    values = bars5[[*PRICES, "volume"]].to_numpy(np.float64)[rows].T
    begins = np.searchsorted(bucket[rows], np.arange(first.size))
    ends = np.append(begins[1:], rows.size) - 1
    merged = np.empty((5, first.size))
    if first.size:
        merged[0] = values[0, begins]
        merged[1] = np.maximum.reduceat(values[1], begins)
        merged[2] = np.minimum.reduceat(values[2], begins)
        merged[3] = values[3, ends]
        merged[4] = np.add.reduceat(values[4], begins)
    return _table(slot[first], close, session_id[first], session_close, merged, filled)


class Resampler:
    """`resample` of bars that come one after the other; it remembers the bars of one unfinished bucket."""

    def __init__(self, minutes: int = 30) -> None:
        self._minutes = minutes
        self._pending: pd.DataFrame | None = None

    def update(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return the longer bars that the next ones complete."""
        if self._pending is not None:
            bars = pd.concat([self._pending, bars], ignore_index=True)
        merged = resample(bars, self._minutes)
        done = 0
        if len(merged):  # a bucket ends with its last bar, or with the session
            done = int(np.searchsorted(to_ms(bars["close_utc"]), to_ms(merged["close_utc"])[-1], side="right"))
        self._pending = bars.iloc[done:]
        return merged


def heiken_ashi(open: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray) -> HeikenAshi:
    """Smooth candles by the Heiken Ashi recursion (domain.md 1.6).

    HAc = (O + H + L + C) / 4; HAo_0 = (O_0 + C_0) / 2, HAo_t = (HAo_{t-1} + HAc_{t-1}) / 2; HAh = max(H, HAo,
    HAc); HAl = min(L, HAo, HAc). Row t reads bars up to t only.

    Parameters
    ----------
    open, high, low, close
        (n,) prices in points.
    """
    return HeikenAshiStream().update(open, high, low, close)


class HeikenAshiStream:
    """`heiken_ashi` of bars that come one after the other."""

    def __init__(self) -> None:
        self._last = np.full(2, np.nan)  # open and close of the last candle

    def update(self, open: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray) -> HeikenAshi:
        """Return the candles of the next bars (n,)."""
        ha_close = (open + high + low + close) / 4.0
        ha_open = _heiken_ashi_open(open, close, ha_close, self._last)
        return HeikenAshi(
            ha_open,
            np.maximum(high, np.maximum(ha_open, ha_close)),
            np.minimum(low, np.minimum(ha_open, ha_close)),
            ha_close,
        )


@numba.njit(cache=True)
def _heiken_ashi_open(open: FloatArray, close: FloatArray, ha_close: FloatArray, last: FloatArray) -> FloatArray:
    result = np.empty_like(ha_close)
    for t in range(ha_close.size):
        result[t] = (open[t] + close[t]) / 2.0 if np.isnan(last[0]) else (last[0] + last[1]) / 2.0
        last[0], last[1] = result[t], ha_close[t]
    return result


def _table(
    start: IntArray,
    close: IntArray,
    session_id: npt.NDArray[np.int32] | IntArray,
    session_close: IntArray,
    values: FloatArray,
    is_synthetic: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    """Make a table of `SCHEMA`; moments in ms, ``values`` (5, n): open, high, low, close, volume."""
    return pd.DataFrame(
        {
            "start_utc": from_ms(start),
            "close_utc": from_ms(close),
            "session_id": session_id.astype(np.int32),
            "session_close_utc": from_ms(session_close),
            **dict(zip((*PRICES, "volume"), values, strict=True)),
            "is_synthetic": is_synthetic,
        }
    )
