"""MAPPO: PPO with decentralised actors and a centralised critic (Yu et al. 2022), over any vectorised environment.

What is PPO's is in `algospace.ppo`, what teams share in `algospace.teams`; here a team and its critic become a learner.
What the actors draw in a pass (dropout masks) is a function of the rollout's seeds, so that the update replays it.
"""

from typing import NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from algospace import agents, ppo, training
from algospace.ppo import Observation
from algospace.teams import Critic, Output


class PPOParams(ppo.PPOParams):
    """The `marl.ppo` section."""

    aux_coef: float = Field(ge=0)


class TeamLearner(nn.Module):
    """A team and its critic: the pass of a team takes what it sees and seeds, and gives an `Output`."""

    def __init__(self, team: nn.Module, critic: Critic) -> None:
        super().__init__()
        self.team, self.critic = team, critic

    def act(self, seen: Observation, seeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions (batch, agents, ...)."""
        output: Output = self.team(seen, seeds)
        actions = output.sample(generator)
        log_probs, _ = output.log_prob_entropy(actions)
        return actions, log_probs, self.critic(output, seen)

    def value(self, seen: Observation, seeds: Tensor) -> Tensor:
        """Value (batch,) of what the team sees."""
        value: Tensor = self.critic(self.team(seen, seeds), seen)
        return value

    def judge(self, observation: Observation, seen: Observation, seeds: Tensor, actions: Tensor) -> ppo.Judgement:
        """Judge actions taken on stored rows."""
        output: Output = self.team(seen, seeds)
        log_probs, entropy = output.log_prob_entropy(actions)
        values = self.critic(output, seen)
        extra, diagnostics = self.extra(output, observation)
        return ppo.Judgement(log_probs, entropy, values, extra, diagnostics)

    def extra(self, output: Output, observation: Observation) -> tuple[Tensor, dict[str, Tensor]]:
        """What the loss holds beside PPO's, and its diagnostics: nothing."""
        return output.states.new_zeros(()), {}


class TradingEnv(ppo.Env, Protocol):
    """What the trading team asks of an environment."""

    def targets(self, observation: Observation) -> Tensor:
        """Give the auxiliary targets (rows, 2) of stored rows."""
        ...


class TradingLearner(TeamLearner):
    """The trading team; beside PPO's loss it bears that of the auxiliary heads, ``aux_coef`` times."""

    def __init__(self, env: TradingEnv, team: agents.Team, critic: Critic, aux_coef: float) -> None:
        super().__init__(team, critic)
        self.env, self.aux_coef = env, aux_coef

    def extra(self, output: Output, observation: Observation) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of confidence and inefficiency."""
        assert isinstance(output, agents.TeamOutput)
        auxiliary = agents.auxiliary_loss(output, self.env.targets(observation))
        return self.aux_coef * auxiliary, {"losses/auxiliary": auxiliary.detach()}


class Trained(NamedTuple):
    """What training leaves beside the team, which it changes in place."""

    critic: Critic
    history: training.History


def train(
    env: TradingEnv,
    team: agents.Team,
    params: PPOParams,
    critic_dim: int,
    seed: int,
    saver: training.Saver,
) -> Trained:
    """Train the trading team in an environment; the state is saved at update boundaries.

    Raises
    ------
    InputError
        For a loss that is not finite.
    """
    torch.manual_seed(seed)  # the critic's first weights are the seed's, whatever drew before
    critic = team.critic(critic_dim)
    learner = TradingLearner(env, team.train(), critic.to(env.device), params.aux_coef)
    history = ppo.train("marl", env, learner, params, seed, saver)
    team.eval()
    return Trained(critic, history)
