"""Cooperative games small enough to be solved exactly, as environments of one step and of two."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from algospace.ppo import Observation, Step
from algospace.teams import VectorTeam


class Game(NamedTuple):
    """A finite game with one pay for all: arrays (states, actions of agent 1, actions of agent 2, ...).

    It begins in state 0 and moves to later states only.
    """

    pays: np.ndarray
    following: np.ndarray  # state that a joint action leads to, -1 for the end

    def values(self) -> np.ndarray:
        """The best return from every state (states,), by backward induction."""
        values = np.zeros(len(self.pays) + 1)  # the last is the end's
        for state in reversed(range(len(self.pays))):
            values[state] = (self.pays[state] + values[self.following[state]]).max()
        return values[:-1]

    def expected(self, policy: np.ndarray) -> np.ndarray:
        """Returns from every state (states,) of agents that draw from ``policy`` (states, agents, actions)."""
        values = np.zeros(len(self.pays) + 1)
        for state in reversed(range(len(self.pays))):
            total = self.pays[state] + values[self.following[state]]
            for chances in policy[state]:
                total = np.tensordot(chances, total, axes=1)
            values[state] = total
        return values[:-1]


def one_step(pays: list[Any]) -> Game:
    """A matrix game."""
    table = np.array([pays], dtype=float)
    return Game(table, np.full(table.shape, -1))


def two_steps(choices: list[Any]) -> Game:
    """The first agent's first action chooses the matrix game that is played in the second step."""
    second = np.array(choices, dtype=float)
    pays = np.concatenate([np.zeros_like(second[:1]), second])
    following = np.full(pays.shape, -1)
    for action in range(len(choices)):
        following[0, action] = 1 + action
    return Game(pays, following)


def drawn(agents: int, actions: int, seed: int) -> Game:
    """A matrix game for several agents: each adds what its action is worth, and all share one more term for agreement.

    The best joint action is unique, and every agent's best action depends on the others'.
    """
    rng = np.random.default_rng(seed)
    worth = rng.uniform(0, 1, (agents, actions))
    pays = np.zeros((actions,) * agents)
    for joint in itertools.product(range(actions), repeat=agents):
        pays[joint] = sum(worth[i, a] for i, a in enumerate(joint)) + 2.0 * (len(set(joint)) == 1)
    return one_step(pays.tolist())


GAMES = {
    "one step, [[0, 1], [1, 8]]": one_step([[0, 1], [1, 8]]),
    "one step, three agents, agreement pays": drawn(3, 3, seed=0),
    "two steps (Rashid et al. 2018)": two_steps([[[7, 7], [7, 7]], [[0, 1], [1, 8]]]),
}
# Nobody who learns alone finds the best corner: 11 lies beside -30 (Claus and Boutilier 1998).
TRAPS = {"one step, climbing": one_step([[11, -30, 0], [-30, 7, 6], [0, 0, 5]])}


class GameEnv:
    """Vectorised episodes of a game; every agent sees the state."""

    def __init__(self, game: Game, num_envs: int, seed: int) -> None:
        self.game, self.num_envs, self.device = game, num_envs, "cpu"
        self.names = tuple(f"agent_{i}" for i in range(game.pays.ndim - 1))
        self.pays = torch.from_numpy(game.pays).float()
        self.following = torch.from_numpy(game.following)
        self.at = torch.zeros(num_envs, dtype=torch.int64)

    def team(self, width: int, message_dim: int, rounds: int) -> VectorTeam:
        """A team that can play."""
        actions = dict(zip(self.names, self.game.pays.shape[1:], strict=True))
        return VectorTeam(dict.fromkeys(self.names, len(self.pays)), actions, width, message_dim, rounds)

    def observe(self) -> Observation:
        """The state's number."""
        return {"state": self.at}

    def expand(self, observation: Observation) -> Observation:
        """One-hot for every agent."""
        seen = torch.nn.functional.one_hot(observation["state"], len(self.pays)).float()
        return dict.fromkeys(self.names, seen)

    def step(self, actions: Tensor) -> Step:
        """Apply actions (num_envs, agents)."""
        chosen = (self.at, *actions.unbind(1))
        reward, following = self.pays[chosen], self.following[chosen]
        ended = following < 0
        final = {"state": following.clamp(min=0)}
        self.at = final["state"]  # the end leads to state 0, where the next episode begins
        return Step(self.observe(), reward, torch.ones(self.num_envs), ended, torch.zeros_like(ended), final)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same bits."""
        return dict(self.observe())

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.at = state["state"]
