"""Coordinates of a vector series in which distance means persistence: what tells regimes from noise is that it lasts.

Noise in disjoint windows is independent, a regime is not. So directions are ranked and scaled by their
autocorrelation between disjoint windows, and not by their variance, of which noise may well have more. Time-lagged
independent component analysis (Molgedey and Schuster 1994; Pérez-Hernández et al. 2013), scaled to Noé and
Clementi's kinetic map (2015).
"""

import numpy as np
from numpy.typing import NDArray

from algospace.errors import InputError

Floats = NDArray[np.float64]

LEAST_VARIANCE = 1e-6  # of the largest principal variance: a direction with less is rounding, and is left out


def kinetic_axes(vectors: np.ndarray, rows: np.ndarray, lag: int) -> Floats:
    """Find the uncorrelated axes of a vector series, each as long as it lasts.

    Parameters
    ----------
    vectors
        (n, d), any units: coordinates along the axes do not change when the vectors are mapped linearly. Pass train's
        alone: the axes are fitted, like any scaler.
    rows
        Row number (n,) of each vector, rising; two vectors are a pair when their rows differ by ``lag``.
    lag
        Rows. Windows of two vectors this far apart must not share a bar, or their common noise passes for persistence.

    Returns
    -------
    array (d, d)
        An axis a column, the most persistent first. Along it the vectors' standard deviation is their autocorrelation
        at the lag: 0 where that is negative, or where nothing varies. Where no axis persists at all, each has 1.

    Raises
    ------
    InputError
        When fewer than two vectors are a pair, or no direction varies.

    Notes
    -----
    Time runs the same both ways in the estimate, so that every autocorrelation is real.
    """
    position = np.searchsorted(rows, rows + lag)
    paired = position < len(rows)
    paired[paired] = rows[position[paired]] == rows[paired] + lag
    if np.count_nonzero(paired) < 2:
        raise InputError(f"rde: expected regime vectors {lag} rows apart, found {np.count_nonzero(paired)} pairs")
    x = vectors.astype(np.float64)
    earlier, later = x[paired], x[position[paired]]
    mean = (earlier.mean(axis=0) + later.mean(axis=0)) / 2
    earlier, later = earlier - mean, later - mean
    instant = (earlier.T @ earlier + later.T @ later) / (2 * len(earlier))
    lagged = (earlier.T @ later + later.T @ earlier) / (2 * len(earlier))
    variance, directions = np.linalg.eigh(instant)
    varies = variance > LEAST_VARIANCE * max(variance[-1], np.finfo(float).tiny)
    if not varies.any():
        raise InputError("rde: expected regime vectors that differ, found a constant")
    white = directions[:, varies] / np.sqrt(variance[varies])
    persistence, turned = np.linalg.eigh(white.T @ lagged @ white)
    axes = white @ turned[:, ::-1]
    # An axis has no sign of its own: its largest entry is positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    axes, persistence = axes * np.sign(largest), persistence[::-1]
    lasting = np.maximum(persistence, 0) if persistence[0] > 0 else np.ones_like(persistence)
    missing = x.shape[1] - len(persistence)
    return np.pad(axes * lasting, ((0, 0), (0, missing)))
