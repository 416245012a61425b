"""Sharpe ratios after length, shape and trials: published examples, closed forms, and what noise and an edge give."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from algospace import evidence, performance


def array(*values):
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("trials", "best", "deflated"), [(100, pytest.approx(0.1132, abs=5e-5), 0.9004), (46, None, 0.9505)]
)
def test_deflated_sharpe_of_the_published_example(trials, best, deflated):
    """Bailey and López de Prado 2014: 1250 days, 250 a year, annual Sharpe 2.5, variance of the trials 1/2 a year."""
    chance = math.sqrt(0.5 / 250) * evidence.expected_maximum(trials)
    assert best is None or chance == best
    found = evidence.probabilistic_sharpe(2.5 / math.sqrt(250), 1250, -3.0, 10.0, chance)
    assert found == pytest.approx(deflated, abs=5e-5)


def test_probabilistic_sharpe_of_the_published_example():
    assert evidence.probabilistic_sharpe(0.458, 24, -2.448, 10.164) == pytest.approx(0.9134, abs=5e-4)
    assert evidence.probabilistic_sharpe(0.458, 24, 0.0, 3.0) == pytest.approx(0.9817, abs=5e-4)


def test_minimum_backtest_length_of_the_published_example():
    assert evidence.minimum_backtest_years(45) == pytest.approx(4.998, abs=5e-4)
    assert evidence.minimum_backtest_years(45, 2.0) == pytest.approx(4.998 / 4, abs=5e-4)
    assert evidence.minimum_backtest_years(1) == 0.0


def test_deflated_sharpe_takes_the_moments_of_the_returns():
    returns = array(0.02, -0.01, 0.01, 0.03, -0.02, 0.01)
    z = (returns - returns.mean()) / returns.std()
    ratio, chance = returns.mean() / returns.std(ddof=1), 0.1 * evidence.expected_maximum(10)
    expected = evidence.probabilistic_sharpe(ratio, 6, (z**3).mean(), (z**4).mean(), chance)
    assert evidence.deflated_sharpe(returns, 10, 0.1) == pytest.approx(expected, rel=1e-12)
    assert evidence.deflated_sharpe(returns, 10, 0.1) < evidence.deflated_sharpe(returns, 1, 0.1)
    assert math.isnan(evidence.deflated_sharpe(np.zeros(9), 1, 0.0))


def test_minimum_track_length_is_where_the_probability_reaches_the_level():
    returns = np.random.default_rng(0).normal(0.05, 1.0, 500)
    ratio, _, skewness, kurtosis = evidence.moments(returns)
    needed = evidence.minimum_track_length(returns)
    assert evidence.probabilistic_sharpe(ratio, needed, skewness, kurtosis) == pytest.approx(0.95, abs=1e-9)


def test_minimum_track_length_of_normal_returns_by_hand():
    """Monthly Sharpe 0.5 of a normal record: 1 + (1 + 0.125) (1.645 / 0.5)^2 months."""
    returns = norm.ppf(np.arange(1, 20_000) / 20_000)
    returns = returns / returns.std(ddof=1) + 0.5
    expected = 1 + 1.125 * (norm.ppf(0.95) / 0.5) ** 2
    assert evidence.minimum_track_length(returns) == pytest.approx(expected, rel=2e-3)


def test_a_record_that_loses_never_gets_there():
    assert evidence.minimum_track_length(array(-0.1, 0.05, -0.02)) == math.inf
    assert math.isnan(evidence.minimum_track_length(np.zeros(5)))


def noise(seed, edge=0.0, with_edge=20):
    returns = np.random.default_rng(seed).normal(size=(1000, 200))
    returns[:, :with_edge] += edge
    return returns


def test_overfitting_of_noise_is_one_half():
    """200 strategies, 1000 observations, 16 blocks: about 0.48 with a standard deviation of 0.15 a market."""
    found = [evidence.overfitting_probability(noise(seed)) for seed in range(6)]
    assert np.mean(found) == pytest.approx(0.48, abs=2 * 0.15 / math.sqrt(6))


def test_overfitting_of_a_planted_edge_is_about_zero():
    assert evidence.overfitting_probability(noise(0, edge=0.15)) < 0.01


def test_overfitting_counts_choices_by_hand():
    """Four observations, two blocks: the best of one half is the worst of the other, whichever half is chosen."""
    good = array(1.0, 1.1)
    returns = np.column_stack([np.append(good, -good), np.append(-good, good), array(0.1, -0.1, 0.1, -0.1)])
    assert evidence.overfitting_probability(returns, 2) == 1.0
    steady = np.column_stack([array(1.0, 1.1, 1.0, 1.1), array(0.1, -0.1, 0.1, -0.1)])
    assert evidence.overfitting_probability(steady, 2) == 0.0


def test_overfitting_agrees_with_a_plain_loop():
    from itertools import combinations

    returns = np.random.default_rng(3).standard_t(4, size=(40, 7))
    blocks, below, splits = np.array_split(np.arange(40), 6), 0, 0
    for half in combinations(range(6), 3):
        rows = np.concatenate([blocks[k] for k in half])
        rest = np.setdiff1d(np.arange(40), rows)
        inside, outside = (returns[part].mean(0) / returns[part].std(0) for part in (rows, rest))
        rank = 1 + (outside < outside[inside.argmax()]).sum()
        below += rank / 8 <= 0.5
        splits += 1
    assert evidence.overfitting_probability(returns, 6) == pytest.approx(below / splits)


@pytest.mark.parametrize(("shape", "blocks"), [((40, 1), 4), ((40, 5), 3), ((40, 5), 42), ((6, 5), 4)])
def test_overfitting_refuses(shape, blocks):
    with pytest.raises(ValueError, match="expected an even number"):
        evidence.overfitting_probability(np.ones(shape), blocks)


def test_moments_agree_with_the_ratio():
    returns = array(0.01, -0.02, 0.03, 0.0)
    assert evidence.moments(returns)[0] == performance.sharpe(returns, 1.0)
    assert math.isnan(evidence.moments(np.ones(4))[0])
