"""Axes of a vector series by persistence: what tells regimes from noise is that it lasts.

Noise in disjoint windows is independent, a regime is not. So directions are ranked and scaled by their
autocorrelation between disjoint windows, and not by their variance, which noise may well have more of. Time-lagged
independent component analysis (Molgedey and Schuster 1994; Perez-Hernandez et al. 2013), scaled to Noé and
Clementi's kinetic map (2015).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

Floats = NDArray[np.float64]

LEAST_VARIANCE = 1e-6  # of the largest principal variance: a direction with less is rounding, and is left out


class PersistentAxes(NamedTuple):
    """Linear axes of d-dimensional vectors, the most persistent first."""

    mean: Floats  # (d,)
    axes: Floats  # (d, k) with k <= d: a column each; along it the series it was fitted to has variance 1
    persistence: Floats  # (k,): autocorrelation at the lag along each axis, falling

    @classmethod
    def fit(cls, vectors: np.ndarray, rows: np.ndarray, lag: int) -> "PersistentAxes":
        """Find the uncorrelated axes of the largest autocorrelation.

        Parameters
        ----------
        vectors
            (n, d), any units: the result does not change when they are mapped linearly.
        rows
            Row number (n,) of each vector, rising; two vectors are a pair when their rows differ by ``lag``.
        lag
            Rows. Windows of two vectors this far apart must not share a row, or their common noise passes for
            persistence.

        Raises
        ------
        ValueError
            When fewer than two vectors are a pair, or no direction varies.

        Notes
        -----
        Unsupervised, and fitted like any scaler: pass train's vectors alone. Time runs the same both ways in the
        estimate, so that every autocorrelation is real.
        """
        position = np.searchsorted(rows, rows + lag)
        paired = position < len(rows)
        paired[paired] = rows[position[paired]] == rows[paired] + lag
        if np.count_nonzero(paired) < 2:
            raise ValueError(f"expected vectors {lag} rows apart, found {np.count_nonzero(paired)} pairs")
        x = vectors.astype(np.float64)
        earlier, later = x[paired], x[position[paired]]
        mean = (earlier.mean(axis=0) + later.mean(axis=0)) / 2
        earlier, later = earlier - mean, later - mean
        instant = (earlier.T @ earlier + later.T @ later) / (2 * len(earlier))
        lagged = (earlier.T @ later + later.T @ earlier) / (2 * len(earlier))
        variance, directions = np.linalg.eigh(instant)
        varies = variance > LEAST_VARIANCE * max(variance[-1], np.finfo(float).tiny)
        if not varies.any():
            raise ValueError("expected vectors that differ, found a constant")
        white = directions[:, varies] / np.sqrt(variance[varies])
        persistence, turned = np.linalg.eigh(white.T @ lagged @ white)
        axes = white @ turned[:, ::-1]
        # An axis has no sign of its own: its largest entry is positive.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
        return cls(mean, axes * np.sign(largest), persistence[::-1].copy())

    def transform(self, vectors: np.ndarray) -> Floats:
        """Coordinates (n, k) of vectors (n, d): unit variance times the persistence, none where it is negative.

        Distances between them are kinetic: how unlike the futures of two vectors are. A row depends on its own vector
        alone.
        """
        coordinates: Floats = (vectors.astype(np.float64) - self.mean) @ self.axes * np.maximum(self.persistence, 0)
        return coordinates


class Clusters(NamedTuple):
    """k-means clusters that know how wide they are."""

    centres: Floats  # (k, d)
    radii: Floats  # (k,): root mean square distance of a cluster's points from its centre

    @classmethod
    def fit(cls, coordinates: np.ndarray, k: int, n_init: int, seed: int) -> "Clusters":
        """Find ``k`` clusters of points (n, d), the best of ``n_init`` starts, the most populous first."""
        found = KMeans(k, n_init=n_init, random_state=seed).fit(coordinates)
        order = np.argsort(-np.bincount(found.labels_, minlength=k), kind="stable")
        own = [coordinates[found.labels_ == cluster] - found.cluster_centers_[cluster] for cluster in order]
        radii = np.array([np.sqrt((points**2).sum(axis=1).mean()) for points in own])
        return cls(found.cluster_centers_[order], radii)

    def nearest(self, coordinates: np.ndarray) -> np.ndarray:
        """Number of the nearest cluster (n,) of each point (n, d), its distance in radii of that cluster.

        In plain distance, as k-means has it while it searches, a wide cluster loses its near side to a narrow one. A
        regime that is rare and far from the usual one is such a cluster.
        """
        distance = np.linalg.norm(coordinates[:, None] - self.centres, axis=2)
        found: np.ndarray = (distance / np.maximum(self.radii, np.finfo(float).tiny)).argmin(axis=1)
        return found
