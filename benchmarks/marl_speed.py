"""Steps per second of the trading environment, alone and under MAPPO, and how long the consensus of one decision takes.

The environment steps through candidates that are drawn at random; what its brackets earn costs no time and is a table
here too. For a network that peers are measured with, its windows give way to 32 numbers for each of three agents (two
layers of 64, no rounds of communication). Beside it stand a bare loop: the same network, batches and number of passes
in plain torch, without an environment, generalised advantages or bookkeeping. The consensus is that of a team of a
million parameters, its 50 passes as one batch behind trunks that run once, beside a loop of 50 whole passes.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import interleaved, main

from algospace import consensus, env, market, ppo
from algospace.agents import Team
from algospace.data.contracts import CONTRACTS
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.mappo import TeamLearner
from algospace.marl.params import MARLParams
from algospace.mrms.proposal import Proposal
from algospace.pipeline.config import load_params
from algospace.ppo import Observation
from algospace.teams import VectorTeam

PARAMS = Path(__file__).parents[1] / "params.yaml"
CANDIDATES, BARS_APART, SESSION = 8000, 6, 40
FEATURES, WIDTH = 32, 64
EPISODES, STEPS = 4096, 100


class Numbers:
    """Stands where the windows stand: every agent sees 32 numbers of its own."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.tables = {
            name: torch.from_numpy(rng.normal(size=(CANDIDATES, FEATURES)).astype(np.float32)) for name in env.AGENTS
        }

    def at(self, ends: torch.Tensor, direction: torch.Tensor) -> Observation:
        """Rows (batch, 32) of each agent."""
        return {name: table[ends // BARS_APART] for name, table in self.tables.items()}


class VectorEnv(env.TradingEnv):
    """The trading environment, whose votes come without a delay."""

    def step(self, actions: torch.Tensor) -> ppo.Step:
        """Apply votes (episodes, 3)."""
        return super().step(torch.stack([actions, torch.zeros_like(actions)], dim=-1))


def world(num_envs: int, kind: type[env.TradingEnv]) -> env.TradingEnv:
    """Many episodes over candidates whose brackets pay at random."""
    rng = np.random.default_rng(0)
    n = CANDIDATES
    row = BARS_APART * np.arange(n)
    entry = row[:, None, None] + 1 + np.arange(env.DELAYS) + np.zeros((n, 2, 1), np.int64)
    net_r = rng.choice([-1.0, 2.0], (n, 2, env.DELAYS), p=[0.7, 0.3])
    none, weights = np.zeros((n, 2)), np.zeros((n, 2, 3))
    proposal = Proposal(
        np.ones((n, 2), np.int64), none + 1, none + 4.0, none.astype(bool), none + 2.0, none + 0.5, none, weights
    )
    direction = rng.choice([-1, 1], n).astype(np.int8)
    found = env.Candidates(row, direction, np.zeros((n, 1), np.float32), proposal, net_r, entry + 20, entry)
    params = load_params("market", market.MarketParams, PARAMS)
    views: Any = Numbers(0)
    return kind(found, np.arange(n) // SESSION, views, CONTRACTS["MES"], params, num_envs, 0.999, 0, "cpu")


def environment(repeats: int) -> dict[str, Any]:
    """Steps alone, at 4,096 episodes, with actions drawn beforehand."""
    here = world(EPISODES, env.TradingEnv)
    generator = torch.Generator().manual_seed(0)
    actions = torch.stack(
        [torch.randint(high, (STEPS, EPISODES, 3), generator=generator) for high in (3, env.DELAYS)], dim=-1
    )

    def run() -> None:
        for chosen in actions:
            here.step(chosen)

    (seconds,) = interleaved([run], repeats)
    return {"benchmark": "environment", "episodes": EPISODES, "steps_per_s": round(EPISODES * STEPS / seconds)}


def vector_team() -> VectorTeam:
    """Three agents of two layers of 64."""
    torch.manual_seed(0)
    return VectorTeam(dict.fromkeys(env.AGENTS, FEATURES), dict.fromkeys(env.AGENTS, 3), WIDTH, 1, rounds=0)


def mappo(repeats: int) -> dict[str, Any]:
    """One update of MAPPO, rollout included, beside the bare loop."""
    params = load_params("marl", MARLParams, PARAMS).ppo.model_copy(
        update={"num_envs": 1024, "num_steps": 32, "num_minibatches": 8, "update_epochs": 4, "target_kl": 1e9}
    )
    here = world(params.num_envs, VectorEnv)
    team = vector_team()
    learner = TeamLearner(team, team.critic(WIDTH))
    optimizer = torch.optim.Adam(learner.parameters(), params.learning_rate, eps=1e-5)
    generator = torch.Generator().manual_seed(0)

    def ours() -> None:
        rollout = ppo.collect(here, learner, params.num_steps, generator)
        ppo.optimise("speed", here, learner, optimizer, rollout, params, params.ent_coef, generator)

    size = params.num_envs * params.num_steps // params.num_minibatches
    large, small = ({name: torch.randn(rows, FEATURES) for name in env.AGENTS} for rows in (size, params.num_envs))

    def bare() -> None:
        with torch.no_grad():
            for _ in range(params.num_steps):
                output = team(small, None)
                output.sample(generator)
                learner.critic(output, small)
        for _ in range(params.update_epochs * params.num_minibatches):
            output = team(large, None)
            actions = torch.zeros(size, len(env.AGENTS), dtype=torch.int64)
            log_probs, entropy = output.log_prob_entropy(actions)
            loss = log_probs.mean() + entropy.mean() + learner.critic(output, large).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    seconds, least = interleaved([ours, bare], repeats)
    steps = params.num_envs * params.num_steps
    return {
        "benchmark": "mappo", "network": "3 agents, 32-64-64", "threads": torch.get_num_threads(),
        "steps_per_s": round(steps / seconds), "bare_loop_steps_per_s": round(steps / least),
        "ratio": round(least / seconds, 2),
    }  # fmt: skip


def decision(repeats: int) -> dict[str, Any]:
    """One decision's consensus, and its 50 passes one after the other."""
    params = load_params("marl", MARLParams, PARAMS)
    features = {env.STRUCTURE: 8, env.TACTICAL: 7, env.ARBITRAGEUR: 15}
    team = Team(env.AGENTS, 43, (48, 96, 160), 2, 8, 64, 256, params.dropout, features, 9).eval()
    windows = load_params("features", FeatureParams, PARAMS)
    rng = np.random.default_rng(0)
    tables = (rng.normal(size=(300, k)).astype(np.float32) for k in (8, 12, 7, 9))
    rows = Rows(*tables, np.arange(300))
    seen = env.Windows(rows, windows, "cpu").at(torch.tensor([299]), torch.tensor([1]))
    seen |= {"context": torch.zeros(1, 38), "account": torch.zeros(1, 5)}
    seeds, masks = consensus.mask_seeds(0), consensus.masks(team, 0)

    def ours() -> None:
        consensus.consensus(team, seen, masks, params.gate2)

    @torch.no_grad()
    def loop() -> None:
        for seed in seeds:
            team(seen, seed[None])

    seconds, one_by_one = interleaved([ours, loop], repeats)
    return {
        "benchmark": "consensus", "parameters": sum(p.numel() for p in team.parameters()),
        "threads": torch.get_num_threads(), "p50_ms": round(1e3 * seconds, 2),
        "loop_p50_ms": round(1e3 * one_by_one, 2),
    }  # fmt: skip


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    """A row a figure."""
    torch.set_num_threads(2)
    for measure in (environment, mappo, decision):
        yield functools.update_wrapper(functools.partial(measure, 3 if quick else 15), measure)


if __name__ == "__main__":
    main(__doc__ or "", rows)
