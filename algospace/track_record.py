"""One track record in figures, each beside its interval: ready for JSON, null where too few trades support it."""

import math
from typing import Any

import numpy as np

from algospace import performance
from algospace.performance import Floats, Statistic

FACTS = ("sessions", "trades", "min_trades", "net_pnl", "net_return", "max_drawdown")
OF_R = ("mean_r",)
OF_PNL = ("expectancy", "win_rate", "profit_factor")
OF_RETURNS = ("annual_return", "sharpe", "sortino")
BOUNDED = (*OF_R, *OF_PNL, *OF_RETURNS)  # have an interval: NAME_low, NAME_high
RATIOS = (*(f"{name}{end}" for name in BOUNDED for end in ("", "_low", "_high")), "calmar")


def summary(
    equity: Floats,
    trades_r: Floats,
    trades_pnl: Floats,
    periods_per_year: float,
    min_trades: int,
    draws: int,
    seed: int,
    holds: bool = False,
) -> dict[str, int | float | None]:
    """Summarise one track record as a flat dictionary, ready for JSON.

    Parameters
    ----------
    equity : (n + 1,) array
        Capital at the start, then at the end of each session, in account currency.
    trades_r, trades_pnl : (k,) arrays
        Net result of each closed trade in time order, in R (P&L over initial risk) and in account currency.
    periods_per_year : float
        Sessions a year, from the calendar.
    min_trades : int
        With fewer trades every ratio is None: too few events to say anything.
    holds : bool
        A record that trades once and holds. It has session returns alone, and wants as many sessions as others trades.
    draws, seed : int
        Of the 95 % stationary-bootstrap intervals. Blocks are n ** (1/3) observations (trades, sessions) long on
        average, the rate that minimises the error of the bootstrap variance (Politis and White 2004).

    Returns
    -------
    dict
        Facts: :data:`FACTS`. Ratios: :data:`RATIOS`; ``expectancy`` is in currency a trade, ``annual_return``,
        ``sharpe``, ``sortino`` and ``calmar`` are of session returns, sessions without a trade included. Six
        significant digits; a value that is not finite (a profit factor without a loss) is None.

    Raises
    ------
    ValueError
        If R and P&L differ in length, a value is not finite, or equity does not start above zero.
    """
    equity, trades_r, trades_pnl = (np.asarray(a, dtype=np.float64) for a in (equity, trades_r, trades_pnl))
    if len(trades_r) != len(trades_pnl):
        raise ValueError(f"expected one R and one P&L a trade, found {len(trades_r)} and {len(trades_pnl)}")
    if not all(np.isfinite(a).all() for a in (equity, trades_r, trades_pnl)):
        raise ValueError("expected finite equity, R and P&L")
    if not len(equity) or equity[0] <= 0:
        raise ValueError(f"expected equity that starts above zero, found {equity[:1]}")

    returns = performance.simple_returns(equity)
    found: dict[str, Any] = {
        "sessions": len(returns),
        "trades": len(trades_r),
        "min_trades": min_trades,
        "net_pnl": equity[-1] - equity[0],
        "net_return": equity[-1] / equity[0] - 1.0,
        "max_drawdown": performance.max_drawdown(equity),
    }
    found |= dict.fromkeys(RATIOS)
    events = len(returns) if holds else len(trades_r)
    if events < max(min_trades, 1) or len(returns) < 2:
        return performance.rounded(found)
    of_pnl: dict[str, Statistic] = {"expectancy": _mean, "win_rate": _win_rate, "profit_factor": _profit_factor}
    of_returns: dict[str, Statistic] = {
        "annual_return": lambda x: np.expm1(np.log1p(np.maximum(x, -1 + 1e-12)).mean(axis=-1) * periods_per_year),
        "sharpe": lambda x: _sharpe(x) * np.sqrt(periods_per_year),
        "sortino": lambda x: _sortino(x) * np.sqrt(periods_per_year),
    }
    found |= {
        "annual_return": performance.annual_return(equity, periods_per_year),
        "sharpe": performance.sharpe(returns, periods_per_year),
        "sortino": performance.sortino(returns, periods_per_year),
    }
    samples: list[tuple[Floats, dict[str, Statistic]]] = [(returns, of_returns)]
    if not holds:
        found |= {
            "mean_r": performance.expectancy(trades_r),
            "expectancy": performance.expectancy(trades_pnl),
            "win_rate": performance.win_rate(trades_pnl),
            "profit_factor": performance.profit_factor(trades_pnl),
        }
        samples += [(trades_r, {"mean_r": _mean}), (trades_pnl, of_pnl)]
    for values, statistics in samples:
        for name, statistic in statistics.items():
            found |= interval(name, values, statistic, draws, seed)
    return performance.rounded(found | {"calmar": performance.calmar(equity, periods_per_year)})


def interval(name: str, values: Floats, statistic: Statistic, draws: int, seed: int) -> dict[str, float]:
    """``name_low`` and ``name_high``: the 95 % interval of a statistic of values (n,) in time order."""
    ends = performance.stationary_bootstrap_interval(values, statistic, len(values) ** (1 / 3), draws, seed)
    low, high = (math.copysign(math.inf, end) if abs(end) > _NO_RATIO else end for end in ends)
    return {f"{name}_low": low, f"{name}_high": high}


# Each reduces the last axis. A draw without a loss, or without spread, has no finite ratio: a number beyond any ratio
# stands for it, since quantiles between infinities are undefined.
_LARGEST = 1e12
_NO_RATIO = 1e6


def _mean(x: Floats) -> Any:
    return x.mean(axis=-1)


def _win_rate(x: Floats) -> Any:
    return (x > 0).mean(axis=-1)


def _profit_factor(x: Floats) -> Any:
    return _over(np.maximum(x, 0).sum(axis=-1), np.maximum(-x, 0).sum(axis=-1))


def _sharpe(x: Floats) -> Any:
    return _over(x.mean(axis=-1), x.std(axis=-1, ddof=1))


def _sortino(x: Floats) -> Any:
    return _over(x.mean(axis=-1), np.sqrt((np.minimum(x, 0) ** 2).mean(axis=-1)))


def _over(numerator: Floats, denominator: Floats) -> Any:
    flat = denominator <= 1e-15
    return np.where(flat, np.sign(numerator) * _LARGEST, numerator / np.where(flat, 1.0, denominator))
