import numpy as np
import pytest

from algospace.errors import InputError
from algospace.rde.persistence import kinetic_axes

LAG = 10


def series(n=6000, seed=0):
    """Three directions: large noise, an AR(1) that keeps 0.6 of itself over the lag, and one that alternates."""
    rng = np.random.default_rng(seed)
    slow = np.zeros(n)
    keep = 0.6 ** (1 / LAG)
    for t in range(1, n):
        slow[t] = keep * slow[t - 1] + np.sqrt(1 - keep**2) * rng.normal()
    turning = np.sin(np.pi * np.arange(n) / LAG) + 0.1 * rng.normal(size=n)
    return np.column_stack([10 * rng.normal(size=n), slow, turning])


def test_axes_are_as_long_as_they_last():
    x = series()
    places = x @ kinetic_axes(x, np.arange(len(x)), LAG)
    assert places[:, 0].std() == pytest.approx(0.6, abs=0.05)
    assert np.corrcoef(places[:, 0], x[:, 1])[0, 1] > 0.99
    assert places[:, 1].std() < 0.1  # noise, though it has a hundred times the variance
    assert (places[:, 2] == places[0, 2]).all()  # what turns over counts for nothing


def test_a_linear_map_of_the_vectors_changes_no_distance():
    x = series(2000)
    rng = np.random.default_rng(1)
    other = x @ rng.normal(size=(3, 3)) + rng.normal(size=3)
    one, two = (v @ kinetic_axes(v, np.arange(len(v)), LAG) for v in (x, other))
    gaps = [np.linalg.norm(places[1:] - places[:-1], axis=1) for places in (one, two)]
    np.testing.assert_allclose(*gaps, rtol=1e-6, atol=1e-9)


def test_only_rows_that_lie_the_lag_apart_are_pairs():
    x = series(3000)
    rows = np.arange(len(x))
    rows[1500:] += 7  # a hole: the 10 vectors before it have no partner
    holed = kinetic_axes(x, rows, LAG)
    assert not np.allclose(holed, kinetic_axes(x, np.arange(len(x)), LAG), rtol=1e-9)
    position = {row: i for i, row in enumerate(rows)}
    first = np.array([i for i, row in enumerate(rows) if row + LAG in position])
    second = np.array([position[row + LAG] for row in rows[first]])
    a, b = x[first], x[second]
    mean = (a.mean(0) + b.mean(0)) / 2
    lagged = (a - mean).T @ (b - mean) / len(a)
    instant = ((a - mean).T @ (a - mean) + (b - mean).T @ (b - mean)) / (2 * len(a))
    # The first axis: its autocorrelation is its own length.
    axis = holed[:, 0]
    assert axis @ lagged @ axis / (axis @ instant @ axis) == pytest.approx(np.sqrt(axis @ instant @ axis), rel=1e-9)


def test_a_direction_of_rounding_is_left_out():
    x = series(2000)
    flat = np.column_stack([x, x[:, 0] + x[:, 1]])  # the fourth is a sum of two
    axes = kinetic_axes(flat, np.arange(len(flat)), LAG)
    assert axes.shape == (4, 4)
    assert (axes[:, 3] == 0).all()
    np.testing.assert_allclose(
        np.abs(np.diff(flat @ axes[:, 0])),
        np.abs(np.diff(x @ kinetic_axes(x, np.arange(len(x)), LAG)[:, 0])),
        rtol=1e-6, atol=1e-9,
    )  # fmt: skip


def test_where_nothing_lasts_every_direction_counts_alike():
    t = np.arange(2000)
    x = np.column_stack([np.sin(np.pi * t / LAG), 5 * np.cos(np.pi * t / LAG)])  # -1 times itself a lag later
    places = x @ kinetic_axes(x, t, LAG)
    np.testing.assert_allclose(places.std(axis=0), 1, rtol=0.02)


def test_bits_do_not_depend_on_the_run():
    x = series(500)
    assert np.array_equal(*(kinetic_axes(x, np.arange(500), LAG) for _ in range(2)))


def test_too_few_and_constant_vectors_are_refused():
    with pytest.raises(InputError, match=f"vectors {LAG} rows apart, found 1 pairs"):
        kinetic_axes(series(11), np.arange(11), LAG)
    with pytest.raises(InputError, match="vectors that differ, found a constant"):
        kinetic_axes(np.ones((30, 2)), np.arange(30), LAG)
