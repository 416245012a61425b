"""The PettingZoo adapter: that library's own test, and step by step what the trading environment does."""

import warnings

import numpy as np
import pytest
import torch
from test_env import MARKET, WINDOWS, by_hand, random_actions, world

from algospace.env import AGENTS, DELAYS, WITH
from algospace.errors import InputError
from algospace.parallel_env import ParallelTradingEnv

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports a game of its own in a way that it deprecates
    from pettingzoo.test import parallel_api_test

ROWS = [40, 42, 47, 60, 61, 90, 120]  # behind the warm-up

pytestmark = pytest.mark.usefixtures("one_thread")


def worlds(net_r=0.5, seed=0, num_envs=1):
    """A world of seven candidates in three sessions."""
    return world(by_hand(ROWS, net_r), [1, 1, 2, 2, 2, 3, 3], num_envs, seed)


def all_do(vote, delay=0):
    return {agent: np.array([vote, delay]) for agent in AGENTS}


def put(env, index):
    env._world.index = torch.tensor([index])
    return env


def test_it_passes_the_librarys_own_test():
    table = np.random.default_rng(0).normal(size=(7, 2, DELAYS)) * 900  # some episodes end in ruin
    parallel_api_test(ParallelTradingEnv(worlds(table)), num_cycles=500)


def test_observations_and_actions_lie_in_their_spaces():
    env = ParallelTradingEnv(worlds())
    views, infos = env.reset(seed=3)
    assert tuple(env.agents) == tuple(env.possible_agents) == tuple(views) == AGENTS
    assert infos == {agent: {} for agent in AGENTS}
    time = {"structure": WINDOWS.window_30m, "tactical": WINDOWS.window_5m, "arbitrageur": WINDOWS.window_arbitrage}
    width = {"structure": 8, "tactical": 7, "arbitrageur": 15}
    for agent in AGENTS:
        space = env.observation_space(agent)
        assert space.contains(views[agent])
        assert space["window"].shape == (time[agent], width[agent])
        assert (space["context"].shape, space["account"].shape) == ((4,), (5,))
        assert ("side" in space.spaces) == (agent == "tactical")
        assert env.action_space(agent).nvec.tolist() == [3, DELAYS]
    with pytest.raises(InputError, match="below"):
        env.step(all_do(3))


def test_a_world_of_fewer_agents_is_refused():
    alone = worlds()
    alone.n_agents = 1
    with pytest.raises(InputError, match="expected a world of one episode and 3 agents, found 1 and 1"):
        ParallelTradingEnv(alone)


@pytest.mark.parametrize("scale", [0.5, 900.0])
def test_stepping_it_is_stepping_the_trading_environment(scale):
    table = np.random.default_rng(0).normal(size=(7, 2, DELAYS)) * scale
    env, plain = ParallelTradingEnv(worlds(table, seed=1)), worlds(table, seed=1)
    generator = torch.Generator().manual_seed(0)
    views, _ = env.reset()
    ends = []
    for _ in range(60):
        seen = plain.expand(plain.observe())
        for agent in AGENTS:
            parts = {"window": seen[agent], "context": seen["context"], "account": seen["account"]}
            parts |= {"side": seen["side"]} if agent == "tactical" else {}
            assert views[agent].keys() == parts.keys()
            assert all(np.array_equal(views[agent][name], part[0].numpy()) for name, part in parts.items())
        actions = random_actions(generator, 1)
        expected = plain.step(actions)
        views, rewards, terminated, truncated, infos = env.step(dict(zip(AGENTS, actions[0].numpy(), strict=True)))
        assert rewards == dict.fromkeys(AGENTS, expected.reward.item())
        assert terminated == dict.fromkeys(AGENTS, expected.terminated.item())
        assert truncated == dict.fromkeys(AGENTS, expected.truncated.item())
        assert infos == {agent: {"discount": expected.discount.item()} for agent in AGENTS}
        final = plain.expand(expected.final)
        assert np.array_equal(views["structure"]["window"], final["structure"][0].numpy())
        assert np.array_equal(views["tactical"]["account"], final["account"][0].numpy())
        if not env.agents:
            ends.append("ruin" if terminated["structure"] else "data")
            views, _ = env.reset()
    assert len(ends) >= 5
    assert ("ruin" in ends) == (scale > 100)


def test_the_end_of_the_data_truncates_and_ruin_terminates():
    env = ParallelTradingEnv(worlds())
    env.reset()
    *_, terminated, truncated, _ = put(env, 5).step(all_do(WITH))
    assert (set(terminated.values()), set(truncated.values()), env.agents) == ({False}, {True}, [])
    env = ParallelTradingEnv(worlds(-800.0))  # 16,000 USD of 100,000
    env.reset()
    views, rewards, terminated, truncated, _ = put(env, 1).step(all_do(WITH))
    assert (set(terminated.values()), set(truncated.values()), env.agents) == ({True}, {False}, [])
    assert set(rewards.values()) == {-800.0}
    assert views["structure"]["account"][1] == pytest.approx(0.16 / MARKET.limits.max_drawdown)


def test_a_seed_begins_the_episode_of_a_world_of_that_seed():
    starts = {}
    for seed in range(6):
        env = ParallelTradingEnv(worlds(seed=99))
        views, _ = env.reset(seed=seed)
        again, _ = env.reset(seed=seed)
        fresh, _ = ParallelTradingEnv(worlds(seed=seed)).reset()
        for other in (again, fresh):
            assert np.array_equal(views["structure"]["context"], other["structure"]["context"])
        starts[seed] = views["structure"]["context"][0]
    assert len(set(starts.values())) > 1


def test_an_episode_that_is_cut_short_leaves_nothing_behind():
    env = ParallelTradingEnv(worlds())
    env.reset(seed=0)
    put(env, 0).step(all_do(WITH))
    views, _ = env.reset()
    assert not views["structure"]["account"].any()


def test_a_step_needs_an_action_of_every_agent_inside_an_episode():
    env = ParallelTradingEnv(worlds())
    with pytest.raises(InputError, match=r"nobody before reset\(\)"):
        env.step(all_do(WITH))
    env.reset()
    with pytest.raises(InputError, match=r"\['structure', 'tactical', 'arbitrageur'\], found \['tactical'\]"):
        env.step({"tactical": np.array([1, 0])})
    put(env, 5).step(all_do(WITH))
    with pytest.raises(InputError, match="nobody"):
        env.step({})


def test_several_episodes_are_refused():
    with pytest.raises(InputError, match="one episode and 3 agents, found 2 and 3"):
        ParallelTradingEnv(worlds(num_envs=2))
