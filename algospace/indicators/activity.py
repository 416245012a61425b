"""Activity: the volume of the last bars against what is usual at their time of the session."""

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from pydantic import Field

from algospace.indicators.arrays import Floats, Ints, SessionStarts, aligned
from algospace.params import Params

SLOT_MS = 5 * 60_000
SLOTS = 24 * 60 * 60_000 // SLOT_MS  # of the longest session


class ActivityParams(Params):
    """Bars of the running mean; sessions that tell what is usual."""

    bars: int = Field(ge=1)
    sessions: int = Field(ge=1)


def activity(
    volume: Floats, start_ms: ArrayLike, session_id: ArrayLike, is_synthetic: ArrayLike, params: ActivityParams
) -> Floats:
    """Compare the volume of 5-minute bars with that of earlier sessions, as long after their first bar.

    Parameters
    ----------
    volume
        Contracts or shares, array (n,).
    start_ms, session_id
        Start of each bar in milliseconds, and its session, arrays (n,).
    is_synthetic
        Bars that were filled in: they count for nothing.

    Returns
    -------
    array (n,)
        Logarithm of a ratio, 0 where it is as usual and until a second session has begun.

    Notes
    -----
    Causal. ``x_t = log(volume_t) - usual``, with ``usual`` the mean logarithm at the same time of the sessions
    before; the value is the mean of ``x``. Both means are running ones, ``m += (x - m) / min(k, length)`` at their
    k-th observation: the plain mean at first, then one that forgets by ``1 / length`` a step. Volume has a day's
    shape that is far larger than its changes from day to day; against the bars before (`technical.volume_ratio`) or
    the year before, these are not seen. A session whose first bars are missing is compared with the wrong times.
    """
    return Stream(params).update(volume, start_ms, session_id, is_synthetic)


class Stream:
    """Stream of the activity; see `activity`."""

    def __init__(self, params: ActivityParams) -> None:
        self.params = params
        self._usual, self._seen = np.zeros(SLOTS), np.zeros(SLOTS, np.int64)
        self._starts, self._first = SessionStarts("activity"), 0.0  # start of the session's first bar
        self._state = (0, 0.0)  # bars compared, their running mean

    def update(self, volume: Floats, start_ms: ArrayLike, session_id: ArrayLike, is_synthetic: ArrayLike) -> Floats:
        """Take the next bars, arrays (n,), and return their values (n,)."""
        volume, start, filled = aligned("activity", volume=volume, start_ms=start_ms, is_synthetic=is_synthetic)
        begun = np.flatnonzero(self._starts.update(session_id, volume.size))
        firsts = np.append(self._first, start[begun])
        first = firsts[np.searchsorted(begun, np.arange(volume.size), side="right")]
        self._first = float(firsts[-1])
        slot = np.clip((start - first) / SLOT_MS, 0, SLOTS - 1).astype(np.int64)
        counts = (volume > 0.0) & (filled == 0)
        values: Floats
        values, self._state = _activity(
            volume, slot, counts, self._usual, self._seen, self.params.bars, self.params.sessions, self._state
        )
        return values


@njit(cache=True)
def _activity(
    volume: Floats,
    slot: Ints,
    counts: np.ndarray,
    usual: Floats,
    seen: Ints,
    bars: int,
    sessions: int,
    state: tuple[int, float],
) -> tuple[Floats, tuple[int, float]]:
    """The loop; ``usual`` and ``seen``, a number a slot, are brought up to date in place."""
    compared, mean = state
    values = np.empty(volume.size)
    for t in range(volume.size):
        if counts[t]:
            at, x = slot[t], math.log(volume[t])
            if seen[at]:
                compared = min(compared + 1, bars)
                mean += (x - usual[at] - mean) / compared
            seen[at] = min(seen[at] + 1, sessions)
            usual[at] += (x - usual[at]) / seen[at]
        values[t] = mean
    return values, (compared, mean)
