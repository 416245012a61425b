"""Array types of the indicators, the two checks that they share, and the rows that a stream remembers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algospace.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]


def aligned(owner: str, **columns: ArrayLike) -> list[Floats]:
    """Return the columns as contiguous float64 arrays, all of one length.

    Raises
    ------
    InputError
        When a column is not one-dimensional or differs in length from the first.
    """
    arrays = [np.ascontiguousarray(column, dtype=np.float64) for column in columns.values()]
    first = next(iter(columns))
    for name, array in zip(columns, arrays, strict=True):
        if array.ndim != 1 or array.shape != arrays[0].shape:
            raise InputError(f"{owner}: {name} has shape {array.shape}, expected that of {first}, {(arrays[0].size,)}")
    return arrays


def session_starts(owner: str, session_id: ArrayLike, length: int) -> Bools:
    """Mark the first bar of every session, shape (length,); the very first bar counts.

    Raises
    ------
    InputError
        When ``session_id`` has not ``length`` rows.
    """
    ids = np.asarray(session_id)
    if ids.shape != (length,):
        raise InputError(f"{owner}: session_id has shape {ids.shape}, expected {(length,)}")
    starts = np.ones(length, dtype=np.bool_)
    starts[1:] = ids[1:] != ids[:-1]
    return starts


class Tail:
    """The last rows of some columns, which a stream of chunks puts before its next chunk.

    A window that is computed afresh for each row needs nothing else of the past: over the joined columns it
    gives the rows of a chunk the bits that they have in one go, whatever the chunks. A window of L rows needs
    ``L - 1`` of them. Until so many have been seen there are fewer in front, so that the first full window of
    the joined columns is the first full one of all.

    Parameters
    ----------
    rows : int
        Most rows that are kept, 0 or more.

    Attributes
    ----------
    front : int
        Old rows that the last `join` has put before the new ones.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.front = 0
        self._kept: list[NDArray[Any]] = []

    def join(self, *columns: NDArray[Any]) -> list[NDArray[Any]]:
        """Return each column behind its kept rows, and keep the last rows of the result.

        Columns are of one length n >= 0, and the same ones at each call; they may have further axes. What is kept
        is a copy, so that the caller may use its arrays again.
        """
        joined = list(columns)
        if self._kept:
            joined = [np.concatenate(pair) for pair in zip(self._kept, columns, strict=True)]
        length = len(joined[0])
        self.front = length - len(columns[0])
        self._kept = [column[max(length - self.rows, 0) :].copy() for column in joined]
        return joined
