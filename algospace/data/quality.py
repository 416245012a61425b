"""How good raw bars are: a score from 0 to 100, before anything is dropped or filled (domain.md 1.8, A5).

score = sum_i w_i (1 - min(1, r_i / tau_i)) / sum_i w_i, where r_i is the share of bad rows in part i. A part
without a row to judge (agreement, where there is no 30-minute file) is left out and the weights are rescaled.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data.bars import PRICES, VALUES, FloatArray, IntArray, contract_ids, to_ms
from algospace.data.sessions import covering, locate, slots

Mask = npt.NDArray[np.bool_]


class Part(NamedTuple):
    """One part of the score: its weight, and the share of bad rows at which it is worth nothing."""

    weight: float
    tau: float


PARTS = {
    "completeness": Part(25.0, 0.05),  # bars that a session has room for and the file has not
    "validity": Part(20.0, 0.001),  # high, low, prices or volume that cannot be
    "ordering": Part(10.0, 0.001),  # duplicated or backward times
    "finite": Part(15.0, 0.001),  # a field that is no finite number, or a time that cannot be read
    "outliers": Part(10.0, 0.001),
    "stale": Part(5.0, 0.005),
    "zero_volume": Part(5.0, 0.02),
    "agreement": Part(10.0, 0.01),  # bars of a 30-minute file that the 5-minute bars do not make
}
OUTLIER_MADS = 12.0  # |1-bar log return| in median absolute deviations of the past ones
OUTLIER_WINDOW = 500
WICK = 10.0
STALE_RUN = 6  # identical closes with volume, in a row
SESSION_JUMP = 0.10  # open against the last session's close: a split, a crash, an unknown roll; counted, not scored
_LEAST = np.iinfo(np.int64).min


class Items(NamedTuple):
    """What a part judges: rows, or the slots or 30-minute bars beside them."""

    time_ms: IntArray  # (n,) never falling
    bad: Mask
    judged: Mask | None = None  # None: all

    def tally(self, begin: int, end: int) -> tuple[int, int]:
        """Count the bad and the judged items from one moment up to another."""
        first, last = (int(i) for i in np.searchsorted(self.time_ms, [begin, end]))
        judged = last - first if self.judged is None else int(self.judged[first:last].sum())
        return int(self.bad[first:last].sum()), judged


def not_finite(rows: pd.DataFrame) -> Mask:
    """Mark rows with a field that is not a finite number, or without a time."""
    mask: Mask = rows["start_utc"].isna().to_numpy()
    for name in VALUES:
        mask = mask | ~np.isfinite(rows[name].to_numpy(np.float64))
    return mask


def bad_prices(rows: pd.DataFrame) -> Mask:
    """Mark rows with a price of 0 or less."""
    return np.asarray(np.logical_or.reduce([rows[name].to_numpy(np.float64) <= 0 for name in PRICES]))


def bad_range(rows: pd.DataFrame) -> Mask:
    """Mark rows whose open or close lies outside [low, high], or whose high is below the low."""
    o, h, l, c = (rows[name].to_numpy(np.float64) for name in PRICES)
    return np.asarray((h < l) | (h < o) | (h < c) | (l > o) | (l > c))


def bad_wick(rows: pd.DataFrame) -> Mask:
    """Mark rows whose high or low lies a factor of `WICK` beyond open and close: a wrong print, as no market moves."""
    o, h, l, c = (rows[name].to_numpy(np.float64) for name in PRICES)
    return np.asarray((h / WICK > np.maximum(o, c)) | (l < np.minimum(o, c) / WICK))


def bad_volume(rows: pd.DataFrame) -> Mask:
    """Mark rows with a negative volume."""
    return np.asarray(rows["volume"].to_numpy(np.float64) < 0)


def disordered(rows: pd.DataFrame) -> Mask:
    """Mark rows that do not start later than every row before them; those without a time are passed over.

    One row ahead of both that follow, which go on after the row before, has a stamp gone wrong: it is marked, not they.
    """
    whole = np.zeros(len(rows), np.bool_)
    timed = rows["start_utc"].notna().to_numpy()
    start = to_ms(rows["start_utc"])[timed]
    mask = np.zeros(start.size, np.bool_)
    mask[:-2] = (start[:-2] > start[1:-1]) & (start[:-2] > start[2:])
    mask[1:-2] &= start[2:-1] > start[:-3]
    mask[1:] |= np.maximum.accumulate(np.where(mask, _LEAST, start))[:-1] >= start[1:]
    whole[timed] = mask
    return whole


def score(rows: pd.DataFrame, calendar: str, minutes: int, agreement: Items | None = None) -> dict[str, Any]:
    """Score raw bars.

    Parameters
    ----------
    rows
        ``start_utc`` (NaT where unreadable), ``open, high, low, close, volume`` (NaN where no number) and
        perhaps ``contract_id``, in the file's order, before anything was dropped or filled. At least one row.
    calendar
        Name of a calendar of pandas_market_calendars.
    minutes
        Length of a bar.
    agreement
        The bars of a 30-minute file of the same market, as `algospace.data.agreement.compare` marks them.

    Returns
    -------
    dict
        ``score`` (0-100), each part by its name (0-100), the calendar quarter that scores least
        (``worst_quarter``, ``worst_quarter_score``), and counts: ``rows``, ``expected_bars``, ``NAME_rows``
        for each part's bad rows (``missing_bars`` for completeness), ``outside_rows`` (outside every session)
        and ``session_jumps`` (opens over 10 % away from the last session's close, rolls left out); last,
        ``quarters``: each calendar quarter (``2018Q1``) with its ``score`` and its parts.
    """
    start = to_ms(rows["start_utc"])
    finite = ~not_finite(rows)
    backward = disordered(rows)
    ordered = finite & ~backward
    invalid = finite & (bad_prices(rows) | bad_range(rows) | bad_wick(rows) | bad_volume(rows))

    session = np.full(start.size, -1, np.int64)
    expected = np.empty(0, np.int64)
    if ordered.any():
        first, last = int(start[ordered.argmax()]), int(start[start.size - 1 - ordered[::-1].argmax()])
        table = covering(calendar, first, last)
        session[ordered] = locate(table, start[ordered], minutes)
        laid = slots(table, minutes).start_ms
        expected = laid[(laid >= first) & (laid <= last)]
    present = start if ordered.all() else start[ordered]
    missing = ~_contains(present, expected)
    opens, close, volume = (rows[name].to_numpy(np.float64) for name in ("open", "close", "volume"))
    usable = (session >= 0) & ~invalid
    outlier, comparable, stale, jumps = _walk(opens, close, volume, session, contract_ids(rows), usable)
    outside_rows = int((ordered & (session < 0)).sum())
    del session  # at millions of rows every whole column counts

    time = np.maximum.accumulate(np.where(ordered, start, _LEAST))
    if ordered.any():
        time = np.maximum(time, first)  # rows before the first that has a time
    parts = {
        "completeness": Items(expected, missing),
        "validity": Items(time, invalid),
        "ordering": Items(time, backward & rows["start_utc"].notna().to_numpy()),
        "finite": Items(time, ~finite),
        "outliers": Items(time, outlier, comparable),
        "stale": Items(time, stale),
        "zero_volume": Items(time, finite & (volume == 0)),
    }
    if agreement is not None:
        parts["agreement"] = agreement

    whole = _score(parts, _LEAST, np.iinfo(np.int64).max)
    quarters = {}
    if ordered.any():
        for quarter in range(_quarter(first), _quarter(last) + 1):
            scored = _score(parts, _quarter_begin(quarter), _quarter_begin(quarter + 1))
            if len(scored) > 1:
                quarters[f"{1970 + quarter // 4}Q{quarter % 4 + 1}"] = scored
    worst = min(quarters, key=lambda name: quarters[name]["score"], default="none")
    return {
        **whole,
        "worst_quarter": worst,
        "worst_quarter_score": quarters.get(worst, whole)["score"],
        "rows": int(start.size),
        "expected_bars": int(expected.size),
        "missing_bars": int(missing.sum()),
        **{f"{name}_rows": int(items.bad.sum()) for name, items in parts.items() if name != "completeness"},
        "outside_rows": outside_rows,
        "session_jumps": int(jumps),
        "quarters": quarters,
    }


def flat(report: dict[str, Any]) -> dict[str, float | int | str]:
    """Leave out what is not of all rows together."""
    return {name: value for name, value in report.items() if not isinstance(value, dict)}


def _score(parts: dict[str, Items], begin: int, end: int) -> dict[str, float]:
    """Score all parts together, and each, between two moments; one with nothing to judge is left out."""
    worth = {}
    for name, items in parts.items():
        bad, judged = items.tally(begin, end)
        if judged:
            worth[name] = 1.0 - min(1.0, bad / judged / PARTS[name].tau)
    weight = sum(PARTS[name].weight for name in worth)
    total = sum(PARTS[name].weight * value for name, value in worth.items()) / weight if weight else 0.0
    return {name: round(100.0 * value, 6) for name, value in {"score": total, **worth}.items()}


def _contains(sorted_ms: IntArray, wanted: IntArray) -> Mask:
    """Say which of the wanted moments are there."""
    if not sorted_ms.size:
        return np.zeros(wanted.size, np.bool_)
    at = np.searchsorted(sorted_ms, wanted)
    np.minimum(at, sorted_ms.size - 1, out=at)
    return np.asarray(sorted_ms[at] == wanted)


def _quarter(ms: int) -> int:
    """Count the calendar quarters since 1970."""
    return int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(np.int64)) // 3


def _quarter_begin(quarter: int) -> int:
    return int(np.datetime64(3 * quarter, "M").astype("datetime64[ms]").astype(np.int64))


@numba.njit(cache=True)
def _walk(
    opens: FloatArray,
    close: FloatArray,
    volume: FloatArray,
    session: IntArray,
    contract: npt.NDArray[np.int32],
    usable: Mask,
) -> tuple[Mask, Mask, Mask, int]:
    """Look at each usable row beside the one before it.

    Returns
    -------
    outlier, comparable, stale, jumps
        Rows whose return is one, rows whose return has enough past to be compared with, rows in a run of equal
        closes (all (n,)); and how many sessions of the same contract begin with a jump.
    """
    n = close.size
    outlier, comparable, stale = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    past, ranked = np.empty(OUTLIER_WINDOW), np.empty(OUTLIER_WINDOW)  # the last returns in time order; sorted
    seen = jumps = traded = run = 0
    before = -1
    for i in range(n):
        if not usable[i]:
            continue
        same = before >= 0 and session[i] == session[before]
        if same:
            change = math.log(close[i]) - math.log(close[before])
            if seen >= OUTLIER_WINDOW:
                mad = _mad(ranked)
                comparable[i] = mad > 0
                outlier[i] = mad > 0 and abs(change) > OUTLIER_MADS * mad
            _replace(ranked, min(seen, OUTLIER_WINDOW), past[seen % OUTLIER_WINDOW], change)
            past[seen % OUTLIER_WINDOW] = change
            seen += 1
        elif before >= 0 and contract[i] == contract[before]:
            jumps += abs(opens[i] / close[before] - 1.0) > SESSION_JUMP
        if not (same and close[i] == close[before]):
            run, traded = i, 0
        traded += volume[i] > 0
        if traded == STALE_RUN:  # all of the run so far
            for j in range(run, i + 1):
                stale[j] = usable[j] and volume[j] > 0
        elif traded > STALE_RUN:
            stale[i] = volume[i] > 0
        before = i
    return outlier, comparable, stale, jumps


@numba.njit(cache=True)
def _replace(ranked: FloatArray, size: int, old: float, new: float) -> None:
    """Put a value into the ``size`` sorted ones, for the old one where there is no room for another."""
    at = size if size < ranked.size else np.searchsorted(ranked, old)
    while at > 0 and ranked[at - 1] > new:
        ranked[at] = ranked[at - 1]
        at -= 1
    while at + 1 < size and ranked[at + 1] < new:
        ranked[at] = ranked[at + 1]
        at += 1
    ranked[at] = new


@numba.njit(cache=True)
def _mad(ranked: FloatArray) -> float:
    """Median absolute deviation of an even number of sorted values.

    The half of them that lies closest to the median is a slice: found by bisection, it ends at the lower of
    the two middle deviations, and the higher one is just outside.
    """
    half = ranked.size // 2
    median = (ranked[half - 1] + ranked[half]) / 2
    begin, end = 0, half
    while begin < end:
        middle = (begin + end) // 2
        if median - ranked[middle] > ranked[middle + half] - median:
            begin = middle + 1
        else:
            end = middle
    lower = max(median - ranked[begin], ranked[begin + half - 1] - median)
    left = median - ranked[begin - 1] if begin > 0 else np.inf
    right = ranked[begin + half] - median if begin < half else np.inf
    return float((lower + min(left, right)) / 2)
