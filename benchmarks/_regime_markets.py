"""Simulated markets of two regimes: returns, the regime of each, and the log likelihood ratio with true parameters.

Two are published (Horvath, Issa, Muguruza 2021): volatility separates them. In the other three both regimes have the
same variance, and the regimes differ in drift, in lag-1 autocorrelation or in the sign of the jumps alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter
from scipy.stats import norm, poisson

WINDOW = 35  # returns a method may look back at, the last one included
STEP = 7  # returns between two windows of the published vote
HALF_YEAR = 882  # returns: 252 days of 7 returns are a year
RETURNS = 40 * HALF_YEAR  # of a path: 20 years
YEAR = 1 / (2 * HALF_YEAR)  # of one return, in years
JUMP_RATE = 0.1  # per return, in the market of opposite jumps


class Path(NamedTuple):
    """One simulated path.

    ``returns`` (n,); ``regimes`` (n,) 0 or 1, the truth, for scoring only; ``evidence`` (n,): log likelihood of each
    return in regime 1 over that in regime 0, given the return before it.
    """

    returns: np.ndarray
    regimes: np.ndarray
    evidence: np.ndarray


class Market(NamedTuple):
    """A market: how its regimes run, how returns come of them, and how telling a return is."""

    name: str
    published: bool
    regimes: Callable[[np.random.Generator], np.ndarray]
    simulate: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    evidence: Callable[[np.ndarray], np.ndarray]
    terms: int = WINDOW  # pieces of evidence inside a window

    def path(self, seed: int) -> Path:
        """Simulate one path."""
        rng = np.random.default_rng(seed)
        regimes = self.regimes(rng)
        returns = self.simulate(regimes, rng)
        return Path(returns, regimes, self.evidence(returns))


def rolling_sum(values: np.ndarray, length: int) -> np.ndarray:
    """Sum of the last ``length`` values at each position that has them, (n - length + 1,)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    found: np.ndarray = total[length:] - total[:-length]
    return found


def bear_intervals(rng: np.random.Generator) -> np.ndarray:
    """Ten half years of regime 1 in 20 years of regime 0, anywhere but never overlapping, (RETURNS,)."""
    free = RETURNS - 10 * HALF_YEAR
    starts = np.sort(rng.integers(0, free + 1, 10)) + HALF_YEAR * np.arange(10)
    regimes = np.zeros(RETURNS, np.int64)
    for start in starts:
        regimes[start : start + HALF_YEAR] = 1
    return regimes


def alternating(rng: np.random.Generator) -> np.ndarray:
    """Regimes that take turns for geometric times of mean 882 returns, (RETURNS,): half the time each on average."""
    lengths = rng.geometric(1 / HALF_YEAR, RETURNS)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), RETURNS) + 1]
    first = int(rng.integers(2))
    regimes: np.ndarray = np.repeat((first + np.arange(len(lengths))) % 2, lengths)[:RETURNS]
    return regimes


def diffusion() -> Market:
    """Geometric Brownian motion: drift and volatility (0.02, 0.2), in bear (-0.02, 0.3)."""
    sigma = np.array([0.2, 0.3])
    mean = (np.array([0.02, -0.02]) - sigma**2 / 2) * YEAR
    sd = sigma * np.sqrt(YEAR)

    def simulate(regimes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return mean[regimes] + sd[regimes] * rng.normal(size=regimes.size)

    def evidence(x: np.ndarray) -> np.ndarray:
        return norm.logpdf(x, mean[1], sd[1]) - norm.logpdf(x, mean[0], sd[0])

    return Market("gBm", True, bear_intervals, simulate, evidence)


def merton() -> Market:
    """Jump diffusion: (mu, sigma, jumps a year, their mean, their sd), regime 1 being the bear market."""
    mu, sigma = np.array([0.05, -0.05]), np.array([0.2, 0.4])
    rate, size, spread = np.array([5.0, 10.0]) * YEAR, np.array([0.02, -0.04]), np.array([0.0125, 0.1])
    mean, variance = (mu - sigma**2 / 2) * YEAR, sigma**2 * YEAR

    def simulate(regimes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        jumps = rng.poisson(rate[regimes])
        sd = np.sqrt(variance[regimes] + jumps * spread[regimes] ** 2)
        return mean[regimes] + jumps * size[regimes] + sd * rng.normal(size=regimes.size)

    def log_density(x: np.ndarray, regime: int) -> np.ndarray:
        jumps = np.arange(6)[:, None]  # a seventh jump in one return has odds of 1e-17
        sd = np.sqrt(variance[regime] + jumps * spread[regime] ** 2)
        terms = norm.pdf(x, mean[regime] + jumps * size[regime], sd) * poisson.pmf(jumps, rate[regime])
        return np.log(np.maximum(terms.sum(axis=0), 1e-300))

    return Market("Merton", True, bear_intervals, simulate, lambda x: log_density(x, 1) - log_density(x, 0))


def drift(m: float) -> Market:
    """Unit normal returns around +m, in regime 1 around -m."""

    def simulate(regimes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return m * (1 - 2 * regimes) + rng.normal(size=regimes.size)

    return Market("drift", False, alternating, simulate, lambda x: -2 * m * x)


def autocorrelation(r: float) -> Market:
    """AR(1) returns of unit variance with lag-1 autocorrelation +r, in regime 1 -r."""

    def simulate(regimes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # With s the product of the signs so far, s x is one AR(1) of autocorrelation r in both regimes.
        sign = np.cumprod(1 - 2 * regimes)
        shocks = rng.normal(size=regimes.size)
        shocks[1:] *= np.sqrt(1 - r**2)
        return sign * lfilter([1.0], [1.0, -r], shocks)

    def evidence(x: np.ndarray) -> np.ndarray:
        return -2 * r / (1 - r**2) * x * np.concatenate([[0.0], x[:-1]])

    return Market("autocorrelation", False, alternating, simulate, evidence, WINDOW - 1)


def jumps(size: float) -> Market:
    """Returns of mean 0 and variance 1: normal moves and, in a tenth of the returns, a jump: +size, in regime 1 -size.

    The mean is taken off, so that nothing below the third moment differs.
    """
    sd = np.sqrt(1 - JUMP_RATE * (1 - JUMP_RATE) * size**2)

    def simulate(regimes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        jump = size * ((rng.random(regimes.size) < JUMP_RATE) - JUMP_RATE)
        return jump * (1 - 2 * regimes) + sd * rng.normal(size=regimes.size)

    def density(x: np.ndarray) -> np.ndarray:
        return (1 - JUMP_RATE) * norm.pdf(x, -JUMP_RATE * size, sd) + JUMP_RATE * norm.pdf(
            x, (1 - JUMP_RATE) * size, sd
        )

    return Market("jumps", False, alternating, simulate, lambda x: np.log(density(-x)) - np.log(density(x)))


# The strengths at which the true likelihood ratio of a causal window of 35 has a balanced accuracy of 90 %.
MARKETS = (diffusion(), merton(), drift(0.2335), autocorrelation(0.2436), jumps(2.06))
