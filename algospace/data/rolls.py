"""Rolls: where one contract of a future gives way to the next (domain.md 1.4, A3).

A roll falls between two sessions, so a session's bars are of one contract.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from algospace.errors import InputError

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

QUARTERLY = ("CME Globex Equity", "CME_Equity")  # calendars of the equity index futures


def require_quarterly(calendar: str) -> None:
    """Refuse ``data.rolls: quarterly`` for what does not roll so."""
    if calendar not in QUARTERLY:
        raise InputError(
            f"data.rolls: expected none or column, found quarterly for a contract of {calendar!r}; "
            f"it is the rule of {' and '.join(map(repr, QUARTERLY))}"
        )


def quarterly(session_id: Iterable[int]) -> IntArray:
    """Count the quarterly rolls up to each trading date (YYYYMMDD), from an origin of no meaning.

    The new contract is the traded one from the session of the Monday before the third Friday of March, June,
    September and December: CME Group's roll date for equity index futures.
    """
    ids = np.fromiter(session_id, np.int64)
    months = (ids // 10_000 - 1970) * 12 + ids // 100 % 100 - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]") + (ids % 100 - 1)
    quarter = months // 3
    begin = (3 * quarter + 2).astype("datetime64[M]").astype("datetime64[D]")  # of the quarter's last month
    weekday = (begin.astype(np.int64) + 3) % 7  # Monday is 0
    monday = begin + (4 - weekday) % 7 + 14 - 4
    return np.asarray(quarter + (days >= monday))


def first_of_session(session: IntArray) -> Mask:
    """Mark the rows that begin a session later than all before them; -1 is no session."""
    latest = np.maximum.accumulate(session)
    mask: Mask = session >= 0
    mask[1:] &= session[1:] > latest[:-1]
    return mask


def contract_ids(
    rolls: str, flags: Mask, session: IntArray, session_id: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Count the rolls so far in each row.

    Parameters
    ----------
    rolls
        ``data.rolls``.
    flags
        (n,) the first row of a new contract, for `column`; one that does not begin a session counts for nothing.
    session
        (n,) index into ``session_id``; -1 outside every session.
    session_id
        Trading dates (YYYYMMDD).
    """
    if rolls == "column":
        return np.cumsum(flags & first_of_session(session), dtype=np.int32)
    if rolls == "quarterly" and (session >= 0).any():
        count = quarterly(session_id)
        so_far: Int32Array = (count - count[session[(session >= 0).argmax()]]).astype(np.int32)
        return np.asarray(so_far[np.maximum(session, 0)])
    return np.zeros(session.size, np.int32)
