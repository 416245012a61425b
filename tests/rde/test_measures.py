import numpy as np
import pandas as pd
import pytest

from algospace.rde.measures import WORDS, HalfHours, measures, next_window

LENGTH = 96


def half_hours(returns, volume=1000.0):
    n = len(returns)
    times = pd.date_range("2024-01-01", periods=n, freq="30min").as_unit("ms").asi8
    return HalfHours(times, np.asarray(returns, float), np.full(n, volume), np.exp(np.cumsum(returns)))


def noise(n=400, seed=0):
    return 0.001 * np.random.default_rng(seed).standard_normal(n)


def test_every_measure_has_its_two_words():
    found = measures(half_hours(noise()), np.array([200]), LENGTH)
    assert list(found) == list(WORDS)
    assert np.isfinite(found.to_numpy()).all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("volatility", noise(), 3 * noise()),
        ("trend", noise() - 0.001, noise() + 0.001),
        ("efficiency", noise(), np.abs(noise())),
        ("liquidity", 10 * noise(), noise()),
        ("tails", np.sign(noise()), np.where(np.arange(400) % 40 == 0, 0.02, noise())),
        ("skew", np.where(np.arange(400) % 40 == 0, -0.02, noise()), np.where(np.arange(400) % 40 == 0, 0.02, noise())),
        ("volatility_change", noise() * np.linspace(9, 1, 400) ** 2, noise() * np.linspace(1, 9, 400) ** 2),
        ("autocorrelation", noise()[:-1] - noise()[1:], noise()[:-1] + noise()[1:]),
    ],
)
def test_a_measure_rises_with_what_it_measures(name, low, high):
    at = np.array([350])
    below, above = (measures(half_hours(r), at, LENGTH)[name][0] for r in (low, high))
    assert below < above


def test_volume_and_the_hour():
    quiet, busy = (measures(half_hours(noise(), v), np.arange(200, 248), LENGTH) for v in (10.0, 1000.0))
    assert (quiet["volume"] < busy["volume"]).all()
    assert busy["hour"].max() == pytest.approx(1.0)
    assert busy["hour"].min() == pytest.approx(-1.0)


def test_a_measure_reads_its_window_alone():
    r = noise()
    whole = measures(half_hours(r), np.array([200]), LENGTH)
    outside = r.copy()
    outside[201:], outside[: 201 - LENGTH] = 0.5, -0.5
    pd.testing.assert_frame_equal(measures(half_hours(outside), np.array([200]), LENGTH), whole)


def test_the_next_window_begins_where_this_one_ends():
    r = noise()
    wanted = measures(half_hours(r), np.array([200 + LENGTH]), LENGTH)[["volatility", "trend"]]
    pd.testing.assert_frame_equal(next_window(half_hours(r), np.array([200]), LENGTH), wanted)
    with pytest.raises(IndexError):
        next_window(half_hours(r), np.array([350]), LENGTH)


def table(**changes):
    """Main-table rows that know half hours 0, 0, 1, 2, 2."""
    times = pd.to_datetime(["2024-01-01 10:00", "2024-01-01 10:00", "2024-01-01 10:30", "2024-01-01 11:00"] * 2)[:5]
    columns = {
        "m30_row": [0, 0, 1, 2, 2],
        "m30_close_utc": times[[0, 0, 2, 3, 3]],
        "m30_close": [100.0, 100.0, 110.0, 220.0, 220.0],
        "m30_volume": [1.0, 1.0, 2.0, 3.0, 3.0],
        "contract_id": [0, 0, 0, 1, 1],
    }
    return pd.DataFrame(columns | changes)


def test_half_hours_stand_once_and_a_roll_is_no_move():
    found = HalfHours.of(table())
    np.testing.assert_allclose(found.close, [100, 110, 220])
    np.testing.assert_allclose(found.log_return, [0, np.log(1.1), 0])


def test_of_two_half_hours_that_close_at_once_the_later_is_known():
    found = HalfHours.of(table(m30_row=[0, 0, 2, 3, 3]))
    np.testing.assert_allclose(found.close, [100, 110, 110, 220])


def test_bars_before_the_first_half_hour_are_passed_over():
    found = HalfHours.of(table(m30_row=[-1, 0, 1, 2, 2]))
    assert len(found.close) == 3
