"""Texts of time stamps read as UTC moments: which order the date has, which zone, and what is refused."""

import re
from array import array
from collections.abc import Callable, Iterable
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
_FARTHEST = 14 * 60  # minutes from UTC to the farthest zone
_NEARLY_ALL = 0.99  # of the rows that the best order reads: another that reads as many is a second reading

_ISO = re.compile(r"(?P<y>[0-9]{4})([-/.])(?P<m>[0-9]{1,2})\2(?P<d>[0-9]{1,2})")
_ISO_BASIC = re.compile(r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})")
_DAY_FIRST = re.compile(r"(?P<d>[0-9]{1,2})([-/.])(?P<m>[0-9]{1,2})\2(?P<y>[0-9]{4})")
_MONTH_FIRST = re.compile(r"(?P<m>[0-9]{1,2})([-/.])(?P<d>[0-9]{1,2})\2(?P<y>[0-9]{4})")
_READINGS = {"iso": (_ISO, _ISO_BASIC), "day_first": (_DAY_FIRST,), "month_first": (_MONTH_FIRST,)}
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?\s*([AP]M)?\s*(Z|UTC|[+-][0-9]{2}:?[0-9]{2})?",
    re.IGNORECASE,
)

_LONGEST = 64  # characters of a stamp

Moments = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Stamps(NamedTuple):
    """Moments read from texts; all (n,)."""

    utc_ms: Moments  # ms since 1970 UTC, the least int64 where there is none
    unreadable: Mask  # no date and time in the order decided on
    skipped: Mask  # a local time that the clocks skipped
    repeated: Mask  # a local time that the clocks showed twice


class Texts:
    """The stamps of a file: the few different dates and times, and which of them each row has.

    Which order the dates have is decided by all of them, so they must be kept; millions of texts need not.
    """

    def __init__(self, texts: Iterable[str] = ()):
        self._dates: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._date = array("i")
        self._time = array("i")
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        """Append the stamps of the next rows."""
        for text in texts:
            head, blank, tail = _short(text.strip()).partition(" ")
            if not tail:
                head, blank, tail = head.partition("T")
            self._date.append(self._dates.setdefault(head, len(self._dates)))
            self._time.append(self._times.setdefault(blank + tail, len(self._times)))

    def dates(self) -> tuple[Codes, list[str]]:
        """Give each row the number of its date, and the different dates."""
        return np.frombuffer(self._date, np.int32), list(self._dates)

    def times(self) -> tuple[Codes, list[str]]:
        """Give each row the number of its time, and the different times with the blank or T before them."""
        return np.frombuffer(self._time, np.int32), list(self._times)

    def __getitem__(self, row: int) -> str:
        return list(self._dates)[self._date[row]] + list(self._times)[self._time[row]]


def zone(name: str) -> ZoneInfo:
    """Find the time zone of ``data.timezone``, or raise InputError."""
    try:
        if name == "localtime":  # this machine's, whatever it is
            raise KeyError(name)
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError(
            f"data.timezone: expected an IANA time zone such as 'America/New_York', found {name!r}"
        ) from None


def parse(texts: Texts, order: str, local: ZoneInfo, place: Callable[[int], str]) -> Stamps:
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
        ``auto``, and two orders read (nearly) equally many texts but some of them as different days.
    """
    stamp = _days(*texts.dates(), order, place)
    code, different = texts.times()
    times = [_time(text.lstrip(" T")) for text in different]
    ms = np.array([_NAT if time is None else time[0] for time in times], np.int64)
    offset = np.array([_NAT if time is None or time[1] is None else time[1] for time in times], np.int64)
    unreadable = (stamp == _NAT) | (ms == _NAT)[code]
    stamp[unreadable] = 0
    stamp *= _DAY_MS
    stamp += np.where(ms == _NAT, 0, ms)[code]
    stamp -= np.where(offset == _NAT, 0, offset)[code]

    naive = (offset == _NAT)[code] & ~unreadable
    skipped, repeated = np.zeros(code.size, np.bool_), np.zeros(code.size, np.bool_)
    if local.key != "UTC" and naive.any():
        index = pd.DatetimeIndex(stamp[naive].view("datetime64[ms]"))
        moments = index.tz_localize(local, ambiguous="NaT", nonexistent="NaT").asi8
        lost = np.flatnonzero(moments == _NAT)
        if lost.size:  # asked for the first of the two, a repeated time is found and a skipped one is not
            first = index[lost].tz_localize(local, ambiguous=np.ones(lost.size, np.bool_), nonexistent="NaT")
            rows = np.flatnonzero(naive)[lost]
            skipped[rows] = first.isna()
            repeated[rows] = ~first.isna()
        stamp[naive] = moments
    stamp[unreadable] = _NAT
    return Stamps(stamp, unreadable, skipped, repeated)


def _short(text: str) -> str:
    """Cut a text that is too long to be a stamp, so that it still is none."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


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


def _days(code: Codes, texts: list[str], order: str, place: Callable[[int], str]) -> Moments:
    """Read the dates of a file in one order; ``auto`` decides by all of its rows."""
    orders = list(_READINGS) if order == "auto" else [order]
    read = {name: np.array([_day(text, name) for text in texts], np.int64) for name in orders}
    rows = np.bincount(code, minlength=len(texts))
    readable = {name: int(rows[days != _NAT].sum()) for name, days in read.items()}
    best = max(orders, key=lambda name: readable[name])
    for other in orders:
        # A few odd rows are no evidence for an order: damage may have made them.
        if other == best or not readable[best] or readable[other] < _NEARLY_ALL * readable[best]:
            continue
        both = (read[other] != _NAT) & (read[best] != _NAT)
        differ = np.flatnonzero((both & (read[other] != read[best]))[code])
        if differ.size:
            row = int(differ[0])
            found = " and ".join(f"{_iso(read[name][code[row]])} ({name})" for name in (best, other))
            raise InputError(
                f"{place(row)}: expected one reading of the dates, found {texts[code[row]]!r} with two: "
                f"{found}; set data.date_order"
            )
    days: Moments = read[best][code]
    return days


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
    digits = re.sub("[^0-9]", "", match[6]) or "0000"
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes > 59 or hours * 60 + minutes > _FARTHEST:
        return None
    offset = (hours * 60 + minutes) * 60_000
    return ms, -offset if match[6].startswith("-") else offset
