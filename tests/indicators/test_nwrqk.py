import numpy as np
import pytest

from algospace.indicators.nwrqk import NWRQKParams, events, nwrqk, slope

PARAMS = NWRQKParams(h=8.0, alpha=8.0, lookback_h=10.0, slope_window=500)


def weights(p):
    i = np.arange(int(p.lookback_h * p.h) + 1)
    return (1 + i**2 / (2 * p.alpha * p.h**2)) ** -p.alpha


@pytest.mark.parametrize("h", [8.0, 46.0])
def test_equals_the_formula(bars, h):
    params = PARAMS.model_copy(update={"h": h})
    w = weights(params)
    expected = [(w[: t + 1] @ bars.ha_close[t::-1][: w.size]) / w[: t + 1].sum() for t in range(bars.close.size)]
    np.testing.assert_allclose(nwrqk(bars.ha_close, params), expected, rtol=1e-12)


def test_constant_stays_and_line_lags():
    assert (nwrqk(np.full(300, 4800.1), PARAMS) == 4800.1).all()
    w = weights(PARAMS)
    lag = np.arange(w.size) @ w / w.sum()
    line = 100 + 0.5 * np.arange(300.0)
    np.testing.assert_allclose((line - nwrqk(line, PARAMS))[w.size :], 0.5 * lag, rtol=1e-10)


def test_truncation_error_is_below_1e_6(bars):
    longer = PARAMS.model_copy(update={"lookback_h": 40.0})
    np.testing.assert_allclose(nwrqk(bars.ha_close, PARAMS), nwrqk(bars.ha_close, longer), rtol=1e-6)


def test_prefix(bars, cuts):
    values = nwrqk(bars.ha_close, PARAMS)
    slopes = slope(values, 100)
    for cut in cuts:
        part = nwrqk(bars.ha_close[:cut], PARAMS)
        np.testing.assert_array_equal(part, values[:cut])
        for got, whole in zip(slope(part, 100), slopes, strict=True):
            np.testing.assert_array_equal(got, whole[:cut])
        np.testing.assert_array_equal(events(part, slopes[1][:cut], 0.3), events(values, slopes[1], 0.3)[:cut])


def test_slope(bars):
    values = nwrqk(bars.ha_close, PARAMS)
    bp, z = slope(values, 100)
    assert np.isnan(bp[0])
    assert np.isnan(z[:20]).all()
    assert np.isfinite(z[20:]).all()
    assert bp[700] == 1e4 * (values[700] - values[699]) / values[699]
    for t in (20, 60, 700, 2000):
        np.testing.assert_allclose(z[t], bp[t] / bp[max(1, t - 99) : t + 1].std(), rtol=1e-12)
    assert (slope(np.full(50, 7.0), 100)[1][20:] == 0).all()


def test_turns():
    values = np.array([1.0, 2, 2, 3, 3, 2, 1, 1, 0, 4])
    z = np.array([np.nan, np.nan, 0, 0.2, 0, -0.4, -0.4, 0, -0.2, 2])
    assert events(values, z, 0.0).tolist() == [0, 0, 0, 1, 0, -1, 0, 0, -1, 1]
    assert events(values, z, 0.3).tolist() == [0, 0, 0, 0, 0, -1, 0, 0, 0, 1]
    assert not events(np.full(100, 4800.1), np.zeros(100), 0.0).any()
    unknown = np.full(3, np.nan)
    assert events(np.array([2.0, 1, 2]), unknown, 0.0)[2] == 1
    assert events(np.array([2.0, 1, 2]), unknown, 0.3)[2] == 0


def test_short_input():
    for n in range(3):
        values = nwrqk(np.full(n, 5.0), PARAMS)
        assert slope(values, 100)[1].size == n
        assert events(values, values, 0.0).tolist() == [0] * n
