"""MLMI, the machine learning market indicator: a k-nearest-neighbour vote on what followed similar crosses.

Whenever two weighted moving averages of the Heiken Ashi close cross, the pair of smoothed relative strengths
(slow, fast) is remembered; the next cross labels it -1 if the raw close has fallen since, else +1. The value
of a bar is the smoothed mean label of the ``k`` remembered points nearest to the bar's own pair.
"""

import numpy as np
from numba import njit
from pydantic import Field

from algospace.indicators.arrays import Codes, Floats, Tail, aligned
from algospace.indicators.technical import RSI
from algospace.params import Params


class MLMIParams(Params):
    """Lengths in bars, ``k`` neighbours among at most ``max_points`` remembered ones."""

    k: int = Field(ge=1)
    max_points: int = Field(ge=1)
    ma_fast: int = Field(ge=1)
    ma_slow: int = Field(ge=2)
    rsi_fast: int = Field(ge=2)
    rsi_slow: int = Field(ge=2)
    rsi_smooth: int = Field(ge=1)
    smooth: int = Field(ge=1)


def mlmi(ha_close: Floats, raw_close: Floats, params: MLMIParams) -> Floats:
    """Compute the indicator.

    With ``r`` the mean label of the ``k`` nearest labelled points (Euclid, each axis divided by the standard
    deviation of the remembered points; of equally near points the newest wins),
    ``value = 50 * (1 + WMA(r, smooth))``. The last ``max_points`` labelled points count.

    Parameters
    ----------
    ha_close, raw_close : array (n,)
        Heiken Ashi and traded closes, finite; sessions are concatenated.

    Returns
    -------
    array (n,)
        0..100, 50 is neutral; NaN until ``smooth`` bars have had ``k`` labelled points.

    Raises
    ------
    InputError
        When the arrays differ in length.

    Notes
    -----
    Causal: a point enters the memory with its label, at the cross that ends its move, so that no query knows
    a price after its own bar. A cross is a change of the side on which the fast average lies; touching the
    slow one is none. Source: the k-NN indicator of the predecessor's notebooks, its label moved from the
    past to the future of the point.
    """
    return Stream(params).update(ha_close, raw_close)


class Stream:
    """`mlmi` of bars that come one after the other; what it remembers does not grow beyond ``max_points``."""

    def __init__(self, params: MLMIParams) -> None:
        self.params = params
        self._rsi = RSI(params.rsi_slow), RSI(params.rsi_fast)
        self._rsi_rows, self._close_rows, self._vote_rows = (
            Tail(length - 1) for length in (params.rsi_smooth, max(params.ma_fast, params.ma_slow), params.smooth)
        )
        n = params.max_points
        # The memory is a ring: point number s lies in slot s % max_points. `order` lists the slots by x.
        self._points = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)
        self._counts = np.zeros(2, np.int64)  # points held, points ever stored
        self._sums = np.zeros(4)  # of x, x^2, y, y^2, taken about 50, the middle of the RSI
        # Side on which the fast average lies; features and price at the last cross, NaN while they are unknown.
        self._cross = np.array([0.0, np.nan, np.nan, np.nan])

    def update(self, ha_close: Floats, raw_close: Floats) -> Floats:
        """Return the values of the next bars (n,)."""
        p = self.params
        ha, raw = aligned("mlmi", ha_close=ha_close, raw_close=raw_close)
        strengths = self._rsi_rows.join(*(rsi.update(ha) for rsi in self._rsi))
        slow, fast = (_wma(strength, p.rsi_smooth)[self._rsi_rows.front :] for strength in strengths)
        (close,) = self._close_rows.join(ha)
        spread = (_wma(close, p.ma_fast) - _wma(close, p.ma_slow))[self._close_rows.front :]
        votes = _votes(slow, fast, spread, raw, p.k, *self._points, self._counts, self._sums, self._cross)
        (votes,) = self._vote_rows.join(votes)
        value: Floats = _value(votes, p.k, p.smooth)[self._vote_rows.front :]
        return value


def events(value: Floats, dead_band: float) -> Codes:
    """Mark the crossings of the neutral line.

    Returns
    -------
    int8 array (n,)
        +1 where the value rises through ``50 + dead_band``, -1 where it falls through ``50 - dead_band``,
        else 0; uses this bar and the one before. No event next to NaN.
    """
    (value,) = aligned("mlmi.events", value=value)
    signal = np.zeros(value.size, dtype=np.int8)
    before, now = value[:-1], value[1:]
    signal[1:][(before <= 50.0 + dead_band) & (now > 50.0 + dead_band)] = 1
    signal[1:][(before >= 50.0 - dead_band) & (now < 50.0 - dead_band)] = -1
    return signal


@njit(cache=True)
def _wma(x, length):  # type: ignore[no-untyped-def]
    # Written as the newest value plus a mean of differences: flat prices give exactly flat averages, and
    # two averages of them no crosses made of rounding.
    out = np.full(x.size, np.nan)
    total = length * (length + 1) / 2
    for t in range(length - 1, x.size):
        acc = 0.0
        for i in range(1, length):
            acc += (length - i) * (x[t - i] - x[t])
        out[t] = x[t] + acc / total
    return out


@njit(cache=True)
def _value(votes, k, smooth):  # type: ignore[no-untyped-def]
    # Votes are whole numbers, so their weighted sum is exact and a tie is exactly 50.
    out = np.full(votes.size, np.nan)
    total = k * smooth * (smooth + 1) / 2
    for t in range(smooth - 1, votes.size):
        acc = 0.0
        for i in range(smooth):
            acc += (smooth - i) * votes[t - i]
        out[t] = 50.0 * (1.0 + acc / total)
    return out


@njit(cache=True)
def _votes(slow, fast, spread, price, k, x, y, label, serial, order, counts, sums, cross):  # type: ignore[no-untyped-def]
    n = price.size
    max_points = x.size
    votes = np.full(n, np.nan)
    size, stored = counts
    side, cross_slow, cross_fast, cross_price = cross
    best = np.empty(k)
    best_serial = np.empty(k, dtype=np.int64)
    best_label = np.empty(k)
    for t in range(n):
        now = np.sign(spread[t])
        if now != 0.0 and not np.isnan(now):
            if side != 0.0 and now != side:
                if not (np.isnan(cross_slow) or np.isnan(cross_fast)):
                    slot = stored % max_points
                    if size == max_points:
                        size = _forget(slot, x, y, order, size, sums)
                    x[slot] = cross_slow
                    y[slot] = cross_fast
                    label[slot] = 1.0 if price[t] >= cross_price else -1.0
                    serial[slot] = stored
                    size = _remember(slot, x, y, order, size, sums)
                    stored += 1
                cross_slow, cross_fast, cross_price = slow[t], fast[t], price[t]
            side = now
        if size < k or np.isnan(slow[t]) or np.isnan(fast[t]):
            continue

        var_x = sums[1] / size - (sums[0] / size) ** 2
        var_y = sums[3] / size - (sums[2] / size) ** 2
        var_x = var_x if var_x > 1e-9 else 1.0  # all points alike: leave the axis in RSI units
        var_y = var_y if var_y > 1e-9 else 1.0
        right = _first_not_below(slow[t], x, order, size)
        left = right - 1
        found = 0
        while left >= 0 or right < size:  # outwards along x, until x alone is further than the k-th best
            if right >= size or (left >= 0 and slow[t] - x[order[left]] <= x[order[right]] - slow[t]):
                slot = order[left]
                left -= 1
            else:
                slot = order[right]
                right += 1
            across = (x[slot] - slow[t]) ** 2 / var_x
            if found == k and across > best[k - 1]:
                break
            distance = across + (y[slot] - fast[t]) ** 2 / var_y
            if found == k and (
                distance > best[k - 1] or (distance == best[k - 1] and serial[slot] < best_serial[k - 1])
            ):
                continue
            at = found if found < k else k - 1
            while at > 0 and (
                distance < best[at - 1] or (distance == best[at - 1] and serial[slot] > best_serial[at - 1])
            ):
                best[at] = best[at - 1]
                best_serial[at] = best_serial[at - 1]
                best_label[at] = best_label[at - 1]
                at -= 1
            best[at] = distance
            best_serial[at] = serial[slot]
            best_label[at] = label[slot]
            found = min(found + 1, k)
        votes[t] = best_label.sum()
    counts[0], counts[1] = size, stored
    cross[0], cross[1], cross[2], cross[3] = side, cross_slow, cross_fast, cross_price
    return votes


@njit(cache=True)
def _first_not_below(value, x, order, size):  # type: ignore[no-untyped-def]
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if x[order[middle]] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _remember(slot, x, y, order, size, sums):  # type: ignore[no-untyped-def]
    at = _first_not_below(x[slot], x, order, size)
    for i in range(size, at, -1):
        order[i] = order[i - 1]
    order[at] = slot
    _account(x[slot] - 50.0, y[slot] - 50.0, 1.0, sums)
    return size + 1


@njit(cache=True)
def _forget(slot, x, y, order, size, sums):  # type: ignore[no-untyped-def]
    at = _first_not_below(x[slot], x, order, size)
    while order[at] != slot:
        at += 1
    for i in range(at, size - 1):
        order[i] = order[i + 1]
    _account(x[slot] - 50.0, y[slot] - 50.0, -1.0, sums)
    return size - 1


@njit(cache=True)
def _account(x, y, sign, sums):  # type: ignore[no-untyped-def]
    sums[0] += sign * x
    sums[1] += sign * x * x
    sums[2] += sign * y
    sums[3] += sign * y * y
