"""FVG, fair value gaps: three bars whose outer two do not overlap, and the return of price into the hole."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from pydantic import Field

from algospace.indicators.arrays import Bools, Codes, Floats, Ints, SessionStarts, Tail, aligned
from algospace.indicators.technical import VolumeRatio
from algospace.params import Params


class FVGParams(Params):
    """Smallest gap in basis points of the close and in ATR; bars that a gap lives."""

    min_size_bp: float = Field(ge=0)
    min_size_atr: float = Field(ge=0)
    max_age: int = Field(ge=1)


class FVG(NamedTuple):
    """Gaps after each bar, arrays (n,).

    ``nearest_level`` is the near edge (upper of a bullish gap, lower of a bearish one) of the living gap
    whose edge is nearest to the close, NaN without one; ``age`` its bars since creation, -1 without one. The
    ``mitigation_*`` columns speak of this bar only: the signal is +1 for a filled bullish gap, -1 for a
    bearish one, 0 for none; level (the edge that price came from), size (price units), penetration and
    strength (0..1) are those of the filled gap, NaN for none. ``created`` is +1, -1 or 0.
    """

    bullish_active: Bools
    bearish_active: Bools
    nearest_level: Floats
    age: Ints
    mitigation_signal: Codes
    mitigation_level: Floats
    mitigation_size: Floats
    mitigation_penetration: Floats
    mitigation_strength: Floats
    created: Codes


def fvg(
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    atr: Floats,
    session_id: ArrayLike,
    is_synthetic: ArrayLike,
    params: FVGParams,
    volume_window: int,
) -> FVG:
    """Follow the fair value gaps of raw bars.

    Bars a, b, c of one session, none of them synthetic, make a bullish gap ``[high_a, low_c]`` when
    ``low_c > high_a``, ``close_b > high_a``, its size is above ``min_size_bp`` of ``close_c`` and at least
    ``min_size_atr`` times the ATR of c (unknown ATR: no gap, unless ``min_size_atr`` is 0); a bearish gap
    ``[high_c, low_a]`` is the mirror image. A gap dies when a later bar reaches its far edge (it is
    mitigated), when it is more than ``max_age`` bars old, or with its session. Of several mitigated in one
    bar the newest is reported. Strength: ``0.4 p + 0.3 max(0, 1 - n/20) + 0.2 min(v/2, 1) + 0.1 max(0, 1 -
    n/50)`` with penetration p, age n and volume ratio v (1 while unknown).

    Parameters
    ----------
    high, low, close, volume, atr : array (n,)
        Traded prices, volume, and their ATR (NaN in its warm-up).
    session_id, is_synthetic : array (n,)
        Trading day, and whether the bar only fills a hole.
    volume_window : int
        Past bars in the volume ratio.

    Raises
    ------
    InputError
        When the arrays differ in length.

    Notes
    -----
    Causal: a gap is known at the close of its third bar. Source: the predecessor's product brief; the size
    in ATR is ours.
    """
    return Stream(params, volume_window).update(high, low, close, volume, atr, session_id, is_synthetic)


class Stream:
    """`fvg` of bars that come one after the other; it remembers the living gaps and two bars."""

    def __init__(self, params: FVGParams, volume_window: int) -> None:
        self.params = params
        self._starts = SessionStarts("fvg")
        self._ratio = VolumeRatio(volume_window)
        self._rows = Tail(2)
        # The living gaps, oldest first; a bar makes one at most, so max_age + 1 slots and one being made suffice.
        room = params.max_age + 2
        self._gaps = np.empty(room), np.empty(room), np.empty(room, np.int8), np.empty(room, np.int64)
        self._counts = np.zeros(3, np.int64)  # living gaps, bars of the session, bars of all

    def update(
        self,
        high: Floats,
        low: Floats,
        close: Floats,
        volume: Floats,
        atr: Floats,
        session_id: ArrayLike,
        is_synthetic: ArrayLike,
    ) -> FVG:
        """Return the columns of the next bars (n,)."""
        high, low, close, volume, atr, synthetic = aligned(
            "fvg", high=high, low=low, close=close, volume=volume, atr=atr, is_synthetic=is_synthetic
        )
        starts = self._starts.update(session_id, high.size)
        ratio = self._ratio.update(volume)
        high, low, close, synthetic = self._rows.join(high, low, close, synthetic)
        columns = _follow(
            high,
            low,
            close,
            np.where(np.isnan(ratio), 1.0, ratio),
            atr,
            starts,
            synthetic != 0.0,
            self._rows.front,
            self.params.min_size_bp,
            self.params.min_size_atr,
            self.params.max_age,
            *self._gaps,
            self._counts,
        )
        return FVG(*columns)


@njit(cache=True)
def _follow(  # type: ignore[no-untyped-def]
    high, low, close, ratio, atr, starts, synthetic, front, min_bp, min_atr, max_age, lower, upper, side, birth, counts
):  # fmt: skip
    n = ratio.size
    bullish = np.zeros(n, dtype=np.bool_)
    bearish = np.zeros(n, dtype=np.bool_)
    nearest = np.full(n, np.nan)
    age = np.full(n, -1, dtype=np.int64)
    signal = np.zeros(n, dtype=np.int8)
    level = np.full(n, np.nan)
    size = np.full(n, np.nan)
    penetration = np.full(n, np.nan)
    strength = np.full(n, np.nan)
    created = np.zeros(n, dtype=np.int8)

    alive, bar, clock = counts
    for i in range(n):
        t = front + i
        if starts[i]:
            alive = 0
            bar = 0
        kept = 0
        for g in range(alive):
            n_bars = clock - birth[g]
            if n_bars > max_age:
                continue
            far = low[t] <= lower[g] if side[g] > 0 else high[t] >= upper[g]
            if far:  # a newer gap overwrites an older one
                depth = upper[g] - low[t] if side[g] > 0 else high[t] - lower[g]
                depth = min(max(depth / (upper[g] - lower[g]), 0.0), 1.0)
                signal[i] = side[g]
                level[i] = upper[g] if side[g] > 0 else lower[g]
                size[i] = upper[g] - lower[g]
                penetration[i] = depth
                strength[i] = (
                    0.4 * depth
                    + 0.3 * max(0.0, 1.0 - n_bars / 20.0)
                    + 0.2 * min(ratio[i] / 2.0, 1.0)
                    + 0.1 * max(0.0, 1.0 - n_bars / 50.0)
                )
                continue
            lower[kept], upper[kept], side[kept], birth[kept] = lower[g], upper[g], side[g], birth[g]
            kept += 1
        alive = kept

        if bar >= 2 and not (synthetic[t] or synthetic[t - 1] or synthetic[t - 2]):
            new = 0
            if low[t] > high[t - 2] and close[t - 1] > high[t - 2]:
                new, bottom, top = 1, high[t - 2], low[t]
            elif high[t] < low[t - 2] and close[t - 1] < low[t - 2]:
                new, bottom, top = -1, high[t], low[t - 2]
            if new != 0:
                wide = top - bottom > 1e-4 * min_bp * close[t]
                if wide and (min_atr == 0.0 or top - bottom >= min_atr * atr[i]):
                    lower[alive], upper[alive], side[alive], birth[alive] = bottom, top, new, clock
                    alive += 1
                    created[i] = new
        bar += 1

        for g in range(alive):
            edge = upper[g] if side[g] > 0 else lower[g]
            bullish[i] |= side[g] > 0
            bearish[i] |= side[g] < 0
            if age[i] < 0 or abs(close[t] - edge) <= abs(close[t] - nearest[i]):  # of equals the newest
                nearest[i] = edge
                age[i] = clock - birth[g]
        clock += 1
    counts[0], counts[1], counts[2] = alive, bar, clock
    return bullish, bearish, nearest, age, signal, level, size, penetration, strength, created
