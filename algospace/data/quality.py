"""How good raw bars are: a score from 0 to 100, before anything is dropped or filled (domain.md 1.8, A5).

score = sum_i w_i (1 - min(1, r_i / tau_i)) / sum_i w_i, where r_i is the share of bad rows in part i. The
agreement of 5- and 30-minute files does not apply, since 30-minute bars are built here; a part without a row
to judge is left out too, and the weights are rescaled.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data.bars import PRICES, to_ms
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
}
OUTLIER_MADS = 12.0  # |1-bar log return| in median absolute deviations of the past ones
OUTLIER_WINDOW = 500
STALE_RUN = 6  # identical closes with volume, in a row
SESSION_JUMP = 0.10  # open against the last session's close: a roll, a split or a crash; counted, not scored


def not_finite(rows: pd.DataFrame) -> Mask:
    """Mark rows with a field that is not a finite number, or without a time."""
    values = rows[[*PRICES, "volume"]].to_numpy(np.float64)
    return np.asarray(~np.isfinite(values).all(axis=1) | rows["start_utc"].isna().to_numpy())


def bad_prices(rows: pd.DataFrame) -> Mask:
    """Mark rows with a price of 0 or less."""
    return np.asarray((rows[list(PRICES)].to_numpy(np.float64) <= 0).any(axis=1))


def bad_range(rows: pd.DataFrame) -> Mask:
    """Mark rows whose open or close lies outside [low, high], or whose high is below the low."""
    o, h, l, c = (rows[name].to_numpy(np.float64) for name in PRICES)
    return np.asarray((h < l) | (h < np.maximum(o, c)) | (l > np.minimum(o, c)))


def bad_volume(rows: pd.DataFrame) -> Mask:
    """Mark rows with a negative volume."""
    return np.asarray(rows["volume"].to_numpy(np.float64) < 0)


def disordered(rows: pd.DataFrame) -> Mask:
    """Mark rows that do not start later than every row before them."""
    start = to_ms(rows["start_utc"])  # without a time it is the least int64, so it changes no maximum
    return latest_before(start) >= start if start.size else np.zeros(0, np.bool_)


def latest_before(start_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give each row the latest start among the rows before it; the least int64 where there is none."""
    least = np.iinfo(np.int64).min
    return np.concatenate(([least], np.maximum.accumulate(start_ms)[:-1]))


@numba.njit(cache=True)
def _past_mad(returns: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Median absolute deviation of the ``window`` values before each one; NaN until there are so many."""
    result = np.full(returns.size, np.nan)
    for t in range(window, returns.size):
        past = returns[t - window : t]
        result[t] = np.median(np.abs(past - np.median(past)))
    return result


def score(rows: pd.DataFrame, calendar: str, minutes: int) -> dict[str, float | int | str]:
    """Score raw bars.

    Parameters
    ----------
    rows
        ``start_utc`` (NaT where unreadable), ``open, high, low, close, volume`` (NaN where no number), in the
        file's order, before anything was dropped or filled. At least one row.
    calendar
        Name of a calendar of pandas_market_calendars.
    minutes
        Length of a bar.

    Returns
    -------
    dict
        ``score`` (0-100), each part by its name (0-100), the calendar quarter that scores least
        (``worst_quarter``, ``worst_quarter_score``), and counts: ``rows``, ``expected_bars``, ``NAME_rows``
        for each part's bad rows (``missing_bars`` for completeness), ``outside_rows`` (outside every session)
        and ``session_jumps`` (opens over 10 % away from the last session's close).
    """
    finite = ~not_finite(rows)
    ordered = finite & ~disordered(rows)
    start = to_ms(rows["start_utc"])
    timed = ordered.copy()
    bad: dict[str, Mask] = {
        "validity": finite & (bad_prices(rows) | bad_range(rows) | bad_volume(rows)),
        "ordering": rows["start_utc"].notna().to_numpy() & disordered(rows),
        "finite": ~finite,
        "zero_volume": finite & (rows["volume"].to_numpy(np.float64) == 0),
    }

    session = np.full(start.size, -1, np.int64)
    expected = missing = np.empty(0, np.int64)
    if timed.any():
        first, last = int(start[timed].min()), int(start[timed].max())
        table = covering(calendar, first, last)
        session[timed] = locate(table, start[timed], minutes)
        laid = slots(table, minutes).start_ms
        expected = laid[(laid >= first) & (laid <= last)]
        missing = expected[~np.isin(expected, start[timed])]

    close = rows["close"].to_numpy(np.float64)
    usable = np.flatnonzero((session >= 0) & ~bad["validity"])
    same = session[usable[1:]] == session[usable[:-1]]
    change = np.log(close[usable[1:]] / close[usable[:-1]])
    returns, at = change[same], usable[1:][same]
    mad = _past_mad(returns, OUTLIER_WINDOW)
    bad["outliers"] = _mark(start.size, at[(np.abs(returns) > OUTLIER_MADS * mad) & (mad > 0)])
    volume = rows["volume"].to_numpy(np.float64)
    run = np.cumsum(np.concatenate(([True], ~same | (close[usable[1:]] != close[usable[:-1]]))))[: usable.size]
    traded = volume[usable] > 0
    length = np.bincount(run, weights=traded) if usable.size else np.zeros(1)
    bad["stale"] = _mark(start.size, usable[traded & (length[run] >= STALE_RUN)])
    opens = rows["open"].to_numpy(np.float64)[usable[1:][~same]]
    jumps = np.abs(opens / close[usable[:-1][~same]] - 1.0) > SESSION_JUMP

    quarter = _quarters(np.maximum.accumulate(np.where(timed, start, np.iinfo(np.int64).min)))
    if timed.any():
        quarter = np.maximum(quarter, _quarters(np.array([first])))  # rows before the first that has a time
    judged = {name: np.ones(start.size, np.bool_) for name in bad}
    judged["outliers"] = _mark(start.size, at[mad > 0])
    faults = {name: (quarter[mask], quarter[judged[name]]) for name, mask in bad.items()}
    faults["completeness"] = (_quarters(missing), _quarters(expected))

    parts, total = _score({name: (b.size, n.size) for name, (b, n) in faults.items()})
    quarters = {
        int(q): _score({name: (int((b == q).sum()), int((n == q).sum())) for name, (b, n) in faults.items()})[1]
        for q in np.unique(quarter)
    }
    worst = min(quarters, key=lambda q: (quarters[q], q))
    counts = {f"{name}_rows": int(mask.sum()) for name, mask in bad.items()}
    return {
        "score": total,
        **parts,
        "worst_quarter": f"{1970 + worst // 4}Q{worst % 4 + 1}" if timed.any() else "none",
        "worst_quarter_score": quarters[worst],
        "rows": int(start.size),
        "expected_bars": int(expected.size),
        "missing_bars": int(missing.size),
        **counts,
        "outside_rows": int((timed & (session < 0)).sum()),
        "session_jumps": int(jumps.sum()),
    }


def _score(counts: dict[str, tuple[int, int]]) -> tuple[dict[str, float], float]:
    """Score the parts, and all together, from (bad, judged) counts; one with nothing to judge is left out."""
    worth = {
        name: 1.0 - min(1.0, counts[name][0] / counts[name][1] / part.tau)
        for name, part in PARTS.items()
        if counts[name][1]
    }
    weight = sum(PARTS[name].weight for name in worth)
    total = sum(PARTS[name].weight * value for name, value in worth.items()) / weight
    return {name: round(100.0 * value, 6) for name, value in worth.items()}, round(100.0 * total, 6)


def _mark(size: int, where: npt.NDArray[np.int64]) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[where] = True
    return mask


def _quarters(start_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the calendar quarters since 1970; very negative where there is no time."""
    return start_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) // 3
