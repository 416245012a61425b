"""A linear forecast of net R: what the risk agents and the team begin with (decision 0013)."""

from typing import NamedTuple

import numpy as np

PENALTY = 1000.0  # of the ridge: so many events of a standard deviation each must say that a weight is not 0
PARTS = 5  # stretches of time, each forecast from the others
EMBARGO = 0.01  # of the events, left out on either side of a stretch: their brackets reach into it


class Forecast(NamedTuple):
    """Expected net R of k brackets, linear in f features."""

    weights: np.ndarray  # (f, k)
    bias: np.ndarray  # (k,)

    @classmethod
    def fit(cls, x: np.ndarray, net_r: np.ndarray) -> "Forecast":
        """Ridge regression (Hoerl and Kennard 1970) of ``net_r`` (n, k) on features ``x`` (n, f) of unit size."""
        center, mean = x.mean(0), net_r.mean(0)
        z = x - center
        weights = np.linalg.solve(z.T @ z + PENALTY * np.eye(x.shape[1]), z.T @ (net_r - mean))
        return cls(weights, mean - center @ weights)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Net R expected (n, k)."""
        expected: np.ndarray = x @ self.weights + self.bias
        return expected


def out_of_sample(x: np.ndarray, net_r: np.ndarray) -> np.ndarray:
    """Forecasts (n, k) of ``net_r`` (n, k) at events in time order, each from events of other times alone."""
    n = len(x)
    gap = int(np.ceil(EMBARGO * n))
    found = np.empty_like(net_r)
    for part in np.array_split(np.arange(n), PARTS):
        others = np.r_[: max(part[0] - gap, 0), min(part[-1] + 1 + gap, n) : n]
        found[part] = Forecast.fit(x[others], net_r[others])(x[part])
    return found
