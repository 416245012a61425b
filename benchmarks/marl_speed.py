"""Steps per second of the trading environment, alone and under MAPPO, and how long the consensus of one decision takes.

The environment steps through candidates that are drawn at random; what its brackets earn costs no time and is a table
here too. For a network that peers are measured with, its windows give way to 32 numbers for each of three agents (two
layers of 64, no rounds of communication). Beside it stand a bare loop: the same network, batches and number of passes
in plain torch, without an environment, generalised advantages or bookkeeping. The consensus is that of a team of a
million parameters, its 50 passes as one batch behind trunks that run once, beside a loop of 50 whole passes.

Where there is CUDA: the team of profile `full` on windows, in bfloat16, in minibatches of 16,384, compiled and not,
beside its bare loop; and that team's consensus, whose 50 passes are a CUDA graph. Kernels are the deterministic ones,
as in the stages.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from _measure import interleaved, main

from algospace import consensus, env, market, ppo
from algospace.agents import Team
from algospace.data.contracts import CONTRACTS
from algospace.features.params import FeatureParams
from algospace.features.windows import Rows
from algospace.mappo import TeamLearner, TradingLearner
from algospace.marl.params import MARLParams
from algospace.mrms.proposal import Proposal
from algospace.params import RuntimeParams
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.pipeline.profiles import load_profile
from algospace.ppo import Observation
from algospace.teams import VectorTeam

PARAMS = Path(__file__).parents[1] / "params.yaml"
CANDIDATES, BARS_APART, SESSION = 8000, 6, 40
WARM_UP = 1000  # rows before the first candidate
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
        return {name: table[(ends - WARM_UP) // BARS_APART] for name, table in self.tables.items()}


class VectorEnv(env.TradingEnv):
    """The trading environment, whose votes come without a delay."""

    def step(self, actions: torch.Tensor) -> ppo.Step:
        """Apply votes (episodes, 3)."""
        return super().step(torch.stack([actions, torch.zeros_like(actions)], dim=-1))


def windows(bars: int, device: str) -> env.Windows:
    """Windows of the default lengths over random rows."""
    rng = np.random.default_rng(0)
    tables = (rng.normal(size=(bars, k)).astype(np.float32) for k in (8, 12, 7, 9))
    return env.Windows(Rows(*tables, np.arange(bars)), load_params("features", FeatureParams, PARAMS), device)


def world(num_envs: int, kind: type[env.TradingEnv], views: Any, context: int, device: str) -> env.TradingEnv:
    """Many episodes over candidates whose brackets pay at random."""
    rng = np.random.default_rng(0)
    n = CANDIDATES
    row = WARM_UP + BARS_APART * np.arange(n)
    entry = row[:, None, None] + 1 + np.arange(env.DELAYS) + np.zeros((n, 2, 1), np.int64)
    net_r = rng.choice([-1.0, 2.0], (n, 2, env.DELAYS), p=[0.7, 0.3])
    none, weights = np.zeros((n, 2)), np.zeros((n, 2, 3))
    proposal = Proposal(
        np.ones((n, 2), np.int64), none + 1, none + 4.0, none.astype(bool), none + 2.0, none + 0.5, none, weights
    )
    direction = rng.choice([-1, 1], n).astype(np.int8)
    told = rng.normal(size=(n, context)).astype(np.float32)
    found = env.Candidates(row, direction, told, proposal, net_r, entry + 20, entry, 0.05 + 0 * net_r)
    params = load_params("market", market.MarketParams, PARAMS)
    return kind(found, np.arange(n) // SESSION, views, CONTRACTS["MES"], params, num_envs, 0.999, 0, device)


def environment(repeats: int) -> dict[str, Any]:
    """Steps alone, at 4,096 episodes, with actions drawn beforehand."""
    here = world(EPISODES, env.TradingEnv, Numbers(0), 1, "cpu")
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
    here = world(params.num_envs, VectorEnv, Numbers(0), 1, "cpu")
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


def trading_team(params: MARLParams) -> Team:
    """The three agents at the sizes of ``params``, with 38 numbers of context."""
    torch.manual_seed(0)
    features = {env.STRUCTURE: 8, env.TACTICAL: 7, env.ARBITRAGEUR: 15}
    return Team(
        env.AGENTS, 38 + market.ACCOUNT_FEATURES, params.channels, params.stride, params.n_heads, params.message_dim,
        params.head_dim, params.dropout, features, 9,
    )  # fmt: skip


def full_update(repeats: int, compile: bool) -> dict[str, Any]:
    """One update of MAPPO at full size on CUDA, rollout included, beside the bare loop."""
    given = load_profile("full", "marl", MARLParams, PARAMS)
    params = given.ppo.model_copy(
        update={"num_envs": EPISODES, "num_steps": 16, "num_minibatches": 4, "target_kl": 1e9}
    )
    here = world(params.num_envs, env.TradingEnv, windows(WARM_UP + BARS_APART * CANDIDATES, "cuda"), 38, "cuda")
    team = trading_team(given).to("cuda")
    learner = TradingLearner(here, team, team.critic(given.critic_dim).to("cuda"), params.aux_coef, "bfloat16", compile)
    optimizer = torch.optim.Adam(learner.parameters(), params.learning_rate, eps=1e-5)
    generator = torch.Generator("cuda").manual_seed(0)
    parts = 1
    torch.cuda.reset_peak_memory_stats()

    def ours() -> None:
        nonlocal parts
        rollout = ppo.collect(here, learner, params.num_steps, generator)
        update = ppo.optimise("speed", here, learner, optimizer, rollout, params, params.ent_coef, generator, parts)
        parts = update.parts
        torch.cuda.synchronize()

    size = params.num_envs * params.num_steps // params.num_minibatches
    index = torch.randint(CANDIDATES, (size,), device="cuda")
    rows = {"index": index, "account": torch.zeros(size, market.ACCOUNT_FEATURES, device="cuda")}
    large, seeds = here.expand(rows), torch.arange(size, device="cuda")
    small = {name: value[: params.num_envs] for name, value in large.items()}
    actions = torch.zeros(size, len(env.AGENTS), 2, dtype=torch.int64, device="cuda")

    def bare() -> None:
        with torch.no_grad():
            for _ in range(params.num_steps):
                learner.act(small, seeds[: params.num_envs], generator)
        for _ in range(params.update_epochs * params.num_minibatches):
            optimizer.zero_grad()
            for part in torch.arange(size, device="cuda").tensor_split(parts):
                seen = {name: value[part] for name, value in large.items()}
                stored = {name: value[part] for name, value in rows.items()}
                judged = learner.judge(stored, seen, seeds[part], actions[part])
                loss = judged.log_probs.mean() + judged.entropy.mean() + judged.values.mean() + judged.extra
                loss.backward()
            optimizer.step()
        torch.cuda.synchronize()

    plain = TradingLearner(here, team, learner.critic, params.aux_coef, "bfloat16")
    with torch.no_grad():
        one, other = (each.judge(rows, large, seeds, actions).log_probs for each in (learner, plain))
    ours()  # compiles, and finds into how many parts memory wants a minibatch cut
    bare()
    seconds, least = interleaved([ours, bare], repeats)
    samples = params.update_epochs * params.num_envs * params.num_steps
    return {
        "benchmark": "mappo_full", "device": torch.cuda.get_device_name(), "compile": compile,
        "parameters": sum(p.numel() for p in team.parameters()), "minibatch": size, "parts": parts,
        "update_epochs": params.update_epochs,
        "training_samples_per_s": round(samples / seconds), "bare_loop_training_samples_per_s": round(samples / least),
        "rest_of_wall_time": round(1 - least / seconds, 3),
        "compiled_log_probs_differ": float(f"{(one - other).abs().max().item():.2g}"),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }  # fmt: skip


def decision(repeats: int, device: str, params: MARLParams) -> dict[str, Any]:
    """One decision's consensus, and its 50 passes one after the other."""
    team = trading_team(params).eval().to(device)
    seen = windows(300, device).at(torch.tensor([299]), torch.tensor([1]))
    seen |= {"context": torch.zeros(1, 38), "account": torch.zeros(1, market.ACCOUNT_FEATURES)}
    seeds = consensus.mask_seeds(0).to(device)
    passes = consensus.passes(team, consensus.masks(team, 0))
    there = {name: value.to(device) for name, value in seen.items()}

    def ours() -> None:
        consensus.combine(*passes(seen), team.agents, params.gate2)

    @torch.no_grad()
    def loop() -> None:
        for seed in seeds:
            team(there, seed[None])
        if device == "cuda":
            torch.cuda.synchronize()

    ours()
    seconds, one_by_one = interleaved([ours, loop], repeats)
    return {
        "benchmark": "consensus", "device": device, "parameters": sum(p.numel() for p in team.parameters()),
        "threads": torch.get_num_threads(), "p50_ms": round(1e3 * seconds, 2),
        "loop_p50_ms": round(1e3 * one_by_one, 2),
    }  # fmt: skip


def rows(quick: bool) -> Iterable[Callable[[], dict[str, Any]]]:
    """A row a figure."""
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    stage.make_deterministic(RuntimeParams(threads=2, device=device, precision="float32", clear_memory_interval=0), 0)
    params = load_params("marl", MARLParams, PARAMS)
    million = params.model_copy(update={"channels": (48, 96, 176), "n_heads": 8, "message_dim": 64, "head_dim": 256})
    measures: list[Callable[[int], dict[str, Any]]] = [
        environment, mappo, functools.partial(decision, device="cpu", params=million),
    ]  # fmt: skip
    if torch.cuda.is_available():
        full = load_profile("full", "marl", MARLParams, PARAMS)
        measures += [functools.partial(decision, device="cuda", params=full)]
        measures += [functools.partial(full_update, compile=compile) for compile in (False, True)]
    for measure in measures:
        yield functools.update_wrapper(
            functools.partial(measure, 3 if quick else 15), getattr(measure, "func", measure)
        )


if __name__ == "__main__":
    main(__doc__ or "", rows)
