import numpy as np
import pandas as pd
import pytest
import torch

from algospace.rde import space
from algospace.rde.model import RegimeVAE, encode
from algospace.rde.space import AlarmParams, Space

ALARMS = AlarmParams(magnitude=2.0, step=1.0, uniqueness=0.9)


def squashed(y):
    return np.tanh(np.asarray(y) / 2).astype(np.float32)


def network(latent=3):
    torch.manual_seed(0)
    return RegimeVAE(2, 8, 4, 8, 2, 1, 8, latent, 0.0).eval()


def windows(n=400, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 8, 2)).astype(np.float32)


def vectors_of(model, x):
    return encode(model, lambda at: x[at], np.arange(len(x))).vectors


def test_oriented_axes_are_uncorrelated_ordered_and_rise_with_volatility():
    model, x = network(), windows()
    volatility = x.std(axis=(1, 2))
    space.orient(model, vectors_of(model, x), volatility)
    y = space.unsquashed(vectors_of(model, x))
    covariance = np.cov(y.T, bias=True)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-4 * covariance.max()
    assert (np.diff(np.diag(covariance)) <= 0).all()
    assert (space.correlations(volatility, y) >= 0).all()
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)


def test_orienting_keeps_distances():
    model, x = network(), windows(50)
    before = space.unsquashed(vectors_of(model, x))
    space.orient(model, vectors_of(model, x), x.std(axis=(1, 2)))
    after = space.unsquashed(vectors_of(model, x))
    gaps = [np.linalg.norm(y[1:] - y[:-1], axis=1) for y in (before, after)]
    np.testing.assert_allclose(*gaps, rtol=1e-3, atol=1e-5)


def test_another_model_of_the_same_latent_is_aligned_exactly():
    model, x = network(), windows()
    space.orient(model, vectors_of(model, x), x.std(axis=(1, 2)))
    twin = network()  # the same weights, its latent not yet turned
    wanted = vectors_of(model, x)
    assert space.align(twin, vectors_of(twin, x), wanted) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(vectors_of(twin, x), wanted, atol=1e-4)


def test_a_stranger_is_aligned_badly_and_says_so():
    model, stranger, x = network(), network(), windows()
    noise = squashed(np.random.default_rng(1).standard_normal((len(x), 3)))
    assert space.align(stranger, vectors_of(model, x), noise) < 0.1


LAG = 5


def clusters(n=2000, seed=0):
    """Vectors of three regimes of 50 rows on average, and which it is."""
    rng = np.random.default_rng(seed)
    centres = np.array([[-0.5, 0, 0], [0.5, 0.4, 0], [0.0, -0.6, 0.3]])
    ends = np.cumsum(rng.integers(20, 80, size=n))
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2])[np.searchsorted(ends, np.arange(n), side="right")]
    return (centres[kind] + 0.02 * rng.standard_normal((n, 3))).astype(np.float32), kind


def fit(vectors, k=3):
    return Space.fit(vectors, np.arange(len(vectors)), LAG, k, 0)


def test_archetypes_are_found_and_the_most_populous_comes_first():
    vectors, kind = clusters()
    fitted = fit(vectors)
    found = fitted.nearest(vectors)
    shares = np.bincount(found)
    assert (np.diff(shares) <= 0).all()
    names = np.argsort(-np.bincount(kind), kind="stable")
    assert np.array_equal(names[found], kind)
    np.testing.assert_allclose(fitted.archetypes, [vectors[found == k].mean(axis=0) for k in range(3)], atol=0.01)


def test_archetypes_are_told_apart_by_what_lasts_and_not_by_what_varies():
    rng = np.random.default_rng(0)
    kind = np.arange(4000) // 100 % 2
    y = np.column_stack([0.5 * rng.choice([-1, 1], 4000), 0.1 * (2 * kind - 1) + 0.02 * rng.standard_normal(4000)])
    fitted = fit(squashed(y), 2)
    found = fitted.nearest(squashed(y))
    assert max(np.mean(found == kind), np.mean(found != kind)) > 0.99
    apart = np.abs(np.diff(space.unsquashed(fitted.archetypes), axis=0))
    np.testing.assert_allclose(apart, [[0, 0.2]], atol=0.05)


def test_a_wide_archetype_keeps_its_near_side():
    fitted = Space(np.ones(2), np.eye(2), squashed([[0, 0], [3, 0]]).astype(float), np.array([0.1, 1.0]), np.ones(2))
    place = squashed([[1.0, 0]])
    np.testing.assert_allclose(fitted.distances(place), [[10, 2]], rtol=1e-4)
    assert fitted.nearest(place) == [1]


def test_radii_are_of_the_own_vectors():
    vectors, _ = clusters()
    fitted = fit(vectors)
    own = fitted.distances(vectors).min(axis=1)
    found = fitted.nearest(vectors)
    for k in range(3):
        assert np.sqrt((own[found == k] ** 2).mean()) == pytest.approx(1, rel=0.01)
    assert fitted.typical[0] == pytest.approx(np.median(own), rel=0.01)


def test_a_fit_has_the_same_bits_twice():
    vectors, _ = clusters()
    assert all(np.array_equal(a, b) for a, b in zip(fit(vectors), fit(vectors), strict=True))


def measured(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, 3))
    found = pd.DataFrame(
        {"volatility": y[:, 0] + 0.1 * rng.standard_normal(n), "trend": -y[:, 1], "tails": y[:, 2] * 0}
    )
    found["tails"] = rng.standard_normal(n)
    return squashed(y), found


def test_a_dimension_is_named_after_what_it_goes_with():
    vectors, found = measured()
    first, second, third = space.meanings(vectors, found, 0.3, 10.0, 0)
    assert (first.name, second.name, third.name) == ("volatility", "trend", space.UNNAMED)
    assert first.r > 0.9
    assert second.r < -0.9
    assert first.low < first.r < first.high


def test_a_correlation_whose_interval_holds_zero_names_nothing():
    rng = np.random.default_rng(3)
    drift = np.cumsum(rng.standard_normal((2, 300)), axis=1)  # two walks: a large r that means nothing
    vectors = squashed(drift[:1].T / np.abs(drift[0]).max())
    (meaning,) = space.meanings(vectors, pd.DataFrame({"trend": drift[1]}), 0.01, 100.0, 0)
    assert abs(meaning.r) > 0.01
    assert meaning.low < 0 < meaning.high
    assert meaning.name == space.UNNAMED


def test_archetypes_are_named_by_what_their_windows_measure():
    found = pd.DataFrame({"volatility": [2.0, 2, -1, -1, 1, 1, 1, 1], "trend": [0.0, 0, 3, 3, -3, -3, 0, 0]})
    nearest = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert space.archetype_names(nearest, found, 5) == [
        "volatile", "calm, rising", "falling", "ordinary", "ordinary (2)"
    ]  # fmt: skip
    assert space.archetype_names(nearest, -found, 4) == ["calm", "volatile, falling", "rising", "ordinary"]


def judged(vectors, **changes):
    fitted = Space(np.ones(2), np.eye(2), np.zeros((1, 2)), np.ones(1), np.array([0.1, 0.2]))._replace(**changes)
    n = len(vectors)
    return space.quality(fitted, vectors, np.full(n, 0.7), np.append(False, np.ones(n - 1, bool)), ALARMS)


def test_quality_by_hand():
    vectors = squashed([[1, 1], [1, 1], [3, 3]])
    found = judged(vectors)
    np.testing.assert_allclose(found.magnitude, [1, 1, 3], rtol=1e-5)
    assert np.isnan(found.stability[0])
    assert found.stability[1] == 1.0
    step = np.linalg.norm(vectors[2] - vectors[1])
    assert found.stability[2] == pytest.approx(0.5 ** (step / 0.2))
    assert found.uniqueness[0] == pytest.approx(1 - 0.5 ** (np.sqrt(2) / 0.1))


@pytest.mark.parametrize(
    ("y", "alarm"), [([[0, 0], [0.01, 0]], False), ([[0, 0], [0.9, 0]], True), ([[0.02, 0], [2.5, 2.5]], True)]
)
def test_alarms(y, alarm):
    assert judged(squashed(y)).alarm[-1] == alarm


def test_a_step_across_a_break_is_none():
    vectors = squashed([[2, 0], [-2, 0]])
    fitted = Space(np.full(2, 5.0), np.eye(2), vectors.astype(float), np.ones(2), np.array([0.1, 0.2]))
    together, apart = (
        space.quality(fitted, vectors, np.ones(2), np.array([False, flag]), ALARMS) for flag in (True, False)
    )
    assert together.alarm[1]
    assert not apart.alarm[1]
    assert np.isnan(apart.stability[1])


def test_the_quality_of_a_prefix_is_the_prefix_of_the_quality():
    vectors, _ = clusters()
    vectors = vectors[:, :2]
    whole = judged(vectors)
    for n in (1, 7, 100):
        for a, b in zip(judged(vectors[:n]), whole, strict=True):
            np.testing.assert_array_equal(a, b[:n])
