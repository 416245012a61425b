"""NW-RQK: Nadaraya-Watson regression of the close with a rational quadratic kernel, one-sided."""

import numpy as np
from numba import njit
from pydantic import Field

from algospace.indicators.arrays import Codes, Floats, Tail, aligned
from algospace.params import Params

MIN_SLOPES = 20  # a standard deviation of fewer slopes says little


class NWRQKParams(Params):
    """Bandwidth ``h`` in bars, relative weighting ``alpha``, cut after ``lookback_h`` bandwidths."""

    h: float = Field(gt=0)
    alpha: float = Field(gt=0)
    lookback_h: float = Field(gt=0)
    slope_window: int = Field(ge=MIN_SLOPES)


def nwrqk(ha_close: Floats, params: NWRQKParams) -> Floats:
    """Smooth the close.

    ``value_t = sum_i w_i c_{t-i} / sum_i w_i`` over ``0 <= i <= min(t, lookback_h * h)`` with
    ``w_i = (1 + i^2 / (2 alpha h^2)) ** -alpha`` (rational quadratic kernel, Rasmussen & Williams 2006, eq.
    4.19).

    Parameters
    ----------
    ha_close : array (n,)
        Heiken Ashi closes, finite; sessions are concatenated.

    Returns
    -------
    array (n,)
        In price units, without warm-up. A constant stays exactly that constant.

    Notes
    -----
    Causal: looks back only, and never repaints.
    """
    return Stream(params).update(ha_close)


class Stream:
    """`nwrqk` of bars that come one after the other."""

    def __init__(self, params: NWRQKParams) -> None:
        lag = np.arange(int(params.lookback_h * params.h) + 1, dtype=np.float64)
        self._weights = (1.0 + lag**2 / (2.0 * params.alpha * params.h**2)) ** -params.alpha
        self._rows = Tail(lag.size - 1)

    def update(self, ha_close: Floats) -> Floats:
        """Return the values of the next bars (n,)."""
        (close,) = self._rows.join(*aligned("nwrqk", ha_close=ha_close))
        values: Floats = _smooth(close, self._weights)[self._rows.front :]
        return values


def slope(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Measure how fast the curve rises.

    Parameters
    ----------
    values : array (n,)
        Curve, positive.
    window : int
        Slopes in the standard deviation.

    Returns
    -------
    slope_bp : array (n,)
        Change from the bar before in basis points of it; the first is NaN.
    slope_z : array (n,)
        ``slope_bp`` over the population standard deviation of the last ``window`` slopes, this one included;
        NaN until there are 20 of them, 0 where they do not differ.

    Notes
    -----
    Causal: uses slopes up to this bar.
    """
    return SlopeStream(window).update(values)


class SlopeStream:
    """`slope` of a curve whose values come one after the other."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._values = Tail(1)
        self._slopes = Tail(window)

    def update(self, values: Floats) -> tuple[Floats, Floats]:
        """Return ``slope_bp`` and ``slope_z`` of the next values (n,)."""
        (curve,) = self._values.join(*aligned("nwrqk.slope", values=values))
        slope_bp = np.full(curve.size, np.nan)
        slope_bp[1:] = 1e4 * (curve[1:] - curve[:-1]) / curve[:-1]
        slope_bp = slope_bp[self._values.front :]
        (slopes,) = self._slopes.join(slope_bp)
        return slope_bp, _standardise(slopes, self._window)[self._slopes.front :]


def events(values: Floats, slope_z: Floats, min_slope: float) -> Codes:
    """Mark the turns of the curve.

    Parameters
    ----------
    values, slope_z : array (n,)
        Curve and its standardised slope.
    min_slope : float
        Smallest ``|slope_z|`` of an event; 0 accepts every turn, also while ``slope_z`` is NaN.

    Returns
    -------
    int8 array (n,)
        +1 where the curve turns up (it did not rise before and rises now), -1 where it turns down, else 0.

    Notes
    -----
    Causal: uses this bar and the two before.
    """
    curve, steepness = aligned("nwrqk.events", values=values, slope_z=slope_z)
    signal = np.zeros(curve.size, dtype=np.int8)
    before, now = curve[1:-1] - curve[:-2], curve[2:] - curve[1:-1]
    steep = np.full(now.size, True) if min_slope == 0 else np.abs(steepness[2:]) >= min_slope
    signal[2:][(before <= 0) & (now > 0) & steep] = 1
    signal[2:][(before >= 0) & (now < 0) & steep] = -1
    return signal


@njit(cache=True)
def _smooth(close, weights):  # type: ignore[no-untyped-def]
    # Differences from the newest close keep a flat market exactly flat: no turns made of rounding.
    out = np.empty(close.size)
    for t in range(close.size):
        acc = 0.0
        total = weights[0]
        for i in range(1, min(t, weights.size - 1) + 1):
            acc += weights[i] * (close[t - i] - close[t])
            total += weights[i]
        out[t] = close[t] + acc / total
    return out


@njit(cache=True)
def _standardise(x, window):  # type: ignore[no-untyped-def]
    out = np.full(x.size, np.nan)
    for t in range(MIN_SLOPES, x.size):
        first = max(1, t - window + 1)
        count = t - first + 1
        mean = 0.0
        for i in range(first, t + 1):
            mean += x[i]
        mean /= count
        variance = 0.0
        for i in range(first, t + 1):
            variance += (x[i] - mean) ** 2
        deviation = np.sqrt(variance / count)
        # Below a 1e-9 of the slope itself the spread is rounding.
        out[t] = x[t] / deviation if deviation > 1e-9 * abs(mean) else 0.0
    return out
