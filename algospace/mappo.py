"""MAPPO: PPO with decentralised actors and a centralised critic (Yu et al. 2022), over any vectorised environment.

What is PPO's is in `algospace.ppo`; here are the team and its critic as a learner. The actors' dropout masks are a
function of the rollout's seeds, so that the update replays the masks of the rollout.
"""

from typing import NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from algospace import agents, ppo, training
from algospace.env import AGENTS
from algospace.ppo import Observation


class PPOParams(ppo.PPOParams):
    """The `marl.ppo` section."""

    aux_coef: float = Field(ge=0)


class Env(ppo.Env, Protocol):
    """What `train` asks of an environment."""

    def targets(self, observation: Observation) -> Tensor:
        """Give the auxiliary targets (rows, 2) of stored rows."""
        ...


class TeamLearner(nn.Module):
    """A team and its critic; beside PPO's loss they bear that of the auxiliary heads, ``aux_coef`` times."""

    def __init__(self, env: Env, team: agents.Team, critic: agents.Critic, aux_coef: float) -> None:
        super().__init__()
        self.env, self.aux_coef = env, aux_coef
        self.team, self.critic = team, critic

    def act(self, seen: Observation, seeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw votes and delays (batch, agents, 2)."""
        output = self.team(seen, seeds)
        actions = agents.sample(output, generator)
        log_probs, _ = agents.log_prob_entropy(output, actions)
        return actions, log_probs, self.critic(output, seen)

    def value(self, seen: Observation, seeds: Tensor) -> Tensor:
        """Value (batch,) of what the team sees."""
        value: Tensor = self.critic(self.team(seen, seeds), seen)
        return value

    def judge(self, observation: Observation, seen: Observation, seeds: Tensor, actions: Tensor) -> ppo.Judgement:
        """Judge votes and delays taken on stored rows."""
        output = self.team(seen, seeds)
        log_probs, entropy = agents.log_prob_entropy(output, actions)
        auxiliary = agents.auxiliary_loss(output, self.env.targets(observation))
        return ppo.Judgement(
            log_probs, entropy, self.critic(output, seen), self.aux_coef * auxiliary,
            {"losses/auxiliary": auxiliary.detach()},
        )  # fmt: skip


class Trained(NamedTuple):
    """What training leaves beside the team, which it changes in place."""

    critic: agents.Critic
    history: training.History


def train(
    env: Env,
    team: agents.Team,
    params: PPOParams,
    critic_dim: int,
    seed: int,
    saver: training.Saver,
) -> Trained:
    """Train a team in an environment; the state is saved at update boundaries.

    Raises
    ------
    InputError
        For a loss that is not finite.
    """
    torch.manual_seed(seed)  # the critic's first weights are the seed's, whatever drew before
    critic = agents.Critic(len(AGENTS), team.config["channels"][-1], team.config["n_context"], critic_dim)
    learner = TeamLearner(env, team.train(), critic.to(env.device), params.aux_coef)
    history = ppo.train("marl", env, learner, params, seed, saver)
    team.eval()
    return Trained(critic, history)
