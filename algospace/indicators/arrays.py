"""Array types of the indicators, and the two checks that they share."""

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
