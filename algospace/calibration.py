"""Whether probabilities say what happens: Platt scaling, and the calibration error beside what chance makes of it."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

BINS = 15
MIN_EVENTS = 500  # with fewer the error is mostly chance, so none is quoted
DRAWS = 1000  # simulated perfect models


class Calibration(NamedTuple):
    """Platt scaling: calibrated p = sigmoid(slope logit(C) + intercept)."""

    slope: float
    intercept: float

    def __call__(self, confidence: float) -> float:
        """Calibrated probability that the trade ends with a positive net R."""
        return float(1 / (1 + np.exp(-(self.slope * _logit(np.array(confidence)) + self.intercept))))

    @classmethod
    def fit(cls, confidence: np.ndarray, won: np.ndarray) -> "Calibration":
        """Fit on the selecting half of validation.

        Where more confidence went with fewer wins it says nothing: the calibrated probability is then the share that
        won, for any confidence; where one outcome alone occurs, that of one win and one loss more (Laplace's rule).
        """
        if len(set(won.tolist())) < 2:
            return cls(0.0, float(_logit((won.sum() + 1) / (len(won) + 2))))
        from sklearn.linear_model import LogisticRegression  # whoever decides fits nothing

        model = LogisticRegression(C=1.0).fit(_logit(confidence)[:, None], won)
        slope = float(model.coef_[0, 0])
        return cls(slope, float(model.intercept_[0])) if slope > 0 else cls(0.0, float(_logit(won.mean())))


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    odds: np.ndarray = np.log(p / (1 - p))
    return odds


class Reliability(NamedTuple):
    """Probabilities beside what happened, in those of 15 bins of equal width that hold any: arrays (bins,).

    The expected calibration error (Naeini et al. 2015) is the mean distance of found from stated, weighted by the
    counts. It is above zero for a perfectly calibrated model too: ``floor`` is what such a model with the same
    probabilities is expected to have, ``floor_high`` what it exceeds once in twenty times, both for independent events:
    where neighbours share an outcome, as overlapping trades do, chance reaches further, and so do the intervals of
    the shares. All three are None under 500 events.
    """

    stated: np.ndarray  # mean probability
    found: np.ndarray  # share that happened
    low: np.ndarray  # 95 % interval of that share (Wilson 1927)
    high: np.ndarray
    counts: np.ndarray
    ece: float | None
    floor: float | None
    floor_high: float | None

    def figures(self) -> dict[str, float | None]:
        """The error and its floor, for the metrics."""
        return {"ece": self.ece, "ece_floor": self.floor, "ece_floor_high": self.floor_high}


def reliability(probability: np.ndarray, happened: np.ndarray, seed: int) -> Reliability:
    """Compare probabilities (n,) with what happened (n,) bool; ``seed`` is of the simulated perfect models."""
    counts = np.bincount(_bin(probability), minlength=BINS)
    held = counts > 0
    counts = counts[held]
    stated, found = (
        np.bincount(_bin(probability), weights=x, minlength=BINS)[held] / counts for x in (probability, happened)
    )
    low, high = _wilson(found, counts)
    if len(probability) < MIN_EVENTS:
        return Reliability(stated, found, low, high, counts, None, None, None)
    rng = np.random.default_rng(seed)
    perfect = [calibration_error(probability, rng.random(len(probability)) < probability) for _ in range(DRAWS)]
    error = calibration_error(probability, happened)
    return Reliability(
        stated, found, low, high, counts, error, float(np.mean(perfect)), float(np.quantile(perfect, 0.95))
    )


def calibration_error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Expected calibration error of probabilities (n,) for what happened (n,), over 15 bins of equal width."""
    gaps = np.bincount(_bin(probability), weights=happened - probability, minlength=BINS)
    return float(np.abs(gaps).sum() / len(probability))


def _bin(probability: np.ndarray) -> np.ndarray:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = float(norm.ppf(0.975))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half
