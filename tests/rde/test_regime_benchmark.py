"""The judge of the regimes: markets whose ceiling is known, labels, votes and delays by hand."""

import _regime_methods as methods
import numpy as np
import pytest
import regimes as benchmark
from _regime_markets import HALF_YEAR, MARKETS, RETURNS, WINDOW, rolling_sum

from algospace.rde.examples import Windows

NAMES = {market.name: market for market in MARKETS}
EQUAL = [name for name, market in NAMES.items() if not market.published]


def ceiling(market, seed):
    """Balanced accuracy of the true likelihood ratio of a causal window."""
    path = market.path(seed)
    _, labels = methods.likelihood_ratio(market, path, path)
    return benchmark.regime_accuracies(path.regimes[WINDOW - 1 :], labels).mean()


@pytest.mark.parametrize("name", EQUAL)
def test_the_ceiling_of_the_equal_markets_is_90_percent(name):
    found = [ceiling(NAMES[name], seed) for seed in range(20)]
    assert np.mean(found) == pytest.approx(0.90, abs=4 * np.std(found) / np.sqrt(20))
    assert np.std(found) / np.sqrt(20) < 0.005  # so the line above says something


def test_the_forecast_has_its_full_weight_there():
    """The paths are long enough that nothing is taken off it: train is the first 85 % of their windows."""
    train = int((RETURNS - WINDOW + 1) * (1 - methods.SELECT)) - WINDOW
    assert Windows(np.zeros((1, 1)), WINDOW, WINDOW).evidence(np.arange(train)) == 1.0


@pytest.mark.parametrize("name", EQUAL)
def test_both_regimes_of_the_equal_markets_have_the_same_variance(name):
    paths = [NAMES[name].path(seed) for seed in range(10)]
    spreads = [[path.returns[path.regimes == k].std() for k in (0, 1)] for path in paths]
    low, high = np.mean(spreads, axis=0)
    assert low / high == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", EQUAL)
def test_regimes_last_half_a_year_on_average_and_take_turns(name):
    paths = [NAMES[name].path(seed) for seed in range(30)]
    switches = np.mean([np.count_nonzero(np.diff(path.regimes)) for path in paths])
    assert switches == pytest.approx(RETURNS / HALF_YEAR, rel=0.1)
    assert np.mean([path.regimes.mean() for path in paths]) == pytest.approx(0.5, abs=0.05)


def test_a_quarter_of_the_published_markets_is_bear():
    for seed in range(5):
        assert NAMES["gBm"].path(seed).regimes.sum() == 10 * HALF_YEAR


@pytest.mark.parametrize("name", NAMES)
def test_evidence_is_a_log_likelihood_ratio(name):
    # E[exp(evidence)] = 1 in regime 0: the ratio is one of densities that integrate to 1.
    market = NAMES[name]
    found = []
    for seed in range(10):
        path = market.path(seed)
        start = 1 if name == "autocorrelation" else 0
        calm = path.regimes[start:] == 0
        calm[1:] &= calm[:-1]
        found.append(np.exp(np.minimum(path.evidence[start:][calm], 30)).mean())
    assert np.mean(found) == pytest.approx(1, abs=max(0.02, 4 * np.std(found) / np.sqrt(10)))


def test_rolling_sum_by_hand():
    assert rolling_sum(np.array([1.0, 2, 3, 4]), 2).tolist() == [3, 5, 7]


def test_the_vote_is_the_majority_of_the_windows_that_cover_a_return():
    labels = np.zeros(36, np.int64)  # windows start at 0, 7, 14, 21, 28 and 35
    labels[[28, 35]] = 1
    found = benchmark.vote(labels)
    assert len(found) == 70
    # Return 34 is covered by the windows from 0 to 28, return 49 by those from 21 to 35, return 48 by that from 14 too.
    assert found[34] == 0
    assert found[48] == 0
    assert found[49] == 1


def test_no_label_looks_ahead():
    market = NAMES["gBm"]
    fitted, scored = market.path(0), market.path(1)
    cut = RETURNS - 5000
    other = scored._replace(returns=np.append(scored.returns[:cut], 3 * scored.returns[cut:][::-1]))
    for name, method in methods.OTHERS.items():
        if name == "wasserstein_k_means":
            continue  # the same windows as the others', and slow
        before, after = (method(fitted, path, 0)[1] for path in (scored, other))
        assert np.array_equal(before[: cut - WINDOW + 1], after[: cut - WINDOW + 1]), name


def test_windows_of_rows_are_made_of_their_own_returns():
    returns = NAMES["drift"].path(0).returns[:200]
    scaling = methods.Scaling.fit(returns)
    other = returns.copy()
    other[:50] = 9.0
    whole, changed = scaling.windows(returns), scaling.windows(other)
    same = (whole == changed).all(axis=(1, 2))
    assert np.flatnonzero(same)[0] == 50  # the first window that starts at return 50
    assert same[50:].all()


def test_accuracies_and_the_swap_by_hand():
    truth, labels = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 0, 1])
    assert benchmark.regime_accuracies(truth, labels).tolist() == [0.25, 0.5]
    assert benchmark.swapped(truth, labels) == 1
    assert benchmark.swapped(truth, 1 - labels) == 0


def test_delays_by_hand():
    truth = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0])
    # To 1 at 2: one return late. To 0 at 5: never before the next switch, two returns. To 1 at 7: at once.
    assert benchmark.delays(truth, labels).tolist() == [1, 2, 0]


def test_the_swap_is_decided_by_the_fitted_path_alone():
    truth = np.tile([0, 1], 100)
    scored = np.append(np.zeros(WINDOW - 1, np.int64), truth)
    found = benchmark.score(truth, 1 - truth, scored, truth)
    assert found["published_balanced_accuracy"] == 1
    assert found["balanced_accuracy"] == 0
