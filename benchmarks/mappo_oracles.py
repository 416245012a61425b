"""MAPPO where the answer is known: cooperative games solved exactly, advantages and losses against TorchRL.

Games: the greedy joint actions must be worth the game's best return (backward induction) and what the drawn ones are
worth is computed from the policy's probabilities, not sampled; the critic's value of the first state stands beside it.
A row a game, over several seeds. The climbing game is a trap that no method of this kind is known to escape: it is
shown, not claimed.

TorchRL: the largest difference from its estimators and losses on random rollouts with ends in the middle.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import _measure
import numpy as np
import torch
from _games import GAMES, TRAPS, Game, GameEnv
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from algospace import ppo
from algospace.mappo import TeamLearner
from algospace.ppo import PPOParams, Rollout
from algospace.teams import VectorOutput
from algospace.training import Unsaved

SEEDS, QUICK_SEEDS = range(10), range(3)
ROUNDS = 3
TOLERANCE = 1e-6  # of the differences from TorchRL
PARAMS = PPOParams(
    num_envs=128, num_steps=8, total_timesteps=128 * 8 * 60, gamma=1.0, gae_lambda=0.95, learning_rate=0.01,
    anneal_lr=True, num_minibatches=2, update_epochs=4, norm_adv=True, clip_coef=0.2, clip_vloss=True, ent_coef=0.1,
    final_ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, target_kl=0.1,
)  # fmt: skip


def play(game: Game, seed: int) -> dict[str, float]:
    """Train a team on a game; what its greedy and its drawn actions are worth, and what its critic thinks."""
    torch.manual_seed(seed)
    env = GameEnv(game, PARAMS.num_envs, seed)
    team = env.team(16, 8, ROUNDS)
    learner = TeamLearner(team, team.critic(32))
    ppo.train("game", env, learner, PARAMS, seed, Unsaved())
    seen = env.expand({"state": torch.arange(len(game.pays))})
    with torch.no_grad():
        output = team(seen, None)
        policy = np.stack([x.softmax(-1).double().numpy() for x in output.logits], axis=1)
        greedy = np.eye(policy.shape[-1])[output.greedy().numpy()]
        value = float(learner.critic(output, seen)[0])
    return {
        "best": float(game.values()[0]),
        "greedy": float(game.expected(greedy)[0]),
        "drawn": float(game.expected(policy)[0]),
        "critic": value,
    }


def game_figures(name: str, game: Game, seeds: Iterable[int]) -> dict[str, Any]:
    """Figures of one game over seeds."""
    played = [play(game, seed) for seed in seeds]
    best = played[0]["best"]
    return {
        "benchmark": "game", "game": name, "claimed": name in GAMES, "seeds": len(played), "best": best,
        "solved": sum(abs(p["greedy"] - best) < 1e-9 for p in played), "greedy": [p["greedy"] for p in played],
        "worst_drawn": round(min(p["drawn"] for p in played), 4),
        "worst_critic_error": round(max(abs(p["critic"] - p["drawn"]) for p in played), 4),
    }  # fmt: skip


def random_rollout(steps: int, envs: int, constant: bool, seed: int) -> Rollout:
    """What `gae` reads, float64, with ends of both kinds in the middle; a discount for all steps or one for each."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, steps, envs, generator=generator, dtype=torch.float64)
    discounts = torch.rand(steps, envs, generator=generator, dtype=torch.float64)
    if constant:
        discounts = torch.full_like(discounts, 0.97)
    ends = torch.rand(2, steps, envs, generator=generator) < 0.1
    nothing = torch.empty(0)
    return Rollout(
        {}, nothing, nothing, nothing, values, rewards, discounts, ends[0], ends[1] & ~ends[0], next_values
    )  # fmt: skip


def advantage_difference(constant: bool, gae_lambda: float, seed: int) -> float:
    """Largest difference of our advantages and returns from TorchRL's."""
    rollout = random_rollout(40, 16, constant, seed)
    ours = ppo.gae(rollout, gae_lambda)
    done = rollout.terminated | rollout.truncated
    columns = [
        x.T[..., None]  # (envs, steps, 1)
        for x in (rollout.discounts, rollout.values, rollout.next_values, rollout.rewards, done, rollout.terminated)
    ]
    theirs = vec_generalized_advantage_estimate(columns[0], gae_lambda, *columns[1:])
    return max(float((a.T[..., None] - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def loss_differences(clip_vloss: bool, seed: int) -> dict[str, float]:
    """Largest differences of policy loss, value loss, entropy, clip fraction and the gradients from TorchRL's."""
    torch.manual_seed(seed)
    batch, features, actions, clip = 64, 5, 4, 0.2
    policy, critic = nn.Linear(features, actions).double(), nn.Linear(features, 1).double()
    seen, chosen = torch.randn(batch, features).double(), torch.randint(actions, (batch,))
    with torch.no_grad():
        old = torch.log_softmax(policy(seen) + 0.5 * torch.randn(batch, actions), -1).gather(1, chosen[:, None])
    advantages, returns, old_values = (torch.randn(batch).double() for _ in range(3))

    output = VectorOutput((policy(seen),), seen[:, None])
    log_probs, entropies = output.log_prob_entropy(chosen[:, None])
    policy_loss, diagnostics = ppo.ppo_loss(log_probs, old, advantages, clip)
    value_loss = ppo.value_loss(critic(seen)[:, 0], old_values, returns, clip, clip_vloss)
    entropy = entropies.mean()
    (policy_loss + 0.5 * value_loss - 0.01 * entropy).backward()

    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(policy, ["observation"], ["logits"]),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical, return_log_prob=True),
    )
    loss = ClipPPOLoss(
        actor, TensorDictModule(critic, ["observation"], ["state_value"]), clip_epsilon=clip, entropy_coeff=0.01,
        critic_coeff=1.0, loss_critic_type="l2", normalize_advantage=False, clip_value=clip_vloss,
    )  # fmt: skip
    given = {
        "observation": seen, "action": chosen, "action_log_prob": old[:, 0], "advantage": advantages[:, None],
        "value_target": returns[:, None], "state_value": old_values[:, None],
    }  # fmt: skip
    theirs = loss(TensorDict(given, [batch]))
    # Theirs is the squared error, ours half of it, as CleanRL's: hence 0.25 where ours has 0.5.
    (theirs["loss_objective"] + 0.25 * theirs["loss_critic"] + theirs["loss_entropy"]).backward()
    weights = [*loss.actor_network_params.values(True, True), *loss.critic_network_params.values(True, True)]
    pairs = {
        "policy_loss": (policy_loss, theirs["loss_objective"]),
        "value_loss": (value_loss, 0.5 * theirs["loss_critic"]),
        "entropy": (entropy, theirs["entropy"]),
        "clipfrac": (diagnostics["losses/clipfrac"], theirs["clip_fraction"]),
    }
    gradients = zip([*policy.parameters(), *critic.parameters()], weights, strict=True)
    return {name: abs(a.item() - b.item()) for name, (a, b) in pairs.items()} | {
        "gradient": max(float((a.grad - b.grad).abs().max()) for a, b in gradients)
    }


def torchrl_figures(seeds: range) -> dict[str, Any]:
    """Largest differences over random rollouts."""
    worst = {
        "gae_one_discount": max(advantage_difference(True, 0.9, seed) for seed in seeds),
        "gae_discount_per_step": max(advantage_difference(False, 0.9, seed) for seed in seeds),
    }
    for clip_vloss in (False, True):
        found = [loss_differences(clip_vloss, seed) for seed in seeds]
        suffix = "_clip_vloss" if clip_vloss else ""
        worst |= {f"{name}{suffix}": max(row[name] for row in found) for name in found[0]}
    return {
        "benchmark": "torchrl",
        "seeds": len(seeds),
        "tolerance": TOLERANCE,
        "agrees": max(worst.values()) <= TOLERANCE,
    } | worst


def rows(quick: bool) -> Iterator[Callable[[], dict[str, Any]]]:
    """Give one function a row."""
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if quick else SEEDS
    yield partial(torchrl_figures, seeds)
    for name, game in (GAMES | TRAPS).items():
        yield partial(game_figures, name, game, seeds)


if __name__ == "__main__":
    _measure.main(__doc__, rows)
