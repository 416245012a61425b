import copy

import numpy as np
import pandas as pd
import pytest
import torch
from savers import Hook

from algospace import market, ppo
from algospace.data.contracts import CONTRACTS
from algospace.errors import InputError
from algospace.mrms import model as ensemble
from algospace.mrms.outcomes import Lessons
from algospace.mrms.params import MRMSParams
from algospace.mrms.ppo import Material, RiskEnv, RiskLearner, fit, learn, log_prob_entropy, material
from algospace.mrms.state import States, feature_names
from algospace.mrms.track import FRESH, Track, account_state
from algospace.mrms.trades import LONGEST_RECORD, of_cells, trade
from algospace.training import Unsaved

STOPS, REWARDS = (0.5, 1.0, 2.0), (1.0, 1.5, 2.0, 3.0)
NAMES = feature_names(0)
RISK = 20.0  # USD of one unit at the stop
BET = 0.016
BEST = 1, 2  # stop 1.0, reward-risk 2.0


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exchange(section):
    return section("market", market.MarketParams)


@pytest.fixture(scope="module")
def params(section):
    given = section("mrms", MRMSParams)
    return given.model_copy(update={"stop_grid": STOPS, "reward_risk_grid": REWARDS, "hidden_dim": 16})


def shortened(params, **changes):
    return params.model_copy(update={"ppo": params.ppo.model_copy(update=changes)})


def toy(n=300, best=0.5, seed=0, spacing=10):
    """Every cell loses 0.3 R on average but one, which earns ``best``; ten events a session."""
    rng = np.random.default_rng(seed)
    row, shape = np.arange(n) * spacing, (n, 2, len(STOPS), len(REWARDS))
    r = rng.normal(-0.3, 0.3, shape)
    r[:, :, BEST[0], BEST[1]] += best + 0.3
    entry = np.broadcast_to(row[:, None, None, None] + 1, shape)
    states = rng.normal(size=(n, 2, len(NAMES))).astype(np.float32)
    states[..., -len(FRESH) :] = FRESH
    ends = entry + 4
    return Material(
        row, row // (10 * spacing), states, np.full(shape[:3], RISK), r.astype(np.float32), entry, ends, ends
    )


def env_of(given, exchange, num_envs=2, start=0):
    env = RiskEnv(given, exchange, BET, num_envs, 0.999, 0, "cpu")
    env.index = torch.full((num_envs,), start)
    return env


def order(*rows):
    return torch.tensor(rows)


# Learning


def test_it_finds_the_one_good_cell(params, exchange):
    agents, history = learn("mrms", toy(), NAMES, exchange, params, 0, "cpu", Unsaved())
    given = toy(seed=1)
    output = agents(torch.from_numpy(given.states[:, 0]))
    units, stop, target = (part.argmax(1).numpy() for part in (output.units, output.stop, output.target))
    index = np.arange(len(units))
    # With the true means: five units of a cell that earns 0.5 R grow most, next to nothing in the other cells.
    mean = np.full((len(STOPS), len(REWARDS)), -0.3)
    mean[BEST] = 0.5
    growth = (np.log(1 + BET * units * mean[stop, target]) / BET)[index].mean()
    assert growth >= 0.95 * np.log(1 + BET * 5 * 0.5) / BET
    assert history[-1]["charts/mean_reward_r"] > 0.9 * np.log(1 + BET * 5 * 0.5) / BET


def test_it_does_not_trade_what_only_loses(params, exchange):
    given = toy(best=-0.3)
    given.net_r.clip(max=-0.05, out=given.net_r)
    agents, _ = learn("mrms", given, NAMES, exchange, params, 0, "cpu", Unsaved())
    output = agents(torch.from_numpy(toy(seed=1).states.reshape(-1, len(NAMES))))
    assert output.units.detach()[:, 0].mean() > 0.95
    assert (output.units.argmax(1) == 0).float().mean() > 0.98


def test_the_ratio_is_one_before_the_first_step(params, exchange):
    env = env_of(toy(), exchange, 16)
    learner = RiskLearner(env, ensemble.new(NAMES, 5, params))
    rollout = ppo.collect(env, learner, 8, torch.Generator().manual_seed(0))
    flat = {key: value.flatten(0, 1) for key, value in rollout.observation.items()}
    judged = learner.judge(flat, env.expand(flat), rollout.seeds.flatten(), rollout.actions.flatten(0, 1))
    assert ((judged.log_probs - rollout.log_probs.flatten(0, 1)).exp() - 1).abs().max() <= 1e-6


def test_log_probability_and_entropy_by_hand():
    output = ensemble.Output(
        torch.tensor([[0.2, 0.8], [0.2, 0.8]]), torch.tensor([[0.5, 0.5]] * 2), torch.tensor([[0.9, 0.1]] * 2),
        *[torch.zeros(2)] * 4,
    )  # fmt: skip
    log_probs, entropy = log_prob_entropy(output, torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert log_probs[:, 0].tolist() == pytest.approx([np.log(0.2), np.log(0.8 * 0.5 * 0.1)])
    h = [-sum(p * np.log(p) for p in parts) for parts in ((0.2, 0.8), (0.5, 0.5), (0.9, 0.1))]
    assert entropy[:, 0].tolist() == pytest.approx([h[0] + 0.8 * (h[1] + h[2])] * 2)


@pytest.mark.parametrize("at", [0, 2])
def test_a_resumed_run_ends_with_the_same_bytes(params, exchange, at):
    run, states = shortened(params, num_envs=8, total_timesteps=8 * 16 * 4), []

    def learned(on_step=lambda step, snapshot: None, resumed=None, given=None):
        return learn("mrms", toy(60), NAMES, exchange, run, 0, "cpu", Hook(on_step, resumed))

    agents, history = learned(lambda step, snapshot: states.append(copy.deepcopy({**snapshot(), "step": step})))
    torch.manual_seed(7)
    again, same = learned(resumed=states[at])
    assert same == history
    assert len(history) == 4
    for a, b in zip(again.state_dict().values(), agents.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# The environment


def test_orders_by_hand(exchange):
    given = toy()
    given.net_r[0, :, 1, 2], given.net_r[0, :, 0, 0] = 2.0, 9.0
    env = env_of(given, exchange, 4)
    # Two units; nothing; one unit in another cell; five units.
    step = env.step(order([2, 1, 2], [0, 1, 2], [1, 0, 0], [5, 1, 2]))
    expected = [np.log(1 + BET * u * r) / BET for u, r in ((2, 2), (0, 2), (1, 9), (5, 2))]
    assert step.reward.tolist() == pytest.approx(expected, rel=1e-5)
    assert (env.account.equity - 100_000).tolist() == pytest.approx([80, 0, 180, 200])
    assert env.index.tolist() == [1, 1, 1, 1]
    # In trade: entry a bar after the decision, exit at row 5, so five bars flat; ten without a trade.
    assert step.discount.tolist() == pytest.approx([0.999**5, 0.999**10, 0.999**5, 0.999**5])


def test_limits_cannot_be_overridden(exchange):
    given = toy()
    given.risk[:] = 900.0  # of 100,000 USD 2 % may be risked: two units
    given.net_r[:] = -1.0
    env = env_of(given, exchange)
    env.step(order([5, 1, 2], [1, 1, 2]))
    assert (env.account.equity - 100_000).tolist() == [-1800, -900]
    env.step(order([5, 1, 2], [1, 1, 2]))
    env.step(order([5, 1, 2], [1, 1, 2]))
    # Three losses in a row: no more orders in this session, whatever is asked.
    before = env.account.equity.clone()
    for _ in range(7):
        assert torch.equal(env.account.equity, before)
        env.step(order([5, 1, 2], [5, 1, 2]))
    env.step(order([5, 1, 2], [5, 1, 2]))  # the next session's first event
    assert (env.account.equity < before).all()


def test_ruin_terminates_and_the_end_of_the_data_truncates(exchange):
    limits = exchange.limits.model_copy(update={"max_drawdown": 0.01, "max_session_loss": 1.0})
    given = toy()
    given.risk[:], given.net_r[:] = 900.0, -1.0
    env = env_of(given, exchange.model_copy(update={"limits": limits}))
    step = env.step(order([2, 1, 2], [0, 1, 2]))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True, False], [False, False])
    assert step.final["account"][0, 0] == pytest.approx(0.982)
    assert step.observation["account"][0, 0] == 1.0  # a fresh account
    env.index[:] = len(given.row) - 2
    step = env.step(order([0, 1, 2], [0, 1, 2]))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False, False], [True, True])
    assert step.final["index"].tolist() == [len(given.row) - 1] * 2
    env.index[:] = len(given.row) - 2
    step = env.step(order([2, 1, 2], [0, 1, 2]))  # ruined by the last trade: nothing is left to bootstrap from
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True, False], [False, True])


def test_an_episode_ends_after_a_hundred_trades(exchange):
    limits = exchange.limits.model_copy(update={"max_session_trades": 100, "max_losing_streak": 100})
    env = env_of(toy(), exchange.model_copy(update={"limits": limits}), 1)
    ends = [env.step(order([1, 1, 2])).truncated.item() for _ in range(LONGEST_RECORD)]
    assert ends == [False] * (LONGEST_RECORD - 1) + [True]
    assert env.trades.tolist() == [0]


def test_the_account_is_that_of_the_episodes_own_trades(exchange):
    env, given = env_of(toy(), exchange, 1), toy()
    made = []
    for k in range(25):
        i, side = env.index.item(), env.side.item()
        before = env.account.equity.item()
        env.step(order([k % 3, 1, 2]))
        if env.account.equity.item() != before:
            made.append((given.net_r[i, side, 1, 2], env.account.equity.item() - before))
        outcome = np.zeros((len(made), 4), np.float32)
        outcome[:, 2] = [r for r, _ in made]
        track = Track(outcome, outcome, np.array([pnl for _, pnl in made]), np.zeros(len(made), np.int64))
        expected = account_state(track, env.account, exchange.account.equity, exchange.limits)
        np.testing.assert_allclose(env.observe()["account"][0], expected, rtol=1e-6)
    assert len(made) > 10


def test_a_state_is_the_event_from_one_side_and_the_account(exchange):
    given, env = toy(), env_of(toy(), exchange, 64)
    seen = env.expand(env.observe())["state"].numpy()
    assert set(env.side.tolist()) == {0, 1}
    for k in range(64):
        assert np.array_equal(seen[k, :-10], given.states[env.index[k], env.side[k], :-10])
    assert seen[:, -10].tolist() == [1.0] * 64


def test_orders_outside_the_space_are_refused(exchange):
    env = env_of(toy(), exchange)
    for bad in ([6, 0, 0], [0, 3, 0], [0, 0, 4], [-1, 0, 0]):
        with pytest.raises(InputError, match=r"mrms: expected orders \(2, 3\) below \[6, 3, 4\]"):
            env.step(order(bad, [0, 0, 0]))
    with pytest.raises(InputError, match="mrms: expected candidates in train, found 1"):
        env_of(toy(1), exchange)


# From the market


def lessons_of(n_events=120, seed=0):
    """A random walk in sessions of 50 bars, and events on it."""
    rng = np.random.default_rng(seed)
    n = 1500
    close = 4800 + np.cumsum(rng.integers(-8, 9, n)) * 0.25
    open_ = np.r_[4800, close[:-1]]
    session = np.arange(n) // 50
    high, low = np.maximum(open_, close) + 0.5, np.minimum(open_, close) - 0.5
    bars = market.Bars(open_, high, low, close, np.ones(n, bool), session * 50 + 49, np.zeros(n, bool))
    rows = np.sort(rng.choice(n - 60, n_events, replace=False))
    unknown = {f"m30_lvn_{side}_{x}": np.nan for side in ("support", "resistance") for x in ("price", "strength")}
    direction = rng.choice([-1, 1], n_events).astype(np.int8)
    atr = rng.uniform(3, 8, n_events)
    events = pd.DataFrame(
        {"row": rows, "candidate_direction": direction, "m30_atr": atr, "close": close[rows], **unknown}
    )
    states = States(rng.normal(size=(n_events, 2, len(NAMES))).astype(np.float32), NAMES)
    return Lessons(events, states, np.zeros((n_events, 2, 3, 4), np.float32)), bars, session


def test_it_trades_by_the_rule_of_the_simulation(params, exchange):
    lessons, bars, session = lessons_of()
    free = {"max_session_loss": 1.0, "max_drawdown": 1.0, "max_losing_streak": 99, "max_session_trades": 99}
    open_to_all = exchange.model_copy(update={"limits": exchange.limits.model_copy(update=free)})
    contract = CONTRACTS["MES"]
    venue = market.Venue(bars, session, contract, market.Costs.of(contract, 1.0), open_to_all)
    given = material(lessons, venue, params)
    cell = np.full(len(lessons.events), BEST[0] * len(REWARDS) + BEST[1])
    expected = trade(venue, lessons.events, of_cells(lessons.events, cell, venue, params))
    env = env_of(given, open_to_all, 1)
    found, events = [], []
    while True:
        env.side[:] = 0  # with the signal
        i, before = env.index.item(), env.trades[0]
        step = env.step(order([1, *BEST]))
        if step.truncated:
            break
        if env.trades[0] > before:
            events.append(i)
            found.append(env.record[:, 0, before].tolist())
    assert len(events) > 20
    assert events == expected.event.tolist()[: len(events)]
    assert len(expected.event) - len(events) <= 1  # what is decided at the very end is not stepped
    np.testing.assert_allclose(np.array(found)[:, 0], expected.track.outcome[: len(found), 2], rtol=1e-5)
    np.testing.assert_allclose(np.array(found)[:, 1], expected.track.pnl[: len(found)], rtol=1e-5)


def test_bad_states_are_refused(params, exchange):
    lessons, bars, session = lessons_of(20)
    lessons.states.values[3, 1, 2] = np.nan
    contract = CONTRACTS["MES"]
    venue = market.Venue(bars, session, contract, market.Costs.of(contract, 1.0), exchange)
    with pytest.raises(InputError, match="mrms: expected finite states, found NaN or inf in type_3 of event 3"):
        fit("mrms", lessons, venue, params, 0, "cpu", Unsaved())
