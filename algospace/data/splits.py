"""Chronological splits by whole trading days, with an embargo between neighbours (domain.md 1.10, A13)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from algospace.data.bars import M5_MINUTES, M30_MINUTES, to_ms
from algospace.data.params import DataParams
from algospace.data.sessions import MINUTE_MS
from algospace.errors import InputError

TRAIN, SELECT, REPORT, TEST, EMBARGO = 0, 1, 2, 3, -1
NAMES = {TRAIN: "train", SELECT: "select", REPORT: "report", TEST: "test", EMBARGO: "embargo"}

Codes = npt.NDArray[np.int8]


def split(bars5: pd.DataFrame, params: DataParams) -> Codes:
    """Give every 5-minute bar its split.

    The first ``train_fraction`` of the trading days is train, the next ``validation_fraction`` validation
    (its first half select, its second report), the rest test; see `assign` for the embargo. Where the days
    are cut depends on how many there are, nothing else does.

    Parameters
    ----------
    bars5
        5-minute bars of `algospace.data.bars.SCHEMA`.
    params
        The ``data`` section.

    Returns
    -------
    int8 array
        (n,) TRAIN, SELECT, REPORT, TEST or EMBARGO.

    Raises
    ------
    InputError
        Fewer days than ``data.min_sessions``, or too few for every split to hold a bar.
    """
    days = bars5["session_id"].unique()
    n = len(days)
    if n < params.min_sessions:
        raise InputError(f"data.min_sessions: expected at least {params.min_sessions} trading days, found {n}")
    select = round(n * params.train_fraction)
    test = round(n * (params.train_fraction + params.validation_fraction))
    report = select + (test - select) // 2
    if not 0 < select < report < test < n:
        raise InputError(f"data.min_sessions: expected enough trading days for four splits, found {n}")
    codes = assign(bars5, (int(days[select]), int(days[report]), int(days[test])), params)
    empty = [NAMES[code] for code in (TRAIN, SELECT, REPORT, TEST) if not (codes == code).any()]
    if empty:
        raise InputError(
            f"data.min_sessions: expected enough trading days for a bar in every split after an embargo of "
            f"{params.embargo_m30_bars} 30-minute bars, found {n} days and nothing left in {', '.join(empty)}"
        )
    return codes


def embargo_bars(params: DataParams) -> int:
    """Length of the embargo in 5-minute bars: the longer of the two that ``params`` name."""
    return max(M30_MINUTES // M5_MINUTES * params.embargo_m30_bars, params.embargo_m5_bars)


def assign(bars5: pd.DataFrame, first_sessions: Sequence[int], params: DataParams) -> Codes:
    """Give every bar its split where the days of the cuts are known.

    Parameters
    ----------
    bars5
        5-minute bars of `algospace.data.bars.SCHEMA`.
    first_sessions
        Trading dates (YYYYMMDD) on which select, report and test begin. The embargo is taken from their first
        bars: the first ``embargo_m30_bars`` 30-minute bars and at least ``embargo_m5_bars`` 5-minute bars.
    params
        The ``data`` section.

    Returns
    -------
    int8 array
        (n,) codes; a bar's code depends on the bars before it only.
    """
    session_id = bars5["session_id"].to_numpy()
    codes: Codes = np.searchsorted(np.asarray(first_sessions), session_id, side="right").astype(np.int8)
    slot = to_ms(bars5["start_utc"]) // (30 * MINUTE_MS)
    new = np.ones(slot.size, np.bool_)
    new[1:] = (slot[1:] != slot[:-1]) | (session_id[1:] != session_id[:-1])
    bucket = np.cumsum(new)
    for begin in np.searchsorted(session_id, first_sessions):
        later = np.arange(slot.size) >= begin
        m30 = bucket - (bucket[begin] if begin < slot.size else 0)  # 30-minute bars since the split began
        m5 = np.arange(slot.size) - begin
        codes[later & ((m30 < params.embargo_m30_bars) | (m5 < params.embargo_m5_bars))] = EMBARGO
    return codes


def boundaries(bars5: pd.DataFrame, codes: Codes) -> dict[str, str]:
    """Give the first and last trading date (ISO) of each split: ``train_first``, ``train_last``, ..."""
    dates = {}
    for code in (TRAIN, SELECT, REPORT, TEST):
        days = bars5["session_id"].to_numpy()[codes == code]
        for end, day in (("first", days[0]), ("last", days[-1])):
            dates[f"{NAMES[code]}_{end}"] = f"{day // 10_000:04d}-{day // 100 % 100:02d}-{day % 100:02d}"
    return dates
