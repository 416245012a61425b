"""The truncated signature of the recent path of the market: its iterated integrals up to the third (Lyons 1998).

The first level of a signature says how far a path went in each coordinate, the higher ones in which order it
did: the area between two coordinates, then the areas of areas. It does not see the speed at which a path is
run through, so time is a coordinate of its own.
"""

import numpy as np
from numba import njit

from algospace.errors import InputError
from algospace.indicators.arrays import Floats, Tail

COORDINATES = 5  # time, return, volume, range, body
SIZE = COORDINATES + COORDINATES**2 + COORDINATES**3
PATH = (0, 2, 1, 3)  # the coordinates after time, as columns of `mmd.path`


class Signature:
    """Stream of the signatures of the market; see `sig155`."""

    def __init__(self, window: int, center: Floats, scale: Floats) -> None:
        shapes = np.shape(center), np.shape(scale)
        if shapes != ((len(PATH),),) * 2:
            raise InputError(f"signature: center and scale have shapes {shapes}, expected {(len(PATH),)}")
        self.window = window
        self._center = np.array(center, dtype=np.float64)
        self._scale = np.array(scale, dtype=np.float64)
        self._past = Tail(window - 1)

    def update(self, z: Floats) -> Floats:
        """Take the next rows of `mmd.path`, array (n, 4), and return their signatures (n, 155)."""
        if np.ndim(z) != 2 or np.shape(z)[1] != len(PATH):
            raise InputError(f"signature: z has shape {np.shape(z)}, expected (n, {len(PATH)})")
        scaled = (z - self._center) / self._scale
        time = np.full(len(z), 1.0 / self.window)
        (increments,) = self._past.join(np.column_stack([time, scaled[:, PATH]]))
        return signatures(increments, self.window)[self._past.front :]


def sig155(z: Floats, center: Floats, scale: Floats, window: int) -> Floats:
    """Compute the signature of the path over the last ``window`` bars.

    The path has one linear piece a bar and five coordinates, in this order: time, from 0 to 1 over the window,
    and the sums since the start of the window of the scaled log return, log change of the volume, log range and
    body of the Heiken Ashi bars.

    Parameters
    ----------
    z : array (n, 4)
        Rows of `mmd.path`.
    center, scale : array (4,)
        Scaling of the rows, ``(z - center) / scale``, fitted on train (see `mmd.MMDReference`).
    window : int
        Bars in a path, 1 or more.

    Returns
    -------
    array (n, 155)
        As `signatures`; the first column, the time that has passed, is 1. NaN until ``window`` finite rows in a row
        have been seen.

    Raises
    ------
    InputError
        When an array is of another shape.

    Notes
    -----
    Causal for given ``center`` and ``scale``: row t uses rows t - window + 1 .. t.
    """
    return Signature(window, center, scale).update(z)


def signatures(increments: Floats, window: int) -> Floats:
    """Compute the signature of every window of ``window`` pieces of a piecewise linear path.

    Parameters
    ----------
    increments : array (n, 5)
        What each piece adds to the coordinates.
    window : int
        Pieces in a window, 1 or more.

    Returns
    -------
    array (n, 155)
        Row t for the pieces t - window + 1 .. t: the five numbers ``S_i`` of level 1, the 25 ``S_ij`` of level 2
        and the 125 ``S_ijk`` of level 3, last index fastest, where ``S_ijk`` is the integral of ``dx_i dx_j dx_k``
        over ordered times. NaN where the window is not complete or holds NaN.

    Raises
    ------
    InputError
        When ``increments`` is of another shape.

    Notes
    -----
    Chen's relation: appending a piece dx multiplies the signature by the tensor exponential of dx, in Horner's
    form ``S3 += (S2 + (S1 / 2 + dx / 6) dx) dx``, ``S2 += (S1 + dx / 2) dx``, ``S1 += dx``. Each window is taken
    afresh, so that no rounding is carried from one to the next.
    """
    if np.ndim(increments) != 2 or np.shape(increments)[1] != COORDINATES:
        raise InputError(f"signatures: increments have shape {np.shape(increments)}, expected (n, {COORDINATES})")
    out: Floats = _signatures(np.ascontiguousarray(increments, dtype=np.float64), window)
    return out


@njit(cache=True)
def _signatures(dx, window):  # type: ignore[no-untyped-def]
    # For each pair of first indices its five sums of level 3 stay in registers over the whole window; to carry all
    # 155 numbers from piece to piece takes a third longer.
    n = len(dx)
    out = np.full((n, SIZE), np.nan)
    run = 0  # of rows without NaN
    for t in range(n):
        run = 0 if np.isnan(dx[t].sum()) else run + 1
        if run < window:
            continue
        for i in range(5):
            for j in range(5):
                s1 = s2 = a = b = c = d = e = 0.0
                for r in range(t - window + 1, t + 1):
                    grown = s2 + (s1 / 2.0 + dx[r, i] / 6.0) * dx[r, j]
                    a += grown * dx[r, 0]
                    b += grown * dx[r, 1]
                    c += grown * dx[r, 2]
                    d += grown * dx[r, 3]
                    e += grown * dx[r, 4]
                    s2 += (s1 + dx[r, i] / 2.0) * dx[r, j]
                    s1 += dx[r, i]
                pair = 5 * i + j
                out[t, i] = s1
                out[t, 5 + pair] = s2
                for k, s3 in enumerate((a, b, c, d, e)):
                    out[t, 30 + 5 * pair + k] = s3
    return out
