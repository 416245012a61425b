"""MAPPO where others have been: three tasks of MPE, trained on a vectorised copy (`_particles.py`), judged in mpe2.

simple_spread is scored from 0 (random) to 1 (the scripted policy). The other two are about talk: the return with 0, 1
and 3 rounds of communication between the networks. The environment's own channel is left as it is, so that 0 rounds
still can talk through it, a step late and a word at a time; the scripted policy that does not know the goal shows what
is left without any talk. Judged are the most probable actions, in the same episodes for all.

In simple_spread one network acts for all three agents, as in the official MAPPO; in the others each has its own. The
settings were chosen on seed 0, which is not judged, in the copy: of two configurations of simple_spread and three of
simple_reference. simple_speaker_listener takes those of simple_reference; the one tried on it was another.

A line per training seed is appended to a file (--out) as soon as it is known, and a run found there is not repeated.
Seconds are those of the processor, on one thread.
"""

import argparse
import importlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _kept
import numpy as np
import torch
from _particles import DAMPING, DT, EPISODE, LANDMARKS, MOVES, PUSH, TASKS, ParticleEnv, Shared, Task
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student
from scipy.stats import trim_mean, ttest_ind

from algospace import ppo
from algospace.mappo import TeamLearner
from algospace.ppo import PPOParams
from algospace.teams import Critic, VectorTeam
from algospace.training import Unsaved

os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"  # mpe2 imports pygame, which greets on stdout

Views = dict[str, np.ndarray]
Policy = Callable[[Views], dict[str, int]]

FIRST_SEED = 1000
SEEDS, QUICK_SEEDS = 5, 1
EPISODES, QUICK_EPISODES = 400, 40
QUICK = 10  # updates are this much fewer in the quick form
MESSAGE, CRITIC = 16, 64
DRAWS = 10_000  # resamples behind an interval
RANDOM, SCRIPTED = -81.5, -24.5  # what is 0 and 1 on the scale of simple_spread
TALK = 3  # rounds that are compared with none


class Setting(NamedTuple):
    """How a task is learned."""

    rounds: tuple[int, ...]
    shared: bool  # one network acts for all agents, as in the official MAPPO; else each has its own
    width: int  # of the agents' states
    reward_unit: float  # what the learner calls 1
    params: PPOParams


# Environments are episodes: a shared network sees three rows of each.
MOVING = PPOParams(
    num_envs=256, num_steps=25, total_timesteps=256 * 25 * 140, gamma=0.95, gae_lambda=0.9, learning_rate=0.006,
    anneal_lr=True, num_minibatches=4, update_epochs=5, norm_adv=True, clip_coef=0.2, clip_vloss=False, ent_coef=0.01,
    final_ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, target_kl=0.05,
)  # fmt: skip
# Smaller batches, because what a message is worth is learned slowly; less entropy, because random words hide it.
TALKING = MOVING.model_copy(
    update={
        "total_timesteps": 256 * 25 * 150, "gamma": 0.9, "num_minibatches": 8, "update_epochs": 4, "ent_coef": 0.001,
    }
)  # fmt: skip
SPREAD, LISTENER, REFERENCE = TASKS
SETTINGS = {
    SPREAD: Setting((0,), True, 64, 10.0, MOVING),
    LISTENER: Setting((0, 1, 3), False, 32, 5.0, TALKING),
    REFERENCE: Setting((0, 1, 3), False, 32, 5.0, TALKING),
}


def returns(name: str, policy: Policy, episodes: int) -> np.ndarray:
    """Team returns (episodes,) in mpe2, in its default form: discrete actions, local_ratio 0.5 where there is one."""
    env = importlib.import_module(f"mpe2.{name}").parallel_env(max_cycles=EPISODE)
    total = np.zeros(episodes)
    for episode in range(episodes):
        views, _ = env.reset(seed=episode)
        while env.agents:
            views, rewards, *_ = env.step(policy(views))
            total[episode] += sum(rewards.values())
    return total


def at_random(task: Task) -> Policy:
    """Draw every action evenly."""
    rng = np.random.default_rng(0)
    return lambda views: {name: int(rng.integers(n)) for name, n in task.actions().items()}


def towards(offset: np.ndarray, velocity: np.ndarray) -> int:
    """The move after which an agent would be nearest to ``offset`` when it coasts for two and a half steps more."""
    speeds = (1 - DAMPING) * velocity + DT * PUSH * MOVES.numpy()
    return int(np.linalg.norm(offset - DT * velocity - 2.5 * DT * speeds, axis=1).argmin())


def assign_and_move(views: Views) -> dict[str, int]:
    """Share out the landmarks, the sum of distances least, and go there."""
    offsets = np.stack([view[4:10].reshape(LANDMARKS, 2) for view in views.values()])  # (agents, landmarks, 2)
    _, mine = linear_sum_assignment(np.linalg.norm(offsets, axis=-1))
    return {name: towards(offsets[i, mine[i]], view[:2]) for i, (name, view) in enumerate(views.items())}


def go(views: Views, movers: dict[str, tuple[str, slice]], told: bool) -> dict[str, int]:
    """Each mover goes to its goal, whose colour another agent sees; untold, to the middle of the landmarks."""
    actions = dict.fromkeys(views, 0)
    for mover, (other, colour) in movers.items():
        view = views[mover]
        offsets = view[2:8].reshape(LANDMARKS, 2)
        actions[mover] = towards(offsets[views[other][colour].argmax()] if told else offsets.mean(0), view[:2])
    return actions


def scripts(name: str) -> dict[str, Policy]:
    """What a task's returns are compared with."""
    known: dict[str, Policy] = {"random": at_random(TASKS[name])}
    if name == SPREAD:
        return known | {"nothing": lambda views: dict.fromkeys(views, 0), "scripted": assign_and_move}
    movers = {"listener_0": ("speaker_0", slice(3))}
    if name == REFERENCE:
        movers = {"agent_0": ("agent_1", slice(8, 11)), "agent_1": ("agent_0", slice(8, 11))}
    return known | {"untold": partial(go, movers=movers, told=False), "told": partial(go, movers=movers, told=True)}


def trained(name: str, rounds: int, seed: int, params: PPOParams) -> VectorTeam:
    """A team trained on the copy."""
    task, setting = TASKS[name], SETTINGS[name]
    env: Any = ParticleEnv(task, params.num_envs, params.gamma, setting.reward_unit, seed)
    torch.manual_seed(seed)
    if setting.shared:
        env = Shared(env)
        features = {Shared.AGENT: env.features}
        team = VectorTeam(features, {Shared.AGENT: env.actions}, setting.width, MESSAGE, rounds)
        critic = Critic(1, setting.width, env.features * (1 + env.agents), CRITIC, (Shared.AGENT, Shared.TEAM))
    else:
        team = VectorTeam(task.features, task.actions(), setting.width, MESSAGE, rounds)
        critic = team.critic(CRITIC)
    ppo.train(name, env, TeamLearner(team, critic), params, seed, Unsaved())
    return team


def greedy(team: VectorTeam, shared: bool) -> Policy:
    """The most probable actions of a team."""

    @torch.no_grad()
    def policy(views: Views) -> dict[str, int]:
        rows = [torch.from_numpy(view)[None] for view in views.values()]
        seen = {Shared.AGENT: torch.cat(rows)} if shared else dict(zip(views, rows, strict=True))
        return dict(zip(views, team(seen, None).greedy().flatten().tolist(), strict=True))

    return policy


def run(name: str, rounds: int, seed: int, params: PPOParams, episodes: int) -> dict[str, Any]:
    """Train once and judge."""
    start = time.process_time()
    team = trained(name, rounds, seed, params)
    spent = time.process_time() - start
    mean = float(returns(name, greedy(team, SETTINGS[name].shared), episodes).mean())
    score = {"score": round((mean - RANDOM) / (SCRIPTED - RANDOM), 4)} if name == SPREAD else {}
    speed = {"seconds": round(spent), "steps_per_second": round(params.total_timesteps / spent)}
    return {"return": round(mean, 2)} | score | speed


def copy_speed(name: str, num_envs: int) -> float:
    """Steps of an episode that the copy makes in a second of the processor."""
    env, steps = ParticleEnv(TASKS[name], num_envs, 1.0, 1.0, 0), 20 * EPISODE
    most = torch.tensor(list(TASKS[name].actions().values()))
    actions = (torch.rand(steps, num_envs, len(most)) * most).long()
    start = time.process_time()
    for drawn in actions:
        env.step(drawn)
    return num_envs * steps / (time.process_time() - start)


def quartile_mean(values: np.ndarray) -> tuple[float, list[float]]:
    """Interquartile mean over seeds and its 95 % bootstrap interval."""
    resampled = np.random.default_rng(0).choice(values, (DRAWS, len(values)))
    interval = np.percentile(trim_mean(resampled, 0.25, axis=1), [2.5, 97.5])
    return round(float(trim_mean(values, 0.25)), 4), interval.round(4).tolist()


def mean_interval(values: np.ndarray) -> list[float]:
    """Student's 95 % interval of the mean over seeds; empty for one seed."""
    if len(values) < 2:
        return []
    error = values.std(ddof=1) / len(values) ** 0.5
    low, high = student.interval(0.95, len(values) - 1, values.mean(), error)
    return [round(float(low), 2), round(float(high), 2)]


def summary(name: str, runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the seeds of a task say together."""
    if name == SPREAD:
        scores = [row["score"] for row in runs]
        mean, interval = quartile_mean(np.array(scores))
        yield {"task": name, "score": mean, "interval": interval, "each": scores}
        return
    found = {n: np.array([row["return"] for row in runs if row["rounds"] == n]) for n in SETTINGS[name].rounds}
    for rounds, values in found.items():
        mean = {"return": round(float(values.mean()), 2), "interval": mean_interval(values)}
        yield {"task": name, "rounds": rounds} | mean | {"each": values.tolist()}
    row = {"task": name, "gain_of_rounds": round(float(found[TALK].mean() - found[0].mean()), 2)}
    if len(found[0]) > 1:
        interval = ttest_ind(found[TALK], found[0], equal_var=False).confidence_interval()
        row |= {"interval": [round(interval.low, 2), round(interval.high, 2)]}
    yield row


def main() -> None:
    """Train what is missing, print a row a run and what they say together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--quick", action="store_true", help="one seed and a tenth of the steps: minutes on two cores")
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, appended to; what is there is not redone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, episodes, share = (QUICK_SEEDS, QUICK_EPISODES, QUICK) if arguments.quick else (SEEDS, EPISODES, 1)
    code = _kept.digest(_kept.code(Path(__file__), Path(__file__).with_name("_particles.py")))

    def show(row: dict[str, Any]) -> None:
        row = {"benchmark": "mpe"} | row
        print(json.dumps(row) if arguments.json else ", ".join(f"{k}: {v}" for k, v in row.items()), flush=True)

    for name in arguments.task:
        scripted = {script: returns(name, policy, episodes).mean() for script, policy in scripts(name).items()}
        show({"task": name, "episodes": episodes} | {script: round(float(r), 2) for script, r in scripted.items()})
        setting = SETTINGS[name]
        speed = {n: round(copy_speed(name, n)) for n in (1024, setting.params.num_envs)}
        show({"task": name, "copy_steps_per_second": speed})
        params = setting.params.model_copy(update={"total_timesteps": setting.params.total_timesteps // share})
        runs = []
        # Seed by seed, so that what a stopped benchmark leaves holds all rounds.
        for seed, rounds in itertools.product(range(FIRST_SEED, FIRST_SEED + seeds), setting.rounds):
            what = {"task": name, "rounds": rounds, "seed": seed, "episodes": episodes, "ppo": params.model_dump()}
            row = _kept.kept(arguments.out, what | {"code": code}, partial(run, name, rounds, seed, params, episodes))
            runs.append(row)
            environment = round(row["steps_per_second"] / speed[params.num_envs], 3)  # its share of the training's time
            show(
                {key: value for key, value in row.items() if key not in ("ppo", "code")} | {"environment": environment}
            )
        for row in summary(name, runs):
            show(row)


if __name__ == "__main__":
    main()
