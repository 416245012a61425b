import copy
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from algospace import env, market
from algospace.data.contracts import CONTRACTS
from algospace.env import AGAINST, AGENTS, DELAYS, PASS, WITH, Candidates, TradingEnv, Windows
from algospace.errors import InputError
from algospace.features import fitted, windows
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.market import MarketParams
from algospace.mrms.proposal import Proposal, code
from algospace.pipeline.config import load_params
from algospace.synergy import Gate1Params

FILE = Path(__file__).parents[1] / "params.yaml"
MARKET = load_params("market", MarketParams, FILE)
GATE1 = load_params("gate1", Gate1Params, FILE)
MES = CONTRACTS["MES"]
WINDOWS = FeatureParams(window_30m=3, window_5m=4, window_arbitrage=5, window_regime=2)
GAMMA = 0.9  # far from 1, so that a wrong power shows


pytestmark = pytest.mark.usefixtures("one_thread")


def random_rows(n5=200, seed=0):
    """Row tables of n5 bars; the newest 30-minute row changes every six bars."""
    rng = np.random.default_rng(seed)

    def draw(n, k):
        return rng.normal(size=(n, k)).astype(np.float32)

    n30 = n5 // 6 + 1
    return Rows(draw(n30, 8), draw(n30, 12), draw(n5, 7), draw(n5, 9), np.arange(n5) // 6)


def proposal_of(units, stop_atr, stop, reward_risk, confidence):
    n = len(units)
    none, weights = np.zeros((n, 2)), np.zeros((n, 2, 3))
    return Proposal(units, stop_atr, stop, none.astype(bool), reward_risk, confidence, none, weights)


def by_hand(rows, net_r=0.5, wait=1, hold=3, reward_risk=2.0, stop=4.0, units=1):
    """Candidates at ``rows``: each trade is entered ``wait`` bars later (and its delay) and lasts ``hold`` bars."""
    n = len(rows)
    rows = np.asarray(rows, np.int64)
    entry = rows[:, None, None] + wait + np.arange(DELAYS) + np.zeros((n, 2, 1), np.int64)
    net_r = np.broadcast_to(np.asarray(net_r, np.float64), (n, 2, DELAYS)).copy()
    proposal = proposal_of(
        np.full((n, 2), units), np.full((n, 2), 1.0), np.full((n, 2), stop),
        np.broadcast_to(reward_risk, (n, 2)).astype(float), np.full((n, 2), 0.5),
    )  # fmt: skip
    context = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    direction = np.where(np.arange(n) % 2, -1, 1).astype(np.int8)
    cost_r = np.random.default_rng(0).uniform(0.01, 0.1, net_r.shape)
    return Candidates(rows, direction, context, proposal, net_r, entry + hold - 1, entry, cost_r)


def world(found, sessions=None, num_envs=1, seed=0, gamma=GAMMA, params=MARKET, contract=MES):
    views = Windows(random_rows(), WINDOWS, "cpu")
    sessions = np.zeros(len(found.row), np.int64) if sessions is None else np.asarray(sessions)
    return TradingEnv(found, sessions, views, contract, params, num_envs, gamma, seed, "cpu")


def at(w, index, **account):
    """Put every episode at a candidate, with a fresh account but for the fields given."""
    w.index = torch.full_like(w.index, index)
    fresh = market.Account.new(MARKET.account.equity, (w.num_envs,))
    w.account = fresh._replace(**{k: torch.full_like(getattr(fresh, k), v) for k, v in account.items()})
    return w


def act(w, vote, delay=0):
    """All three agents want the same."""
    return w.step(torch.tensor([[[vote, delay]] * len(AGENTS)] * w.num_envs))


ROWS = [10, 12, 17, 30, 31, 60, 90]


# A step


@pytest.mark.parametrize(("action", "side"), [(WITH, 0), (AGAINST, 1)])
@pytest.mark.parametrize("delay", range(DELAYS))
def test_the_reward_is_the_realised_net_r(action, side, delay):
    table = np.random.default_rng(0).normal(size=(7, 2, DELAYS)) / 10
    w = at(world(by_hand(ROWS, table)), 2)
    step = act(w, action, delay)
    assert step.reward.item() == np.float32(table[2, side, delay])
    money = table[2, side, delay] * 4.0 * MES.point_value
    assert w.account.equity.item() == pytest.approx(100_000 + money, abs=1e-9)
    assert w.account.session_trades.item() == 1


def test_a_pass_earns_nothing_and_moves_on_by_one():
    w = at(world(by_hand(ROWS)), 2)
    step = act(w, PASS, 3)
    assert step.reward.item() == 0
    assert w.index.item() == 3
    assert w.account.equity.item() == 100_000
    assert w.account.session_trades.item() == 0
    assert step.discount.item() == pytest.approx(GAMMA ** (30 - 17), rel=1e-6)


@pytest.mark.parametrize(
    ("hold", "following"),
    [
        (1, 1),  # decided at row 10, out at 11: candidate 1 at row 12
        (2, 1),  # out at 12: the exit bar's own close can decide again
        (3, 2),  # out at 13
        (7, 2),
        (8, 3),  # out at 18
        (21, 4),  # out at 31, itself a candidate
        (22, 5),
    ],
)
def test_a_trade_leads_to_the_first_candidate_at_or_after_its_exit(hold, following):
    w = at(world(by_hand(ROWS, hold=hold)), 0)
    act(w, WITH)
    assert w.index.item() == following


@pytest.mark.parametrize(
    ("delay", "hold", "flat"),
    [
        (0, 4, 3),  # in at the open of 11, out at the close of 14, decides again at 17: 15, 16, 17 are flat
        (0, 7, 0),  # out at the very bar that decides again
        (2, 4, 3),  # flat in 11 and 12, in from 13 to 16, flat in 17
        (4, 3, 4),  # flat in 11 to 14, in from 15 to 17
    ],
)
def test_the_discount_counts_the_bars_spent_flat(delay, hold, flat):
    w = at(world(by_hand([10, 17, 50, 80], hold=hold)), 0)
    assert act(w, WITH, delay).discount.item() == pytest.approx(GAMMA**flat, rel=1e-6)


def test_every_bar_is_either_flat_or_in_the_trade():
    w = world(by_hand([10, 17, 50, 80], hold=5))
    waited = act(at(w, 0), PASS).discount.item()
    traded = act(at(w, 0), WITH).discount.item()
    assert waited == pytest.approx(traded * GAMMA**5, rel=1e-6)


def test_an_order_that_finds_no_bar_is_a_pass():
    found = by_hand(ROWS)
    found.entry_row[2, 0, 3:] = -1
    found.exit_row[2, 0, 3:] = found.row[2]
    w = world(found)
    assert act(at(w, 2), WITH, 2).reward.item() == 0.5
    step = act(at(w, 2), WITH, 3)
    assert step.reward.item() == 0
    assert w.index.item() == 3
    assert step.discount.item() == pytest.approx(GAMMA**13, rel=1e-6)
    assert w.account.session_trades.item() == 0


def test_a_new_session_resets_the_sessions_counters():
    w = at(world(by_hand(ROWS, -0.1), sessions=[1, 1, 1, 2, 2, 2, 2]), 0)
    act(w, WITH)
    assert (w.account.session_trades.item(), w.account.losing_streak.item()) == (1, 1)
    act(w, WITH)
    assert w.index.item() == 3
    assert (w.account.session_trades.item(), w.account.losing_streak.item()) == (0, 0)
    assert w.account.session_start.item() == w.account.equity.item()


# Limits


@pytest.mark.parametrize(
    "account",
    [
        {"session_start": 100_000 / 0.95},
        {"losing_streak": 3},
        {"session_trades": 10},
    ],
)
def test_a_limit_turns_a_take_into_a_pass(account):
    w = at(world(by_hand(ROWS)), 2, **account)
    step = act(w, WITH)
    assert step.reward.item() == 0
    assert w.index.item() == 3
    assert step.discount.item() == pytest.approx(GAMMA**13, rel=1e-6)
    assert w.account.equity.item() == 100_000


def test_one_below_the_limits_a_trade_is_taken():
    w = at(world(by_hand(ROWS)), 2, losing_streak=2, session_trades=9, session_start=100_000 / 0.95 - 1)
    assert act(w, WITH).reward.item() == 0.5


def test_too_little_reward_for_the_risk_is_a_pass():
    found = by_hand(ROWS, reward_risk=np.array([1.49, 1.5]))
    assert act(at(world(found), 2), WITH).reward.item() == 0
    assert act(at(world(found), 2), AGAINST).reward.item() == 0.5


def test_a_unit_beyond_the_risk_per_trade_is_a_pass():
    # 2 % of 100,000 USD is 2,000: a stop 400 points away risks just that with MES, 400.25 too much.
    assert act(at(world(by_hand(ROWS, stop=400.0)), 2), WITH).reward.item() == 0.5
    assert act(at(world(by_hand(ROWS, stop=400.25)), 2), WITH).reward.item() == 0


# Ends of episodes


def test_the_end_of_the_data_is_truncation():
    w = at(world(by_hand(ROWS, hold=3)), 5)
    step = act(w, WITH)
    assert (step.truncated.item(), step.terminated.item()) == (True, False)
    assert step.reward.item() == 0.5
    assert step.final["index"].item() == 6
    expected = market.Account.new(100_000.0, (1,)).settle(
        torch.tensor([0.5 * 4 * 5], dtype=torch.float64), torch.tensor([True])
    )
    assert torch.equal(step.final["account"], expected.observe(MARKET.limits, 100_000.0))
    assert step.observation["index"].item() < 6
    assert torch.equal(step.observation["account"], torch.zeros(1, 5))
    assert torch.equal(step.observation["index"], w.observe()["index"])


def test_a_trade_beyond_the_last_candidate_ends_there():
    w = at(world(by_hand(ROWS, hold=100)), 3)
    step = act(w, WITH)
    assert step.truncated.item()
    assert step.final["index"].item() == 6


def test_ruin_is_termination():
    # 16,000 USD lost: 800 R of 20 USD.
    w = at(world(by_hand(ROWS, -800.0)), 1)
    step = act(w, WITH)
    assert (step.terminated.item(), step.truncated.item()) == (True, False)
    assert step.reward.item() == -800
    assert step.final["account"][0, 1].item() == pytest.approx(0.16 / 0.15)
    assert w.account.equity.item() == 100_000


def test_ruin_at_the_end_of_the_data_is_termination_only():
    w = at(world(by_hand(ROWS, -800.0)), 5)
    step = act(w, WITH)
    assert (step.terminated.item(), step.truncated.item()) == (True, False)


def test_other_episodes_go_on_when_one_ends():
    w = world(by_hand(ROWS), num_envs=3)
    w.index = torch.tensor([0, 5, 2])
    step = act(w, PASS)
    assert step.truncated.tolist() == [False, True, False]
    assert w.index[[0, 2]].tolist() == [1, 3]
    assert step.final["index"].tolist() == [1, 6, 3]


def test_episodes_start_anywhere_but_at_the_last_candidate():
    w = world(by_hand(ROWS), num_envs=600)
    assert set(w.index.tolist()) == {0, 1, 2, 3, 4, 5}


def test_fewer_than_two_candidates_are_refused():
    with pytest.raises(InputError, match="marl: expected candidates to train on, found 1"):
        world(by_hand([10]))


# Repeatable


def random_actions(generator, num_envs):
    votes = torch.randint(0, 3, (num_envs, 3, 1), generator=generator)
    return torch.cat([votes, torch.randint(0, DELAYS, (num_envs, 3, 1), generator=generator)], dim=-1)


def play(w, actions):
    return [(s.reward, s.discount, s.terminated, s.truncated, *s.observation.values()) for s in map(w.step, actions)]


def test_state_and_restore():
    table = np.random.default_rng(0).normal(size=(7, 2, DELAYS)) * 100
    found, sessions = by_hand(ROWS, table), [1, 1, 2, 2, 2, 3, 3]
    generator = torch.Generator().manual_seed(0)
    actions = [random_actions(generator, 8) for _ in range(40)]
    w = world(found, sessions, num_envs=8, seed=1)
    play(w, actions[:15])
    state = copy.deepcopy(w.state())
    rest = play(w, actions[15:])
    other = world(found, sessions, num_envs=8, seed=2)
    play(other, actions[:3])
    other.restore(state)
    for a, b in zip(play(other, actions[15:]), rest, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_same_seed_same_episodes():
    starts = [world(by_hand(ROWS), num_envs=50, seed=s).index for s in (3, 3, 4)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


# Actions


def majority(votes):
    """The three votes' winner and the first who voted for it, spelt out."""
    for action in (PASS, WITH, AGAINST):
        if votes.count(action) >= 2:
            return action, votes.index(action)
    return PASS, votes.index(PASS)


def test_all_27_votes():
    votes = list(product((PASS, WITH, AGAINST), repeat=3))
    winner, leader = env.vote(torch.tensor(votes))
    assert list(zip(winner.tolist(), leader.tolist(), strict=True)) == [majority(v) for v in votes]
    assert winner.tolist().count(PASS) == 7 + 6  # two or three of it, or three different votes


@pytest.mark.parametrize(
    ("votes", "delays", "action", "delay"),
    [
        ((WITH, WITH, AGAINST), (1, 2, 3), WITH, 1),
        ((AGAINST, WITH, WITH), (1, 2, 3), WITH, 2),
        ((WITH, AGAINST, AGAINST), (1, 2, 3), AGAINST, 2),
        ((PASS, AGAINST, AGAINST), (4, 0, 3), AGAINST, 0),
    ],
)
def test_the_leading_agent_times_the_entry(votes, delays, action, delay):
    table = np.arange(7 * 2 * DELAYS).reshape(7, 2, DELAYS) / 100
    w = at(world(by_hand(ROWS, table)), 2)
    step = w.step(torch.tensor([list(zip(votes, delays, strict=True))]))
    assert step.reward.item() == np.float32(table[2, action - 1, delay])
    paid = w.cost_r[2, action - 1, delay]
    assert {name: part.item() for name, part in step.logged.items()} == {
        "gross_r": (step.reward + paid).item(), "cost_r": paid.item(), "trades": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("votes", [(PASS, WITH, AGAINST), (PASS, PASS, WITH), (AGAINST, PASS, WITH)])
def test_no_majority_is_a_pass(votes):
    w = at(world(by_hand(ROWS)), 2)
    step = w.step(torch.tensor([[[v, 0] for v in votes]]))
    assert step.reward.item() == 0
    assert {part.item() for part in step.logged.values()} == {0.0}, "nor does it cost anything"
    assert w.index.item() == 3


@pytest.mark.parametrize("bad", [(3, 0), (-1, 0), (0, DELAYS), (0, -1)])
def test_an_action_outside_the_space_is_refused(bad):
    w = world(by_hand(ROWS), num_envs=2)
    actions = torch.zeros(2, 3, 2, dtype=torch.int64)
    actions[1, 2] = torch.tensor(bad)
    before = copy.deepcopy(w.state())
    with pytest.raises(InputError, match=r"env: expected actions \(2, 3, 2\), int64 below \(3, 5\)"):
        w.step(actions)
    assert torch.equal(before["index"], w.state()["index"])


@pytest.mark.parametrize("shape", [(1, 3, 2), (2, 2, 2), (2, 3)])
def test_actions_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match="env: expected actions"):
        world(by_hand(ROWS), num_envs=2).step(torch.zeros(shape, dtype=torch.int64))


def test_actions_that_are_no_integers_are_refused():
    with pytest.raises(InputError, match="env: expected actions"):
        world(by_hand(ROWS), num_envs=2).step(torch.zeros(2, 3, 2))


@pytest.mark.parametrize("seed", range(4))
def test_cash_is_conserved_over_whole_episodes(seed):
    """Equity is what an episode began with and all its rewards in money, which are net of costs, whatever ends it."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    rows = 6 * np.arange(6, 30)
    paid = rng.normal(scale=250.0, size=(len(rows), 2, DELAYS))
    w = world(by_hand(rows, net_r=paid, stop=4.0), sessions=np.arange(len(rows)) // 8, num_envs=16, seed=seed)
    earned, ends = torch.zeros(16, dtype=torch.float64), torch.zeros(2)
    for _ in range(200):
        actions = [torch.randint(high, (16, 3), generator=generator) for high in (3, DELAYS)]
        step = w.step(torch.stack(actions, dim=-1))
        earned += step.reward.double() * 4.0 * MES.point_value
        equity = MARKET.account.equity * (1 + step.final["account"][:, 0].double())
        torch.testing.assert_close(equity, MARKET.account.equity + earned, atol=0.05, rtol=0.0)
        assert (step.logged["trades"] == (step.reward != 0)).all()
        earned[step.terminated | step.truncated] = 0.0
        ends += torch.stack([step.terminated.sum(), step.truncated.sum()])
    assert (ends > 5).all(), "by ruin and by the end of the data"


# What the agents see


def test_windows_are_the_newest_rows():
    rows = random_rows()
    seen = Windows(rows, WINDOWS, "cpu").at(torch.tensor([100, 37]), torch.tensor([1, 1]))
    assert {k: tuple(v.shape) for k, v in seen.items()} == {
        "structure": (2, 3, 8), "tactical": (2, 4, 7), "side": (2, 9), "arbitrageur": (2, 5, 15),
    }  # fmt: skip
    assert np.array_equal(seen["structure"][0], rows.structure[14:17])  # bar 100 knows 30-minute row 16
    assert np.array_equal(seen["tactical"][0], rows.tactical[97:101])
    assert np.array_equal(seen["side"][0], rows.side[100])
    for k, t in enumerate(range(33, 38)):
        assert np.array_equal(seen["arbitrageur"][1, k], np.r_[rows.structure[t // 6], rows.tactical[t]])


@pytest.mark.parametrize("direction", [1, -1])
def test_nothing_later_is_seen(direction):
    rows = random_rows()
    now = 101
    poisoned = Rows(*(table.copy() for table in rows))
    for table in (poisoned.tactical, poisoned.side):
        table[now + 1 :] = 1e9
    for table in (poisoned.structure, poisoned.regime):
        table[rows.m30_row[now] + 1 :] = 1e9
    poisoned.m30_row[now + 1 :] = 5
    ends = torch.tensor([now, now - 1, 60])
    sides = torch.full((3,), direction)
    before, after = (Windows(r, WINDOWS, "cpu").at(ends, sides) for r in (rows, poisoned))
    assert all(torch.equal(before[name], after[name]) for name in before)
    after = Windows(poisoned, WINDOWS, "cpu").at(ends + 1, sides)
    assert not torch.equal(Windows(rows, WINDOWS, "cpu").at(ends + 1, sides)["tactical"], after["tactical"])


def test_expand_adds_context_and_account():
    found = by_hand(ROWS)
    w = world(found, num_envs=2)
    w.index = torch.tensor([3, 4])
    seen = w.expand(w.observe())
    assert np.array_equal(seen["context"], found.context[[3, 4]])
    assert torch.equal(seen["account"], torch.zeros(2, 5))
    expected = w.views.at(torch.tensor([30, 31]), torch.tensor([-1, 1]))
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


def test_targets_are_the_outcomes_at_the_next_open():
    table = np.random.default_rng(0).normal(size=(7, 2, DELAYS))
    w = world(by_hand(ROWS, table), num_envs=2)
    found = w.targets({"index": torch.tensor([6, 2])})
    assert np.array_equal(found, table[[6, 2], :, 0].astype(np.float32))


# A mirrored market


def raw_features(n5=120, seed=0):
    """Columns of both time frames that the row tables are made of."""
    rng = np.random.default_rng(seed)
    n30 = n5 // 6 + 1
    close30, close5 = 4800 + rng.normal(0, 20, n30), 4800 + rng.normal(0, 20, n5)
    gap = rng.random(n5) < 0.5
    m30 = pd.DataFrame(
        {
            "close": close30, "close_utc": pd.date_range("2024-01-03 15:00", periods=n30, freq="30min", tz="UTC"),
            "mlmi_value": rng.uniform(0, 100, n30), "mlmi_signal": rng.integers(-1, 2, n30),
            "nwrqk_value": close30 + rng.normal(0, 30, n30), "nwrqk_slope": rng.normal(0, 1.5, n30),
            "lvn_distance_points": rng.normal(0, 10, n30), "lvn_nearest_strength": rng.uniform(0, 100, n30),
        }
    )  # fmt: skip
    m5 = pd.DataFrame(
        {
            "close": close5, "fvg_bullish_active": rng.integers(0, 2, n5), "fvg_bearish_active": rng.integers(0, 2, n5),
            "fvg_nearest_level": np.where(gap, close5 + rng.normal(0, 30, n5), np.nan),
            "fvg_age": np.where(gap, rng.integers(0, 50, n5), -1),
            "fvg_mitigation_signal": rng.integers(-1, 2, n5), "momentum_5": rng.normal(0, 3, n5),
            "volume_ratio": rng.lognormal(size=n5), "rsi_14": rng.uniform(0, 100, n5), "macd": rng.normal(size=n5),
            "macd_signal": rng.normal(size=n5), "bb_percent": rng.normal(0.5, 0.4, n5),
            "stoch_k": rng.uniform(0, 100, n5), "adx_14": rng.uniform(0, 60, n5),
            "ema_9_ratio": rng.normal(0, 0.01, n5), "ema_21_ratio": rng.normal(0, 0.01, n5),
        }
    )  # fmt: skip
    return m5, m30


def mirror(m5, m30):
    """What the same columns read where every move goes the other way about the current close."""
    m30 = m30.assign(
        mlmi_value=100 - m30["mlmi_value"], mlmi_signal=-m30["mlmi_signal"],
        nwrqk_value=2 * m30["close"] - m30["nwrqk_value"], nwrqk_slope=-m30["nwrqk_slope"],
        lvn_distance_points=-m30["lvn_distance_points"],
    )  # fmt: skip
    flipped = {name: -m5[name] for name in ("fvg_mitigation_signal", "momentum_5", "macd", "macd_signal")}
    flipped |= {name: -m5[name] for name in ("ema_9_ratio", "ema_21_ratio")}
    m5 = m5.assign(
        fvg_bullish_active=m5["fvg_bearish_active"], fvg_bearish_active=m5["fvg_bullish_active"],
        fvg_nearest_level=2 * m5["close"] - m5["fvg_nearest_level"], rsi_14=100 - m5["rsi_14"],
        stoch_k=100 - m5["stoch_k"], bb_percent=1 - m5["bb_percent"], **flipped,
    )  # fmt: skip
    return m5, m30


def rows_of(m5, m30):
    tactical = fitted.tactical_rows(m5)
    neutral = np.where([name in ("adx_14", "volume_ratio") for name in fitted.table.SIDE], 20.0, 0.0)
    side = fitted.Scale(neutral, np.full(9, 3.0))(tactical)
    structure = windows.structure_rows(m30)
    return Rows(structure, structure[:, :1], windows.tactical_rows(m5), side, np.arange(len(m5)) // 6)


def test_short_in_a_market_is_long_in_its_mirror():
    ends = torch.arange(40, 110, 7)
    long, short = torch.ones_like(ends), -torch.ones_like(ends)
    market_rows, mirrored_rows = rows_of(*raw_features()), rows_of(*mirror(*raw_features()))
    for a, b in ((short, long), (long, short)):
        seen = Windows(market_rows, WINDOWS, "cpu").at(ends, a)
        other = Windows(mirrored_rows, WINDOWS, "cpu").at(ends, b)
        for name in seen:
            np.testing.assert_allclose(seen[name], other[name], atol=2e-5, err_msg=name)
    seen, other = (Windows(rows, WINDOWS, "cpu").at(ends, long) for rows in (market_rows, mirrored_rows))
    for name in seen:
        assert not np.allclose(seen[name], other[name], atol=1e-2), name


@pytest.mark.parametrize("end", [-1, 0, 3, 11, 101])
def test_a_row_without_whole_windows_is_refused(end):
    rows = random_rows()
    rows.tactical[98, 2] = np.nan  # in the windows of rows 98..102, the Arbitrageur's five
    with pytest.raises(InputError, match="windows are whole"):
        Windows(rows, WINDOWS, "cpu").at(torch.tensor([50, end]), torch.tensor([1, 1]))


def test_rows_of_one_batch_are_mirrored_each_on_its_own():
    views = Windows(random_rows(), WINDOWS, "cpu")
    both = views.at(torch.tensor([50, 50]), torch.tensor([1, -1]))
    for k, direction in enumerate((1, -1)):
        alone = views.at(torch.tensor([50]), torch.tensor([direction]))
        assert all(torch.equal(both[name][k], alone[name][0]) for name in both)
    assert not torch.equal(both["structure"][0], both["structure"][1])


# Assembling the candidates


def small_table(n=60, seed=0):
    """Bars with the columns that candidates are made of."""
    rng = np.random.default_rng(seed)
    close = 4800 + np.cumsum(rng.integers(-8, 9, n)) * 0.25
    open_ = np.r_[4800, close[:-1]]
    start = pd.date_range("2024-01-03 15:00", periods=n, freq="5min", tz="UTC")
    zero = dict.fromkeys(
        [f"gate1_{k}_{s}" for k in ("stage", "first_kind", "second_kind", "age") for s in ("long", "short")], 0
    )
    return pd.DataFrame(
        {
            "start_utc": start, "close_utc": start + pd.Timedelta("5min"), "session_id": np.arange(n) // 20,
            "session_close_utc": start[-1] + pd.Timedelta("5min"), "open": open_,
            "high": np.maximum(open_, close) + 0.5, "low": np.minimum(open_, close) - 0.5, "close": close,
            "is_synthetic": False, "candidate_direction": rng.choice([-1, 1], n), "m30_atr": rng.uniform(2, 6, n),
            "activity": rng.normal(size=n),
            "gate1_type": 0, "mlmi_sig": rng.integers(-1, 2, n), "nwrqk_sig": 0, "fvg_sig": 0,
            "strength_mlmi_now": 0.5, "strength_nwrqk_now": 0.5, "strength_fvg_now": 0.5,
            "gate1_bars_to_complete": 0, "gate1_quality": np.nan, **zero,
        }
    )  # fmt: skip


def test_candidates_are_the_markets_outcomes():
    m5 = small_table()
    ends = np.array([3, 18, 25, 41])
    rng = np.random.default_rng(1)
    stops = rng.integers(2, 40, (4, 2)) * 0.25
    proposal = proposal_of(
        rng.integers(0, 6, (4, 2)), rng.choice([0.5, 1.0, 2.0], (4, 2)), stops, rng.choice([1.5, 3.0], (4, 2)),
        rng.random((4, 2)),
    )  # fmt: skip
    regime = rng.normal(size=(4, 8)).astype(np.float32)
    bars, costs = market.Bars.of(m5), market.Costs.of(MES, 1.0)
    found = env.candidates(m5, ends, regime, proposal, bars, costs, GATE1, 100)
    for i, row in enumerate(ends):
        for k, side in enumerate((1, -1)):
            for delay in range(DELAYS):
                order = row, side * m5["candidate_direction"][row], stops[i, k], proposal.reward_risk[i, k], delay
                one = market.bracket(bars, *(np.array(x) for x in order), costs, 100)
                assert found.net_r[i, k, delay] == one.net_r
                assert found.exit_row[i, k, delay] == one.exit_row
                assert found.entry_row[i, k, delay] == one.entry_row
    assert found.context.shape == (4, 8 + windows.GATE1_CODE + 8)
    assert found.context.dtype == np.float32
    assert np.array_equal(found.context[:, :8], regime)
    assert np.array_equal(found.context[:, -8:], code(proposal))
    assert (found.entry_row[1, :, 1:] == -1).all()  # row 18: one bar is left in its session


def test_nothing_later_is_in_a_candidates_context():
    m5 = small_table()
    ends = np.array([3, 25])
    proposal = proposal_of(*(np.ones((2, 2)) for _ in range(5)))
    costs = market.Costs.of(MES, 1.0)

    def context(table):
        regime = np.zeros((2, 8), np.float32)
        return env.candidates(table, ends, regime, proposal, market.Bars.of(table), costs, GATE1, 100).context

    later = m5.copy()
    numbers = later.select_dtypes("number").columns.drop(["session_id"])
    later.loc[26:, numbers] = later.loc[26:, numbers] * 3 + 7
    assert np.array_equal(context(m5), context(later))


def test_proposal_code():
    numbers = (2, 5), (0.75, 3.0), (9.0, 9.0), (1.5, 5.0), (0.4, 0.9)
    proposal = proposal_of(*(np.array([pair]) for pair in numbers))
    found = code(proposal)
    assert found[0].tolist() == pytest.approx([0.4, 0.25, 0.3, 0.4, 1.0, 1.0, 1.0, 0.9])
    assert found.dtype == np.float32
