"""What is wrong with the rows of bar files, each kind with its first place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from algospace.data import quality, rolls
from algospace.data.bars import PRICES, IntArray, to_ms
from algospace.data.params import DataParams
from algospace.data.reader import Fault, Mask, RawBars, after_start
from algospace.data.sessions import MINUTE_MS, covering, locate
from algospace.errors import InputError


def check(raw: RawBars, params: DataParams, calendar: str) -> tuple[Fault, ...]:
    """List all that is wrong with single rows, the first fault of the files first.

    Raises
    ------
    InputError
        Fewer than two bars, or most bars are not as far apart as they are long.
    """
    rows, minutes = raw.rows, raw.minutes
    if len(rows) < 2:
        raise InputError(f"{raw.place(0)}: expected at least 2 bars, found 1")
    start = to_ms(rows["start_utc"])
    timed = rows["start_utc"].notna().to_numpy()
    if raw.spacing not in (None, minutes):
        raise InputError(
            f"{raw.place(0)}: expected {minutes}-minute bars (data.bar_minutes), as prepare needs 5-minute "
            f"bars or 1-minute bars to build them from; found bars {raw.spacing:g} minutes apart"
        )
    _, session = sessions_of(rows, calendar, minutes)
    disordered = quality.disordered(rows)

    def moment(ms: Any) -> str:
        return f"{np.datetime64(int(ms), 'ms')}"[:19] + "Z"

    def neighbour(i: int) -> str:
        before, after = start[:i][~disordered[:i]].max(initial=start.min()), start[i + 1 :][timed[i + 1 :]]
        return f"before the next, {moment(after[0])}" if start[i] > before else f"after {moment(before)}"

    def candle(i: int) -> str:
        return ", ".join(f"{name} {rows[name].iat[i]:g}" for name in PRICES)

    found: list[tuple[str, Mask, Callable[[int], str]]] = [
        ("price", quality.bad_prices(rows), lambda i: f"expected prices above 0, found {candle(i)}"),
        (
            "range",
            quality.bad_range(rows),
            lambda i: f"expected low <= open, close <= high, found {candle(i)}",
        ),
        (
            "wick",
            quality.bad_wick(rows) & ~quality.bad_prices(rows) & ~quality.bad_range(rows),
            lambda i: f"expected high and low within a factor of {quality.WICK:g} of open and close, found {candle(i)}",
        ),
        (
            "volume",
            quality.bad_volume(rows),
            lambda i: f"expected a volume of 0 or more, found {rows['volume'].iat[i]:g}",
        ),
        (
            "order",
            disordered,
            lambda i: f"expected a bar that starts {neighbour(i)}, found {moment(start[i])}",
        ),
        (
            "mark",
            timed & (start % (minutes * MINUTE_MS) != 0),
            lambda i: (
                f"expected a bar start on a mark of {minutes} minutes (data.stamp is {params.stamp}"
                f"{_better_stamp(start[timed], params.stamp, minutes)}), found {moment(start[i])}"
            ),
        ),
        (
            "session",
            timed & (session < 0),
            lambda i: (
                f"expected a bar inside a session of {calendar} (data.calendar, data.timezone, data.stamp), "
                f"found one that starts {moment(start[i])}"
            ),
        ),
    ]
    if "roll" in rows:
        placed = np.where(disordered, -1, session)
        late = rows["roll"].to_numpy() & (placed >= 0) & ~rolls.first_of_session(placed)
        found.append(
            ("late roll", late, lambda i: "expected a roll at the first bar of a session, found it inside one")
        )
    faults = list(raw.faults)
    for kind, mask, text in found:
        if mask.any():
            row = int(mask.argmax())
            faults.append(Fault(kind, mask, f"{raw.place(row)}: {text(row)}"))
    return tuple(sorted(faults, key=lambda fault: int(fault.rows.argmax())))


def _better_stamp(start: IntArray, stamp: str, minutes: int) -> str:
    """The reading of the stamps that would put every bar on a mark, where there is one."""
    named = after_start(minutes)
    for other in named:
        moved = start + (named[stamp] - named[other]) * MINUTE_MS
        if not (moved % (minutes * MINUTE_MS)).any():
            return f"; {other} would fit every bar"
    return ""


def sessions_of(rows: pd.DataFrame, calendar: str, minutes: int) -> tuple[pd.DataFrame, IntArray]:
    """Find each row's session: a table of sessions, and the row of it; -1 outside all of them or without a time."""
    start = to_ms(rows["start_utc"])
    timed = rows["start_utc"].notna().to_numpy()
    if not timed.any():
        return pd.DataFrame({"session_id": np.empty(0, np.int32)}), np.full(start.size, -1, np.int64)
    table = covering(calendar, int(start[timed].min()), int(start[timed].max()))
    return table, locate(table, start, minutes)  # without a time it is the least int64: before all sessions


def any_fault(faults: tuple[Fault, ...], n: int) -> Mask:
    """Mark the rows that have any fault."""
    mask = np.zeros(n, np.bool_)
    for fault in faults:
        mask |= fault.rows
    return mask
