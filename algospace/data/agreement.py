"""Whether a 30-minute file says what the 5-minute bars say (domain.md 1.8)."""

import numpy as np
import pandas as pd

from algospace.data.bars import M30_MINUTES, PRICES, to_ms
from algospace.data.quality import Items
from algospace.data.reader import Mask, RawBars
from algospace.errors import InputError


def compare(m30: RawBars, faulty: Mask, made: pd.DataFrame, tick: float) -> Items:
    """Mark the bars of a 30-minute file that the 5-minute bars do not make.

    Parameters
    ----------
    m30
        Rows of the file.
    faulty
        (n,) rows with a fault of their own: no bar can be made of them.
    made
        30-minute bars of `algospace.data.bars.SCHEMA`, built from the valid 5-minute rows.
    tick
        Open, high, low and close may differ by so much.

    Returns
    -------
    Items
        Judged: the faulty bars, and those that begin when one of ``made`` does.

    Raises
    ------
    InputError
        No bar begins when one of ``made`` does.
    """
    start = to_ms(m30.rows["start_utc"])
    moments = to_ms(made["start_utc"])
    at = np.searchsorted(moments, start)
    common = ~faulty & (at < moments.size)
    common[common] = moments[at[common]] == start[common]
    if not common.any():
        raise InputError(
            f"{m30.place(0)}: expected {M30_MINUTES}-minute bars of the days of data.files (data.m30_files), found none"
        )
    differs = np.zeros(start.size, np.bool_)
    limit = tick * (1 + 1e-6)  # one tick is allowed, whatever binary fractions make of it
    for name in PRICES:
        there, here = m30.rows[name].to_numpy(np.float64)[common], made[name].to_numpy()[at[common]]
        differs[common] |= np.abs(there - here) > limit
    time = np.maximum.accumulate(np.where(common, start, np.iinfo(np.int64).min))
    first = start[common.argmax()]
    return Items(np.maximum(time, first), differs | faulty, common | faulty)
