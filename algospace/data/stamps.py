"""Texts of time stamps read as UTC moments: which order the date has, which zone, and what is refused."""

import re
from collections.abc import Callable
from datetime import date
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.errors import InputError

_DAY_MS = 86_400_000
_YEARS = range(1970, 2100)  # a stamp outside is damage, not history
_NAT = np.iinfo(np.int64).min

_ISO = re.compile(r"(?P<y>[0-9]{4})([-/.])(?P<m>[0-9]{1,2})\2(?P<d>[0-9]{1,2})")
_ISO_BASIC = re.compile(r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})")
_DAY_FIRST = re.compile(r"(?P<d>[0-9]{1,2})([-/.])(?P<m>[0-9]{1,2})\2(?P<y>[0-9]{4})")
_MONTH_FIRST = re.compile(r"(?P<m>[0-9]{1,2})([-/.])(?P<d>[0-9]{1,2})\2(?P<y>[0-9]{4})")
_READINGS = {"iso": (_ISO, _ISO_BASIC), "day_first": (_DAY_FIRST,), "month_first": (_MONTH_FIRST,)}
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?\s*([AP]M)?\s*(Z|UTC|[+-][0-9]{2}:?[0-9]{2})?",
    re.IGNORECASE,
)

Moments = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Stamps(NamedTuple):
    """Moments read from texts; all (n,)."""

    utc_ms: Moments  # ms since 1970 UTC, the least int64 where there is none
    unreadable: Mask  # no date and time in the order decided on
    skipped: Mask  # a local time that the clocks skipped
    repeated: Mask  # a local time that the clocks showed twice


def zone(name: str) -> ZoneInfo:
    """Find the time zone of ``data.timezone``, or raise InputError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError(
            f"data.timezone: expected an IANA time zone such as 'America/New_York', found {name!r}"
        ) from None


def parse(texts: list[str], order: str, local: ZoneInfo, place: Callable[[int], str]) -> Stamps:
    """Read stamps such as ``2018-01-02 14:34:00``, ``29/06/2020 01:00:00`` or ``1/7/2020 1:00``.

    Parameters
    ----------
    texts
        A date, a blank or T, a time, and perhaps a zone. A stamp without a zone is in ``local``.
    order
        ``iso``, ``day_first``, ``month_first``, or ``auto``: the one order that reads the most of all the
        texts.
    local
        Zone of the stamps that name none.
    place
        Says FILE:LINE of a text, for the refusal.

    Raises
    ------
    InputError
        ``auto``, and two orders read equally many texts but some of them as different days.
    """
    heads, tails = _cut(texts)
    head, head_texts = pd.factorize(np.array(heads, dtype=object))
    tail, tail_texts = pd.factorize(np.array(tails, dtype=object))
    days = _days(head, head_texts, order, place)
    times = [_time(text) for text in tail_texts]
    ms = np.array([_NAT if time is None else time[0] for time in times], np.int64)[tail]
    offset = np.array([_NAT if time is None or time[1] is None else time[1] for time in times], np.int64)[tail]

    unreadable = (days == _NAT) | (ms == _NAT)
    stamp = np.where(unreadable, _NAT, np.where(unreadable, 0, days) * _DAY_MS + np.where(unreadable, 0, ms))
    zoned = ~unreadable & (offset != _NAT)
    utc = stamp.copy()
    utc[zoned] -= offset[zoned]
    naive = np.flatnonzero(~unreadable & ~zoned)
    skipped, repeated = np.zeros(len(texts), np.bool_), np.zeros(len(texts), np.bool_)
    if naive.size:
        index = pd.DatetimeIndex(stamp[naive].astype("datetime64[ms]"))
        moments = index.tz_localize(local, ambiguous="NaT", nonexistent="NaT")
        utc[naive] = moments.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[ms]").astype(np.int64)
        lost = np.flatnonzero(moments.isna())
        if lost.size:  # asked for the first of the two, a repeated time is found and a skipped one is not
            first = index[lost].tz_localize(local, ambiguous=np.ones(lost.size, np.bool_), nonexistent="NaT")
            skipped[naive[lost]] = first.isna()
            repeated[naive[lost]] = ~first.isna()
    return Stamps(utc, unreadable, skipped, repeated)


def _cut(texts: list[str]) -> tuple[list[str], list[str]]:
    """Cut each text at its first blank, or at the T of ISO 8601."""
    heads, tails = [], []
    for text in texts:
        head, _, tail = text.strip().partition(" ")
        if not tail:
            head, _, tail = head.partition("T")
        heads.append(head)
        tails.append(tail.strip())
    return heads, tails


def _day(text: str, order: str) -> int:
    """Count the days from 1970 to a date; the least int64 where it cannot be read in this order."""
    for pattern in _READINGS[order]:
        match = pattern.fullmatch(text)
        if match and int(match["y"]) in _YEARS:
            try:
                return date(int(match["y"]), int(match["m"]), int(match["d"])).toordinal() - _EPOCH
            except ValueError:
                return _NAT
    return _NAT


_EPOCH = date(1970, 1, 1).toordinal()


def _days(code: Moments, texts: npt.NDArray[np.object_], order: str, place: Callable[[int], str]) -> Moments:
    """Read the dates of a file in one order; ``auto`` decides by all of its rows."""
    orders = list(_READINGS) if order == "auto" else [order]
    read = {name: np.array([_day(text, name) for text in texts], np.int64)[code] for name in orders}
    most = max(int((days != _NAT).sum()) for days in read.values())
    best = [name for name, days in read.items() if (days != _NAT).sum() == most]
    for other in best[1:]:
        differ = np.flatnonzero(read[other] != read[best[0]])
        if most and differ.size:
            row = int(differ[0])
            found = " and ".join(f"{_iso(read[name][row])} ({name})" for name in (best[0], other))
            raise InputError(
                f"{place(row)}: expected one reading of the dates, found {str(texts[code[row]])!r} with two: "
                f"{found}; set data.date_order"
            )
    return read[best[0]]


def _iso(day: int) -> str:
    return "none" if day == _NAT else date.fromordinal(int(day) + _EPOCH).isoformat()


def _time(text: str) -> tuple[int, int | None] | None:
    """Read a time of day as ms since midnight and the zone's offset in ms, None where it has none."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    if match[5]:  # 12-hour clock
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[5].upper() == "PM" else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    ms = ((hour * 60 + minute) * 60 + second) * 1000 + int((match[4] or "").ljust(3, "0")[:3])
    if match[6] is None:
        return ms, None
    digits = re.sub("[^0-9]", "", match[6])
    offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60_000 if digits else 0
    return ms, -offset if match[6].startswith("-") else offset
