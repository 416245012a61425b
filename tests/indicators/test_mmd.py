import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators import mmd
from algospace.indicators.mmd import KERNEL_SCALES, MMDParams, MMDReference

PARAMS = MMDParams(kind="mmd12", window=96, references=7, reference_size=64)


@pytest.fixture(scope="module")
def z(bars):
    return mmd.path(bars.ha_open, bars.ha_high, bars.ha_low, bars.ha_close, bars.volume)


@pytest.fixture(scope="module")
def train(bars):
    return np.arange(bars.close.size) < 1750


@pytest.fixture(scope="module")
def reference(z, train):
    return mmd.fit(z, train, PARAMS, seed=1)


def kernel(x, y, median):
    squared = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    return np.mean([np.exp(-squared / (2 * (s * median) ** 2)) for s in KERNEL_SCALES], axis=0)


def unbiased(x, y, median):
    n, m = len(x), len(y)
    xx, yy = kernel(x, x, median), kernel(y, y, median)
    own = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1))
    return own - 2 * kernel(x, y, median).mean()


def test_path_by_hand():
    z = mmd.path(
        np.array([1.0, 2, 4]),
        np.array([4.0, 8, 4]),
        np.array([1.0, 2, 4]),
        np.array([2.0, 6, 4]),
        np.array([10.0, 20, 0]),
    )
    assert np.isnan(z[0]).all()
    np.testing.assert_allclose(z[1], [np.log(3), np.log(4), np.log(2), 4 / 6])
    np.testing.assert_allclose(z[2], [np.log(4 / 6), 0, 0, 0])


def test_equals_the_formula(bars, z, reference):
    out = mmd.mmd12(z, bars.ha_close, bars.volume, reference, 96)
    assert out.shape == (2500, 12)
    assert np.isnan(out[:96]).all()
    assert np.isfinite(out[96:]).all()
    returns = np.diff(np.log(bars.ha_close), prepend=np.nan)
    scaled = (z - reference.center) / reference.scale
    for t in (96, 97, 1000, 2499):
        rows = slice(t - 95, t + 1)
        expected = [unbiased(scaled[rows], y, reference.median_distance) for y in reference.points]
        r, v = returns[rows], bars.volume[rows]
        d = (r - r.mean()) / r.std()
        statistics = [
            r.std(),
            (d**3).mean(),
            (d**4).mean() - 3,
            v.std() / v.mean(),
            (d[1:] * d[:-1]).sum() / (d**2).sum(),
        ]
        np.testing.assert_allclose(out[t], expected + statistics, rtol=1e-9, atol=1e-12)


def test_prefix(bars, z, reference, cuts):
    whole = mmd.mmd12(z, bars.ha_close, bars.volume, reference, 96)
    for cut in cuts:
        columns = (bars.ha_open, bars.ha_high, bars.ha_low, bars.ha_close, bars.volume)
        np.testing.assert_array_equal(mmd.path(*[x[:cut] for x in columns]), z[:cut])
        part = mmd.mmd12(z[:cut], bars.ha_close[:cut], bars.volume[:cut], reference, 96)
        np.testing.assert_array_equal(part, whole[:cut])


def test_row_depends_on_its_window_alone(bars, z, reference):
    whole = mmd.mmd12(z, bars.ha_close, bars.volume, reference, 96)
    late = mmd.mmd12(z[500:], bars.ha_close[500:], bars.volume[500:], reference, 96)
    np.testing.assert_array_equal(late[96:], whole[596:])


def test_zero_when_alike_and_grows_with_the_shift():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(1, 256, 4))
    scores = {}
    for shift in (0.0, 0.3, 0.6, 1.2):
        z = rng.normal(size=(96 * 200, 4)) + shift
        ones = np.ones(len(z))
        ref = MMDReference(np.zeros(4), np.ones(4), y, 2.5, np.array(KERNEL_SCALES))
        scores[shift] = mmd.mmd12(z, ones, ones, ref, 96)[95::96, 0]
    assert scores[0.0].min() < 0 < scores[0.0].max()  # signed
    # The reference is one draw: its own deviation stays below a few standard errors of the windows' scores.
    assert abs(scores[0.0].mean()) < 0.2 * scores[0.3].mean()
    assert scores[0.3].mean() < scores[0.6].mean() < scores[1.2].mean()


def test_fit_reads_train_rows_only_and_repeats(bars, z, train, reference):
    other = z.copy()
    other[~train] = 99.0
    for again in (mmd.fit(other, train, PARAMS, seed=1), mmd.fit(z[:1750], train[:1750], PARAMS, seed=1)):
        for got, expected in zip(again, reference, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(mmd.fit(z, train, PARAMS, seed=2).points, reference.points)
    scaled = {tuple(row) for row in ((z - reference.center) / reference.scale)[train].tolist()}
    assert {tuple(row) for row in reference.points.reshape(-1, 4).tolist()} <= scaled
    assert reference.points.shape == (7, 64, 4)
    for regime in reference.points:
        assert len(np.unique(regime, axis=0)) == 64  # drawn without replacement


def test_windows_with_a_row_outside_train_are_not_used(z):
    mask = np.zeros(len(z), dtype=bool)
    mask[:1000] = mask[1050:1700] = True
    changed = z.copy()
    changed[1000:1050] = -5.0
    for got, expected in zip(mmd.fit(changed, mask, PARAMS, 1), mmd.fit(z, mask, PARAMS, 1), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_regimes_are_found_and_ordered_by_volatility():
    rng = np.random.default_rng(4)
    calm = np.repeat(np.tile([True, False], 10), 192)
    z = rng.normal(size=(calm.size, 4)) * np.where(calm, 0.001, 0.004)[:, None]
    z[:, 1] = np.abs(z[:, 1])
    z[:, 3] = np.clip(rng.normal(size=calm.size), -1, 1)
    params = MMDParams(kind="mmd12", window=96, references=2, reference_size=128)
    ref = mmd.fit(z, np.ones(calm.size, dtype=bool), params, seed=0)
    assert 2 * ref.points[0, :, 0].std() < ref.points[1, :, 0].std()
    close = 100 * np.exp(np.cumsum(z[:, 0]))
    out = mmd.mmd12(z, close, np.ones(calm.size), ref, 96)[95::96]
    nearest = out[:, :2].argmin(axis=1)
    np.testing.assert_array_equal(nearest == 0, calm[95::96])


def test_small_components_are_filled(bars, z, train):
    big = MMDParams(kind="mmd12", window=96, references=7, reference_size=1500)
    ref = mmd.fit(z, train, big, seed=1)
    for regime in ref.points:
        assert len(np.unique(regime, axis=0)) == 1500


def test_flat_market_is_finite(reference):
    n = 300
    flat = np.full(n, 100.0)
    z = mmd.path(flat, flat, flat, flat, np.zeros(n))
    assert (z[1:] == 0).all()
    out = mmd.mmd12(z, flat, np.zeros(n), reference, 96)
    assert np.isfinite(out[96:]).all()
    assert (out[96:, 7:] == 0).all()
    fitted = mmd.fit(np.random.default_rng(0).normal(size=(n, 4)), np.ones(n, dtype=bool), PARAMS, seed=0)
    assert np.isfinite(fitted.points).all()


def test_wrong_input(bars, z, train, reference):
    with pytest.raises(InputError, match=r"indicators\.mmd: expected 7 windows of 96 bars"):
        mmd.fit(z, np.arange(len(z)) < 100, PARAMS, seed=1)
    with pytest.raises(InputError, match="z has shape"):
        mmd.mmd12(z[:10], bars.ha_close, bars.volume, reference, 96)
    odd = reference._replace(kernel_scales=np.array([1.0, 3.0]))
    with pytest.raises(InputError, match="double"):
        mmd.mmd12(z, bars.ha_close, bars.volume, odd, 96)
    short = mmd.mmd12(z[:50], bars.ha_close[:50], bars.volume[:50], reference, 96)
    assert np.isnan(short).all()
