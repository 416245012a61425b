"""Stops behind nodes, the size under the limits, and simulated trades."""

import numpy as np
import pandas as pd
import pytest

from algospace import market
from algospace.data.contracts import CONTRACTS
from algospace.market import MarketParams
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import performance_factor, size
from algospace.mrms.stops import stop_distances
from algospace.mrms.track import FRESH, Track
from algospace.mrms.trades import Bracket, past_accounts, trade
from algospace.policy.simulation import Order, simulate

TICK = 0.25


@pytest.fixture
def params(section):
    return section("mrms", MRMSParams)


@pytest.fixture
def exchange(section):
    return section("market", MarketParams)


def at_level(distance, strength=80.0, side=1):
    """One event at 5000 with an ATR of 10 and a node so far behind the entry of a side."""
    behind, ahead = ("support", "resistance") if side > 0 else ("resistance", "support")
    return pd.DataFrame(
        {
            "close": [5000.0], "m30_atr": [10.0], f"m30_lvn_{behind}_price": [5000.0 - side * distance],
            f"m30_lvn_{behind}_strength": [strength], f"m30_lvn_{ahead}_price": [np.nan],
            f"m30_lvn_{ahead}_strength": [np.nan],
        }
    )  # fmt: skip


def stop_of(events, params, side=1, multiple=1.0):
    distance, moved = stop_distances(events, np.array([side]), np.array([multiple]), 3.0, params.lvn, TICK)
    return distance[0], bool(moved[0])


@pytest.mark.parametrize("side", [1, -1])
def test_a_strong_node_just_beyond_the_stop_moves_it_behind(params, side):
    assert stop_of(at_level(12.0, side=side), params, side) == (12.5, True)  # two ticks beyond the node
    assert stop_of(at_level(10.0, side=side), params, side) == (10.5, True)  # the stop would stand on it
    assert stop_of(at_level(15.0, side=side), params, side) == (15.5, True)  # at the end of the reach
    assert stop_of(at_level(12.1, side=side), params, side) == (12.75, True)  # whole ticks, outwards


@pytest.mark.parametrize("side", [1, -1])
def test_other_nodes_leave_the_stop(params, side):
    assert stop_of(at_level(12.0, 70.0, side), params, side) == (10.0, False)  # not above the least strength
    assert stop_of(at_level(9.75, side=side), params, side) == (10.0, False)  # before the stop
    assert stop_of(at_level(15.25, side=side), params, side) == (10.0, False)  # out of reach
    assert stop_of(at_level(12.0, side=-side), params, side) == (10.0, False)  # ahead of the entry
    assert stop_of(at_level(np.nan, side=side), params, side) == (10.0, False)
    assert stop_of(at_level(35.0, side=side), params, side, 3.0) == (30.0, False)  # 35.5 is beyond every stop


def record(wins, losses, won=1.0, lost=-1.0):
    pnl = np.array([won] * wins + [lost] * losses)
    n = len(pnl)
    return Track(np.zeros((n, 4), np.float32), np.zeros((n, 4), np.float32), pnl, np.arange(n))


@pytest.mark.parametrize(
    ("track", "factor"),
    [
        (record(19, 0), 1.0),  # too few
        (record(20, 0), 1.2),
        (record(14, 6), 1.2),  # 0.70 and 2.33
        (record(13, 7), 1.0),  # 0.65 is not above
        (record(14, 6, lost=-2.0), 1.0),  # 0.70, but a profit factor of 1.17
        (record(6, 14, won=5.0), 0.7),  # 0.30
        (record(9, 11), 1.0),  # 0.45 and 0.82
        (record(10, 10, lost=-1.3), 0.7),  # a profit factor of 0.77
    ],
)
def test_the_record_scales_the_size(track, factor, params):
    assert performance_factor(track, params.adjustment) == factor


def sized(params, exchange, asked=3, stop=10.0, equity=100_000.0, track=None, restraint=1.0):
    track = Track.empty() if track is None else track
    return size(asked, stop, equity, track, 5.0, params.adjustment, exchange.limits, restraint)


def test_no_network_overrides_the_limits(params, exchange):
    assert sized(params, exchange).units == 3
    assert sized(params, exchange, asked=500).units == exchange.limits.max_units
    assert sized(params, exchange, restraint=7.0).units == 3  # a restraint never enlarges
    # 2 % of 1000 USD are 20 USD; one unit risks 50.
    assert sized(params, exchange, equity=1000.0)[-2:] == (0, 0)
    assert sized(params, exchange, equity=5000.0)[-2:] == (2, 2)
    assert sized(params, exchange, asked=5, track=record(20, 0)).units == 5
    rng = np.random.default_rng(0)
    for _ in range(500):
        asked, stop, equity = int(rng.integers(0, 9)), rng.uniform(0.25, 500), rng.uniform(0, 200_000)
        found = sized(params, exchange, asked, stop, equity, record(*rng.integers(0, 30, 2)), rng.uniform(0, 2))
        assert 0 <= found.units <= exchange.limits.max_units
        assert found.units * stop * 5.0 <= equity * exchange.limits.max_trade_risk + 1e-9


def test_factors_multiply_and_halves_go_down(params, exchange):
    assert sized(params, exchange, track=record(6, 14)).units == 2  # 2.1
    assert sized(params, exchange, restraint=0.5).units == 1  # 1.5
    # One unit stays, or an account that stopped trading could never mend its record.
    assert sized(params, exchange, asked=1, restraint=0.5).units == 1
    assert sized(params, exchange, asked=0, restraint=0.5).units == 0
    assert sized(params, exchange, asked=4, track=record(6, 14), restraint=0.5).units == 1  # 1.4
    assert sized(params, exchange, restraint=0.0).units == 0


@pytest.mark.parametrize(
    "wrong", [{"stop": np.nan}, {"stop": 0.0}, {"equity": np.nan}, {"equity": -1.0}, {"restraint": np.nan}]
)
def test_what_is_no_number_fails_safe(params, exchange, wrong):
    assert sized(params, exchange, **wrong).units == 0


def walk(n=400, seed=0):
    rng = np.random.default_rng(seed)
    close = 4800 + np.cumsum(rng.integers(-8, 9, n)) * TICK
    open_ = np.r_[4800, close[:-1]]
    day = np.arange(n) // 50
    start = pd.Timestamp("2024-01-02 14:30", tz="UTC") + pd.to_timedelta(day * 1440 + np.arange(n) % 50 * 5, unit="min")
    ends = pd.Series(start).groupby(day).transform("max") + pd.Timedelta(minutes=5)
    return pd.DataFrame(
        {
            "start_utc": start, "close_utc": start + pd.Timedelta(minutes=5), "session_id": 20240102 + day,
            "session_close_utc": ends, "open": open_, "high": np.maximum(open_, close) + 0.5,
            "low": np.minimum(open_, close) - 0.5, "close": close, "is_synthetic": False,
        }
    )  # fmt: skip


def random_brackets(n, seed=1):
    rng = np.random.default_rng(seed)
    stops = rng.integers(4, 30, n) * TICK
    return Bracket(rng.integers(0, 4, n), stops / 10, stops, rng.choice([1.0, 2.0, 3.0], n), rng.random(n))


@pytest.mark.parametrize("seed", range(4))
def test_simulated_trades_are_those_of_the_policys_simulation(exchange, seed):
    bars, rng = walk(seed=seed), np.random.default_rng(seed)
    rows = np.sort(rng.choice(395, 90, replace=False))
    sides = rng.choice([-1, 1], 90)
    brackets = random_brackets(90, seed)
    found = trade(
        market.Venue.of(bars, CONTRACTS["MES"], exchange),
        pd.DataFrame({"row": rows, "candidate_direction": sides}),
        brackets,
    )
    tracks = []

    def choose(k, account, track, is_open):
        tracks.append(track)
        units, stop_atr, stop, reward_risk, confidence = (part[k] for part in brackets)
        return Order(int(sides[k]), stop, reward_risk, int(units), 0, stop_atr, confidence) if units else None

    simulation = simulate(bars, rows, choose, CONTRACTS["MES"], exchange)
    assert found.event.tolist() == simulation.trades["event"].tolist()
    assert found.track.pnl == pytest.approx(simulation.trades["pnl"].to_numpy())
    # Each event was shown the trades that were known to be closed by then, no more and no fewer.
    for k, row in enumerate(rows):
        count = int(np.searchsorted(found.known_row, row, side="right"))
        for a, b in zip(tracks[k], found.track, strict=True):
            np.testing.assert_allclose(a, b[:count])


def test_an_account_of_the_past_does_not_know_what_comes(exchange):
    """Whatever the bars after an event, its account numbers are the same."""
    rows = np.arange(0, 395, 3)
    events = pd.DataFrame({"row": rows, "candidate_direction": 1})

    def accounts(bars):
        venue = market.Venue.of(bars, CONTRACTS["MES"], exchange)
        return past_accounts(trade(venue, events, random_brackets(len(rows))), venue, rows, seed=0)

    whole, prices = accounts(walk()), ["open", "high", "low", "close"]
    for cut in range(5, 390, 5):
        other, changed = walk(), np.arange(400) > cut
        other.loc[changed, prices] = walk(seed=9).loc[changed, prices]
        found = accounts(other)
        assert np.array_equal(found[rows <= cut], whole[rows <= cut]), cut
    assert 0.3 < (whole == FRESH).all(1).mean() < 0.8
