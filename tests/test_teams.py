import copy
import math

import pytest
import torch
from savers import Hook

from algospace import ppo
from algospace.mappo import TeamLearner
from algospace.ppo import PPOParams, Step
from algospace.teams import Communication, VectorOutput, VectorTeam

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES, ACTIONS = {"a": 3, "b": 2}, {"a": 4, "b": 5}
PARAMS = PPOParams(
    num_envs=64,
    num_steps=8,
    total_timesteps=64 * 8 * 30,
    gamma=1.0,
    gae_lambda=0.95,
    learning_rate=0.01,
    anneal_lr=True,
    num_minibatches=2,
    update_epochs=4,
    norm_adv=True,
    clip_coef=0.2,
    clip_vloss=True,
    ent_coef=0.01,
    final_ent_coef=0.0,
    vf_coef=0.5,
    max_grad_norm=0.5,
    target_kl=0.1,
)


def small_team(rounds, seed=0):
    torch.manual_seed(seed)
    return VectorTeam(FEATURES, ACTIONS, 8, 4, rounds)


def observation(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, width, generator=generator) for name, width in FEATURES.items()}


def test_shapes():
    team, seen = small_team(1), observation(5)
    output = team(seen, None)
    assert [tuple(x.shape) for x in output.logits] == [(5, 4), (5, 5)]
    assert output.states.shape == (5, 2, 8)
    actions = output.sample(torch.Generator().manual_seed(0))
    assert actions.shape == output.greedy().shape == (5, 2)
    assert [x.shape for x in output.log_prob_entropy(actions)] == [(5, 2)] * 2
    assert team.critic(16)(output, seen).shape == (5,)


def test_log_prob_and_entropy_by_hand():
    p, q = [0.5, 0.25, 0.25], [0.1, 0.9]
    output = VectorOutput((torch.tensor([p]).log() + 1, torch.tensor([q]).log() - 2), torch.zeros(1, 2, 1))
    log_prob, entropy = output.log_prob_entropy(torch.tensor([[2, 1]]))
    assert log_prob[0].tolist() == pytest.approx([math.log(0.25), math.log(0.9)], abs=1e-6)
    expected = [-sum(x * math.log(x) for x in table) for table in (p, q)]
    assert entropy[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert output.greedy().tolist() == [[0, 1]]


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_rounds(rounds):
    net, calls = Communication(3, 6, 4, rounds), []
    net.update.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    states = torch.randn(5, 3, 6)
    heard = net(states)
    assert calls == [15] * rounds
    assert torch.equal(heard, states) == (rounds == 0)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_an_agent_hears_another_by_communication_only(rounds):
    team, seen = small_team(rounds), observation(5)
    before, after = team(seen, None), team(seen | {"a": seen["a"] + 1}, None)
    assert torch.equal(before.logits[1], after.logits[1]) == (rounds == 0)
    critic = team.critic(16)
    assert ((critic(before, seen) - critic(after, seen | {"a": seen["a"] + 1})).abs() > 1e-5).all()


def test_the_critic_does_not_train_the_actors():
    team, seen = small_team(1), observation(5)
    team.critic(16)(team(seen, None), seen).sum().backward()
    assert all(p.grad is None for p in team.parameters())


class Whisper:
    """One agent sees a number of four, the other must name it; an episode is one step."""

    num_envs, device = 64, "cpu"

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.word = self._draw()

    def _draw(self):
        return torch.randint(0, 4, (self.num_envs,), generator=self.generator)

    def observe(self):
        return {"word": self.word}

    def expand(self, observation):
        word = torch.nn.functional.one_hot(observation["word"], 4).float()
        return {"speaker": word, "listener": torch.ones(len(word), 1)}

    def step(self, actions):
        reward = (actions[:, 1] == self.word).float()
        final = self.observe()
        self.word = self._draw()
        ended = torch.ones(self.num_envs, dtype=torch.bool)
        return Step(self.observe(), reward, torch.ones(self.num_envs), ended, ~ended, final)

    def state(self):
        return {"word": self.word, "generator": self.generator.get_state()}

    def restore(self, state):
        self.word = state["word"]
        self.generator.set_state(state["generator"])


def taught(rounds, seed=0, on_step=lambda step, snapshot: None, resumed=None):
    """Share of words that the listener names after training, and the learner."""
    torch.manual_seed(seed)
    team = VectorTeam({"speaker": 4, "listener": 1}, {"speaker": 1, "listener": 4}, 16, 8, rounds)
    learner = TeamLearner(team, team.critic(16))
    ppo.train("whisper", Whisper(seed), learner, PARAMS, seed, Hook(on_step, resumed))
    with torch.no_grad():
        named = team(Whisper().expand({"word": torch.arange(4)}), None).greedy()[:, 1]
    return (named == torch.arange(4)).float().mean().item(), learner


@pytest.mark.parametrize(("rounds", "share"), [(0, 0.25), (1, 1.0), (3, 1.0)])
def test_what_one_sees_another_learns_by_communication(rounds, share):
    assert taught(rounds)[0] == share


def test_a_resumed_run_ends_with_the_same_bytes():
    states = []
    _, straight = taught(1, on_step=lambda step, snapshot: states.append(copy.deepcopy({**snapshot(), "step": step})))
    _, again = taught(1, resumed=states[10])
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))
    assert len(states) == 30
