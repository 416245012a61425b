"""Gate 1, the synergy detector: three signals of one direction in one of four orders, soon after each other.

=====  ====================
type   order
=====  ====================
1      MLMI, NW-RQK, FVG
2      MLMI, FVG, NW-RQK
3      NW-RQK, FVG, MLMI
4      NW-RQK, MLMI, FVG
=====  ====================

All orders but those that start with an FVG, so that the first two kinds decide the type.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from algospace.errors import InputError
from algospace.indicators.arrays import Bools, Codes, Floats, SessionStarts, aligned
from algospace.params import Params

MLMI, NWRQK, FVG = 1, 2, 3  # kinds of signals, in the order in which those of one bar count


class Gate1Params(Params):
    """Window and cooldown in 5-minute bars; the thresholds that turn indicators into events and strengths."""

    window: int = Field(ge=1, le=10_000)
    cooldown: int = Field(ge=1)
    mlmi_dead_band: float = Field(ge=0, lt=50)
    nwrqk_min_slope: float = Field(ge=0)
    fvg_strength_size: float = Field(gt=0)
    min_train_events: int = Field(ge=0)


class Gate1(NamedTuple):
    """Synergies and the state of the two trackers after each 5-minute bar.

    Arrays (n,): ``type`` 1..4 or 0 for none, ``direction`` +1 or -1, ``bars_to_complete`` (1 when all three
    signals share a bar), ``quality`` and the strengths of the three signals, 0..1, ``has_tie`` (two of the
    three share a bar); 0 or False without a synergy. Arrays (n, 2), column 0 the tracker of long signals,
    column 1 of short ones: ``stage`` signals held (0..2), ``first_kind`` and ``second_kind`` (0 none, 1 MLMI,
    2 NW-RQK, 3 FVG), ``age`` bars since the first, -1 without one.
    """

    type: Codes
    direction: Codes
    bars_to_complete: NDArray[np.int16]
    quality: Floats
    strength_mlmi: Floats
    strength_nwrqk: Floats
    strength_fvg: Floats
    has_tie: Bools
    stage: Codes
    first_kind: Codes
    second_kind: Codes
    age: NDArray[np.int16]


def detect(
    mlmi_event: ArrayLike,
    nwrqk_event: ArrayLike,
    fvg_event: ArrayLike,
    mlmi_strength: Floats,
    nwrqk_strength: Floats,
    fvg_strength: Floats,
    session_id: ArrayLike,
    params: Gate1Params,
) -> Gate1:
    """Detect synergies.

    Each direction has a tracker, which holds the first signal that is not an FVG and the first one of another
    kind after it; the third kind completes the synergy. A repeated kind changes nothing; when the first
    signal is more than ``window`` bars old it alone is dropped, and the tracker holds what it would hold had
    it begun after it. So a synergy completes at a bar exactly when that bar's signal ends some valid triple
    of signals younger than the tracker's last completion (tested against all triples). A completion clears
    its tracker; it is emitted unless fewer than ``cooldown`` bars have passed since the last emission of
    either direction. Everything is forgotten at the session's end. Of signals in one bar MLMI comes first,
    then NW-RQK, then FVG.

    ``quality = clip(0.6 mean strength + 0.3 (1 - bars_to_complete / window) + 0.1, 0, 1)`` with
    ``bars_to_complete`` = bars from the first to the last signal, plus 1.

    Parameters
    ----------
    mlmi_event, nwrqk_event, fvg_event : array (n,)
        +1, -1 or 0 on the 5-minute grid; not 0 only at the bar at whose close the event is known.
    mlmi_strength, nwrqk_strength, fvg_strength : array (n,)
        Strength 0..1 of the event at its bar, ignored elsewhere; NaN counts as 0.
    session_id : array (n,)
        Trading day.

    Raises
    ------
    InputError
        When the arrays differ in length or an event is not -1, 0 or +1.

    Notes
    -----
    Causal: row t knows the events of bars up to t. Source: the predecessor's product brief; one tracker a
    direction, and dropping only the oldest signal, are ours.
    """
    return Stream(params).update(
        mlmi_event, nwrqk_event, fvg_event, mlmi_strength, nwrqk_strength, fvg_strength, session_id
    )


class Stream:
    """`detect` on bars that come one after the other; it remembers the signals of one window."""

    def __init__(self, params: Gate1Params) -> None:
        self.params = params
        self._starts = SessionStarts("gate1")
        # The signals of each tracker that are still young enough, oldest first: kind, bar, strength.
        room = 3 * (params.window + 1)
        self._signals = np.zeros((2, room), np.int64), np.zeros((2, room), np.int64), np.zeros((2, room))
        self._held = np.zeros(2, np.int64)
        self._clock = np.array([0, -1])  # bars so far; bar of the session's last emission, -1 without one

    def update(
        self,
        mlmi_event: ArrayLike,
        nwrqk_event: ArrayLike,
        fvg_event: ArrayLike,
        mlmi_strength: Floats,
        nwrqk_strength: Floats,
        fvg_strength: Floats,
        session_id: ArrayLike,
    ) -> Gate1:
        """Return the synergies and trackers of the next bars (n,)."""
        columns = aligned(
            "gate1",
            mlmi_event=mlmi_event,
            nwrqk_event=nwrqk_event,
            fvg_event=fvg_event,
            mlmi_strength=mlmi_strength,
            nwrqk_strength=nwrqk_strength,
            fvg_strength=fvg_strength,
        )
        events, strengths = np.stack(columns[:3], axis=1), np.stack(columns[3:], axis=1)
        wrong = ~np.isin(events, (-1.0, 0.0, 1.0)).all(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"gate1: events of row {row} are {events[row].tolist()}, expected -1, 0 or 1")
        starts = self._starts.update(session_id, len(events))
        strengths = np.nan_to_num(strengths)
        window, cooldown = self.params.window, self.params.cooldown
        return Gate1(*_detect(events, strengths, starts, window, cooldown, *self._signals, self._held, self._clock))


@njit(cache=True)
def _detect(events, strengths, starts, window, cooldown, kind, at, strength, held, clock):  # type: ignore[no-untyped-def]
    n = events.shape[0]
    kind_of = np.zeros(n, dtype=np.int8)
    direction = np.zeros(n, dtype=np.int8)
    bars = np.zeros(n, dtype=np.int16)
    quality = np.zeros(n)
    parts = np.zeros((3, n))
    tie = np.zeros(n, dtype=np.bool_)
    stage = np.zeros((n, 2), dtype=np.int8)
    first_kind = np.zeros((n, 2), dtype=np.int8)
    second_kind = np.zeros((n, 2), dtype=np.int8)
    age = np.full((n, 2), -1, dtype=np.int16)

    bar, emitted = clock
    for t in range(n):
        if starts[t]:
            held[:] = 0
            emitted = -1
        for side in range(2):
            held[side] = _expire(kind[side], at[side], strength[side], held[side], bar - window)
        for new in range(MLMI, FVG + 1):
            event = events[t, new - 1]
            if event == 0.0:
                continue
            side = 0 if event > 0 else 1
            second = _second(kind[side], held[side])
            if second < 0 or new == kind[side, 0] or new == kind[side, second]:
                if held[side] > 0 or new != FVG:
                    kind[side, held[side]] = new
                    at[side, held[side]] = bar
                    strength[side, held[side]] = strengths[t, new - 1]
                    held[side] += 1
                continue
            if emitted < 0 or bar - emitted >= cooldown:
                emitted = bar
                one, two = kind[side, 0], kind[side, second]
                if one == MLMI:
                    kind_of[t] = 1 if two == NWRQK else 2
                else:
                    kind_of[t] = 3 if two == FVG else 4
                direction[t] = 1 if side == 0 else -1
                bars[t] = bar - at[side, 0] + 1
                parts[one - 1, t] = strength[side, 0]
                parts[two - 1, t] = strength[side, second]
                parts[new - 1, t] = strengths[t, new - 1]
                mean = (parts[0, t] + parts[1, t] + parts[2, t]) / 3.0
                quality[t] = min(max(0.6 * mean + 0.3 * (1.0 - bars[t] / window) + 0.1, 0.0), 1.0)
                tie[t] = at[side, second] == at[side, 0] or at[side, second] == bar
            held[side] = 0
        for side in range(2):
            if held[side] > 0:
                second = _second(kind[side], held[side])
                stage[t, side] = 1 if second < 0 else 2
                first_kind[t, side] = kind[side, 0]
                second_kind[t, side] = 0 if second < 0 else kind[side, second]
                age[t, side] = bar - at[side, 0]
        bar += 1
    clock[0], clock[1] = bar, emitted
    return (
        kind_of, direction, bars, quality, parts[0], parts[1], parts[2], tie,
        stage, first_kind, second_kind, age,
    )  # fmt: skip


@njit(cache=True)
def _second(kind, held):  # type: ignore[no-untyped-def]
    """Place of the first signal of another kind than the first one, -1 without."""
    for i in range(1, held):
        if kind[i] != kind[0]:
            return i
    return -1


@njit(cache=True)
def _expire(kind, at, strength, held, oldest):  # type: ignore[no-untyped-def]
    """Drop signals before bar ``oldest``, and FVGs that have thereby come first."""
    gone = 0
    while gone < held and (at[gone] < oldest or kind[gone] == FVG):
        gone += 1
    if gone > 0:
        for i in range(gone, held):
            kind[i - gone] = kind[i]
            at[i - gone] = at[i]
            strength[i - gone] = strength[i]
    return held - gone
