"""Platt scaling, and the calibration error: by hand, and of models that are perfect or wrong."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from algospace.calibration import BINS, Calibration, calibration_error, reliability

# Scaling


@pytest.mark.parametrize(("won", "share"), [([True] * 4, 5 / 6), ([False] * 4, 1 / 6), ([], 0.5)])
def test_one_outcome_gives_one_probability(won, share):
    found = Calibration.fit(np.linspace(0.2, 0.8, len(won)), np.array(won, dtype=bool))
    for p in (0.01, 0.3, 0.5, 0.97):
        assert found(p) == pytest.approx(share, abs=1e-9)


def test_a_confidence_that_went_with_losses_says_nothing():
    """Turned round, Gate 2 would prefer what the team is least sure of."""
    confidence = np.linspace(0.2, 0.8, 100)
    found = Calibration.fit(confidence, confidence < 0.6)
    assert found(0.25) == found(0.75) == pytest.approx((confidence < 0.6).mean(), abs=1e-9)


def test_calibration_finds_what_the_confidence_is_worth():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 0.95, 20_000)
    logit = np.log(confidence / (1 - confidence))
    won = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logit - 0.7)))  # overconfident
    found = Calibration.fit(confidence, won)
    assert found == pytest.approx((0.5, -0.7), abs=0.06)
    assert found(0.9) == pytest.approx(1 / (1 + math.exp(-(0.5 * math.log(9) - 0.7))), abs=0.02)
    assert found == Calibration.fit(confidence, won)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_certainty_stays_finite(edge):
    assert 0 < Calibration(1.0, 0.0)(edge) < 1


# The error


def test_the_error_by_hand():
    # Bins of 1/15: 0.01, 0.02 and 0.03 share one, 0.5 and 0.53 another, 0.94 and 1.0 the last.
    probability = np.array([0.01, 0.02, 0.03, 0.5, 0.53, 0.94, 1.0])
    happened = np.array([False, True, False, True, True, True, False])
    gaps = [abs(1 - 0.06), abs(2 - 1.03), abs(1 - 1.94)]
    assert calibration_error(probability, happened) == pytest.approx(sum(gaps) / 7, abs=1e-12)
    given = reliability(probability, happened, seed=0)
    assert given.counts.tolist() == [3, 2, 2]
    np.testing.assert_allclose(given.stated, [0.02, 0.515, 0.97])
    np.testing.assert_allclose(given.found, [1 / 3, 1.0, 0.5])


def test_the_bins_have_equal_width():
    edges = np.arange(BINS) / BINS
    given = reliability(np.concatenate([edges + 1e-9, edges + 1 / BINS - 1e-9]), np.ones(2 * BINS, bool), seed=0)
    assert given.counts.tolist() == [2] * BINS == [2] * 15


def test_the_intervals_are_wilsons():
    rng = np.random.default_rng(0)
    probability = rng.random(300)
    happened = rng.random(300) < probability
    given = reliability(probability, happened, seed=0)
    for k, n in enumerate(given.counts):
        expected = binomtest(round(given.found[k] * n), int(n)).proportion_ci(0.95, "wilson")
        assert (given.low[k], given.high[k]) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("n", "floor"), [(500, 0.058), (1000, 0.040), (5000, 0.018)])
def test_a_perfect_model_has_the_published_floor(n, floor):
    """The published figures name no distribution of the probabilities.

    Beta(2, 2) has the largest floor that 15 bins of equal width allow: a bin of weight w adds in proportion to
    sqrt(w p (1 - p)), whose sum is largest (Cauchy and Schwarz) where w is proportional to p (1 - p).
    """
    rng = np.random.default_rng(n)
    floors, errors = [], []
    for seed in range(10):
        probability = rng.beta(2, 2, n)
        given = reliability(probability, rng.random(n) < probability, seed)
        floors.append(given.floor)
        errors.append(given.ece)
        assert given.floor < given.floor_high
    assert np.mean(floors) == pytest.approx(floor, abs=0.002)
    assert np.mean(errors) == pytest.approx(np.mean(floors), rel=0.25)
    for other in (rng.uniform(0.3, 0.6, n), rng.beta(5, 5, n)):
        assert reliability(other, other > 0.5, 0).floor < np.mean(floors)


def test_a_perfect_model_exceeds_the_high_floor_once_in_twenty_times():
    rng = np.random.default_rng(1)
    probability = rng.beta(2, 2, 600)
    high = reliability(probability, np.ones(600, bool), 0).floor_high
    exceeded = np.mean([calibration_error(probability, rng.random(600) < probability) > high for _ in range(2000)])
    assert 0.035 < exceeded < 0.065


def test_overconfidence_shows():
    rng = np.random.default_rng(2)
    happened = rng.random(2000) < 0.5
    given = reliability(np.where(rng.random(2000) < 0.5, 0.8, 0.2), happened, 0)
    assert given.ece == pytest.approx(0.3, abs=0.03)
    assert given.ece > 5 * given.floor_high


def test_the_error_of_few_events_is_not_quoted():
    few, enough = (reliability(np.full(n, 0.5), np.arange(n) % 2 == 0, 0) for n in (499, 500))
    assert few.figures() == {"ece": None, "ece_floor": None, "ece_floor_high": None}
    assert few.counts.tolist() == [499]
    assert enough.ece == 0
    assert 0 < enough.floor < enough.floor_high


def test_without_events_there_is_nothing():
    none = reliability(np.array([]), np.array([], bool), 0)
    assert [len(column) for column in none[:5]] == [0] * 5
    assert none.ece is None


def test_the_seed_is_of_the_floor_alone():
    probability = np.random.default_rng(0).random(700)
    first, again, other = (reliability(probability, probability > 0.4, seed) for seed in (1, 1, 2))
    assert first.figures() == again.figures()
    assert first.ece == other.ece
    assert first.floor != other.floor
