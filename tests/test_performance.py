"""Closed forms, edges without variance or observations, and the coverage of the bootstrap."""

import math
from functools import partial

import numpy as np
import pytest

from algospace import performance

MEAN = partial(np.mean, axis=-1)


def array(*values):
    return np.array(values, dtype=np.float64)


def test_sharpe_closed_form():
    # mean 0.01, sample standard deviation 0.02, 252 sessions
    assert performance.sharpe(array(-0.01, 0.01, 0.03), 252) == pytest.approx(0.5 * math.sqrt(252), rel=1e-12)


def test_sortino_divides_by_all_observations():
    # downside: one return of -0.02 among four -> sqrt(0.0004 / 4) = 0.01; mean 0.005
    assert performance.sortino(array(0.02, -0.02, 0.01, 0.01), 1) == pytest.approx(0.5, rel=1e-12)
    # target 0.01: excess 0.01 -0.03 0 0, mean -0.005, downside sqrt(0.0009 / 4)
    value = performance.sortino(array(0.02, -0.02, 0.01, 0.01), 4, target=0.01)
    assert value == pytest.approx(-0.005 / 0.015 * 2, rel=1e-12)


@pytest.mark.parametrize("ratio", [performance.sharpe, performance.sortino])
def test_ratios_of_returns_without_risk(ratio):
    assert ratio(np.full(50, 0.1), 252) == math.inf
    assert ratio(np.zeros(50), 252) == 0.0
    assert ratio(array(0.01), 252) == math.inf
    assert math.isnan(ratio(array(), 252))
    assert performance.sharpe(np.full(7, -0.1), 252) == -math.inf
    assert performance.sortino(np.full(4, -0.1), 1) == pytest.approx(-1.0)


def test_drawdown_and_calmar():
    equity = array(100, 120, 90, 110, 130, 117)
    np.testing.assert_allclose(performance.drawdown(equity), [0, 0, 0.25, 1 / 12, 0, 0.1], atol=1e-15)
    assert performance.max_drawdown(equity) == 0.25
    # five periods at five a year: growth 0.17
    assert performance.annual_return(equity, 5) == pytest.approx(0.17, rel=1e-12)
    assert performance.calmar(equity, 5) == pytest.approx(0.68, rel=1e-12)
    assert performance.annual_return(array(100, 121), 0.5) == pytest.approx(0.1, rel=1e-12)


def test_equity_edges():
    assert performance.max_drawdown(array(100)) == 0.0
    assert math.isnan(performance.max_drawdown(array()))
    assert math.isnan(performance.calmar(array(100), 252))
    assert performance.calmar(array(100, 100, 100), 252) == 0.0
    assert performance.calmar(array(100, 110, 120), 252) == math.inf
    assert performance.annual_return(array(1, 100), 1000) == math.inf
    with pytest.raises(ValueError, match="above zero"):
        performance.drawdown(array(0, 1))


@pytest.mark.parametrize("seed", range(3))
def test_figures_agree_with_empyrical(seed):
    empyrical = pytest.importorskip("empyrical")
    returns = np.random.default_rng(seed).standard_t(4, 300) / 100
    equity = 50_000 * np.cumprod(np.append(1.0, 1 + returns))
    assert performance.simple_returns(equity) == pytest.approx(returns, rel=1e-9)
    for ours, theirs in (
        (performance.sharpe(returns, 252), empyrical.sharpe_ratio(returns)),
        (performance.sortino(returns, 252), empyrical.sortino_ratio(returns)),
        (performance.sortino(returns, 252, 0.001), empyrical.sortino_ratio(returns, 0.001)),
        (performance.max_drawdown(equity), -empyrical.max_drawdown(returns)),
        (performance.annual_return(equity, 252), empyrical.annual_return(returns)),
        (performance.calmar(equity, 252), empyrical.calmar_ratio(returns)),
    ):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_ruin_is_final():
    equity = array(100, 50, -20, 400)
    np.testing.assert_array_equal(performance.simple_returns(equity), [-0.5, -1, 0])
    np.testing.assert_array_equal(performance.drawdown(equity), [0, 0.5, 1, 1])
    assert performance.annual_return(equity, 252) == -1.0


def test_trade_figures():
    pnl = array(30, -10, 0, -20, 60)
    assert performance.profit_factor(pnl) == 3.0
    assert performance.win_rate(pnl) == 0.4
    assert performance.expectancy(pnl) == 12.0
    assert performance.profit_factor(array(5, 6)) == math.inf
    assert performance.profit_factor(array(-5)) == 0.0
    assert performance.profit_factor(array(0, 0)) == 0.0
    for figure in (performance.profit_factor, performance.win_rate, performance.expectancy):
        assert math.isnan(figure(array()))


def test_bootstrap_blocks_have_the_stated_mean_length():
    lengths = []

    def blocks(samples):
        breaks = (np.diff(samples, axis=1) % 1000 != 1).sum(axis=1) + 1
        lengths.extend(1000 / breaks)
        return samples[:, 0]

    first = performance.stationary_bootstrap(np.arange(1000.0), blocks, 8.0, 400, seed=3)
    # a restart continues the old block by chance once in a thousand: negligible
    assert np.mean(lengths) == pytest.approx(8.0, rel=0.03)
    assert first.shape == (400,)
    assert abs(first.mean() - 499.5) < 4 * 288.7 / 20  # starts are uniform


def test_bootstrap_error_of_the_mean_follows_the_dependence():
    generator = np.random.default_rng(5)
    noise = generator.normal(size=4000)
    series = np.empty(4000)
    series[0] = noise[0]
    for i in range(1, 4000):
        series[i] = 0.8 * series[i - 1] + noise[i]
    true_error = 1 / (1 - 0.8) / math.sqrt(4000)  # long-run standard deviation of the mean
    wide = performance.stationary_bootstrap(series, MEAN, 60.0, 600, seed=1).std()
    narrow = performance.stationary_bootstrap(series, MEAN, 1.0, 600, seed=1).std()
    assert wide == pytest.approx(true_error, rel=0.25)
    assert narrow < 0.5 * true_error


@pytest.mark.parametrize("n", [30, 200])
def test_bootstrap_interval_covers(n):
    """A binary outcome of known mean, +2 R or -1 R as a trade's; 500 series give a standard error of 0.01."""
    generator = np.random.default_rng(11)
    hits = []
    for k in range(500):
        values = np.where(generator.random(n) < 0.35, 2.0, -1.0)
        low, high = performance.stationary_bootstrap_interval(values, MEAN, n ** (1 / 3), 300, seed=k)
        hits.append(low <= 0.05 <= high)
    assert 0.925 <= np.mean(hits) <= 0.98


def test_bootstrap_interval_is_not_too_narrow_for_a_short_normal_series():
    """Plain percentiles cover 0.90 here; one-sided false alarms must stay near 0.025."""
    generator = np.random.default_rng(12)
    intervals = np.array(
        [
            performance.stationary_bootstrap_interval(generator.normal(size=30), MEAN, 30 ** (1 / 3), 300, k)
            for k in range(600)
        ]
    )
    assert np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)) > 0.92


def test_bootstrap_interval_quantiles():
    """Ten blocks: t of 9 degrees of freedom is -2.262157 at 0.025; Phi(t sqrt(10 / 9)) = 0.0085508."""
    values = np.random.default_rng(0).normal(size=100)
    drawn = performance.stationary_bootstrap(values, MEAN, 10.0, 4000, seed=1)
    interval = performance.stationary_bootstrap_interval(values, MEAN, 10.0, 4000, seed=1)
    assert interval == pytest.approx(np.quantile(drawn, [0.0085508, 1 - 0.0085508]), rel=1e-4)


def test_bootstrap_is_deterministic_in_the_seed():
    values = np.random.default_rng(0).normal(size=90)
    draw = partial(performance.stationary_bootstrap_interval, values, MEAN, 4.0, 200)
    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert draw(seed=1, level=0.5)[1] < draw(seed=1)[1]


def test_bootstrap_draws_do_not_repeat_between_batches(monkeypatch):
    monkeypatch.setattr(performance, "BATCH", 900)
    values = np.random.default_rng(0).normal(size=90)
    drawn = performance.stationary_bootstrap(values, MEAN, 4.0, 205, seed=1)
    assert drawn.shape == (205,)
    assert len(np.unique(drawn)) == 205


@pytest.mark.parametrize(("values", "mean_block"), [((), 2.0), ((1.0, 2.0), 0.5)])
def test_bootstrap_refuses(values, mean_block):
    with pytest.raises(ValueError, match="expected values"):
        performance.stationary_bootstrap(array(*values), MEAN, mean_block, 10, seed=0)


def test_rounded():
    figures = performance.rounded(
        {
            "a": 1234567.8,
            "b": np.float64(0.000123456789),
            "c": math.nan,
            "d": -1e-300 * 1e-300,
            "e": np.int64(7),
            "f": "x",
            "g": {"h": math.inf, "i": True},
        }
    )
    assert figures == {
        "a": 1234570.0,
        "b": 0.000123457,
        "c": None,
        "d": 0.0,
        "e": 7,
        "f": "x",
        "g": {"h": None, "i": True},
    }
    assert math.copysign(1, figures["d"]) == 1
    assert type(figures["e"]) is int
