"""The benchmark's oracles, small: games solved exactly, known trading policies scored as they should be."""

import _games
import _traders
import numpy as np
import pytest
import torch

from algospace import ppo
from algospace.env import vote
from algospace.mappo import TeamLearner
from algospace.ppo import PPOParams
from algospace.training import Unsaved

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMS = PPOParams(
    num_envs=128, num_steps=8, total_timesteps=128 * 8 * 40, gamma=1.0, gae_lambda=0.95, learning_rate=0.01,
    anneal_lr=True, num_minibatches=2, update_epochs=4, norm_adv=True, clip_coef=0.2, clip_vloss=True, ent_coef=0.1,
    final_ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, target_kl=0.1,
)  # fmt: skip


def test_values_and_expectations_of_a_game_by_hand():
    game = _games.GAMES["two steps (Rashid et al. 2018)"]
    assert game.values().tolist() == [8.0, 7.0, 8.0]
    # Both agents draw evenly everywhere: 7 with one half, (0 + 1 + 1 + 8) / 4 with the other.
    assert game.expected(np.full((3, 2, 2), 0.5)).tolist() == [4.75, 7.0, 2.5]


@pytest.mark.parametrize("name", _games.GAMES)
def test_a_game_is_solved_exactly(name):
    game = _games.GAMES[name]
    torch.manual_seed(0)
    env = _games.GameEnv(game, PARAMS.num_envs, 0)
    team = env.team(16, 8, 3)
    learner = TeamLearner(team, team.critic(32))
    ppo.train("game", env, learner, PARAMS, 0, Unsaved())
    seen = env.expand({"state": torch.arange(len(game.pays))})
    with torch.no_grad():
        output = team(seen, None)
        value = learner.critic(output, seen)[0].item()
    greedy = np.eye(len(output.logits[0][0]))[output.greedy().numpy()]
    best = game.values()[0]
    assert game.expected(greedy)[0] == pytest.approx(best, abs=1e-12)
    assert value == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("name", _traders.CASES)
def test_the_known_policy_earns_the_known_optimum(name):
    case = _traders.CASES[name]
    # The published policies have two or six digits: what they earn is the optimum to 0.05 %.
    assert _traders.score(case, case.policy).mean() == pytest.approx(case.optimum, rel=5e-4)


@pytest.mark.parametrize(("name", "earned"), [("A", -7753.0), ("C", 1513.9)])
def test_the_myopic_policy_earns_what_is_known(name, earned):
    case = _traders.CASES[name]
    assert _traders.score(case, lambda p, n: p / 0.6).mean() == pytest.approx(earned, rel=5e-4)


def test_the_environment_pays_what_the_score_counts():
    case, names = _traders.CASES["A"], ("a", "b", "c")
    env = _traders.TraderEnv(case, names, 16, 0.98, 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2 * _traders.EPISODE):
        before, p = env.position.clone(), env.signal.clone()
        actions = torch.randint(0, 2 * case.most + 1, (16, 3), generator=generator)
        step = env.step(actions)
        after = step.final["position"]
        assert torch.equal(after, _traders.move(case, before, actions))
        change = (after - before).abs()
        expected = (p * after - 0.3 * after**2 - 4.0 * change) / _traders.REWARD_UNIT
        torch.testing.assert_close(step.reward, expected)
        assert (step.observation["position"][step.truncated] == 0).all()


def test_the_signal_has_unit_variance_and_its_memory():
    env = _traders.TraderEnv(_traders.CASES["C"], ("a",), 4096, 0.98, 0)
    before = env.signal
    for _ in range(3):
        env.step(torch.full((4096, 1), 4))
    variance = 0.2 / 0.19  # 0.1^2 / (1 - 0.9^2), over the square of the scale
    assert before.var().item() == pytest.approx(variance, rel=0.1)
    assert env.signal.var().item() == pytest.approx(variance, rel=0.1)
    assert (before * env.signal).mean().item() == pytest.approx(0.9**3 * variance, rel=0.1)


def test_the_median_vote_is_the_trading_teams_vote():
    case = _traders.CASES["A"]._replace(most=1, step=1.0)
    votes = torch.cartesian_prod(*[torch.arange(3)] * 3)  # down, pass, up
    moved = _traders.move(case, torch.zeros(27), votes)
    winner, _ = vote((votes + 2) % 3)  # its numbers: pass 0, with 1, against 2
    assert torch.equal(moved, torch.tensor([0.0, 1.0, -1.0])[winner])


def test_torchrl_agrees():
    pytest.importorskip("torchrl", reason="torchrl is in the dev extra")
    import mappo_oracles

    assert mappo_oracles.torchrl_figures(range(2))["agrees"]
