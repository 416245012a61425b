"""Trading sessions: when an exchange is open, from pandas_market_calendars.

A session is named by its trading date (YYYYMMDD), the date on which it closes: the CME's Monday begins on
Sunday evening. Bars are half-open intervals [start, start + minutes) and lie on UTC marks of their own
length.
"""

import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own use of pandas is not the user's affair
    import pandas_market_calendars

MINUTE_MS = 60_000
_REFERENCE = ("2024-01-01", "2024-12-31")  # the year whose commonest session is the regular one
_SPAN = 20  # years of sessions that are made at a time: a tenth of a second
_UTC_MS = "datetime64[ms, UTC]"

# Until Friday 2021-06-25 the CME's equity index futures paused after New York's close, from Monday 2021-06-28 on they
# trade through. The library's `CME_Equity` has the pause on all days, its 23-hour calendar on none.
_PAUSED = "CME Globex Equity"
_LAST_PAUSE = pd.Timestamp("2021-06-25")
_PAUSE = pd.Timedelta("15:15:00"), pd.Timedelta("15:30:00")  # Chicago's time

# Early closes by Chicago's clock that the library has 90 and 60 minutes too early: crude oil traded on in 2022 to 2024
# (real bars say so), and the library's own entries for 2026 are the later ones.
_LATER_CLOSES = {
    "CMEGlobex_CL": dict.fromkeys(("2022-09-05", "2023-09-04", "2024-09-02", "2025-09-01"), "13:30")
    | dict.fromkeys(("2024-11-29", "2025-11-28"), "13:45")
}

# From Monday 2012-11-19 to Friday 2015-09-18 Globex closed at 16:15 Chicago (the CME's notices of both changes); the
# library has 16:00 in all years.
_QUARTER_LATER = ("CME Globex Equity", "CMEGlobex_CL")
_QUARTER_FIRST, _QUARTER_LAST = pd.Timestamp("2012-11-19"), pd.Timestamp("2015-09-18")

# The library has a session of spot foreign exchange from Saturday evening to Sunday evening, when nobody trades.
_NO_SUNDAYS = ("FOREX", "Forex", "FX")
_SUNDAY = 6

IntArray = npt.NDArray[np.int64]


class Slots(NamedTuple):
    """Every bar that a table of sessions has room for, in time order."""

    start_ms: IntArray  # (n,) bar start, ms since 1970 UTC
    session: IntArray  # (n,) row of the session table


@cache
def _calendar(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pandas_market_calendars.get_calendar(name)
        except RuntimeError:  # the library's word for a name it does not know
            raise InputError(
                "data.calendar: expected a calendar of pandas_market_calendars such as 'NYSE' or "
                f"'CME Globex Equity', found {name!r}"
            ) from None


def sessions(calendar: str, first: Any, last: Any) -> pd.DataFrame:
    """List the sessions whose trading date lies between two dates, both included.

    Parameters
    ----------
    calendar
        Name of a calendar of pandas_market_calendars.
    first, last
        Trading dates: anything that `pandas.Timestamp` reads.

    Returns
    -------
    DataFrame
        One row a session: ``session_id`` int32 (YYYYMMDD), ``open_utc`` and ``close_utc`` (datetime64[ms,
        UTC]; early closes are the calendar's); where there are breaks, also ``break_start_utc`` and
        ``break_end_utc``, equal on days without one.

    Raises
    ------
    InputError
        No such calendar, or one without sessions (``data.calendar``).
    """
    known = _calendar(calendar)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schedule = known.schedule(start_date=first, end_date=last)
        except (NotImplementedError, ValueError):  # a name that the library knows, without hours to it
            raise InputError(
                f"data.calendar: expected a calendar whose sessions are known, found {calendar!r}"
            ) from None
    if calendar in _NO_SUNDAYS:
        schedule = schedule[pd.DatetimeIndex(schedule.index).day_of_week != _SUNDAY]
    schedule["market_close"] = _mended(calendar, schedule["market_close"])
    columns = {"open_utc": "market_open", "close_utc": "market_close"}
    if "break_start" in schedule:
        columns |= {"break_start_utc": "break_start", "break_end_utc": "break_end"}
    dates = pd.DatetimeIndex(schedule.index)
    if calendar == _PAUSED:
        schedule = schedule.assign(**_pauses(dates, schedule["market_close"]))
        columns |= {"break_start_utc": "break_start", "break_end_utc": "break_end"}
    table = pd.DataFrame({"session_id": (dates.year * 10_000 + dates.month * 100 + dates.day).astype(np.int32)})
    for ours, theirs in columns.items():
        table[ours] = pd.DatetimeIndex(schedule[theirs]).astype(_UTC_MS)
    if "break_start_utc" in table:  # a day without a break may say so by NaT
        for column in ("break_start_utc", "break_end_utc"):
            table[column] = table[column].fillna(table["close_utc"])
    return table


def _mended(calendar: str, closes: pd.Series) -> pd.Series:
    """Closes (indexed by trading date), with those put right that the library has too early."""
    mended = closes.copy()
    for date, clock in _LATER_CLOSES.get(calendar, {}).items():
        if pd.Timestamp(date) in mended.index:
            mended[pd.Timestamp(date)] = pd.Timestamp(f"{date} {clock}", tz="America/Chicago").tz_convert("UTC")
    if calendar in _QUARTER_LATER:
        dates = pd.DatetimeIndex(mended.index)
        regular = (dates + pd.Timedelta(hours=16)).tz_localize("America/Chicago").tz_convert("UTC")
        early = (dates >= _QUARTER_FIRST) & (dates <= _QUARTER_LAST) & (pd.DatetimeIndex(mended) == regular)
        mended = mended.mask(early, mended + pd.Timedelta(minutes=15))
    return mended


def _pauses(dates: pd.DatetimeIndex, closes: pd.Series) -> dict[str, pd.DatetimeIndex]:
    begin, end = ((dates + clock).tz_localize("America/Chicago").tz_convert("UTC") for clock in _PAUSE)
    paused = (dates <= _LAST_PAUSE) & (end < pd.DatetimeIndex(closes))  # an early close comes before the pause
    return {"break_start": begin.where(paused), "break_end": end.where(paused)}


def covering(calendar: str, first_ms: int, last_ms: int) -> pd.DataFrame:
    """List the sessions that can hold a bar starting between two moments, both included (ms since 1970)."""
    day = pd.Timedelta(days=1)
    first, last = (pd.Timestamp(ms, unit="ms").normalize() for ms in (first_ms, last_ms))
    first, last = first - day, last + 4 * day  # a session may open days before its trading date
    spans = [_span(calendar, number) for number in range(first.year // _SPAN, last.year // _SPAN + 1)]
    table = pd.concat(spans, ignore_index=True) if len(spans) > 1 else spans[0]
    begin, end = np.searchsorted(table["session_id"], [_date_id(first), _date_id(last) + 1])
    return table.iloc[begin:end].reset_index(drop=True)


@cache
def _span(calendar: str, number: int) -> pd.DataFrame:
    # Reading, checking, scoring and filling the same bars all ask for the same sessions.
    return sessions(calendar, f"{number * _SPAN}-01-01", f"{number * _SPAN + _SPAN - 1}-12-31")


def _date_id(date: pd.Timestamp) -> int:
    return int(date.year * 10_000 + date.month * 100 + date.day)


def slots(table: pd.DataFrame, minutes: int) -> Slots:
    """Lay out every bar of ``minutes`` inside the sessions of ``table``, breaks left out."""
    step = minutes * MINUTE_MS
    opens, closes = _opens(table, step), _ms(table["close_utc"])
    counts = np.maximum(-((opens - closes) // step), 0)  # ceiling: a last bar may be cut by the close
    session = np.repeat(np.arange(len(table), dtype=np.int64), counts)
    within = np.arange(session.size, dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    start = opens[session] + within * step
    trading = ~_in_break(table, start, session)
    return Slots(start[trading], session[trading])


def locate(table: pd.DataFrame, start_ms: IntArray, minutes: int) -> IntArray:
    """Find the session (row of ``table``) of each bar start; -1 outside every session or in a break."""
    if table.empty:
        return np.full(start_ms.size, -1, np.int64)
    opens, closes = _opens(table, minutes * MINUTE_MS), _ms(table["close_utc"])
    session = np.searchsorted(opens, start_ms, side="right") - 1
    known = np.maximum(session, 0)
    inside = (session >= 0) & (start_ms < closes[known]) & ~_in_break(table, start_ms, known)
    return np.where(inside, session, -1).astype(np.int64)


@cache
def regular_slots(calendar: str, minutes: int) -> IntArray:
    """Bar starts (ms since 1970 UTC) of one regular session: the first of the commonest length in 2024."""
    laid = slots(sessions(calendar, *_REFERENCE), minutes)
    counts = np.bincount(laid.session)
    commonest = np.bincount(counts).argmax()
    start: IntArray = laid.start_ms[laid.session == np.flatnonzero(counts == commonest)[0]]
    start.flags.writeable = False  # it is cached, so shared
    return start


def bars_per_session(calendar: str, minutes: int) -> int:
    """Count the bars of ``minutes`` in a regular session; times 252 it annualises (domain.md 1.3).

    276 five-minute and 46 thirty-minute bars on the CME, 78 and 13 on the NYSE.
    """
    return int(regular_slots(calendar, minutes).size)


def per_year(calendar: str, first: int, last: int) -> float:
    """Sessions a year, over the calendar years from that of session ``first`` to that of ``last`` (YYYYMMDD)."""
    years = (first // 10_000, last // 10_000)
    return len(sessions(calendar, f"{years[0]}-01-01", f"{years[1]}-12-31")) / (years[1] - years[0] + 1)


def _ms(column: pd.Series) -> IntArray:
    ms: IntArray = column.to_numpy("datetime64[ms]").view(np.int64)
    return ms


def _opens(table: pd.DataFrame, step: int) -> IntArray:
    # The bar that holds the open is the session's first.
    return np.asarray(_ms(table["open_utc"]) // step * step)


def _in_break(table: pd.DataFrame, start_ms: IntArray, session: IntArray) -> npt.NDArray[np.bool_]:
    if "break_start_utc" not in table:
        return np.zeros(start_ms.size, np.bool_)
    begins, ends = _ms(table["break_start_utc"])[session], _ms(table["break_end_utc"])[session]
    return (start_ms >= begins) & (start_ms < ends)
