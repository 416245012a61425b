"""Bars: the one table that everything downstream reads, and the steps that build it.

A bar is a half-open interval [start, close) of one session. The table has a RangeIndex and the columns of
`SCHEMA`, in that order. Everything here is causal: the result for the first n bars equals the first rows of
the result for all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
    "contract_id": "int32",  # rolls so far: differences of prices are taken between bars of one contract
    "open": "float64",  # prices in points
    "high": "float64",
    "low": "float64",
    "close": "float64",
    "volume": "float64",  # units traded
    "is_synthetic": "bool",  # filled in where the source had no bar
}
PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume")
M5_MINUTES, M30_MINUTES = 5, 30  # what the pipeline runs on
CLOCK = "America/New_York"  # the exchange's: New York for every calendar at hand

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
# A table as arrays of one length, moments (``*_utc``) as ms since 1970 UTC, the least int64 for none. A frame of one
# row costs milliseconds, its arrays microseconds: what works bar by bar works on these.
Columns = Mapping[str, npt.NDArray[Any]]
NO_TIME = int(np.iinfo(np.int64).min)
NO_BARS: Columns = {name: np.empty(0, np.int64 if kind == UTC_MS else kind) for name, kind in SCHEMA.items()}


class SegmentStream:
    """Numbers the runs of bars without a hole between them: sessions, and the halves of one that has a pause."""

    def __init__(self) -> None:
        self._close, self._session = np.iinfo(np.int64).min, -1
        self._number = 0

    def update(self, bars: pd.DataFrame | Columns) -> IntArray:
        """Return the numbers of the next bars (n,), from 1 on."""
        start, close, session = to_ms(bars["start_utc"]), to_ms(bars["close_utc"]), np.asarray(bars["session_id"])
        begins = start != np.append(self._close, close[:-1])[: start.size]
        begins |= session != np.append(self._session, session[:-1])[: start.size]  # some markets never pause
        numbers: IntArray = self._number + np.cumsum(begins)
        if start.size:
            self._close, self._session, self._number = int(close[-1]), int(session[-1]), int(numbers[-1])
        return numbers


class HeikenAshi(NamedTuple):
    """Heiken Ashi candles, each (n,) in price points. Not tradable prices."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def columns(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Take a table's columns as arrays."""
    return {name: to_ms(table[name]) if name.endswith("_utc") else table[name].to_numpy() for name in table}


def frame(table: Columns, index: pd.Index | None = None) -> pd.DataFrame:
    """Make a table of arrays: the inverse of `columns`."""
    content = {name: from_ms(values) if name.endswith("_utc") else values for name, values in table.items()}
    return pd.DataFrame(content, index, copy=True)  # in few blocks: users add columns


def to_ms(column: pd.Series | IntArray) -> IntArray:
    """Turn a column of moments into ms since 1970 UTC; one of `Columns` is that already."""
    if isinstance(column, np.ndarray):
        return column
    ms: IntArray = column.to_numpy("datetime64[ms]").view(np.int64)
    return ms


def from_ms(ms: IntArray) -> pd.DatetimeIndex:
    """Turn ms since 1970 into moments, datetime64[ms, UTC]."""
    return pd.DatetimeIndex(ms.view("datetime64[ms]"), copy=False).tz_localize("UTC")


def local_hour(ms: IntArray) -> FloatArray:
    """Hour of day of moments in ms, minutes as its fraction, by `CLOCK`."""
    local = from_ms(ms).tz_convert(CLOCK)
    hour: FloatArray = (local.hour + local.minute / 60).to_numpy()
    return hour


def contract_ids(rows: pd.DataFrame) -> Int32Array:
    """Count the rolls so far in each row: what ``contract_id`` says, 0 where there is no such column."""
    return rows["contract_id"].to_numpy() if "contract_id" in rows else np.zeros(len(rows), np.int32)


def assign_sessions(raw: pd.DataFrame, calendar: str, minutes: int) -> pd.DataFrame:
    """Put raw bars into the sessions of a calendar.

    Parameters
    ----------
    raw
        ``start_utc, open, high, low, close, volume`` in time order, ``minutes`` long each; perhaps
        ``contract_id``, the same in all bars of a session.
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
    contract = contract_ids(raw)
    values = [raw[name].to_numpy(np.float64) for name in VALUES]
    if not start.size:
        none = from_ms(start)
        return _table(none, none, start.astype(np.int32), none, contract, values, np.empty(0, np.bool_))
    table = covering(calendar, int(start.min()), int(start.max()))
    session = locate(table, start, minutes)
    inside = session >= 0
    if not inside.all():
        start, session, contract = start[inside], session[inside], contract[inside]
        values = [column[inside] for column in values]
    close = to_ms(table["close_utc"])[session]
    return _table(
        from_ms(start),
        from_ms(np.minimum(start + minutes * MINUTE_MS, close)),
        table["session_id"].to_numpy()[session],
        from_ms(close),
        contract,
        values,
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
    grid = _slots_between(start, calendar, minutes)
    source = (np.searchsorted(start, grid, side="right") - 1).astype(np.int32)  # the bar, else the one before the gap
    synthetic = start[source] != grid
    if not synthetic.any():
        return bars

    def column(name: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = bars[name].to_numpy()[source]
        if name in PRICES:
            values[synthetic] = bars["close"].to_numpy()[source[synthetic]]
        elif name == "volume":
            values[synthetic] = 0.0
        return values

    session_close = from_ms(to_ms(bars["session_close_utc"])[source])
    close = from_ms(np.minimum(grid + minutes * MINUTE_MS, session_close.asi8))
    start_utc = from_ms(grid)
    del grid, start  # of millions of bars, what is done with makes room for what comes
    return _table(
        start_utc,
        close,
        column("session_id"),
        session_close,
        column("contract_id"),
        [column(name) for name in VALUES],
        synthetic | column("is_synthetic"),
    )


def _slots_between(start: IntArray, calendar: str, minutes: int) -> IntArray:
    """Lay out the slots from the first to the last bar of each session."""
    table = covering(calendar, int(start[0]), int(start[-1]))
    laid = slots(table, minutes)
    session = locate(table, start, minutes)
    first = np.searchsorted(session, np.arange(len(table)), side="left")
    last = np.searchsorted(session, np.arange(len(table)), side="right") - 1
    traded = last >= first
    begins = np.where(traded, start[np.minimum(first, start.size - 1)], np.iinfo(np.int64).max)
    ends = np.where(traded, start[last], np.iinfo(np.int64).min)
    return laid.start_ms[(laid.start_ms >= begins[laid.session]) & (laid.start_ms <= ends[laid.session])]


def resample(bars5: pd.DataFrame, minutes: int = M30_MINUTES) -> pd.DataFrame:
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
    return frame(_resample(columns(bars5), minutes))


def _resample(bars5: Columns, minutes: int) -> dict[str, npt.NDArray[Any]]:
    step = minutes * MINUTE_MS
    start, session_id = bars5["start_utc"], bars5["session_id"]
    slot = start // step * step
    new = np.ones(start.size, np.bool_)
    new[1:] = (slot[1:] != slot[:-1]) | (session_id[1:] != session_id[:-1])
    first = np.flatnonzero(new)
    session_close = bars5["session_close_utc"][first]
    close = np.minimum(slot[first] + step, session_close)
    if first.size and bars5["close_utc"][-1] < close[-1]:
        stop = int(first[-1])
        first, session_close, close = first[:-1], session_close[:-1], close[:-1]
    else:
        stop = start.size

    real = ~bars5["is_synthetic"][:stop]
    bucket = np.cumsum(new[:stop]) - 1
    filled = np.bincount(bucket[real], minlength=first.size) == 0
    rows = np.flatnonzero(real | filled[bucket])
    begins = np.searchsorted(bucket[rows], np.arange(first.size))
    ends = np.append(begins[1:], rows.size) - 1

    def merged(name: str) -> FloatArray:
        values: FloatArray = bars5[name][rows].astype(np.float64, copy=False)
        if name in ("open", "close"):
            return values[begins if name == "open" else ends[: first.size]]
        if not first.size:
            return values
        merge = {"high": np.maximum, "low": np.minimum, "volume": np.add}[name]
        longer: FloatArray = merge.reduceat(values, begins)
        return longer

    return {
        "start_utc": slot[first],
        "close_utc": close,
        "session_id": session_id[first],
        "session_close_utc": session_close,
        "contract_id": bars5["contract_id"][first],
        **{name: merged(name) for name in VALUES},
        "is_synthetic": filled,
    }


class Resampler:
    """`resample` of bars that come one after the other; it remembers the bars of one unfinished bucket."""

    def __init__(self, minutes: int = M30_MINUTES) -> None:
        self._minutes = minutes
        self._pending: Columns | None = None

    def update(self, bars: Columns) -> dict[str, npt.NDArray[Any]]:
        """Return the longer bars that the next ones complete."""
        if self._pending is not None:
            bars = {name: np.concatenate([old, bars[name]]) for name, old in self._pending.items()}
        merged = _resample(bars, self._minutes)
        done = 0
        if merged["close_utc"].size:  # a bucket ends with its last bar, or with the session
            done = int(np.searchsorted(bars["close_utc"], merged["close_utc"][-1], side="right"))
        self._pending = {name: bars[name][done:].copy() for name in SCHEMA}
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
    start: pd.DatetimeIndex,
    close: pd.DatetimeIndex,
    session_id: Int32Array,
    session_close: pd.DatetimeIndex,
    contract_id: Int32Array,
    values: Sequence[FloatArray],
    is_synthetic: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    """Make a table of `SCHEMA`; ``values``: open, high, low, close, volume."""
    return pd.DataFrame(
        {
            "start_utc": start,
            "close_utc": close,
            "session_id": session_id,
            "session_close_utc": session_close,
            "contract_id": contract_id,
            **dict(zip(VALUES, values, strict=True)),
            "is_synthetic": is_synthetic,
        },
        copy=False,  # of millions of rows
    )
