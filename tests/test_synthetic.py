from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from algospace.data import quality
from algospace.data.bars import SCHEMA
from algospace.data.contracts import resolve
from algospace.data.params import SyntheticParams
from algospace.errors import InputError
from algospace.synthetic import market

MES = resolve("MES", None)
MARKETS = ("regimes", "random_walk")


def params(**changes):
    section = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())["data"]["synthetic"]
    return SyntheticParams(**{**section, **changes})


@pytest.fixture(scope="module", params=MARKETS)
def bars(request):
    return market(params(market=request.param), MES, 42)


@pytest.fixture(scope="module")
def regimes():
    return market(params(), MES, 42)


def returns(bars):
    same = bars["session_id"] == bars["session_id"].shift()
    return np.log(bars["close"]).diff()[same]


def test_the_table_is_that_of_real_bars(bars):
    assert {name: str(kind) for name, kind in bars.dtypes.items()} == SCHEMA
    assert bars["session_id"].nunique() == 300
    assert bars.groupby("session_id").size().mode().tolist() == [276]
    assert (bars["volume"] >= 1).all()
    assert (bars["low"] > 0).all()
    prices = bars[["open", "high", "low", "close"]]
    assert (bars["high"] == prices.max(axis=1)).all()
    assert (bars["low"] == prices.min(axis=1)).all()
    assert (prices / MES.tick % 1 == 0).all(axis=None)
    assert not bars["is_synthetic"].any()
    report = quality.score(bars, MES.calendar, 5)
    assert report["missing_bars"] == report["outside_rows"] == 0


def test_prices_lie_on_a_decimal_tick_grid():
    spy = market(params(sessions=3, price=300.0), resolve("SPY", None), 1)
    assert (spy["close"] == spy["close"].round(2)).all()
    assert spy.groupby("session_id").size().tolist() == [78, 78, 78]


@pytest.mark.parametrize("kind", MARKETS)
def test_equal_arguments_give_equal_bars_and_fewer_days_a_prefix(kind):
    whole = market(params(market=kind, sessions=12), MES, 7)
    pd.testing.assert_frame_equal(whole, market(params(market=kind, sessions=12), MES, 7))
    few = market(params(market=kind, sessions=5), MES, 7)
    pd.testing.assert_frame_equal(few, whole[: len(few)])
    other = market(params(market=kind, sessions=5), MES, 8)
    assert not other["close"].equals(few["close"])


def test_returns_have_fat_tails_and_clustered_volatility(regimes):
    moves = returns(regimes)
    assert moves.kurt() + 3 > 3.5
    day = regimes["session_id"][moves.index]
    local = regimes["start_utc"][moves.index].dt.tz_convert("America/New_York")
    assert moves.abs().groupby(day).mean().autocorr(1) > 0.25  # regimes last
    flat = moves / moves.abs().groupby(local.dt.hour * 60 + local.dt.minute).transform("mean")
    flat /= flat.abs().groupby(day).transform("mean")  # the day's shape and the regime aside
    assert flat.kurt() + 3 > 5
    assert min(flat.abs().clip(upper=4).autocorr(k) for k in (1, 5, 20)) > 0.02
    close = np.log(regimes.groupby("session_id")["close"].last()).diff().dropna()
    assert close.kurt() + 3 > 3.5


def test_volatility_and_volume_have_the_days_shape(bars):
    local = bars["start_utc"].dt.tz_convert("America/New_York")
    minute = local.dt.hour * 60 + local.dt.minute
    moves = returns(bars).abs().groupby(minute).median()
    volume = bars["volume"].groupby(minute).median()
    for shape in (moves, volume):
        opening, noon = shape.loc[570:599].mean(), shape.loc[720:779].mean()
        closing, night = shape.loc[930:959].mean(), shape.loc[120:300].mean()
        assert opening > 1.3 * noon
        assert closing > 1.1 * noon
        assert noon > 1.5 * night


def test_volatility_and_volume_are_those_asked_for(bars):
    daily = np.log(bars.groupby("session_id")["close"].last()).diff().dropna()
    assert daily.std() * np.sqrt(252) == pytest.approx(0.18, rel=0.25)
    assert bars.groupby("session_id")["volume"].sum().mean() == pytest.approx(1_200_000, rel=0.25)


def test_random_walk_is_a_martingale_in_price():
    scores = []
    for seed in range(4):
        bars = market(params(market="random_walk", sessions=150), MES, seed)
        steps = bars["close"].diff().dropna().to_numpy()
        scores.append(steps.mean() / (steps.std() / np.sqrt(steps.size)))
        past = np.sign(pd.Series(steps).rolling(20).sum().shift(1)).fillna(0).to_numpy()
        for side in (past, np.sign(np.concatenate(([0.0], steps[:-1])))):
            earned = side * steps
            assert abs(earned.mean()) < 3 * earned.std() / np.sqrt(steps.size)
    assert max(map(abs, scores)) < 3
    assert abs(sum(scores)) / 2 < 3


def test_random_walk_path_inside_a_bar_is_fine():
    bars = market(params(market="random_walk", sessions=60), MES, 3)
    # A Brownian bar: E[range] = sqrt(8/pi) sd; few steps would show less of it.
    local = bars["start_utc"].dt.tz_convert("America/New_York").dt.hour.between(11, 13)
    spread = (bars["high"] - bars["low"])[local]
    sd = bars["close"].diff()[local].std()
    assert spread.mean() / sd == pytest.approx(np.sqrt(8 / np.pi), rel=0.08)


def test_trends_carry_an_edge_too_small_to_see_in_a_bar(regimes):
    moves = returns(regimes)
    past = moves.rolling(30).mean().shift(1)
    assert abs(np.corrcoef(moves[past.notna()], past.dropna())[0, 1]) < 0.05


def test_a_coarse_grid_is_refused():
    with pytest.raises(InputError, match=r"data\.synthetic\.price: expected at least 1000 ticks"):
        market(params(price=100.0), MES, 1)


@pytest.mark.parametrize("start", ["2022-13-01", "tomorrow", "1812-01-01"])
def test_the_start_is_a_date(start):
    with pytest.raises(ValueError, match="start"):
        params(start=start)
