from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from algospace import market as exchange
from algospace.data import quality
from algospace.data.bars import SCHEMA
from algospace.data.contracts import resolve
from algospace.data.params import SyntheticParams
from algospace.errors import InputError
from algospace.indicators.params import IndicatorParams
from algospace.pipeline.config import load_params
from algospace.signals import SignalStream
from algospace.synergy import Gate1Params
from algospace.synthetic import market

MES = resolve("MES", None)
MARKETS = ("regimes", "random_walk")
FILE = Path(__file__).parents[1] / "params.yaml"
INDICATORS, GATE1 = load_params("indicators", IndicatorParams, FILE), load_params("gate1", Gate1Params, FILE)


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


PATHS, DAYS = 8, 120


@pytest.fixture(scope="module")
def null_paths():
    """Random walks with the signals that fire on them: (bars, rows, directions), seeds fixed beforehand."""
    found = []
    for seed in range(PATHS):
        bars = market(params(market="random_walk", sessions=DAYS), MES, 100 + seed)
        seen = SignalStream(INDICATORS, GATE1).update(bars)
        side = np.sign(seen.mlmi.astype(int) + seen.nwrqk + seen.fvg)
        rows = np.flatnonzero((side != 0) & np.isfinite(seen.m30_atr))
        found.append((bars, rows, side[rows], seen.m30_atr))
    return found


def test_no_signal_earns_on_a_random_walk(null_paths):
    """Next-open fills and time exits: the mean annual gross Sharpe of a causal policy is 0 within its interval."""
    scores = []
    for bars, rows, side, _ in null_paths:
        session = bars["session_id"].to_numpy()
        inside = rows[:-20][session[rows[:-20] + 13] == session[rows[:-20]]]
        opens = bars["open"].to_numpy()
        profit = side[np.searchsorted(rows, inside)] * (opens[inside + 13] - opens[inside + 1])
        daily = pd.Series(profit).groupby(session[inside]).sum().reindex(np.unique(session), fill_value=0.0)
        scores.append(daily.mean() / daily.std() * np.sqrt(252))
    assert abs(np.mean(scores)) < 1.96 / np.sqrt(PATHS * DAYS / 252)


def test_brackets_at_signals_are_those_at_random_bars_on_a_random_walk(null_paths):
    """Stops and targets at price earn the same wherever they are entered, and nothing: the path in a bar is fine."""
    free = exchange.Costs(0.0, 0.0, MES.tick, MES.point_value)
    at_signals, at_random = [], []
    for bars, rows, side, atr in null_paths:
        rng = np.random.default_rng(0)
        anywhere = np.sort(rng.choice(np.flatnonzero(np.isfinite(atr)), rows.size))
        for chosen, into in ((rows, at_signals), (anywhere, at_random)):
            stop = exchange.stop_distance(atr[chosen], 1.0, MES.tick)
            target, now = np.full(stop.size, 2.0), np.zeros(stop.size, int)
            into.append(exchange.bracket(exchange.Bars.of(bars), chosen, side, stop, target, now, free, 100).net_r)
    signals, random = np.concatenate(at_signals), np.concatenate(at_random)
    # Brackets that overlap share their path: the mean of a path counts as one observation.
    gaps = np.array([a.mean() - b.mean() for a, b in zip(at_signals, at_random, strict=True)])
    assert abs(gaps.mean()) < 2.4 * gaps.std(ddof=1) / np.sqrt(PATHS)  # t quantile of 7 degrees of freedom
    assert abs(signals.mean()) < 0.03
    assert abs(random.mean()) < 0.03


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
