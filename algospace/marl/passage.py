"""A stretch of time passed through once, in its order: what one account would have traded.

The account obeys the environment's rules (`algospace.env`): one trade at a time, of one unit, within its limits. The
last candidate, behind which nothing is known, is not decided on.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from algospace import agents, env
from algospace.marl.exams import Material
from algospace.settings import Settings


class Passage(NamedTuple):
    """What came of passes over n candidates: arrays (passes, n)."""

    net_r: np.ndarray  # 0 where nothing was traded
    traded: np.ndarray  # bool


def by_rules(given: Material, rules: Sequence[tuple[np.ndarray, np.ndarray]], settings: Settings) -> Passage:
    """One pass for each rule: the votes and the delays, arrays (n,), that it has for every candidate."""
    votes, delays = (torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*rules, strict=True))
    each = torch.arange(len(rules))

    def decide(world: env.TradingEnv) -> Tensor:
        return torch.stack([votes[each, world.index], delays[each, world.index]], dim=-1)[:, None]

    return _pass(given, len(rules), 1, "cpu", settings, decide)


def by_sampling(team: agents.Team, given: Material, passes: int, settings: Settings) -> Passage:
    """Pass as the team does in training: every agent draws its vote and its delay, with dropout, the majority rules."""
    device = next(team.parameters()).device
    generator = torch.Generator(device).manual_seed(settings.seed)

    def decide(world: env.TradingEnv) -> Tensor:
        seeds = torch.randint(2**62, (passes,), generator=generator, device=device)
        drawn: agents.TeamOutput = team(world.expand(world.observe()), seeds)
        return drawn.sample(generator)

    return _pass(given, passes, len(team.agents), str(device), settings, decide)


@torch.no_grad()
def _pass(
    given: Material,
    passes: int,
    n_agents: int,
    device: str,
    settings: Settings,
    decide: Callable[[env.TradingEnv], Tensor],
) -> Passage:
    candidates = given.candidates
    world = env.TradingEnv(
        candidates, given.sessions, given.views, settings.contract, settings.market, passes, 1.0, 0, device, n_agents
    )
    world.begin()
    found = Passage(*(np.zeros((passes, len(candidates.row)), kind) for kind in (np.float64, bool)))
    going = np.arange(passes)
    while len(going):
        at = world.index.cpu().numpy()[going]
        step = world.step(decide(world))
        found.net_r[going, at] = step.reward.cpu().numpy()[going]
        found.traded[going, at] = step.logged["trades"].cpu().numpy()[going] > 0
        going = going[~(step.terminated | step.truncated).cpu().numpy()[going]]
    return found
