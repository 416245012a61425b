from itertools import pairwise

import numpy as np
import pytest

from algospace.errors import InputError
from algospace.indicators.mlmi import MLMIParams, events, mlmi

PARAMS = MLMIParams(k=5, max_points=10_000, ma_fast=5, ma_slow=20, rsi_fast=5, rsi_slow=20, rsi_smooth=20, smooth=5)


def wma(x, n):
    w = np.arange(1, n + 1)
    return np.array([np.nan if t < n - 1 else x[t - n + 1 : t + 1] @ w / w.sum() for t in range(len(x))])


def wilder_rsi(x, n):
    out = np.full(len(x), np.nan)
    d = np.diff(x)
    up, down = np.maximum(d, 0), np.maximum(-d, 0)
    gain, loss = up[:n].mean(), down[:n].mean()
    out[n] = 100 * gain / (gain + loss)
    for t in range(n + 1, len(x)):
        gain, loss = (gain * (n - 1) + up[t - 1]) / n, (loss * (n - 1) + down[t - 1]) / n
        out[t] = 100 * gain / (gain + loss)
    return out


def naive(ha, raw, p):
    slow, fast = wma(wilder_rsi(ha, p.rsi_slow), p.rsi_smooth), wma(wilder_rsi(ha, p.rsi_fast), p.rsi_smooth)
    side = np.sign(wma(ha, p.ma_fast) - wma(ha, p.ma_slow))
    crosses = [t for t in range(p.ma_slow, len(ha)) if side[t] != side[t - 1] and not np.isnan(side[t - 1])]
    points = [
        (b, slow[a], fast[a], 1.0 if raw[b] >= raw[a] else -1.0)
        for a, b in pairwise(crosses)
        if not np.isnan(slow[a] + fast[a])
    ]
    r = np.full(len(ha), np.nan)
    for t in range(len(ha)):
        known = np.array([q[1:] for q in points if q[0] <= t][-p.max_points :])
        if len(known) < p.k:
            continue
        scale = known[:, :2].std(axis=0)
        distance = (((known[:, :2] - [slow[t], fast[t]]) / scale) ** 2).sum(axis=1)
        r[t] = known[np.argsort(distance)[: p.k], 2].mean()
    return 50 * (1 + wma(r, p.smooth))


@pytest.mark.parametrize(("k", "max_points"), [(5, 10_000), (5, 40), (20, 60)])
def test_equals_brute_force(bars, k, max_points):
    params = PARAMS.model_copy(update={"k": k, "max_points": max_points})
    value = mlmi(bars.ha_close, bars.close, params)
    np.testing.assert_allclose(value, naive(bars.ha_close, bars.close, params), atol=1e-9)
    finite = value[np.isfinite(value)]
    assert finite.size > 1500
    assert finite.min() >= 0
    assert finite.max() <= 100
    assert finite.std() > 5


def test_prefix(bars, cuts):
    for params in (PARAMS, PARAMS.model_copy(update={"max_points": 30})):
        whole = mlmi(bars.ha_close, bars.close, params)
        for cut in cuts:
            np.testing.assert_array_equal(mlmi(bars.ha_close[:cut], bars.close[:cut], params), whole[:cut])
            np.testing.assert_array_equal(events(whole[:cut], 0.0), events(whole, 0.0)[:cut])


def test_label_waits_for_the_next_cross():
    # A wave whose raw close rises after every cross and one whose raw close falls: all votes agree.
    ha = 100 + np.sin(np.arange(400) / 6.0)
    up, down = np.arange(400) + 1.0, 1000.0 - np.arange(400)
    assert np.nanmax(mlmi(ha, down, PARAMS)) == 0.0
    assert np.nanmin(mlmi(ha, up, PARAMS)) == 100.0


def test_flat_market_has_no_value_and_no_event():
    for price in (4800.1, 0.1, 12345.678):
        value = mlmi(np.full(300, price), np.full(300, price), PARAMS)
        assert np.isnan(value).all()
        assert not events(value, 0.0).any()


def test_rounding_makes_no_crosses():
    # Stairs that only rise: between the steps the averages meet, but the fast one never falls below.
    for step in (0.01, 0.13, 0.29, 0.7):
        stairs = np.repeat(100.1 + step * np.arange(60), 40)
        assert np.isnan(mlmi(stairs, stairs, PARAMS)).all()


def test_a_tie_of_votes_is_exactly_neutral():
    bars = 50 * (1 + np.array([0.0, -0.2, 0.0, 0.2, 0.0]))
    assert events(bars, 0.0).tolist() == [0, -1, 0, 1, 0]


def test_events():
    value = np.array([np.nan, 60, 40, 50, 60, 80, 74, 76, 20, 80])
    assert events(value, 0.0).tolist() == [0, 0, -1, 0, 1, 0, 0, 0, -1, 1]
    assert events(value, 25.0).tolist() == [0, 0, 0, 0, 0, 1, 0, 1, -1, 1]
    assert events(value, 0.0).dtype == np.int8


def test_lengths_must_agree():
    with pytest.raises(InputError, match="mlmi: raw_close has shape"):
        mlmi(np.ones(3), np.ones(4), PARAMS)
