"""A trader against a known optimum (arXiv 2003.06497): signal, costs and cases, as an environment and as a score.

A signal p (an AR(1) process of unit variance) is seen, a position n is chosen, and the step pays
p n - risk n^2 - linear |change of n| - quadratic (change of n)^2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from algospace.ppo import Observation, Step

REVERSION = 0.1  # x <- x - 0.1 x + 0.1 z
NOISE = 0.1
SCALE = NOISE * (1 / (2 * REVERSION)) ** 0.5  # p = x / SCALE
PATHS = np.random.RandomState(1024).randint(0, 10**6, 10)  # seeds of the ten paths that everybody is judged on
LENGTH = 5000
EPISODE = 250  # steps of a training episode; its end is truncation
REWARD_UNIT = 10.0  # what the learner calls 1


class Case(NamedTuple):
    """One set of costs, the grid of positions, and what is known of it."""

    linear: float  # cost of a unit of change
    quadratic: float  # cost of a squared unit of change
    risk: float  # lambda
    limit: float  # most units, long and short
    step: float  # of the grid of positions
    most: int  # steps of the grid that one action may move, up and down
    optimum: float  # mean over the ten paths, of the known policy
    policy: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (signal, position) -> position: the known optimum

    def reward(self, p: Any, before: Any, after: Any) -> Any:
        """Pay of one step, of arrays or tensors."""
        change = abs(after - before)
        return p * after - self.risk * after**2 - self.linear * change - self.quadratic * change**2


CASES = {
    "A": Case(4.0, 0.0, 0.3, 10.0, 0.25, 4, 1269.0, lambda p, n: np.clip(n, (p - 0.93) / 0.94, (p + 0.93) / 0.94)),
    "B": Case(4.0, 0.0, 0.0, 2.0, 2.0, 2, 4503.8, lambda p, n: np.where(abs(p) > 0.95, 2 * np.sign(p), n)),
    "C": Case(0.0, 1.0, 0.3, 10.0, 0.25, 4, 3410.5, lambda p, n: 0.582109 * n + 0.611329 * p),
}


def signals() -> np.ndarray:
    """The ten paths as they are seen, (4998, 10)."""
    z = np.stack([np.random.RandomState(seed).normal(0, 1, LENGTH) for seed in PATHS], axis=1)
    x = np.zeros_like(z)
    for t in range(LENGTH - 1):
        x[t + 1] = x[t] - REVERSION * x[t] + NOISE * z[t]
    return x[1:-1] / SCALE


def score(case: Case, policy: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """What a policy earns on each of the ten paths (10,); it starts with no position."""
    paths = signals()
    position, total = np.zeros(paths.shape[1]), np.zeros(paths.shape[1])
    for p in paths:
        after = policy(p, position)
        total += case.reward(p, position, after)
        position = after
    return total


def move(case: Case, position: Any, actions: Tensor) -> Any:
    """Position after the votes (batch, agents) of a team, of which 0 is ``most`` steps down, 2 ``most`` as many up.

    The median vote decides. It is the majority's wherever two of three agree, and pass where one wants up, one down
    and one neither: the trading team's rule, on an ordered scale.
    """
    winner = actions.median(dim=1).values - case.most
    return (position + case.step * winner).clamp(-case.limit, case.limit)


class TraderEnv:
    """Vectorised episodes on freshly drawn paths that start in the signal's stationary law, without a position."""

    def __init__(self, case: Case, names: tuple[str, ...], num_envs: int, gamma: float, seed: int) -> None:
        self.case, self.names, self.num_envs, self.device = case, names, num_envs, "cpu"
        self.gamma = torch.full((num_envs,), gamma)
        self.generator = torch.Generator().manual_seed(seed)
        self.signal = self._stationary()
        self.position = torch.zeros(num_envs)
        # Episodes end at different times, so that a batch always holds all of them.
        self.left = torch.randint(1, EPISODE + 1, (num_envs,), generator=self.generator)

    def _normal(self) -> Tensor:
        return torch.randn(self.num_envs, generator=self.generator)

    def _stationary(self) -> Tensor:
        return self._normal() * (NOISE / SCALE) / (1 - (1 - REVERSION) ** 2) ** 0.5

    def observe(self) -> Observation:
        """Signal and position."""
        return {"signal": self.signal, "position": self.position}

    def expand(self, observation: Observation) -> Observation:
        """Every agent sees both."""
        seen = torch.stack([observation["signal"], observation["position"] / 2], dim=1)
        return dict.fromkeys(self.names, seen)

    def step(self, actions: Tensor) -> Step:
        """Apply votes (num_envs, agents)."""
        after = move(self.case, self.position, actions)
        reward = self.case.reward(self.signal, self.position, after) / REWARD_UNIT
        self.position = after
        self.signal = (1 - REVERSION) * self.signal + NOISE / SCALE * self._normal()
        self.left = self.left - 1
        final = self.observe()
        truncated = self.left == 0
        self.signal = torch.where(truncated, self._stationary(), self.signal)
        self.position = torch.where(truncated, 0.0, self.position)
        self.left = torch.where(truncated, EPISODE, self.left)
        return Step(self.observe(), reward, self.gamma, torch.zeros_like(truncated), truncated, final)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same bits."""
        return self.observe() | {"left": self.left, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.signal, self.position, self.left = state["signal"], state["position"], state["left"]
        self.generator.set_state(state["generator"])
