"""The honesty benchmark's judgement: shares, bounds and verdicts by hand, and no path run twice."""

import json
from concurrent.futures import Future

import _honesty
import honesty
import numpy as np
import pandas as pd
import pytest

from algospace import market
from algospace.data.contracts import CONTRACTS
from algospace.market import AccountParams, LimitParams, MarketParams
from algospace.pipeline.config import read_yaml

LIMITS = LimitParams(
    max_units=1, max_trade_risk=1.0, max_session_loss=1.0, max_drawdown=1.0, max_losing_streak=9,
    max_session_trades=9, min_reward_risk=1.0,
)  # fmt: skip
RULES = MarketParams(cost_multiplier=1.0, max_bars=3, account=AccountParams(equity=1000.0), limits=LIMITS)
WIN = np.array([0.45, 0.45, 0.20])


@pytest.fixture(scope="module")
def venue():
    """Four sessions of ten bars whose price rises by a point a bar, and falls in the second."""
    close = 1000 + np.concatenate([np.arange(10), -np.arange(10), np.arange(10), np.arange(10)]).astype(float)
    end = np.repeat(np.arange(10, 50, 10), 10) - 1
    bars = market.Bars(close, close + 0.5, close - 0.5, close, np.ones(40, bool), end, np.zeros(40, bool))
    mes = CONTRACTS["MES"]
    return market.Venue(bars, np.repeat(np.arange(4), 10), mes, market.Costs.of(mes, 1.0), RULES)


def entries(row, side, stop=2.0, reward_risk=1.5):
    n = len(row)
    parts = np.array(side, float), np.full(n, stop), np.full(n, reward_risk), np.zeros(n, np.int64)
    return _honesty.Entries(np.array(row), *parts)


@pytest.mark.parametrize(
    ("taken", "share"),
    # edges of 0.35, 0.35 and -0.40 R: an entry on each side of the half counts its edge, over 1.10 in all
    [((1, 1, 0), 1.0), ((1, 1, 1), 0.3 / 1.1), ((0, 0, 0), -0.3 / 1.1), ((0, 0, 1), -1.0), ((1, 0, 0), 0.4 / 1.1)],
)
def test_share_of_the_planted_edge_by_hand(taken, share):
    found = _honesty.capture(np.array(taken, bool), WIN)
    assert found["share"] == pytest.approx(share)
    assert found["j"] == pytest.approx(np.dot(taken, [0.35, 0.35, -0.40]) / 3)
    assert found["j_null"] == pytest.approx(0.05)
    assert found["j_star"] == pytest.approx(0.70 / 3)


def test_every_synergy_captures_less_than_half_by_construction():
    win = np.repeat([0.45, 0.45, 0.20], 100)
    assert _honesty.capture(np.ones(300, bool), win)["share"] < _honesty.NO_LEARNING


def test_only_entries_with_the_signal_on_planted_events_count():
    events = pd.DataFrame({"row": [10, 20, 30], "direction": [1, -1, 1], "win": WIN})
    found = _honesty.on_events(events, np.array([10, 15, 20]), np.array([1.0, 1.0, 1.0]), np.array([1.5, 7.0, -0.9]))
    assert (found["events"], found["taken"]) == (3, 1)
    assert found["j"] == pytest.approx(0.35 / 3)
    assert found["realised_r"] == pytest.approx(0.6 / 3)


def test_bound_of_the_sharpe_ratio():
    assert _honesty.bound(20, 0.5) == pytest.approx(1.96 / np.sqrt(10))
    assert _honesty.bound(1, 1.0) == 1.96


def test_the_bound_covers_what_chance_does():
    """Mean annual ratio of 5 paths of 60 sessions of pure noise: beyond the bound in about one case of 20."""
    days = np.random.default_rng(0).standard_normal((4000, 5, 60))
    means = (days.mean(-1) / days.std(-1, ddof=1) * np.sqrt(252)).mean(-1)
    assert 0.03 < np.mean(np.abs(means) > _honesty.bound(5, 60 / 252)) < 0.07


def test_timed_sharpe_by_hand(venue):
    # from the open of bar 1 to the close of bar 3: 2 points up in sessions 0 and 2, 2 down in session 1
    found = _honesty.timed_sharpe(venue, 0, entries([0, 10, 20], [1, 1, -1]))
    daily = np.array([2.0, -2.0, -2.0, 0.0])
    assert found == pytest.approx(daily.mean() / daily.std(ddof=1) * np.sqrt(252))


def test_random_entries_keep_bracket_and_time_of_day(venue):
    """From slot 6 on, bars of all days but the first hold stop and target, and the stop counts first: -1 either way."""
    rows = np.arange(40)
    wide = (rows % 10 >= 6) & (rows >= 10)
    bars = venue.bars._replace(high=venue.bars.close + 0.5 + 2 * wide, low=venue.bars.close - 0.5 - 2 * wide)
    given = entries([5] * 50, [1] * 50, stop=1.0, reward_risk=1.0)
    own, random = _honesty.against_random(venue._replace(bars=bars), 0, given, seed=0)
    # On the first day with the rise: 1. At random: on the first day +1 and -1 equally often, -1 on the other three.
    assert own == pytest.approx(1.0)
    assert random == pytest.approx(-0.75, abs=0.03)


def test_accounts_by_hand(venue):
    """A target, a stop and a time exit, two units each: 5 USD a point, 0.6 USD a side, a tick of 0.25."""
    given = entries([0, 10, 20], [1, 1, 1], stop=np.array([1.0, 1.0, 9.0]), reward_risk=1.0)
    units = np.full(3, 2.0)
    found = given.run(venue, 1.0)
    assert found.exit.tolist() == [market.TARGET, market.STOP, market.TIME]
    curve = 1000 + np.append(0.0, np.cumsum(found.net_r * given.stop * 5.0 * units))
    result = _honesty.accounts(venue, given, units, curve)
    # points: target 1.25 over the open, next open 1 below it and through the stop, 2 up; no slippage at the target
    assert result["gross_usd"] == pytest.approx((1.25 - 1.0 + 2.0) * 10)
    assert result["costs_usd"] == pytest.approx(3 * 2 * 2 * 0.6 + 5 * 0.25 * 10)
    assert result["gap_usd"] == pytest.approx(0.0, abs=1e-9)
    curve[-1] += 1.0
    assert _honesty.accounts(venue, given, units, curve)["gap_usd"] == pytest.approx(1.0)


def walk(**changes):
    usual = {
        "trades": 100, "years": 0.25, "gross_sharpe": 0.1, "bracket_r": 0.01, "random_r": 0.0, "deflated": 0.2,
        "gap_usd": 0.0,
    }  # fmt: skip
    return usual | changes


BET = {"trades": 100, "share": 0.95, "j": 0.2, "j_null": 0.05, "j_star": 0.23, "realised_r": 0.1}
IDLE = {"trades": 29, "years": 0.25}


def null(walks, bets=(BET,)):
    found = _honesty.null_verdict(walks, list(bets))
    return found["verdict"], found["why"]


def test_nothing_found_where_there_is_nothing_passes():
    walks = [walk(random_r=x) for x in (-0.02, 0.03, 0.0)]
    assert null(walks) == ("pass", "nothing found where there is nothing")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gross_sharpe": 2.5}, "gross Sharpe 2.50 beyond 2.26"),
        ({"gross_sharpe": -2.5}, "gross Sharpe -2.50 beyond 2.26"),
        ({"bracket_r": 0.3}, "brackets earn 0.290 R more"),
        ({"deflated": 0.96}, "3 paths with a deflated Sharpe"),
        ({"gap_usd": -0.02}, "net is not gross minus costs, by 0.02"),
    ],
)
def test_what_is_found_on_a_random_walk_is_no_pass(changes, why):
    verdict, found = null([walk(random_r=x) | changes for x in (0.0, 0.01, 0.02)])
    assert verdict == "no pass"
    assert why in found


def test_three_lucky_paths_of_twenty_are_chance_four_are_not():
    def of(lucky):
        return null([walk(random_r=0.01, deflated=0.96 if k < lucky else 0.2) for k in range(20)])[0]

    assert (of(3), of(4)) == ("pass", "no pass")


def test_abstaining_is_counted_and_passes_only_while_planted_trades():
    found = _honesty.null_verdict([IDLE, walk(), walk(random_r=0.02)], [BET])
    assert (found["paths"], found["abstained"]) == (3, 1)
    assert found["gross_sharpe_bound"] == pytest.approx(_honesty.bound(2, 0.25), rel=1e-3)
    assert null([IDLE, IDLE]) == ("pass", "every random walk abstained, planted did not")
    assert null([IDLE, IDLE], [BET, BET | IDLE]) == ("no pass", "1 of 2 planted paths abstained")
    assert null([IDLE | {"gap_usd": 5.0}]) == ("no pass", "net is not gross minus costs, by 5.00 USD")
    assert null([walk(), walk(random_r=0.02)], []) == ("no pass", "no planted path was run")


def test_planted_verdict():
    gates = [BET | {"share": 0.27}]
    found = _honesty.planted_verdict([BET, BET | {"share": 0.93}], gates)
    assert (found["verdict"], found["share"]) == ("pass", pytest.approx(0.94))
    assert found["share_low"] < 0.93 < 0.95 < found["share_high"]
    for bets, rule, why in (
        ([BET | {"share": 0.89}], gates, "share 0.89 below 0.9"),
        ([BET | {"trades": 3}], gates, "1 of 1 paths abstained"),
        ([BET], [BET | {"share": 0.5}], "every synergy captures 0.50: too few regimes were drawn"),
    ):
        found = _honesty.planted_verdict(bets, rule)
        assert (found["verdict"], found["why"]) == ("no pass", why)


@pytest.fixture
def ran(monkeypatch):
    """Seeds of the paths that were run; nothing of them is, they are done at once."""
    seeds = []

    class Pool:
        def submit(self, _, identity, quick):
            seeds.append(identity["seed"])
            done = Future()
            done.set_result(identity | {"cpu_minutes": 0.0})
            return done

        def shutdown(self, cancel_futures):
            assert cancel_futures

    monkeypatch.setattr(honesty, "ProcessPoolExecutor", lambda *_: Pool())
    return seeds


def test_a_path_of_the_file_is_not_run_again(tmp_path, ran):
    out = tmp_path / "paths.jsonl"
    wanted = honesty.wanted_paths(quick=True)
    assert [row["market"] for row in wanted] == ["random_walk", "random_walk", "planted"]
    stale = wanted[1] | {"params": "of another day"}
    out.write_text("".join(json.dumps(row | {"cpu_minutes": 9.0}) + "\n" for row in (wanted[0], stale)))
    rows = list(honesty.paths(wanted, True, 1, out))
    assert sorted(ran) == [wanted[1]["seed"], wanted[2]["seed"]]
    assert {row["seed"]: row["cpu_minutes"] for row in rows} == {
        row["seed"]: 9.0 * (row is wanted[0]) for row in wanted
    }
    assert len(out.read_text().splitlines()) == 4
    assert len(list(honesty.paths(wanted, True, 1, out))) == 3
    assert len(ran) == 2


def test_paths_differ_in_market_and_seed_alone(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    honesty.write_params(first, False, "random_walk", 7001)
    honesty.write_params(second, False, "planted", 8001)
    one, other = read_yaml(first), read_yaml(second)
    assert (one.pop("seed"), other.pop("seed")) == (7001, 8001)
    assert one["data"]["synthetic"].pop("market") == "random_walk"
    assert other["data"]["synthetic"].pop("market") == "planted"
    assert one == other
    assert one["marl"]["seeds"] == [0]
    assert len({seed for seeds in honesty.SEEDS.values() for seed in seeds}) == 30
