"""The trading environment as a PettingZoo ``ParallelEnv``, for whoever brings learners of that library.

No stage imports it: the extra ``pettingzoo`` installs what it needs. It holds one episode of `algospace.env` and adds
nothing to it, so what an agent learns here is what the pipeline's agents learn.
"""

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from algospace.env import AGAINST, AGENTS, DELAYS, TradingEnv
from algospace.errors import InputError

Seen = dict[str, np.ndarray]
Views = dict[str, Seen]


class ParallelTradingEnv(ParallelEnv[str, Seen, np.ndarray]):
    """Agents structure, tactical and arbitrageur on one episode, a step a candidate.

    An agent sees its ``window`` (time, features), the ``context`` of the candidate and the ``account``; tactical the
    nine ``side`` features too: all float32, about in [-1, 1] but not cut to it. Its action is int64 (2,): vote (pass,
    with the signal, against it) and bars to wait (0..4). The reward is the team's, in R, the same for each. Ruin
    terminates, the end of the data truncates, all agents at once. ``infos`` hold the step's ``discount``, gamma to the
    power of the bars spent flat: decisions lie at different distances in time.

    Parameters
    ----------
    world
        An environment of one episode; its seed is that of the first episode.

    Raises
    ------
    InputError
        For a world of several episodes, or of fewer agents.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "algospace_trading_v0", "render_modes": [], "is_parallelizable": True}

    def __init__(self, world: TradingEnv) -> None:
        if (world.num_envs, world.n_agents) != (1, len(AGENTS)):
            raise InputError(
                f"parallel_env: expected a world of one episode and {len(AGENTS)} agents, "
                f"found {world.num_envs} and {world.n_agents}"
            )
        self._world = world
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        box = partial(spaces.Box, -np.inf, np.inf, dtype=np.float32)
        self.observation_spaces = {
            agent: spaces.Dict({name: box(value.shape) for name, value in seen.items()})
            for agent, seen in self._views(world.observe()).items()
        }
        self.action_spaces = {agent: spaces.MultiDiscrete([AGAINST + 1, DELAYS]) for agent in AGENTS}

    def observation_space(self, agent: str) -> spaces.Dict:
        """Space of what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.MultiDiscrete:
        """Space of an agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Views, dict[str, dict[str, Any]]]:
        """Begin an episode; with a seed, the first one of a world of that seed. ``options`` mean nothing here."""
        # A world begins the next episode by itself when one ends: only one that is under way is cut short.
        if seed is not None or self.agents:
            self._world.reset(seed)
        self.agents = list(AGENTS)
        return self._views(self._world.observe()), {agent: {} for agent in AGENTS}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[Views, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Apply one action of every agent.

        Raises
        ------
        InputError
            Outside an episode, for actions of other agents, for an action outside the space.
        """
        if set(actions) != set(self.agents) or not actions:
            raise InputError(
                f"parallel_env: expected actions of {self.agents or 'nobody before reset()'}, found {sorted(actions)}"
            )
        chosen = np.stack([np.asarray(actions[agent]) for agent in AGENTS])
        step = self._world.step(torch.from_numpy(chosen)[None])
        terminated, truncated = bool(step.terminated), bool(step.truncated)
        ended = terminated or truncated
        if ended:
            self.agents = []
        return (
            self._views(step.final),
            dict.fromkeys(AGENTS, float(step.reward)),
            dict.fromkeys(AGENTS, terminated),
            dict.fromkeys(AGENTS, truncated),
            {agent: {"discount": float(step.discount)} for agent in AGENTS},
        )

    def _views(self, observation: dict[str, torch.Tensor]) -> Views:
        seen = {name: value[0].cpu().numpy() for name, value in self._world.expand(observation).items()}
        shared = {name: seen[name] for name in ("context", "account")}
        views = {agent: {"window": seen[agent]} | shared for agent in AGENTS}
        views["tactical"]["side"] = seen["side"]
        return views
