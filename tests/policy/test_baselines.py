"""Rules that learn nothing, and chance, on a replay that trades."""

import numpy as np
import pytest

from algospace import market
from algospace.policy import baselines, evaluation
from algospace.policy.decide import decide
from algospace.policy.params import ExportParams

FIRST = 6000


@pytest.fixture(scope="module")
def params(section):
    return section("export", ExportParams).model_copy(update={"bootstrap_draws": 50, "random_draws": 200})


@pytest.fixture(scope="module")
def replay(trading, market_bars):
    return decide(trading, market_bars, trade_from=market_bars["close_utc"].iloc[FIRST])


@pytest.fixture(scope="module")
def trades(replay):
    made = replay.simulation.trades
    return made[made["exit_reason"] != market.EXITS[market.OPEN]]


def test_buy_and_hold_by_hand(replay, settings, params):
    held = baselines.buy_and_hold(replay.m5, settings, params, FIRST)
    m5, contract = replay.m5, settings.contract
    slip = contract.slippage_ticks * contract.tick
    points = (m5["close"].iloc[-1] - slip) - (m5["open"].iloc[FIRST + 1] + slip)
    end = settings.market.account.equity + points * contract.point_value - 2 * contract.commission
    assert held.equity["equity"].iloc[-1] == pytest.approx(end, abs=1e-9)
    capital = settings.market.account.equity
    assert held.equity["equity"].iloc[0] == capital, "nobody else trades before the second bar"
    second = (m5["close"].iloc[FIRST + 1] - m5["open"].iloc[FIRST + 1] - slip) * contract.point_value
    assert held.equity["equity"].iloc[1] == pytest.approx(capital - contract.commission + second, abs=1e-9)
    assert len(held.equity) == len(m5) - FIRST
    assert held.trades.empty
    assert evaluation.summary(baselines.HOLD, held, m5, settings, params, FIRST)["net_return"] == pytest.approx(
        end / capital - 1, rel=1e-4
    )


def test_a_roll_is_no_profit_of_who_holds(replay, settings, params):
    """From a session on, in another contract 500 points dearer: what is held earns as before, but for the gap there."""
    m5 = replay.m5.copy()
    at = int(np.flatnonzero(np.diff(m5["session_id"].to_numpy()) & (np.arange(len(m5) - 1) > FIRST + 100))[0]) + 1
    gap = (m5["open"].iloc[at] - m5["close"].iloc[at - 1]) * settings.contract.point_value
    later = np.arange(len(m5)) >= at
    m5.loc[later, "contract_id"] += 1
    for name in ("open", "high", "low", "close"):
        m5.loc[later, name] += 500.0
    plain, rolled = (baselines.buy_and_hold(x, settings, params, FIRST).equity["equity"] for x in (replay.m5, m5))
    expected = plain - gap * params.baseline_units * later[FIRST:]
    np.testing.assert_allclose(rolled, expected, rtol=0, atol=1e-6)


def test_flat_baseline_keeps_the_account(replay, settings, params):
    flat = baselines.baselines(replay.m5, settings, params, FIRST)["flat"]
    assert flat.trades.empty
    assert (flat.equity["equity"] == settings.market.account.equity).all()


def test_every_synergy_is_taken_with_fixed_risk(replay, settings, params):
    taken = baselines.every_synergy(replay.m5, settings, params, FIRST)
    trades = taken.trades
    assert len(trades) > 20
    assert set(trades["units"]) == {params.baseline_units}
    assert set(trades["reward_risk"]) == {params.baseline_reward_risk}
    events = replay.m5.iloc[FIRST:]
    events = events[events["gate1_type"] != 0].reset_index(drop=True)
    directions = events["gate1_direction"].to_numpy()[trades["event"]]
    assert trades["side"].tolist() == directions.tolist()
    atr = events["m30_atr"].to_numpy()[trades["event"]]
    np.testing.assert_array_equal(
        trades["stop_distance"], market.stop_distance(atr, params.baseline_stop_atr, settings.contract.tick)
    )
    assert (trades["decided_utc"] >= replay.m5["close_utc"].iloc[FIRST]).all()
    end = settings.market.account.equity + trades["pnl"].sum()
    assert taken.equity["equity"].iloc[-1] == pytest.approx(end, abs=1e-6)


def test_baseline_obeys_the_limits(replay, settings, params):
    limits = settings.market.limits.model_copy(update={"max_session_trades": 1})
    strict = settings._replace(market=settings.market.model_copy(update={"limits": limits}))
    trades = baselines.every_synergy(replay.m5, strict, params, FIRST).trades
    assert trades["session_id"].is_unique
    assert len(trades) > 10


def chance(trades, replay, settings, draws=400, seed=0):
    return baselines.random_traders(trades, replay.m5, settings, FIRST, draws, seed)


def test_a_trader_who_knows_is_beyond_chance_and_one_who_is_always_wrong_too(trades, replay, settings):
    found = chance(trades.assign(net_r=3.0), replay, settings)
    assert (found.percentile, found.p_value) == (100.0, pytest.approx(1 / 401))
    found = chance(trades.assign(net_r=-3.0), replay, settings)
    assert (found.percentile, found.p_value) == (0.0, 1.0)


def test_chance_is_a_function_of_its_seed(trades, replay, settings):
    assert chance(trades, replay, settings) == chance(trades, replay, settings)
    assert chance(trades, replay, settings).mean_r != chance(trades, replay, settings, seed=1).mean_r


def test_random_traders_pay_the_costs_and_keep_sides_and_holding_times(trades, replay, settings):
    """Both sides mixed evenly cancel the market's own drift: what is left on average are the costs."""
    n = 400
    mixed = trades.iloc[np.arange(n) % len(trades)].assign(side=np.where(np.arange(n) % 2, 1, -1), bars=6)
    dear = settings.market.model_copy(update={"cost_multiplier": 20.0})
    found = chance(mixed, replay, settings._replace(market=dear), draws=100)
    costs = market.Costs.of(settings.contract, 20.0)
    least = (2 * costs.slippage + 2 * costs.commission / costs.point_value) / market.stop_distance(
        replay.m5["m30_atr"].to_numpy()[FIRST:], float(mixed["stop_atr"].mean()), costs.tick
    )
    assert found.mean_r == pytest.approx(-np.nanmean(least), rel=0.15)


def test_the_r_of_chance_is_by_the_stop_that_the_trade_had(trades, replay, settings):
    """A stop that was moved behind a level lies twice as far away: what chance makes or loses is half as many R."""
    near, far = (chance(trades.assign(stop_distance=trades["stop_distance"] * k), replay, settings) for k in (8, 16))
    assert near.mean_r == pytest.approx(2 * far.mean_r, rel=0.02)


def test_a_random_trade_ends_with_its_session(trades, replay, settings):
    """Prices that stand still within a session and jump between two leave it its costs, whenever it began."""
    level = 100.0 * replay.m5["session_id"].rank(method="dense").to_numpy()
    still = replay._replace(m5=replay.m5.assign(open=level, close=level))
    found = chance(trades.head(1).assign(bars=40, side=1), still, settings, draws=300)
    costs = market.Costs.of(settings.contract, settings.market.cost_multiplier)
    paid = 2 * costs.slippage + 2 * costs.commission / costs.point_value
    assert -paid / costs.tick <= found.mean_r < 0


def test_at_its_own_costs_the_ladder_gives_the_trades_back(trades, replay, settings):
    found = baselines.cost_ladder(trades, replay.m5, settings, (0.0, 0.5, 1.0, 2.0))
    assert list(found) == ["0", "0.5", "1", "2"]
    assert found["1"] == pytest.approx(trades["net_r"].mean(), abs=1e-12)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found["0"] > found["2"]


def test_too_few_trades_say_nothing_of_chance(trades, replay, settings, params):
    few = replay.simulation._replace(trades=trades.head(params.min_trades - 1))
    found = evaluation.beside_chance(few, replay.m5, settings, params, FIRST)
    assert set(found.values()) == {None}
    enough = evaluation.beside_chance(replay.simulation, replay.m5, settings, params, FIRST)
    assert list(found) == list(enough)
    assert None not in enough.values()
