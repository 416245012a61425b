"""MAPPO as a trader whose optimum is known (`_traders.py`): one agent, and three with consensus, over training seeds.

Trained on freshly drawn paths, judged by its most probable actions on the ten paths that everybody is judged on; a
share is what it earns there over the optimum. One action moves the position by up to ``most`` steps of the grid, up or
down; three agents see the same, talk for three rounds, and their median vote decides. The grid costs something: a
policy that rounds the optimum to it is shown beside.

A line per training seed is appended to a file (--out) as soon as it is known, and a seed found there is not trained
again. The last rows are the interquartile means over seeds, with 95 % bootstrap intervals.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import _kept
import numpy as np
import torch
from _traders import CASES, Case, TraderEnv, move, score
from scipy.stats import trim_mean

from algospace import ppo
from algospace.mappo import TeamLearner
from algospace.ppo import PPOParams
from algospace.teams import VectorTeam
from algospace.training import Unsaved

FIRST_SEED = 1000  # the settings were chosen on seed 0
SEEDS, QUICK_SEEDS = 10, 1
ROUNDS = 3
WIDTH, MESSAGE, CRITIC = 32, 8, 32
DRAWS = 10_000  # resamples behind an interval
BASE = PPOParams(
    num_envs=512, num_steps=16, total_timesteps=512 * 16 * 150, gamma=0.98, gae_lambda=0.8, learning_rate=0.006,
    anneal_lr=True, num_minibatches=4, update_epochs=4, norm_adv=True, clip_coef=0.2, clip_vloss=False, ent_coef=0.03,
    final_ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, target_kl=0.05,
)  # fmt: skip
UPDATES = {"A": 300, "B": 75, "C": 150}  # of 512 x 16 steps each
OWN = {"A": {"gae_lambda": 0.9, "learning_rate": 0.01}, "B": {}, "C": {}}  # what a case has otherwise than `BASE`
QUICK = 10  # updates are this much fewer in the quick form


def trained(case: Case, agents: int, seed: int, params: PPOParams) -> tuple[VectorTeam, TraderEnv]:
    """A team trained on paths of its own."""
    names = tuple(f"agent_{i}" for i in range(agents))
    env = TraderEnv(case, names, params.num_envs, params.gamma, seed)
    torch.manual_seed(seed)
    rounds = ROUNDS if agents > 1 else 0
    team = VectorTeam(dict.fromkeys(names, 2), dict.fromkeys(names, 2 * case.most + 1), WIDTH, MESSAGE, rounds)
    ppo.train("trader", env, TeamLearner(team, team.critic(CRITIC)), params, seed, Unsaved())
    return team, env


def earned(case: Case, team: VectorTeam, env: TraderEnv) -> np.ndarray:
    """What the most probable actions earn on the ten paths."""

    @torch.no_grad()
    def policy(p: np.ndarray, position: np.ndarray) -> np.ndarray:
        here = torch.from_numpy(position)
        seen = env.expand({"signal": torch.from_numpy(p).float(), "position": here.float()})
        after: np.ndarray = move(case, here, team(seen, None).greedy()).numpy()
        return after

    return score(case, policy)


def share(case: Case, agents: int, seed: int, params: PPOParams) -> dict[str, Any]:
    """Train a team; the share of the optimum that it earns."""
    return {"share": round(float(earned(case, *trained(case, agents, seed, params)).mean()) / case.optimum, 4)}


def rounded_optimum(case: Case) -> float:
    """Share of the optimum that is left when the known policy keeps to the grid."""
    found = score(case, lambda p, n: np.round(case.policy(p, n) / case.step) * case.step)
    return round(float(found.mean()) / case.optimum, 4)


def summary(shares: np.ndarray) -> dict[str, Any]:
    """Interquartile mean over seeds and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    resampled = rng.choice(shares, (DRAWS, len(shares)))
    low, high = np.percentile(trim_mean(resampled, 0.25, axis=1), [2.5, 97.5])
    return {
        "seeds": len(shares), "share": round(float(trim_mean(shares, 0.25)), 4),
        "interval": [round(float(low), 4), round(float(high), 4)], "each": shares.tolist(),
    }  # fmt: skip


def main() -> None:
    """Train what is missing, print a row a seed and a row a case and team."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="one seed and a tenth of the steps: minutes on two cores")
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--agents", type=int, choices=(1, 3), nargs="+", default=[1, 3])
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, appended to; what is there is not redone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    code = _kept.digest(_kept.code(Path(__file__), Path(__file__).with_name("_traders.py")))

    def show(row: dict[str, Any]) -> None:
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)

    for name in arguments.case:
        case = CASES[name]
        updates = max(1, UPDATES[name] // (QUICK if arguments.quick else 1))
        steps = BASE.num_envs * BASE.num_steps * updates
        params = BASE.model_copy(update={"total_timesteps": steps, **OWN[name]})
        for agents in arguments.agents:
            shares = []
            for seed in range(FIRST_SEED, FIRST_SEED + (QUICK_SEEDS if arguments.quick else SEEDS)):
                what = {"case": name, "agents": agents, "seed": seed, "ppo": params.model_dump(), "code": code}
                row = _kept.kept(arguments.out, what, partial(share, case, agents, seed, params))
                shares.append(row["share"])
                show({"benchmark": "known_optimum"} | {key: row[key] for key in ("case", "agents", "seed", "share")})
            show(
                {
                    "benchmark": "known_optimum", "case": name, "agents": agents, "grid_step": case.step,
                    "most_steps": case.most, "rounded_optimum_share": rounded_optimum(case),
                }
                | summary(np.array(shares))
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
