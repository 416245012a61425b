"""The planted market pays what it says: known odds after each synergy, nothing for whoever trades against it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from algospace import market, planted
from algospace.data.bars import SCHEMA
from algospace.data.contracts import CONTRACTS
from algospace.data.params import DataParams
from algospace.indicators.params import IndicatorParams
from algospace.pipeline.config import load_params
from algospace.signals import SignalStream
from algospace.synergy import Gate1Params, detect

FILE = Path(__file__).parents[1] / "params.yaml"
DATA = load_params("data", DataParams, FILE)
INDICATORS = load_params("indicators", IndicatorParams, FILE)
GATE1 = load_params("gate1", Gate1Params, FILE)
MES = CONTRACTS["MES"]
SESSIONS = 350


def draw(sessions, seed=42):
    params = DATA.synthetic.model_copy(update={"sessions": sessions})
    return planted.market(params, MES, seed, INDICATORS, GATE1)


@pytest.fixture(scope="module")
def drawn():
    return draw(SESSIONS)


def results(drawn, side):
    """R of every planted bracket entered at the next open without costs, with (1) or against (-1) the signal."""
    events = drawn.events
    free = market.Costs(0.0, 0.0, MES.tick, MES.point_value)
    return market.bracket(
        market.Bars.of(drawn.bars), events["row"].to_numpy(), side * events["direction"].to_numpy(),
        events["stop"].to_numpy(), np.full(len(events), planted.REWARD_RISK), np.zeros(len(events), int), free, 10**6,
    )  # fmt: skip


def test_the_table_is_that_of_real_bars(drawn):
    assert {name: str(kind) for name, kind in drawn.bars.dtypes.items()} == SCHEMA
    assert drawn.bars["session_id"].nunique() == SESSIONS
    prices = drawn.bars[["open", "high", "low", "close"]]
    assert (drawn.bars["high"] == prices.max(axis=1)).all()
    assert (drawn.bars["low"] == prices.min(axis=1)).all()
    assert (prices / MES.tick % 1 == 0).all(axis=None)


def test_every_planted_event_is_a_synergy_of_the_finished_bars(drawn):
    seen = SignalStream(INDICATORS, GATE1).update(drawn.bars)
    none = np.zeros(len(drawn.bars))
    gate = detect(seen.mlmi, seen.nwrqk, seen.fvg, none, none, none, drawn.bars["session_id"].to_numpy(), GATE1)
    rows = drawn.events["row"].to_numpy()
    assert (gate.type[rows] != 0).all()
    np.testing.assert_array_equal(gate.direction[rows], drawn.events["direction"])
    assert (np.diff(rows) > 0).all()
    assert (np.abs(drawn.events["stop"] - seen.m30_atr[rows]) <= MES.tick).all()


def test_what_is_drawn_is_what_the_bracket_earns(drawn):
    found = results(drawn, 1)
    over = np.isin(found.exit, (market.STOP, market.TARGET))
    assert over.mean() > 0.98
    np.testing.assert_array_equal((found.exit == market.TARGET)[over], drawn.events["won"].to_numpy()[over])


@pytest.mark.parametrize("regime", [0, 1])
def test_the_best_policy_earns_what_the_odds_say(drawn, regime):
    """J* by simulation: 3 p - 1 per event, within its interval; the two regimes together give `best_r`."""
    chosen = (drawn.events["regime"] == regime).to_numpy()
    r = results(drawn, 1).net_r[chosen]
    expected = (1 + planted.REWARD_RISK) * planted.REGIMES[regime].win - 1
    assert chosen.sum() > 100
    assert abs(r.mean() - expected) < 2.6 * r.std() / np.sqrt(len(r))
    share = (drawn.events["regime"] == 0).mean()
    assert planted.best_r(drawn.events) == pytest.approx(share * 0.35)


def test_against_the_signal_earns_nothing(drawn):
    r = results(drawn, -1).net_r
    for regime in (0, 1):
        part = r[(drawn.events["regime"] == regime).to_numpy()]
        assert abs(part.mean()) < 2.6 * part.std() / np.sqrt(len(part))


def test_the_regimes_show_in_the_volatility_and_last(drawn):
    bars, events = drawn.bars, drawn.events
    change = bars["close"].diff()[bars["session_id"] == bars["session_id"].shift()]
    daily = change.groupby(bars["session_id"]).std()
    regime = events.set_index(bars["session_id"].iloc[events["row"]].to_numpy())["regime"]
    regime = regime[~regime.index.duplicated()]
    ratio = daily[regime.index[regime == 1]].mean() / daily[regime.index[regime == 0]].mean()
    assert 1.3 < ratio < 2.1
    changes = (regime.diff().dropna() != 0).sum()
    assert changes < len(regime) / 6


def test_equal_arguments_give_equal_bars_and_fewer_days_a_prefix():
    longer, shorter = draw(30), draw(20)
    pd.testing.assert_frame_equal(longer.bars.iloc[: len(shorter.bars)], shorter.bars)
    pd.testing.assert_frame_equal(longer.events.iloc[: len(shorter.events)], shorter.events)
    assert not draw(20, seed=43).bars.equals(shorter.bars)
