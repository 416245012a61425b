from pathlib import Path

import numpy as np
import pytest
import talib
import yaml

from algospace.errors import InputError
from algospace.indicators.params import IndicatorParams
from algospace.indicators.technical import (
    ATR,
    RSI,
    Momentum,
    Tactical,
    VolumeRatio,
    atr,
    momentum,
    rsi,
    tactical,
    volume_ratio,
)

NAMES = [
    "ema_9", "ema_21", "ema_50", "sma_20", "macd", "macd_signal", "macd_hist", "rsi_14", "bb_upper",
    "bb_middle", "bb_lower", "bb_width", "bb_percent", "stoch_k", "stoch_d", "atr_14", "adx_14", "obv",
    "ad", "mom_10", "roc_10", "cdl_hammer", "cdl_doji", "cdl_engulfing", "pivot", "r1", "s1",
    "ema_9_ratio", "ema_21_ratio", "sma_20_ratio", "returns", "volatility_20", "volume_sma_20",
    "volume_ratio", "momentum_5",
]  # fmt: skip
# First price, tick, deviation of a bar's return. Ties are common in ticks, and inexact where a tick is no power of 2.
MARKETS = {
    "smooth": (4800.0, None, 1e-3),
    "wild": (80.0, None, 1e-2),
    "cents": (300.0, 0.01, 4e-4),
    "standstills": (4800.0, 0.25, 4e-4),
}


def compute(bars, end=None):
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return tactical(*[x[:end] for x in columns], 20, 5, bars.session_id[:end])


def market(kind, n, seed=3):
    """Open, high, low, close, volume of a random walk."""
    rng = np.random.default_rng(seed)
    start, tick, sigma = MARKETS[kind]
    moves = rng.normal(0.0, sigma, n)
    gaps, shadows = rng.normal(0.0, sigma / 4, n), np.abs(rng.normal(0.0, sigma / 2, (2, n)))
    if kind == "standstills":
        still = np.arange(n) % 700 > 400
        moves[still] = gaps[still] = shadows[:, still] = 0.0
    close = start * np.exp(np.cumsum(moves))
    open_ = np.r_[start, close[:-1]] * np.exp(gaps)
    high = np.maximum(open_, close) * np.exp(shadows[0])
    low = np.minimum(open_, close) * np.exp(-shadows[1])
    prices = [np.round(np.round(x / tick) * tick, 2) if tick else x for x in (open_, high, low, close)]
    return [*prices, np.round(np.exp(rng.normal(6.0, 0.6, n))) * (rng.random(n) > 0.1)]


def oracle(open_, high, low, close, volume):
    """The columns that TA-Lib has."""
    out = {f"ema_{length}": talib.EMA(close, length) for length in (9, 21, 50)}
    out["sma_20"] = talib.SMA(close, 20)
    out["macd"], out["macd_signal"], out["macd_hist"] = talib.MACD(close, 12, 26, 9)
    out["rsi_14"] = talib.RSI(close, 14)
    out["bb_upper"], out["bb_middle"], out["bb_lower"] = talib.BBANDS(close, 20, 2.0, 2.0)
    out["stoch_k"], out["stoch_d"] = talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3)
    out["atr_14"] = talib.ATR(high, low, close, 14)
    out["adx_14"] = talib.ADX(high, low, close, 14)
    out["obv"], out["ad"] = talib.OBV(close, volume), talib.AD(high, low, close, volume)
    out["mom_10"], out["roc_10"] = talib.MOM(close, 10), talib.ROC(close, 10)
    out["cdl_hammer"] = talib.CDLHAMMER(open_, high, low, close) / 100
    out["cdl_doji"] = talib.CDLDOJI(open_, high, low, close) / 100
    out["cdl_engulfing"] = np.sign(talib.CDLENGULFING(open_, high, low, close))
    return out


def chunks(n, size):
    """An empty chunk, then chunks of one size."""
    return [slice(0, 0), *(slice(first, first + size) for first in range(0, n, size))]


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


@pytest.mark.parametrize("size", [1, 7, 1000, 2500])
def test_chunks_give_the_bits_of_the_whole(bars, size):
    open_, high, low, close, volume = bars.open, bars.high, bars.low, bars.close, bars.volume
    whole = compute(bars)
    stream = Tactical(20, 5)
    columns = (open_, high, low, close, volume, bars.session_id)
    parts = [stream.update(*[x[rows] for x in columns]) for rows in chunks(close.size, size)]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values, err_msg=name)
    for stream, batch, columns in (
        (ATR(20), lambda *x: atr(*x, 20), (high, low, close)),
        (RSI(5), lambda x: rsi(x, 5), (close,)),
        (VolumeRatio(33), lambda x: volume_ratio(x, 33), (volume,)),
        (Momentum(3), lambda x, session: momentum(x, 3, session), (close, bars.session_id)),
    ):
        parts = [stream.update(*[x[rows] for x in columns]) for rows in chunks(close.size, size)]
        np.testing.assert_array_equal(np.concatenate(parts), batch(*columns), err_msg=type(stream).__name__)


@pytest.mark.parametrize("kind", MARKETS)
def test_talib_agrees(kind):
    columns = market(kind, 100_000)
    out = tactical(*columns, 20, 5)
    for name, expected in oracle(*columns).items():
        if name.startswith("cdl"):
            np.testing.assert_array_equal(out[name], expected, err_msg=name)
        else:
            np.testing.assert_allclose(out[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_refused_chunk_leaves_the_stream_as_it_was(bars):
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.session_id)
    stream = Tactical(20, 5)
    stream.update(*[x[:100] for x in columns])
    with pytest.raises(InputError, match="tactical: session_id has shape"):
        stream.update(*[x[100:110] for x in columns[:-1]], bars.session_id[:3])
    for name, values in stream.update(*[x[100:200] for x in columns]).items():
        np.testing.assert_array_equal(values, compute(bars)[name][100:200], err_msg=name)


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


def test_averages_by_hand():
    close = np.r_[np.arange(1.0, 10.0), 15.0, np.full(40, 7.0)]
    out = tactical(*[close] * 5, 20, 5)
    # Seed: mean of 1..9. Then 5 + (15 - 5) * 2 / 10, and 7 stays 7.
    np.testing.assert_allclose(out["ema_9"][7:12], [np.nan, 5, 7, 7, 7], rtol=1e-15)
    assert out["sma_20"][19] == pytest.approx((45 + 15 + 70) / 20)
    # Both averages of the MACD start at the 26th bar: means of the last 12 and 26. On a line an average of n
    # seeded so lags by (n - 1) / 2 and keeps that distance, so the difference is (25 - 11) / 2 throughout.
    line = np.arange(1.0, 61.0)
    out = tactical(*[line] * 5, 20, 5)
    assert np.isnan(out["macd"][:33]).all()
    np.testing.assert_allclose(out["macd"][33:], 7, rtol=1e-12)
    np.testing.assert_allclose(out["macd_hist"][33:], 0, atol=1e-12)


def test_bands_by_hand():
    close = np.tile([1.0, 3.0], 12)
    out = tactical(*[close] * 5, 20, 5)
    np.testing.assert_allclose([out["bb_upper"][19], out["bb_middle"][19], out["bb_lower"][19]], [4, 2, 0], atol=1e-15)
    np.testing.assert_allclose([out["bb_percent"][19], out["bb_percent"][20], out["bb_width"][19]], [0.75, 0.25, 2])


def test_stochastic_by_hand():
    high, low, close = np.full(20, 5.0), np.ones(20), np.tile([2.0, 3.0, 4.0, 1.0], 5)
    high[4] = 9.0  # leaves the 14 bars at bar 18
    out = tactical(close, high, low, close, close, 20, 5)
    # Raw %K at bars 13.. is 100 (close - 1) / 8: 25, 37.5, 0, 12.5, 25, then over 4: 75, 0.
    raw = np.array([25, 37.5, 0, 12.5, 25, 75, 0])
    k = (raw[:-2] + raw[1:-1] + raw[2:]) / 3
    np.testing.assert_allclose(out["stoch_k"][16:], [np.nan, *k[2:]])
    np.testing.assert_allclose(out["stoch_d"][16:], [np.nan, k[:3].mean(), k[1:4].mean(), k[2:].mean()])


def test_adx_by_hand():
    high = np.arange(30.0) + 10
    high[28:] = high[27] - 5  # a fall by 5, then a bar without any move
    low = high - 1
    out = tactical(low, high, low, high, high, 20, 5)["adx_14"]
    # Nothing but rises: 100. The sum of rises starts at 13 and closes on 14 by a fourteenth of the distance.
    assert np.isnan(out[:27]).all()
    assert out[27] == pytest.approx(100)
    rise, fall = (14 - (13 / 14) ** 14) * 13 / 14, 5.0
    directed = 100 * abs(rise - fall) / (rise + fall)
    assert out[28] == pytest.approx((13 * 100 + directed) / 14)
    assert out[29] == pytest.approx((13 * out[28] + directed) / 14)


def test_candles_by_hand():
    # Ten bars of body 1 and range 2, alternately up and down, then the candle in question.
    open_ = np.r_[np.tile([10.0, 11.0], 6), 10.0]
    close = np.r_[np.tile([11.0, 10.0], 6), 10.0]
    high, low = np.full(13, 11.5), np.full(13, 9.5)

    def last(o, h, l, c):
        columns = [np.r_[x[:12], value] for x, value in ((open_, o), (high, h), (low, l), (close, c))]
        out = tactical(*columns, np.ones(13), 20, 5)
        return out["cdl_hammer"][-1], out["cdl_doji"][-1], out["cdl_engulfing"][-1]

    assert last(10.0, 10.5, 9.5, 10.0) == (0, 1, 0)
    assert last(10.0, 10.5, 9.5, 10.25) == (0, 0, 0)  # body over a tenth of the mean range
    assert last(9.6, 10.0, 8.5, 9.9) == (1, 0, 0)
    assert last(9.6, 10.15, 8.5, 9.9) == (0, 0, 0)  # upper shadow over a tenth of the mean range
    assert last(10.0, 10.4, 8.5, 10.3) == (0, 0, 0)  # not near the low before
    assert last(9.9, 11.5, 9.5, 11.1) == (0, 0, 1)
    assert last(10.0, 11.5, 9.5, 11.1) == (0, 0, 1)  # one end may coincide
    assert last(10.0, 11.5, 9.5, 11.0) == (0, 0, 0)  # not both
    assert last(11.1, 11.5, 9.5, 9.9) == (0, 0, 0)  # the bar before fell as well


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
    returned = momentum(close, 2, np.array([1, 2, 1, 1, 1, 1]))  # an identifier that comes back is a new session
    np.testing.assert_array_equal(returned, [np.nan, np.nan, np.nan, np.nan, 300, 300])
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
