"""One record in figures: its parts, its intervals, and null where there is too little to say."""

import json
import math

import numpy as np
import pytest

from algospace import performance, track_record


def array(*values):
    return np.array(values, dtype=np.float64)


def record(n, seed=0, mean=0.0):
    r = np.random.default_rng(seed).normal(mean, 1.0, n)
    pnl = 100.0 * r
    return np.concatenate([[50_000.0], 50_000.0 + np.cumsum(pnl)]), r, pnl


SETTINGS = {"periods_per_year": 252.0, "min_trades": 30, "draws": 200, "seed": 42}


def test_summary_agrees_with_its_parts():
    equity, r, pnl = record(120, mean=0.5)
    figures = track_record.summary(equity, r, pnl, **SETTINGS)
    returns = np.diff(equity) / equity[:-1]
    assert figures["trades"] == 120
    assert figures["sessions"] == 120
    assert figures["net_return"] == pytest.approx(equity[-1] / equity[0] - 1, rel=1e-5)
    assert figures["net_pnl"] == pytest.approx(pnl.sum(), rel=1e-5)
    assert figures["mean_r"] == pytest.approx(r.mean(), rel=1e-5)
    assert figures["expectancy"] == pytest.approx(100 * r.mean(), rel=1e-5)
    assert figures["sharpe"] == pytest.approx(performance.sharpe(returns, 252), rel=1e-5)
    assert figures["sortino"] == pytest.approx(performance.sortino(returns, 252), rel=1e-5)
    assert figures["calmar"] == pytest.approx(performance.calmar(equity, 252), rel=1e-5)
    assert figures["mean_r_low"] < figures["mean_r"] < figures["mean_r_high"]
    assert set(track_record.RATIOS) <= set(figures)


@pytest.mark.parametrize("trades", [0, 1, 29])
def test_summary_has_no_ratio_below_the_least_number_of_trades(trades):
    equity, r, pnl = record(trades)
    figures = track_record.summary(equity, r, pnl, **SETTINGS)
    assert all(figures[name] is None for name in track_record.RATIOS)
    assert figures["trades"] == trades
    assert figures["max_drawdown"] is not None
    assert track_record.summary(*record(30), **SETTINGS)["sharpe"] is not None


def test_a_record_that_holds_has_the_ratios_of_its_sessions():
    equity, _, _ = record(40, mean=0.2)
    nothing = np.array([])
    figures = track_record.summary(equity, nothing, nothing, **SETTINGS, holds=True)
    assert figures["sharpe"] == pytest.approx(performance.sharpe(np.diff(equity) / equity[:-1], 252), rel=1e-5)
    assert figures["sharpe_low"] < figures["sharpe"] < figures["sharpe_high"]
    assert None not in (figures["annual_return"], figures["sortino"], figures["calmar"])
    assert all(figures[name] is None for name in ("mean_r", "expectancy", "win_rate", "profit_factor"))
    few = track_record.summary(equity[:30], nothing, nothing, **SETTINGS, holds=True)  # 29 sessions
    assert all(few[name] is None for name in track_record.RATIOS)


def test_summary_of_winners_only_is_json():
    r = np.ones(40)
    figures = track_record.summary(np.linspace(1000, 1400, 41), r, 10 * r, **SETTINGS)
    assert figures["win_rate"] == 1.0
    assert figures["max_drawdown"] == 0.0
    assert figures["profit_factor"] is None
    assert figures["sortino"] is None
    assert figures["calmar"] is None
    assert (figures["mean_r_low"], figures["mean_r_high"]) == (1.0, 1.0)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_summary_without_trades_at_all_even_when_none_are_asked_for():
    figures = track_record.summary(array(100, 100), array(), array(), **(SETTINGS | {"min_trades": 0}))
    assert figures["net_return"] == 0.0
    assert figures["mean_r"] is None


@pytest.mark.parametrize(
    ("equity", "r", "pnl"),
    [
        ((), (), ()),
        ((1, math.nan), (), ()),
        ((1, 1), (1.0,), ()),
        ((0, 1), (), ()),
        ((1, 1), (math.inf,), (1.0,)),
    ],
)
def test_summary_refuses(equity, r, pnl):
    with pytest.raises(ValueError, match="expected"):
        track_record.summary(array(*equity), array(*r), array(*pnl), **SETTINGS)


@pytest.mark.parametrize("name", track_record.BOUNDED)
def test_every_bounded_figure_lies_in_its_interval(name):
    figures = track_record.summary(*record(200, mean=0.1), **SETTINGS)
    assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]


@pytest.mark.parametrize(
    ("ours", "statistic"),
    [
        (track_record._sharpe, lambda x: performance.sharpe(x, 1.0)),
        (track_record._sortino, lambda x: performance.sortino(x, 1.0)),
        (track_record._profit_factor, performance.profit_factor),
        (track_record._win_rate, performance.win_rate),
        (track_record._mean, performance.expectancy),
    ],
)
def test_resampled_statistics_are_those_of_performance(ours, statistic):
    draws = np.random.default_rng(0).normal(0.1, 1.0, (5, 40))
    assert ours(draws) == pytest.approx([statistic(draw) for draw in draws], rel=1e-12)


def test_intervals_cover_the_true_ratio():
    """95 % intervals of the Sharpe ratio of 250 sessions: over 200 records the truth is inside in 90 % or more."""
    inside = 0
    for seed in range(200):
        returns = np.random.default_rng(seed).normal(0.1, 1.0, 250)
        bounds = track_record.interval("x", returns, track_record._sharpe, 200, seed)
        inside += bounds["x_low"] <= 0.1 <= bounds["x_high"]
    assert 0.90 * 200 <= inside <= 199


def test_an_interval_without_an_end_is_none():
    """Two losses in forty trades: some draws have none, and their profit factor has no upper end."""
    r = np.where(np.arange(40) % 20 == 0, -1.0, 1.0)
    equity = 1000 + np.cumsum(np.append(0.0, r))
    figures = track_record.summary(equity, r, r, **SETTINGS)
    assert figures["profit_factor"] == 19.0
    assert figures["profit_factor_low"] > 1.0
    assert figures["profit_factor_high"] is None
