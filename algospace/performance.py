"""Figures of a track record: returns, ratios, drawdowns and bootstrap intervals.

Pure functions of numpy arrays. They judge what has happened, so every one of them looks at the whole array
it is given; nothing here may feed a decision.

One convention serves every ratio: ``x / 0`` is ``+inf`` or ``-inf`` by the sign of ``x``, ``0 / 0`` is 0
(nothing earned, nothing risked), and no observation at all is ``nan``. :func:`rounded` turns what is not
finite into None.

Equity arrays have shape (n + 1,): the capital at the start, then one value at the end of each of n periods.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Any]

BATCH = 1 << 20  # resampled values held at once; bounds memory, does not change a result
DIGITS = 6  # significant digits of a published figure


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.copysign(math.inf, numerator) if numerator else 0.0


def simple_returns(equity: Floats) -> Floats:
    """Return the simple return of each period, shape (n,).

    Ruin is final: the period in which equity reaches zero or less returns -1, each later one 0.
    """
    equity = _until_ruin(equity)
    before, after = equity[:-1], equity[1:]
    return np.divide(after - before, before, out=np.zeros(len(before)), where=before > 0)


def _until_ruin(equity: Floats) -> Floats:
    equity = np.asarray(equity, dtype=np.float64)
    return np.where(np.minimum.accumulate(equity) > 0, equity, 0.0)


def sharpe(returns: Floats, periods_per_year: float) -> float:
    """Annualised Sharpe ratio over a risk-free rate of zero: ``mean / std * sqrt(periods_per_year)``.

    The standard deviation is the sample's (n - 1); for one return, or equal ones, it is 0.
    """
    returns = np.asarray(returns, dtype=np.float64)
    if not returns.size:
        return math.nan
    # equal values may have a standard deviation of 1e-18 rather than 0
    deviation = 0.0 if np.ptp(returns) == 0 else float(returns.std(ddof=1))
    return _ratio(float(returns.mean()) * math.sqrt(periods_per_year), deviation)


def sortino(returns: Floats, periods_per_year: float, target: float = 0.0) -> float:
    """Annualised Sortino ratio: ``(mean - T) / sqrt(mean(min(r - T, 0)^2)) * sqrt(periods_per_year)``.

    The downside deviation is taken over ALL observations (Sortino and Price 1994), not over the losing ones.
    With no return below the target it is 0, and the ratio is +inf, or 0 when every return equals the target.
    """
    excess = np.asarray(returns, dtype=np.float64) - target
    if not excess.size:
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(excess, 0.0) ** 2)))
    return _ratio(float(excess.mean()) * math.sqrt(periods_per_year), downside)


def drawdown(equity: Floats) -> Floats:
    """Return the loss from the running peak as a share of that peak, same shape, in [0, 1]; after ruin 1."""
    equity = np.asarray(equity, dtype=np.float64)
    if equity.size and equity[0] <= 0:
        raise ValueError(f"expected equity that starts above zero, found {equity[:1]}")
    return 1.0 - _until_ruin(equity) / np.maximum.accumulate(equity)


def max_drawdown(equity: Floats) -> float:
    """Return the deepest :func:`drawdown`, in [0, 1]; nan for no equity."""
    return float(drawdown(equity).max()) if len(equity) else math.nan


def annual_return(equity: Floats, periods_per_year: float) -> float:
    """Compound growth a year: ``(last / first) ** (periods_per_year / n) - 1``; nan without a period."""
    equity = _until_ruin(equity)
    if len(equity) < 2:
        return math.nan
    if equity[-1] == 0:
        return -1.0
    with np.errstate(over="ignore"):
        growth = np.log(equity[-1] / equity[0]) * periods_per_year / (len(equity) - 1)
        return float(np.expm1(growth))


def calmar(equity: Floats, periods_per_year: float) -> float:
    """Return the Calmar ratio: :func:`annual_return` over :func:`max_drawdown` (Young 1991, whole record)."""
    if len(equity) < 2:
        return math.nan
    return _ratio(annual_return(equity, periods_per_year), max_drawdown(equity))


def profit_factor(pnl: Floats) -> float:
    """Return the sum of the gains over the sum of the losses; +inf without a loss."""
    pnl = np.asarray(pnl, dtype=np.float64)
    if not pnl.size:
        return math.nan
    return _ratio(float(pnl[pnl > 0].sum()), -float(pnl[pnl < 0].sum()))


def win_rate(pnl: Floats) -> float:
    """Return the share of trades that gained; a trade of exactly 0 did not."""
    pnl = np.asarray(pnl, dtype=np.float64)
    return float(np.mean(pnl > 0)) if pnl.size else math.nan


def expectancy(outcomes: Floats) -> float:
    """Return the mean outcome of a trade, in the unit of its outcomes (R or account currency)."""
    outcomes = np.asarray(outcomes, dtype=np.float64)
    return float(outcomes.mean()) if outcomes.size else math.nan


def stationary_bootstrap(values: Floats, statistic: Statistic, mean_block: float, draws: int, seed: int) -> Floats:
    """Resample a series by the stationary bootstrap and return the statistic of each draw.

    Blocks of geometric length start anywhere and wrap around the end, so that serial dependence up to about
    the block's length is kept (Politis and Romano 1994).

    Parameters
    ----------
    values : (n,) array
        The series in time order, n >= 1.
    statistic : callable
        Reduces the last axis: (b, n) -> (b,); for instance ``partial(np.mean, axis=-1)``.
    mean_block : float
        Mean length of a block, >= 1; 1 is the ordinary bootstrap.
    draws, seed : int
        Number of resamples, and the seed of their generator.

    Returns
    -------
    (draws,) array
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.size
    if n == 0 or mean_block < 1 or draws < 1:
        raise ValueError(f"expected values, mean_block >= 1, draws >= 1; found {n}, {mean_block}, {draws}")
    generator = np.random.default_rng(seed)
    steps = np.arange(n)
    batch = max(1, BATCH // n)
    results = []
    for first in range(0, draws, batch):
        shape = (min(batch, draws - first), n)
        restarts = generator.random(shape) < 1.0 / mean_block
        restarts[:, 0] = True
        starts = generator.integers(0, n, shape)
        block = np.maximum.accumulate(np.where(restarts, steps, 0), axis=1)  # step at which the block began
        index = (np.take_along_axis(starts, block, axis=1) + steps - block) % n
        results.append(statistic(values[index]))
    return np.concatenate(results)


def stationary_bootstrap_interval(
    values: Floats, statistic: Statistic, mean_block: float, draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a statistic that covers ``level``: (low, high) quantiles of its bootstrap draws.

    Plain percentiles are too narrow for a short series: at 30 values they cover 0.90 instead of 0.95. They
    are expanded (Hesterberg 2015, "What teachers should know about the bootstrap") to the quantiles
    ``Phi(-+ sqrt(m / (m - 1)) t)``, where t has m - 1 degrees of freedom and the number of blocks
    m = n / mean_block stands in place of the number of values.
    """
    drawn = stationary_bootstrap(values, statistic, mean_block, draws, seed)
    blocks = max(len(values) / mean_block, 2.0)
    tail = norm.cdf(t.ppf((1.0 - level) / 2.0, blocks - 1.0) * math.sqrt(blocks / (blocks - 1.0)))
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return float(low), float(high)


def rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Round every float to 6 significant digits, nested mappings too; what is not finite becomes None."""
    return {key: _rounded(value) for key, value in figures.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return rounded(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0 if math.isfinite(value) else None  # + 0.0: no "-0.0"
    return value
