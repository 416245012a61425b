"""NW-RQK: Nadaraya-Watson regression of the close with a rational quadratic kernel, one-sided."""

import numpy as np
from numba import njit
from pydantic import Field

from algospace.indicators.arrays import Codes, Floats, aligned
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
    (close,) = aligned("nwrqk", ha_close=ha_close)
    lag = np.arange(int(params.lookback_h * params.h) + 1, dtype=np.float64)
    weights = (1.0 + lag**2 / (2.0 * params.alpha * params.h**2)) ** -params.alpha
    values: Floats = _smooth(close, weights)
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
    (curve,) = aligned("nwrqk.slope", values=values)
    slope_bp = np.full(curve.size, np.nan)
    slope_bp[1:] = 1e4 * (curve[1:] - curve[:-1]) / curve[:-1]
    return slope_bp, _standardise(slope_bp, window)


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
