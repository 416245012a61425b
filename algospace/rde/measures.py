"""What a window of 30-minute bars was like, in words a trader knows: the yardsticks of the regime vector's dimensions.

Every measure of a window reads its rows alone. `next_window` reads the rows that follow: a target for probes, never
an input.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from algospace.data.bars import local_hour

# measure -> what a low and a high value is called
WORDS = {
    "volatility": ("calm", "volatile"),
    "trend": ("falling", "rising"),
    "liquidity": ("thin", "liquid"),
    "volume": ("quiet", "busy"),
    "efficiency": ("choppy", "directional"),
    "autocorrelation": ("reverting", "persistent"),
    "tails": ("even", "jumpy"),
    "skew": ("skewed down", "skewed up"),
    "volatility_change": ("calming", "heating"),
    "hour": ("night", "day"),
}
_TINY = 1e-12


COLUMNS = ("m30_row", "m30_close_utc", "m30_close", "m30_volume", "contract_id", "split")  # of the main table


class HalfHours(NamedTuple):
    """30-minute bars, in time order, as arrays of shape (n,)."""

    close_utc: np.ndarray  # int64, milliseconds since 1970
    log_return: np.ndarray  # of the close; 0 across a roll, where two contracts meet
    volume: np.ndarray
    close: np.ndarray

    @classmethod
    def of(cls, m5: pd.DataFrame) -> "HalfHours":
        """Take them from the main table's columns ``m30_*``; a half hour stands at the first row that knows it."""
        known = m5[m5["m30_row"] >= 0].drop_duplicates("m30_row").set_index("m30_row")
        known = known.reindex(range(known.index.max() + 1)).bfill()  # of two that close at once the later one is known
        close = known["m30_close"].to_numpy(np.float64)
        moves = np.diff(np.log(close), prepend=np.log(close[:1]))
        contract = known["contract_id"].to_numpy()
        moves[1:][contract[1:] != contract[:-1]] = 0.0
        times = pd.DatetimeIndex(known["m30_close_utc"]).as_unit("ms").asi8
        return cls(times, moves, known["m30_volume"].to_numpy(np.float64), close)


def measures(bars: HalfHours, ends: np.ndarray, length: int) -> pd.DataFrame:
    """The `WORDS` of the windows of ``length`` rows that end at rows ``ends``: a column each, float64.

    Volatility is the log standard deviation of the returns, trend their sum in its standard error, liquidity minus
    the log of Amihud's (2002) illiquidity, efficiency Kaufman's ratio of the net move to the path, tails the log
    kurtosis, volatility's change the log ratio of the second half to the first, hour the height of New York's day
    (-1 at midnight, 1 at noon) at the window's end.
    """
    steps = ends[:, None] + np.arange(1 - length, 1)
    r, v = bars.log_return[steps], bars.volume[steps]
    sd = r.std(axis=1) + _TINY
    z = (r - r.mean(axis=1, keepdims=True)) / sd[:, None]
    half = length // 2
    hour = local_hour(bars.close_utc[ends])
    return pd.DataFrame(
        {
            "volatility": np.log(sd),
            "trend": r.sum(axis=1) / (sd * np.sqrt(length)),
            "liquidity": -np.log((np.abs(r) / np.maximum(v, 1.0)).mean(axis=1) + _TINY),
            "volume": np.log(np.maximum(v.mean(axis=1), 1.0)),
            "efficiency": np.abs(r.sum(axis=1)) / (np.abs(r).sum(axis=1) + _TINY),
            "autocorrelation": (z[:, 1:] * z[:, :-1]).mean(axis=1),
            "tails": np.log((z**4).mean(axis=1) + _TINY),
            "skew": np.cbrt((z**3).mean(axis=1)),
            "volatility_change": np.log((r[:, half:].std(axis=1) + _TINY) / (r[:, :half].std(axis=1) + _TINY)),
            "hour": -np.cos(2 * np.pi * hour / 24),
        }
    )


def next_window(bars: HalfHours, ends: np.ndarray, length: int) -> pd.DataFrame:
    """Log realised volatility and trend of the ``length`` rows AFTER each end: targets of a probe.

    Raises `IndexError` where the rows end before the window does.
    """
    return measures(bars, ends + length, length)[["volatility", "trend"]]
