"""Drift: the index by hand, what chance does, and what a reference remembers."""

import json

import numpy as np
import pytest

from algospace import drift

RNG = np.random.default_rng


def test_psi_by_hand():
    """Half of train below 0, a quarter of the other: (0.25 - 0.5) ln(0.25 / 0.5) + (0.75 - 0.5) ln(0.75 / 0.5)."""
    train, other = np.array([-1.0] * 50 + [1.0] * 50), np.array([-1.0] * 25 + [1.0] * 75)
    expected = -0.25 * np.log(0.5) + 0.25 * np.log(1.5)
    assert drift.compare(drift.reference(train), other).psi == pytest.approx(expected, abs=1e-3)
    assert drift.compare(drift.reference(train), train).psi == 0.0


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ([0] * 90 + [-1] * 5 + [1] * 5, [0] * 45 + [-1] * 50 + [1] * 5),
        ([1] * 95 + [0] * 5, [1] * 10 + [0] * 90),
        ([0] * 100, [1] * 100),
    ],
)
def test_psi_sees_shifts_of_discrete_variables(train, other):
    assert drift.compare(drift.reference(np.array(train, float)), np.array(other, float)).psi > drift.DRIFTED


def test_a_shift_drifts_and_the_same_population_does_not():
    train = drift.reference(RNG(0).normal(size=5000))
    assert not drift.compare(train, RNG(1).normal(size=2000)).drifted
    assert drift.compare(train, RNG(1).normal(0.7, size=2000)).drifted
    assert drift.compare(train, RNG(1).normal(scale=2.0, size=2000)).drifted


@pytest.mark.parametrize("count", [20, 60, 2000])
def test_chance_rarely_passes_the_bound(count):
    """Even 20 values, whose index is large by chance alone, are called drifted at most a few times in 200."""
    train = drift.reference(RNG(0).normal(size=400))
    assert sum(drift.compare(train, RNG(k + 1).normal(size=count)).drifted for k in range(200)) <= 8


def test_what_moved_within_train_may_move_again():
    """A slow variable: each fifth of train has its own level, so another level is no news; a far one is."""
    levels = np.repeat([0.0, 1.0, -1.0, 0.5, -0.5], 400)
    train = drift.reference(levels + RNG(0).normal(scale=0.3, size=2000))
    length, index = train["within"][0]
    assert length == 400
    assert index > 1.0
    assert not drift.compare(train, RNG(1).normal(0.75, 0.6, 400)).drifted
    assert drift.compare(train, RNG(1).normal(5.0, 0.3, 400)).drifted


def slow(seed, count):
    """Neighbours are alike: an autoregression that forgets within some hundred values."""
    noise, x = RNG(seed).normal(size=count), np.zeros(count)
    for t in range(1, count):
        x[t] = 0.99 * x[t - 1] + noise[t]
    return x


@pytest.mark.parametrize(("count", "most"), [(100, 3), (700, 6), (4000, 15)])
def test_a_short_stretch_of_a_slow_variable_is_no_drift(count, most):
    """Its values are a few levels of many; the bound is what stretches as long differ by within the reference.

    Of five stretches a sixth goes further than any once in six times, so that of 60 ten may.
    """
    train = drift.reference(slow(0, 20_000))
    assert [length for length, _ in train["within"]] == [4000, 2000, 1000, 500, 250, 125, 62, 31]
    assert sum(drift.compare(train, slow(k + 1, 2000 + count)[2000:]).drifted for k in range(60)) <= most
    assert drift.compare(train, slow(1, count) + 80.0).drifted


@pytest.mark.parametrize(("count", "judged"), [(3, False), (19, False), (20, True)])
def test_what_happened_on_a_few_occasions_is_not_judged(count, judged):
    found = drift.compare_share(drift.reference_share(60, 346), 3, count)
    assert (found.judged, found.drifted) == (judged, False)
    assert drift.compare_share(drift.reference_share(60, 346), count, count).drifted == judged


def test_fewer_values_than_any_stretch_are_not_judged():
    found = drift.compare(drift.reference(RNG(0).normal(size=2000)), np.full(19, 9.0))
    assert (found.bound, found.values, found.drifted) == (np.inf, 19, False)


def test_a_reference_is_json_and_ignores_what_is_not_finite():
    values = np.append(RNG(0).normal(size=300), [np.nan, np.inf])
    train = drift.reference(values)
    assert json.loads(json.dumps(train, allow_nan=False)) == train
    assert train == drift.reference(values[:300])
    assert sum(train["shares"]) == pytest.approx(1.0)
    assert drift.compare(train, values).values == 300


def test_nothing_seen_is_no_drift():
    train = drift.reference(np.arange(100.0))
    assert not drift.compare(train, np.array([np.nan])).drifted
    assert not drift.compare(drift.reference(np.empty(0)), np.arange(9.0)).drifted
    assert not drift.compare_share(drift.reference_share(0, 0), 3, 5).drifted


def test_shares_by_hand():
    """0.5 -> 0.25: 0.25 ln 2 + (0.75 - 0.5) ln(1.5)."""
    found = drift.compare_share(drift.reference_share(500, 1000), 250, 1000)
    assert found.psi == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    assert found.drifted
    assert not drift.compare_share(drift.reference_share(500, 1000), 6, 20).drifted
    assert drift.compare_share(drift.reference_share(0, 400), 100, 100).drifted
