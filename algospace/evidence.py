"""What a Sharpe ratio is evidence of, after its length, its shape and the number of configurations that were tried.

Pure functions of returns. They judge what has happened, so every one of them looks at the whole record; nothing here
may feed a decision. Ratios are those of one observation (a session), not annual, unless a name says so.
"""

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import kurtosis, norm, skew

from algospace.performance import Floats, sharpe

BLOCKS = 16  # of CSCV: 12,870 ways to choose half of them
MIN_CONFIGURATIONS = 10  # fewer give no probability of overfitting
MIN_TRIALS = 2  # fewer have no variance
LEVEL = 0.95


def probabilistic_sharpe(
    ratio: float, observations: int, skewness: float, kurtosis_: float, benchmark: float = 0.0
) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark, given the one that was observed.

    The kurtosis of a normal distribution is 3 (Bailey and López de Prado 2012, "The Sharpe ratio efficient
    frontier").
    """
    error = math.sqrt(_variance(ratio, skewness, kurtosis_) / (observations - 1))
    return float(norm.cdf((ratio - benchmark) / error))


def _variance(ratio: float, skewness: float, kurtosis_: float) -> float:
    """Variance of the estimated ratio times (observations - 1)."""
    return 1.0 - skewness * ratio + (kurtosis_ - 1.0) / 4.0 * ratio**2


def moments(returns: Floats) -> tuple[float, int, float, float]:
    """Sharpe ratio, number of observations, skewness, kurtosis (3 for a normal distribution) of returns (n,).

    All but the number are nan where the returns have no spread.
    """
    returns = np.asarray(returns, dtype=np.float64)
    n = len(returns)
    if n < 2 or np.ptp(returns) == 0:
        return math.nan, n, math.nan, math.nan
    return sharpe(returns, 1.0), n, float(skew(returns)), float(kurtosis(returns, fisher=False))


def expected_maximum(trials: int) -> float:
    """Return about what the largest of so many independent standard normal numbers comes to; 0 for a single one."""
    if trials < 2:
        return 0.0
    best, next_best = ndtri(1.0 - 1.0 / trials), ndtri(1.0 - 1.0 / (trials * math.e))
    return float((1.0 - np.euler_gamma) * best + np.euler_gamma * next_best)


def deflated_sharpe(returns: Floats, trials: int, trials_deviation: float) -> float:
    """Return :func:`probabilistic_sharpe` against the best ratio that chance alone finds in so many trials.

    ``trials_deviation`` is the standard deviation of the trials' Sharpe ratios, of one observation (Bailey and López
    de Prado 2014, "The deflated Sharpe ratio"). It is nan where the returns have no spread.
    """
    ratio, n, skewness, kurtosis_ = moments(returns)
    if math.isnan(ratio):
        return math.nan
    return probabilistic_sharpe(ratio, n, skewness, kurtosis_, trials_deviation * expected_maximum(trials))


def minimum_track_length(returns: Floats, level: float = LEVEL) -> float:
    """Return how many observations like these it takes until the true ratio is above zero with probability ``level``.

    ``1 + (1 - g3 S + (g4 - 1) / 4 S^2) (z / S)^2`` (Bailey and López de Prado 2012). A ratio of zero or less never
    gets there: inf. It is nan where the returns have no spread.
    """
    ratio, _, skewness, kurtosis_ = moments(returns)
    if math.isnan(ratio):
        return math.nan
    if ratio <= 0:
        return math.inf
    return float(1.0 + _variance(ratio, skewness, kurtosis_) * (norm.ppf(level) / ratio) ** 2)


def minimum_backtest_years(trials: int, annual_sharpe: float = 1.0) -> float:
    """Return below how many years the best of so many worthless trials is expected to reach an annual Sharpe ratio.

    Bailey, Borwein, López de Prado and Zhu 2014, "Pseudo-mathematics and financial charlatanism".
    """
    return (expected_maximum(trials) / annual_sharpe) ** 2


def overfitting_probability(returns: Floats, blocks: int = BLOCKS) -> float:
    """Return the probability of backtest overfitting by combinatorially symmetric cross-validation.

    The observations are cut into blocks. For each choice of half of them, the configuration with the best Sharpe ratio
    there is ranked among all by its ratio on the other half; the result is the share of choices in which it ends in
    the lower half, a rank in the middle included (Bailey, Borwein, López de Prado and Zhu 2017, "The probability of
    backtest overfitting"). Configurations of no worth give one half on average, and ones that are all the same give 1.

    Parameters
    ----------
    returns : (n, k) array
        n observations, in time order, of k configurations.
    blocks : int
        Even, at least 2, at most n / 2.

    Raises
    ------
    ValueError
        For another number of blocks, or fewer than two configurations.
    """
    returns = np.asarray(returns, dtype=np.float64)
    n, k = returns.shape
    if blocks % 2 or not 2 <= blocks <= n // 2 or k < 2:
        raise ValueError(f"expected an even number of 2 to {n // 2} blocks and 2 configurations, found {blocks}, {k}")
    parts = np.array_split(returns, blocks)
    counts = np.array([len(part) for part in parts], dtype=np.float64)
    sums, squares = (np.array([(part**power).sum(axis=0) for part in parts]) for power in (1, 2))
    chosen = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for row, half in enumerate(combinations(range(blocks), blocks // 2)):
        chosen[row, list(half)] = 1.0

    def ratios(taken: Floats) -> Floats:
        size = (taken @ counts)[:, None]
        mean = taken @ sums / size
        spread = np.sqrt(np.maximum(taken @ squares / size - mean**2, 0.0))
        found: NDArray[np.float64] = np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0)
        return found

    inside, outside = ratios(chosen), ratios(1.0 - chosen)
    at_best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    # equal ratios share their ranks, so that a crowd of equals is in the middle, not at an end
    rank = 1.0 + (outside < at_best).sum(axis=1) + ((outside == at_best).sum(axis=1) - 1) / 2.0
    return float((rank / (k + 1.0) <= 0.5).mean())
