"""What the network learns from: windows, and what their latents have to foretell.

That is the mean row of a later window that shares no bar with the first: what two disjoint windows have in common is
the regime; noise is not. It is a target in training, never an input.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algospace.features.prepared import gather

Floats = NDArray[np.float64]

AMPLE = 800  # windows without a common bar, from which on a forecast has its full weight (decision 0008)


class Examples(NamedTuple):
    """Windows and targets."""

    windows: np.ndarray  # float32 (n, length, features)
    later: np.ndarray  # float32 (n, features), as `Windows.later` gives them; NaN where there is nothing to foretell


class Windows(NamedTuple):
    """Windows of consecutive rows of a table; each is named by the row on which it ends."""

    rows: np.ndarray  # float32 (rows, features), NaN in warm-up
    length: int  # rows of a window
    horizon: int  # rows by which two windows are apart that share no bar, not even one that a row sums up

    def cut(self, ends: np.ndarray) -> np.ndarray:
        """Whole windows (n, length, features) that end at rows ``ends`` (n,)."""
        return gather(self.rows, ends, self.length)

    def means(self, ends: np.ndarray) -> Floats:
        """Mean row (n, features) of each whole window that ends at rows ``ends`` (n,)."""
        total = np.cumsum(np.nan_to_num(self.rows.astype(np.float64)), axis=0)
        total = np.concatenate([np.zeros_like(total[:1]), total])
        means: Floats = (total[ends + 1] - total[ends + 1 - self.length]) / self.length
        return means

    def evidence(self, ends: np.ndarray) -> float:
        """How far train, whose windows end at rows ``ends`` (n,), can teach what lasts: 0 to 1.

        The share of `AMPLE` windows without a common bar that fit in: a short history is learnt by heart otherwise.
        """
        return min(1.0, len(ends) / self.horizon / AMPLE)

    def later(self, ends: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Mean row of the window that ends ``horizon`` rows after each window.

        Parameters
        ----------
        ends
            Rows (n,) on which whole windows end, rising; one array a split, train's first.

        Returns
        -------
        list of float32 arrays (n, features)
            Standardised by train's means and spreads. NaN where the later window is not among the split's own: none
            looks into another split. All NaN when train has no two windows so far apart.
        """
        found = []
        for own in ends:
            known = np.isin(own + self.horizon, own)
            means = np.full((len(own), self.rows.shape[1]), np.nan)
            means[known] = self.means(own[known] + self.horizon)
            found.append(means)
        known = np.isfinite(found[0]).all(axis=1)
        if not known.any():
            return [np.full_like(means, np.nan, np.float32) for means in found]
        centre, spread = found[0][known].mean(axis=0), found[0][known].std(axis=0)
        return [((means - centre) / np.where(spread > 0, spread, 1.0)).astype(np.float32) for means in found]
