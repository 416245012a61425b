from pathlib import Path

import numpy as np
import pytest
import talib
import yaml

from algospace.errors import InputError
from algospace.indicators.params import IndicatorParams
from algospace.indicators.technical import atr, momentum, rsi, tactical, volume_ratio

NAMES = [
    "ema_9", "ema_21", "ema_50", "sma_20", "macd", "macd_signal", "macd_hist", "rsi_14", "bb_upper",
    "bb_middle", "bb_lower", "bb_width", "bb_percent", "stoch_k", "stoch_d", "atr_14", "adx_14", "obv",
    "ad", "mom_10", "roc_10", "cdl_hammer", "cdl_doji", "cdl_engulfing", "pivot", "r1", "s1",
    "ema_9_ratio", "ema_21_ratio", "sma_20_ratio", "returns", "volatility_20", "volume_sma_20",
    "volume_ratio", "momentum_5",
]  # fmt: skip


def compute(bars, end=None):
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return tactical(*[x[:end] for x in columns], 20, 5, bars.session_id[:end])


def test_params_mirror_the_file():
    text = Path(__file__).parents[2].joinpath("params.yaml").read_text()
    params = IndicatorParams.model_validate(yaml.safe_load(text)["indicators"])
    assert params.mlmi.k == 5


def test_names_and_warm_up(bars):
    out = compute(bars)
    assert list(out) == NAMES
    for name, values in out.items():
        assert values.dtype == np.float64, name
        assert values.shape == bars.close.shape, name
        if name != "momentum_5":
            known = np.flatnonzero(np.isfinite(values))
            assert known[0] < 60, name
            assert known.size == values.size - known[0], name


def test_prefix(bars, cuts):
    whole = compute(bars)
    for cut in cuts:
        for name, values in compute(bars, cut).items():
            np.testing.assert_array_equal(values, whole[name][:cut], err_msg=f"{name} cut at {cut}")


def test_rsi_is_wilders(bars):
    for length in (5, 14, 20):
        expected = talib.RSI(bars.close, timeperiod=length)
        np.testing.assert_allclose(rsi(bars.close, length), expected, rtol=1e-9)
    # Changes +1, +1, -1: seed over 2 changes gain 1, loss 0; then gain 0.5, loss 0.5.
    np.testing.assert_array_equal(rsi(np.array([1.0, 2, 3, 2]), 2), [np.nan, np.nan, 100, 50])
    assert (rsi(np.full(30, 4800.1), 14)[14:] == 50).all()


def test_atr_by_hand():
    high, low, close = np.array([2.0, 3, 5, 5]), np.array([1.0, 2, 4, 3]), np.array([1.5, 2.5, 4.5, 4])
    # True ranges 1.5, 2.5, 2: mean of the first two, then (2 * 1 + 2) / 2.
    np.testing.assert_array_equal(atr(high, low, close, 2), [np.nan, np.nan, 2.0, 2.0])


def test_definitions(bars):
    out = compute(bars)
    t = 777
    close = bars.close
    last = close[t - 19 : t + 1]
    assert out["bb_percent"][t] == pytest.approx((close[t] - last.mean() + 2 * last.std()) / (4 * last.std()), rel=1e-6)
    assert out["bb_width"][t] == pytest.approx(4 * last.std() / last.mean(), rel=1e-6)
    assert out["volatility_20"][t] == pytest.approx((close[t - 19 : t + 1] / close[t - 20 : t] - 1).std())
    assert out["volume_ratio"][t] == pytest.approx(bars.volume[t] / bars.volume[t - 20 : t].mean())
    assert out["ema_9_ratio"][t] == close[t] / out["ema_9"][t] - 1
    assert out["pivot"][t] == (bars.high[t] + bars.low[t] + close[t]) / 3
    assert out["r1"][t] == 2 * out["pivot"][t] - bars.low[t]
    lowest, highest = (
        np.array([f(x[i - 13 : i + 1]) for i in range(t - 2, t + 1)])
        for f, x in ((np.min, bars.low), (np.max, bars.high))
    )
    stoch = 100 * (close[t - 2 : t + 1] - lowest) / (highest - lowest)
    assert out["stoch_k"][t] == pytest.approx(stoch.mean())
    for name in ("cdl_hammer", "cdl_doji", "cdl_engulfing"):
        assert set(np.unique(out[name])) <= {-1.0, 0.0, 1.0}
        assert out[name].any()


def test_momentum_stays_inside_the_session():
    close = np.array([1.0, 2, 4, 8, 16, 32])
    np.testing.assert_array_equal(
        momentum(close, 2, np.array([1, 1, 1, 2, 2, 2])), [np.nan, np.nan, 300, np.nan, np.nan, 300]
    )
    assert np.isnan(momentum(close[:1], 2, np.ones(1))).all()
    whole = tactical(*[close] * 5, 2, 2)["momentum_5"]
    np.testing.assert_array_equal(whole, [np.nan, np.nan, 300, 300, 300, 300])


def test_volume_ratio_leaves_the_bar_out():
    np.testing.assert_array_equal(volume_ratio(np.array([1.0, 3, 8, 0, 0, 0, 5]), 2), [np.nan, np.nan, 4, 0, 0, 1, 1])


@pytest.mark.parametrize("volume", [0.0, 100.0])
def test_flat_bars_are_finite(volume):
    flat = np.full(200, 4800.1)
    moved = np.r_[4790.1 + 0.37 * (np.arange(100) % 7), flat]  # dust of the moves before must not turn into signal
    for prices in (flat, moved):
        out = tactical(prices, prices, prices, prices, np.full(prices.size, volume), 20, 5)
        for name, values in out.items():
            assert np.isfinite(values[100:]).all(), name
        assert (out["bb_percent"][-50:] == 0.5).all()
        assert (out["volatility_20"][-50:] == 0).all()
        assert (out["volume_ratio"][-50:] == 1).all()
    out = tactical(flat, flat, flat, flat, flat, 20, 5)
    assert out["rsi_14"][-1] == 50
    assert out["stoch_k"][-1] == out["adx_14"][-1] == out["ad"][-1] == 0


def test_short_and_wrong_input():
    for n in range(4):
        out = tactical(*[np.full(n, 5.0)] * 5, 20, 5)
        assert all(values.size == n for values in out.values())
    with pytest.raises(InputError, match="tactical: volume has shape"):
        tactical(*[np.ones(5)] * 4, np.ones(4), 20, 5)
