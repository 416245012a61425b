"""MAPPO: PPO with decentralised actors and a centralised critic (Yu et al. 2022), over any vectorised environment.

What is PPO's is in `algospace.ppo`, what teams share in `algospace.teams`; here a team and its critic become a learner.
What the actors draw in a pass (dropout masks) is a function of the rollout's seeds, so that the update replays it.
"""

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from algospace import agents, ppo, training
from algospace.errors import InputError
from algospace.params import Precision
from algospace.ppo import Observation
from algospace.teams import Critic, Output


class PPOParams(ppo.PPOParams):
    """The `marl.ppo` section."""

    aux_coef: float = Field(ge=0)
    compile: bool


class TeamLearner(nn.Module):
    """A team and its critic: the pass of a team takes what it sees and seeds, and gives an `Output`.

    ``precision`` is that of the team's passes, when it acts and when it is judged: with bfloat16 they run under
    autocast. What comes of them (probabilities, values, losses) is float32 either way.
    """

    def __init__(self, team: nn.Module, critic: Critic, precision: Precision = "float32") -> None:
        super().__init__()
        self.team, self.critic, self._precision = team, critic, precision

    def _in_precision(self, run: Callable[[Observation, Tensor], Output], seen: Observation, seeds: Tensor) -> Output:
        with torch.autocast(seeds.device.type, torch.bfloat16, self._precision == "bfloat16"):
            output = run(seen, seeds)
        return output.float()

    def update_pass(self, seen: Observation, seeds: Tensor) -> Output:
        """Run the pass of the update."""
        output: Output = self.team(seen, seeds)
        return output

    def act(self, seen: Observation, seeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions (batch, agents, ...)."""
        output = self._in_precision(self.team, seen, seeds)
        actions = output.sample(generator)
        log_probs, _ = output.log_prob_entropy(actions)
        return actions, log_probs, self.critic(output, seen)

    def value(self, seen: Observation, seeds: Tensor) -> Tensor:
        """Value (batch,) of what the team sees."""
        value: Tensor = self.critic(self._in_precision(self.team, seen, seeds), seen)
        return value

    def judge(self, observation: Observation, seen: Observation, seeds: Tensor, actions: Tensor) -> ppo.Judgement:
        """Judge actions taken on stored rows."""
        output = self._in_precision(self.update_pass, seen, seeds)
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
    """The trading team; beside PPO's loss it bears that of the auxiliary heads, ``aux_coef`` times.

    With ``compile`` the passes of the update are fused by `torch.compile`, once for each size of a batch. The rollout's
    are not: states that episodes end in come in any number.
    """

    def __init__(
        self,
        env: TradingEnv,
        team: agents.Team,
        critic: Critic,
        aux_coef: float,
        precision: Precision = "float32",
        compile: bool = False,
    ) -> None:
        super().__init__(team, critic, precision)
        self.env, self.aux_coef = env, aux_coef
        self._masks, self._encode, self._respond = team.masks, team.encode, team.respond
        if compile:  # but for the masks: on CUDA the compiler takes their constants for 32 bits, and fails
            self._encode = torch.compile(team.encode, dynamic=False)
            self._respond = torch.compile(team.respond, dynamic=False)

    def update_pass(self, seen: Observation, seeds: Tensor) -> Output:
        """Run the pass of the update, compiled if so wanted."""
        return self._respond(*self._encode(seen), self._masks(seeds))

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
    precision: Precision,
    seed: int,
    saver: training.Saver,
) -> Trained:
    """Train the trading team in an environment; the state is saved at update boundaries.

    Raises
    ------
    InputError
        For a loss that is not finite, or when there is no compiler to `compile` with.
    """
    if params.compile and not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
        raise InputError("marl.ppo.compile: expected a C compiler (CC, gcc or clang), found none; set it to false")
    torch.manual_seed(seed)  # the critic's first weights are the seed's, whatever drew before
    critic = team.critic(critic_dim)
    learner = TradingLearner(env, team.train(), critic.to(env.device), params.aux_coef, precision, params.compile)
    history = ppo.train("marl", env, learner, params, seed, saver)
    team.eval()
    return Trained(critic, history)
